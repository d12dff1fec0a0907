"""What an agent can see and write in the default sandbox, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.confined import NAMES, PATH, USERS, Inside, outside, place, said

pytestmark = pytest.mark.skipif(
    not Path("/usr/bin/bwrap").exists(), reason="needs bubblewrap; not proved here"
)


@pytest.fixture(params=USERS, ids=lambda uid: NAMES.get(uid, "user"))
def inside(request: pytest.FixtureRequest) -> Iterator[Inside]:
    with place(request.param) as there:
        yield there


# ---- what an agent needs ----------------------------------------------------------------------


def test_tools_run_and_files_keep_their_owner(inside: Inside) -> None:
    script = """set -e
git init -q . && git config user.name a && git config user.email a@b
echo text >file && git add file && git commit -qm first && git log --format=%s
python3 -c 'import ssl, sqlite3, json; print(len(ssl.create_default_context().get_ca_certs()) > 0)'
cat "$1/report.md"
touch "$HOME/.profile" /tmp/file /dev/shm/file /var/tmp/other
date >/dev/null
id -u
pwd
"""
    ran = inside.run(["sh", "-c", script, "sh", str(inside.artifacts)])
    assert ran.stderr == ""
    said = ran.stdout.splitlines()
    assert said == ["first", "True", "report" + str(inside.uid), str(inside.work)]
    assert {(inside.work / "file").stat().st_uid, (inside.home / ".profile").stat().st_uid} == {
        inside.uid
    }


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 128 + 9), (":", 0)])
def test_exit_codes_are_the_programs(inside: Inside, script: str, code: int) -> None:
    assert inside.run(["sh", "-c", script]).returncode == code


def test_a_program_that_is_not_there(inside: Inside) -> None:
    ran = inside.run(["no-such-program"])
    assert ran.returncode == 1
    assert "execvp no-such-program" in ran.stderr


def test_a_program_with_a_tree_of_its_own(inside: Inside) -> None:
    """PREFIX/bin/agent is a link into PREFIX/lib, and its interpreter is elsewhere again."""
    tool, interpreter = inside.top / "opt" / "agent", inside.top / "opt" / "sh"
    for directory in (tool / "bin", tool / "lib", interpreter / "bin"):
        directory.mkdir(parents=True)
    (interpreter / "bin" / "mysh").symlink_to("/bin/sh")
    (tool / "lib" / "main").write_text('#!/usr/bin/env mysh\ncat "$(dirname "$0")/../lib/words"\n')
    (tool / "lib" / "main").chmod(0o755)
    (tool / "lib" / "words").write_text("found")
    (tool / "bin" / "agent").symlink_to("../lib/main")
    search = f"{tool}/bin:{interpreter}/bin:{PATH}"
    ran = inside.run(["agent"], inside.confinement({"PATH": search}))
    assert (ran.stdout, ran.stderr) == ("found", "")


# ---- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["/etc/shadow", "/root", "/home", "/sys", "/var/lib", "/boot"])
def test_the_host_is_not_there(inside: Inside, what: str) -> None:
    assert said(inside, "print(attempt(os.stat, sys.argv[1]))", what) == "ENOENT"


def test_nothing_at_the_top_but_what_the_profile_names(inside: Inside) -> None:
    names = set(json.loads(said(inside, "import json; print(json.dumps(os.listdir('/')))")))
    own = inside.top.parts[1]
    allowed = {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "proc", "dev"}
    assert names <= allowed | {"tmp", "run", "var", own}


def test_no_other_job_and_no_home_of_ours(inside: Inside) -> None:
    script = """
print(*(attempt(os.stat, path) for path in sys.argv[1:]))
"""
    paths = (inside.neighbour, inside.neighbour.parent, Path.home() / ".ssh")
    assert said(inside, script, *paths) == "ENOENT ENOENT ENOENT"
    assert outside(inside, script, inside.neighbour) == "done"


def test_nothing_secret_in_etc(inside: Inside) -> None:
    script = """
