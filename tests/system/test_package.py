"""What is in the package, that it can be built again, and what `make install` makes of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from agentorch import __version__
from agentorch.commands import COMMANDS
from tests.support.machine import missing, overlay, tree
from tests.support.package import NEWER, ROOT, build, source, unbuildable

EXECUTABLES = ("agentorch", *(f"agentorch-{name}" for name in COMMANDS))
LIBRARY = "./usr/lib/python3/dist-packages/agentorch"
BUILD_PACKAGES = ("debhelper", "dh-python", "make", "python3", "scdoc")

pytestmark = pytest.mark.skipif(unbuildable() is not None, reason=str(unbuildable()))


@pytest.fixture(scope="module")
def members(deb: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=BytesIO(contents(deb))) as archive:
        return {member.name: member for member in archive}


def contents(package: Path) -> bytes:
    argv = ["dpkg-deb", "--fsys-tarfile", str(package)]
    return subprocess.run(argv, capture_output=True, check=True).stdout


def files(top: Path) -> set[Path]:
    return {path.relative_to(top) for path in top.rglob("*")}


# ---- the package ------------------------------------------------------------------------------


def test_its_version_is_the_programs(deb: Path) -> None:
    assert deb.name == f"agentorch_{__version__}_all.deb"


def test_it_has_every_executable_with_its_page(members: dict[str, tarfile.TarInfo]) -> None:
    for name in EXECUTABLES:
        assert members[f"./usr/bin/{name}"].mode == 0o755
        pages = [f"./usr/share/man/man{section}/{name}.{section}.gz" for section in (1, 8)]
        assert any(page in members for page in pages), name
        assert f"./usr/share/bash-completion/completions/{name}" in members


def test_the_library_is_whole(members: dict[str, tarfile.TarInfo]) -> None:
    ours = ROOT / "lib/agentorch"
    wanted = {
        f"{LIBRARY}/{path.relative_to(ours)}"
        for path in (*ours.rglob("*"), *(ours / "contracts/schemas").iterdir())
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted - set(members) == set()
    assert all(members[path].isreg() for path in wanted)


def test_only_what_may_hold_secrets_is_closed(members: dict[str, tarfile.TarInfo]) -> None:
    assert {member.uname for member in members.values()} == {"root"}
    closed = {name: member.mode for name, member in members.items() if not member.mode & 0o004}
    assert closed == {"./etc/agentorch": 0o750, "./etc/agentorch/agentorch.env": 0o640}


@pytest.mark.needs("lintian")
def test_lintian_has_nothing_to_say(deb: Path) -> None:
    said = subprocess.run(
        ["lintian", "--display-info", "--allow-root", str(deb)],
        text=True,
        capture_output=True,
        check=False,
    )
    assert (said.returncode, said.stdout) == (0, "")


def test_a_reason_for_every_override() -> None:
    text = (ROOT / "packaging/debian/agentorch.lintian-overrides").read_text("utf-8")
    for block in re.split(r"\n(?=#)", text):
        assert block.startswith("# "), block


# ---- building ---------------------------------------------------------------------------------


def test_two_builds_are_one_file_and_leave_nothing_behind(tmp_path: Path) -> None:
    first, second = source(tmp_path / "a"), source(tmp_path / "elsewhere")
    before = files(first)
    one = build(first, tmp_path / "one")
    other = build(second, tmp_path / "other", umask=0o077, TZ="Asia/Tokyo", LC_ALL="C")
    assert one.read_bytes() == other.read_bytes()
    assert files(first) == before
    assert list((tmp_path / "one").iterdir()) == [one]


def test_a_later_version_is_another_package(newer_deb: Path) -> None:
    assert newer_deb.name == f"agentorch_{NEWER}_all.deb"


@pytest.mark.exhaustive
@pytest.mark.skipif(missing() is not None, reason=f"{missing()}; not proved here")
@pytest.mark.parametrize(("suite", "units"), [("bookworm", "lib"), ("trixie", "usr/lib")])
def test_every_debian_builds_it(suite: str, units: str, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with overlay(tree(suite, BUILD_PACKAGES), tmp_path / "disk") as root:
        copy = source(root / "root")
        argv = ["chroot", str(root), "/root/source/packaging/deb", "/root"]
        built = subprocess.run(argv, text=True, capture_output=True, env=_clean(), check=False)
        assert built.returncode == 0, built.stderr
        shutil.rmtree(copy)
        listed = contents(root / built.stdout.strip().lstrip("/"))
    with tarfile.open(fileobj=BytesIO(listed)) as archive:
        names = archive.getnames()
    assert f"./{units}/systemd/system/agentorch.target" in names
    assert len([name for name in names if name.endswith("/system/agentorch.target")]) == 1


def _clean() -> dict[str, str]:
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


# ---- make install -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("prefix") / "agentorch"
    argv = ["make", "-C", str(ROOT), "install", f"PREFIX={top}"]
    subprocess.run(argv, env=os.environ | {"PYTHON": sys.executable}, check=True)
    return top


@pytest.mark.parametrize("name", EXECUTABLES)
def test_what_is_installed_below_a_prefix_runs(prefix: Path, name: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    argv = [str(prefix / "bin" / name), "--version"]
    said = subprocess.run(
        argv, text=True, capture_output=True, env=environment, cwd="/", check=True
    )
    assert said.stdout == f"{__version__}\n"


def test_it_is_its_own_library_that_runs(prefix: Path) -> None:
    stub = (prefix / "bin/agentorch-ls").read_text("utf-8")
    assert f'sys.path.insert(0, "{prefix}/lib/agentorch/python")' in stub
    assert (prefix / "lib/agentorch/python/agentorch/contracts/schemas/job.schema.json").is_file()


def test_units_name_the_programs_of_the_prefix(prefix: Path) -> None:
    units = sorted((prefix / "lib/systemd/system").iterdir())
    started = [line for unit in units for line in unit.read_text().splitlines() if "Exec" in line]
    assert any(f"{prefix}/bin/agentorch-runner " in line for line in started)
    assert not any(re.search(r"(?<!\S)/usr/(bin|lib)/agentorch", line) for line in started)


def test_destdir_goes_before_every_place_and_into_no_file(tmp_path: Path) -> None:
    environment = os.environ | {"DESTDIR": str(tmp_path), "PREFIX": "/opt/agentorch"}
    subprocess.run(["make", "-C", str(ROOT), "install"], env=environment, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["opt"]
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in found if str(tmp_path).encode() in path.read_bytes()]
