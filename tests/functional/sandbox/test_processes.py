"""Processes and the default sandbox: what they see, inherit, and leave behind."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentorch
from agentorch.sandbox import occupants, vacate
from tests.support.confined import NAMES, PATH, TRY, USERS, Inside, as_user, outside, place, said

pytestmark = pytest.mark.skipif(
    not Path("/usr/bin/bwrap").exists(), reason="needs bubblewrap; not proved here"
)


@pytest.fixture(params=USERS, ids=lambda uid: NAMES.get(uid, "user"))
def inside(request: pytest.FixtureRequest) -> Iterator[Inside]:
    with place(request.param) as there:
        yield there


# ---- processes --------------------------------------------------------------------------------


@pytest.fixture
def victim(inside: Inside) -> Iterator[int]:
    """A process of the same user, outside."""
    with subprocess.Popen(["sleep", "1000"], **as_user(inside.uid)) as process:
        yield process.pid
        process.kill()


def test_no_process_of_the_host_can_be_seen_or_signalled(inside: Inside, victim: int) -> None:
    script = """
victim = int(sys.argv[1])
seen = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
print(seen, attempt(os.kill, victim, 0), attempt(os.stat, f"/proc/{victim}"))
"""
    assert said(inside, script, victim) == "[1, 2] ESRCH ENOENT"
    assert outside(inside, script, victim).endswith("] done done")


def test_signals_to_everybody_reach_nobody_outside(inside: Inside, victim: int) -> None:
    said(inside, "attempt(os.kill, -1, 9)\nprint('sent')")
    os.kill(victim, 0)
    assert Path(f"/proc/{victim}/exe").exists()


def test_nothing_is_inherited(inside: Inside) -> None:
    with inside.neighbour.open() as secret:
        os.set_inheritable(secret.fileno(), True)  # noqa: FBT003
        descriptor = os.open("/proc/self", os.O_RDONLY)
        script = "print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"
        ran = inside.run(["/usr/bin/python3", "-c", TRY + script], alive_fd=descriptor)
        os.close(descriptor)
    assert ran.stdout.strip() == "[0, 1, 2]"


def test_the_environment_is_what_was_given(inside: Inside) -> None:
    given = {"LANG": "C.UTF-8", "LINES": "a\nb", "KEY": "käse=1 '\"$", "EMPTY": ""}
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    ran = inside.run(["/usr/bin/python3", "-c", script], inside.confinement(given))
    expected = {"PATH": PATH, "HOME": str(inside.home), **given, "PWD": str(inside.work)}
    assert json.loads(ran.stdout) == expected


def test_neither_paths_nor_variables_show_in_process_lists(inside: Inside) -> None:
    ran = inside.run(["ls", "-A", "/proc/1"], inside.confinement({"KEY": "sk-secret"}))
    assert ran.stdout == ""
    shown = " ".join(ran.args)
    assert "sk-secret" not in shown
    assert str(inside.work) not in shown
    assert " --args " in shown


def test_a_nul_in_a_variable_adds_no_option(inside: Inside) -> None:
    smuggled = inside.confinement({"KEY": "x\0--bind\0/\0/mnt"})
    with pytest.raises(ValueError, match="NUL"):
        inside.run(["true"], smuggled)


DAEMON = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            with open("beat", "a") as beat:
                beat.write(".")
    os._exit(0)
os.wait()
while not os.path.exists("beat"):
    pass
print("started", flush=True)
if "stay" in os.sys.argv:
    signal.pause()
"""


def test_a_daemon_dies_with_the_sandbox(inside: Inside) -> None:
    assert inside.python(DAEMON).stdout == "started\n"
    size = (inside.work / "beat").stat().st_size
    assert occupants(inside.work) == []
    assert (inside.work / "beat").stat().st_size == size


def test_a_daemon_dies_with_the_client(inside: Inside) -> None:
    argv = ["/usr/bin/python3", "-c", DAEMON, "stay"]
    with inside.started(argv, inside.confinement()) as client:
        assert len(occupants(inside.work)) == 3
        client.kill()
        client.wait()
    assert occupants(inside.work) == []