import json
print(json.dumps([os.path.join(top, name) for top, _, names in os.walk("/etc") for name in names]))
"""
    found = json.loads(said(inside, script))
    bad = [path for path in found if "shadow" in path or "private" in path or "sudo" in path]
    assert (bad, "/etc/resolv.conf" in found) == ([], False)


WRITE = """
def write(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
print(*(attempt(write, path) for path in sys.argv[1:]))
"""


def test_nothing_can_be_written_but_work_and_home(inside: Inside) -> None:
    places = ("/", "/usr", "/usr/bin", "/etc", "/run", "/var", "/dev", inside.artifacts)
    refused = said(inside, WRITE, *(f"{place}/agentorch-test" for place in places)).split()
    assert set(refused) <= {"EROFS", "EACCES"}
    fine = (inside.work, inside.home, "/tmp", "/dev/shm")
    assert set(said(inside, WRITE, *(f"{place}/x" for place in fine)).split()) == {"done"}


def test_what_is_written_beside_work_stays_inside(inside: Inside) -> None:
    said(inside, WRITE, inside.top / "planted", "/tmp/planted")
    assert not (inside.top / "planted").exists()
    assert not Path("/tmp/planted").exists()


def test_the_kernels_settings_are_read_only(inside: Inside) -> None:
    """Root owns them in every namespace, so a namespace alone does not protect them."""
    paths = (
        *("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger"),
        *("/proc/self/oom_score_adj", "/proc/self/uid_map", "/proc/irq/default_smp_affinity"),
    )
    refused = said(inside, WRITE, *(path for path in paths if Path(path).exists())).split()
    assert set(refused) <= {"EROFS", "EACCES", "EPERM"}


def test_private_file_systems_have_a_size(inside: Inside) -> None:
    script = """
def size(path):
    seen = os.statvfs(path)
    return seen.f_blocks * seen.f_frsize
print(size("/tmp"), size("/dev/shm"))
"""
    assert said(inside, script) == f"{1024**3} {256 * 1024**2}"


def test_links_in_the_work_tree_lead_nowhere(inside: Inside) -> None:
    script = """
os.symlink("/etc/shadow", "shadow")
os.symlink(sys.argv[1], "secret")
os.symlink("../neighbour", "up")
os.symlink("/proc/1/root", "root")
def read(path):
    open(path).close()
print(attempt(read, "shadow"), attempt(read, "secret"), attempt(os.listdir, "up"))
print(attempt(read, "root" + sys.argv[1]) in ("ENOENT", "EACCES", "EPERM"))
print(attempt(os.link, "/etc/passwd", "hard"))
"""
    told = said(inside, script, inside.neighbour)
    assert told.splitlines() == ["ENOENT ENOENT ENOENT", "True", "EXDEV"]


def test_a_read_only_workspace_and_masked_paths(inside: Inside) -> None:
    (inside.work / "secrets").mkdir()
    (inside.work / "secrets" / "key").write_text("k")
    (inside.work / "token").write_text("t")
    (inside.work / "link").symlink_to("token")
    (inside.work / "away").symlink_to(inside.neighbour)
    names = ("secrets", "link", "away", "missing")
    confinement = inside.allowing(
        work_read_only=True, masked=tuple(inside.work / name for name in names)
    )
    script = 'ls secrets; cat token; ls missing; touch x token secrets/x; touch "$HOME/x"'
    ran = inside.run(["sh", "-c", script], confinement)
    assert (ran.stdout, ran.returncode) == ("", 0)
    assert ran.stderr.count("Read-only file system") == 2
    assert sorted(os.listdir(inside.work)) == ["away", "link", "secrets", "token"]
    assert inside.neighbour.read_text() == "secret of another job"


def test_what_is_masked_inside_a_masked_directory_needs_nothing_more(inside: Inside) -> None:
    (inside.work / "outer" / "inner").mkdir(parents=True)
    (inside.work / "outer" / "file").touch()
    (inside.work / "top").symlink_to(".")
    names = ("outer", "outer/inner", "outer/file", "top", "top/alone")
    (inside.work / "alone").mkdir()
    (inside.work / "alone" / "file").touch()
    confinement = inside.allowing(masked=tuple(inside.work / name for name in names))
    ran = inside.run(["sh", "-c", "ls -A outer alone top/alone"], confinement)
    assert (ran.stdout, ran.stderr) == ("alone:\n\nouter:\n\ntop/alone:\n", "")
