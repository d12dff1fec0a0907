"""The Debian package, built from a copy of this tree, which others may be at work on."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("dpkg-buildpackage", "dh", "dh_python3", "scdoc")
LEFT_OUT = ("__pycache__", "*.egg-info", ".*", "build", "dist", "tests")
NEWER = "99.0"
BUILD_S = 300


def unbuildable() -> str | None:
    """Why no package can be built here; None where one can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def source(directory: Path, version: str | None = None) -> Path:
    """A copy of what the package is built from; as another version, where one is named."""
    copy = directory / "source"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    if version is not None:
        _rename(copy, version)
    return copy


def _rename(copy: Path, version: str) -> None:
    changelog = copy / "packaging/debian/changelog"
    first = re.sub(r"\(\S+\)", f"({version})", changelog.read_text("utf-8"), count=1)
    changelog.write_text(first, "utf-8")
    module = copy / "lib/agentorch/__init__.py"
    text = re.sub(r'(?m)^(__version__ = ").*"$', rf'\g<1>{version}"', module.read_text("utf-8"))
    module.write_text(text, "utf-8")


def build(copy: Path, output: Path, umask: int = 0o022, **variables: str) -> Path:
    """The package of a source."""
    built = subprocess.run(
        [copy / "packaging/deb", output],
        env=os.environ | variables,
        umask=umask,
        text=True,
        capture_output=True,
        timeout=BUILD_S,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return Path(built.stdout.strip())


def packaged(shared: Path, version: str | None = None) -> Path:
    """The package, built once for all processes of a test run that share a directory."""
    place = shared / f"package-{version or 'current'}"
    place.mkdir(exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = list(place.glob("*.deb"))
        if not found:
            found = [build(source(place, version), place)]
            shutil.rmtree(place / "source")
    return found[0]


def shared_directory(factory: pytest.TempPathFactory) -> Path:
    """One for all processes of a test run (pytest-xdist gives each a directory below it)."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