# A step's process, as far as the lock goes: SIGKILL is all that it will get.
STEP = """
import fcntl, os, subprocess, sys
from pathlib import Path
from agentorch.core.job import Network
from agentorch.sandbox import Confinement, Wrapper, confine
top = Path(sys.argv[1])
lock = os.open(top / "lock", os.O_RDONLY | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
variables = {"PATH": "/usr/bin:/bin"}
where = Confinement("t", top / "work", top / "home", top / "artifacts", Network.DENY, variables)
script = 'for n in $(seq 20); do setsid sh -c "while :; do :; done" & done; echo $PPID; wait'
with confine(Wrapper(), where, ["sh", "-c", script], alive_fd=lock) as start:
    subprocess.run(start.argv, env=start.environment, pass_fds=start.pass_fds)
"""


def test_the_lock_outlives_its_owner_until_the_namespace_ends(inside: Inside) -> None:
    """The kernel closes the files of a namespace's first process before it kills the others, so
    a lock that is free may leave a few alive for a moment: that is what vacate is for.
    """
    if inside.uid != os.geteuid():
        pytest.skip("once is enough: the order is the kernel's")
    step = subprocess.Popen(
        [sys.executable, "-c", STEP, str(inside.top)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert step.stdout is not None
    assert step.stdout.readline() == b"1\n"
    with (inside.top / "lock").open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holders = [pid for pid in occupants(inside.work) if _holds(pid, inside.top / "lock")]
        first = [pid for pid in occupants(inside.work) if _pid_inside(pid) == 1]
        assert holders == first
        step.send_signal(signal.SIGSTOP)
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        step.kill()
        fcntl.flock(lock, fcntl.LOCK_EX)
        vacate(inside.work)
    assert occupants(inside.work) == []
    step.wait()
    step.stdout.close()


def _holds(pid: int, path: Path) -> bool:
    descriptors = Path(f"/proc/{pid}/fd").iterdir()
    return any(descriptor.readlink() == path for descriptor in descriptors)


def _pid_inside(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[-1]) for line in lines if line.startswith("NSpid:"))


# All of it as an ordinary user: the step's part too. What is inside hides as well as it can.
UNPRIVILEGED = """
import os, subprocess, sys
from pathlib import Path
from agentorch.core.job import Network
from agentorch.sandbox import Confinement, Wrapper, confine, occupants
top = Path(sys.argv[1])
hide = "ctypes.CDLL(None).prctl(4, 0); print('hidden', flush=True); time.sleep(99)"
script = f'setsid python3 -c "import ctypes, time; {hide}" & wait'
where = Confinement(
    "t", top / "work", top / "home", top / "artifacts", Network.DENY, {"PATH": "/usr/bin:/bin"}
)
with confine(Wrapper(), where, ["sh", "-c", script]) as start:
    client = subprocess.Popen(
        start.argv, env=start.environment, pass_fds=start.pass_fds, stdout=subprocess.PIPE
    )
    print(client.stdout.readline().decode().strip(), len(occupants(where.work)))
print(len(occupants(where.work)), client.wait() != 0)
"""


def test_nobody_hides_from_an_ordinary_user(inside: Inside) -> None:
    library = inside.top / "lib" / "agentorch"
    shutil.copytree(Path(agentorch.__file__).parent, library)
    ran = subprocess.run(
        ["/usr/bin/python3", "-W", "ignore", "-c", UNPRIVILEGED, str(inside.top)],
        env={"PATH": PATH, "PYTHONPATH": str(library.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        **as_user(inside.uid),
    )
    assert (ran.stdout, ran.stderr) == ("hidden 3\n0 True\n", "")


def test_a_mount_namespace_alone_is_no_occupant(inside: Inside) -> None:
    argv = ["unshare", "--user", "--mount", "sh", "-c", "echo started; exec sleep 1000"]
    with subprocess.Popen(
        argv, cwd=inside.work, stdout=subprocess.PIPE, **as_user(inside.uid)
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"started\n"
        vacate(inside.work)
        assert other.poll() is None
        other.kill()


def test_occupants_of_a_path_with_blanks(inside: Inside) -> None:
    work = inside.top / "two words\\and more"
    work.mkdir()
    os.chown(work, inside.uid, inside.uid)
    confinement = inside.allowing(work=work)
    argv = ["sh", "-c", "echo started; exec sleep 1000"]
    with inside.started(argv, confinement):
        assert len(occupants(work)) == 2
        vacate(work)
        assert occupants(work) == []
