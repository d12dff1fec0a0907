"""Attacks on the default sandbox, each a program run inside it, as root and as an ordinary user."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentorch
from agentorch.job import Network
from agentorch.sandbox import Wrapper, occupants, probe, vacate

from .inside import NAMES, PATH, USERS, Inside, as_user, place

pytestmark = pytest.mark.skipif(
    not Path("/usr/bin/bwrap").exists(), reason="needs bubblewrap; not proved here"
)


@pytest.fixture(params=USERS, ids=lambda uid: NAMES.get(uid, "user"))
def inside(request: pytest.FixtureRequest) -> Iterator[Inside]:
    with place(request.param) as there:
        yield there


# Prints the name of the error that a call ends with, or "done".
TRY = """
import ctypes, errno, os, socket, sys
def attempt(call, *arguments):
    try:
        call(*arguments)
    except OSError as problem:
        return errno.errorcode[problem.errno]
    return "done"
seccomp = ctypes.CDLL("libseccomp.so.2")
libc = ctypes.CDLL(None, use_errno=True)
def kernel(name, *arguments):
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    if libc.syscall(ctypes.c_long(number), *words) == -1:
        return errno.errorcode[ctypes.get_errno()]
    return "done"
"""


def said(inside: Inside, script: str, *arguments: object) -> str:
    ran = inside.python(TRY + script, *arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def outside(inside: Inside, script: str, *arguments: object) -> str:
    """The same program without a sandbox: it must be able to do what is refused inside."""
    ran: subprocess.CompletedProcess[str] = subprocess.run(
        ["/usr/bin/python3", "-c", TRY + script, *map(str, arguments)],
        cwd=inside.work,
        capture_output=True,
        text=True,
        check=True,
        **as_user(inside.uid),
    )
    return ran.stdout.strip()


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
    script = "cat /proc/1/cmdline /proc/1/environ"
    ran = inside.run(["sh", "-c", script], inside.confinement({"KEY": "sk-secret"}))
    assert "sk-secret" not in ran.stdout
    assert str(inside.work) not in ran.stdout
    assert "\0--args\0" in ran.stdout


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
from agentorch.job import Network
from agentorch.sandbox import Confinement, Wrapper, confined
top = Path(sys.argv[1])
lock = os.open(top / "lock", os.O_RDONLY | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
variables = {"PATH": "/usr/bin:/bin"}
where = Confinement("t", top / "work", top / "home", top / "artifacts", Network.DENY, variables)
script = 'for n in $(seq 20); do setsid sh -c "while :; do :; done" & done; echo $PPID; wait'
with confined(Wrapper(), where, ["sh", "-c", script], alive_fd=lock) as start:
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
from agentorch.job import Network
from agentorch.sandbox import Confinement, Wrapper, confined, occupants
top = Path(sys.argv[1])
hide = "ctypes.CDLL(None).prctl(4, 0); print('hidden', flush=True); time.sleep(99)"
script = f'setsid python3 -c "import ctypes, time; {hide}" & wait'
where = Confinement(
    "t", top / "work", top / "home", top / "artifacts", Network.DENY, {"PATH": "/usr/bin:/bin"}
)
with confined(Wrapper(), where, ["sh", "-c", script]) as start:
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


# ---- the network ------------------------------------------------------------------------------


@pytest.fixture
def listeners() -> Iterator[dict[str, str]]:
    """Services of the host: on both loopbacks, and on an abstract socket."""
    abstract = f"agentorch-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind("\0" + abstract)
        unix.listen()
        yield {
            "four": str(four.getsockname()[1]),
            "six": str(six.getsockname()[1]),
            "abstract": abstract,
        }


CONNECT = """
def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as client:
        client.settimeout(5)
        client.connect(address)
        client.send(b"x")
four, six, abstract = sys.argv[1:4]
print(
    attempt(connect, socket.AF_INET, ("127.0.0.1", int(four))),
    attempt(connect, socket.AF_INET6, ("::1", int(six))),
    attempt(connect, socket.AF_UNIX, "\\0" + abstract),
)
"""
FAR = """
print(
    attempt(connect, socket.AF_INET, ("192.0.2.1", 443)),
    attempt(connect, socket.AF_INET, ("169.254.169.254", 80)),
    attempt(connect, socket.AF_INET6, ("2001:db8::1", 443)),
    attempt(connect, socket.AF_INET, ("192.0.2.53", 53), socket.SOCK_DGRAM),
    sorted(name for _, name in socket.if_nameindex()),
)
"""


def test_no_service_of_the_host_answers(inside: Inside, listeners: dict[str, str]) -> None:
    told = said(inside, CONNECT, *listeners.values())
    assert told == "ECONNREFUSED ECONNREFUSED ECONNREFUSED"
    assert outside(inside, CONNECT, *listeners.values()) == "done done done"


def test_no_way_out(inside: Inside, listeners: dict[str, str]) -> None:
    told = said(inside, CONNECT + FAR, *listeners.values()).splitlines()[-1]
    assert told == "ENETUNREACH ENETUNREACH ENETUNREACH ENETUNREACH ['lo']"


def test_no_socket_of_a_service(inside: Inside) -> None:
    paths = "/run/dbus/system_bus_socket /var/run/docker.sock /run/systemd/journal/socket /run/user"
    told = said(inside, "print(*(attempt(os.stat, path) for path in sys.argv[1:]))", *paths.split())
    assert set(told.split()) == {"ENOENT"}


def test_allow_is_the_hosts_network(inside: Inside, listeners: dict[str, str]) -> None:
    confinement = inside.allowing(network=Network.ALLOW)
    argv = ["/usr/bin/python3", "-c", TRY + CONNECT, *listeners.values()]
    ran = inside.run(argv, confinement)
    assert ran.stdout.startswith("done done")
    there = Path("/etc/resolv.conf").exists()
    assert (inside.run(["test", "-e", "/etc/resolv.conf"], confinement).returncode == 0) == there


# ---- the kernel -------------------------------------------------------------------------------

# Calls that an ordinary user may make outside. A made-up file name, or arguments that the kernel
# would refuse with another error, keep those harmless that are made where nothing refuses them.
CALLS = {
    "keyctl": ("kernel('keyctl', 0, -3, 0)", "EPERM"),
    "add_key": ("kernel('add_key', b'user', b'x', b'y', 1, -2)", "EPERM"),
    "request_key": ("kernel('request_key', b'user', b'x', None, -2)", "EPERM"),
    "ptrace": ("kernel('ptrace', 0, 0, 0, 0)", "EPERM"),
    "process_vm_readv": ("kernel('process_vm_readv', os.getpid(), 0, 0, 0, 0, 0)", "EPERM"),
    "io_uring": ("kernel('io_uring_setup', 1, 0)", "EPERM"),
    "bpf": ("kernel('bpf', 99, 0, 0)", "EPERM"),
    "perf": ("kernel('perf_event_open', 0, 0, -1, -1, 0)", "EPERM"),
    "userfaultfd": ("kernel('userfaultfd', 1)", "EPERM"),
    "handle": ("kernel('open_by_handle_at', -1, 0, 0)", "EPERM"),
    "unshare user": ("kernel('unshare', 0x10000000)", "EPERM"),
    "unshare user high": ("kernel('unshare', 0x10000000 | 1 << 40)", "EPERM"),
    "clone user": ("kernel('clone', 0x10000000 | 17, 0, 0, 0, 0)", "EPERM"),
    "clone3": ("kernel('clone3', 0, 0)", "ENOSYS"),
    "setns": ("kernel('setns', -1, 0)", "EPERM"),
    "mount": ("kernel('mount', b'none', b'/nowhere', b'tmpfs', 0, 0)", "EPERM"),
    "umount": ("kernel('umount2', b'/nowhere', 0)", "EPERM"),
    "fsopen": ("kernel('fsopen', b'none', 0)", "EPERM"),
    "open_tree": ("kernel('open_tree', -1, b'', 0)", "EPERM"),
    "pidfd_getfd": ("kernel('pidfd_getfd', -1, 0, 0)", "EPERM"),
    "kexec": ("kernel('kexec_load', 0, 0, 0, 99)", "EPERM"),
    "module": ("kernel('finit_module', -1, b'', 0)", "EPERM"),
    "TIOCSTI": ("kernel('ioctl', 0, 0x5412, b'x')", "EPERM"),
    "TIOCSTI high": ("kernel('ioctl', 0, 0x5412 | 1 << 32, b'x')", "EPERM"),
    "TIOCLINUX": ("kernel('ioctl', 0, 0x541C, b'x')", "EPERM"),
    "packet": ("attempt(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)", "EAFNOSUPPORT"),
    "vsock": ("attempt(socket.socket, 40, socket.SOCK_STREAM)", "EAFNOSUPPORT"),
    "crypto": ("attempt(socket.socket, 38, socket.SOCK_SEQPACKET)", "EAFNOSUPPORT"),
    "bluetooth": ("attempt(socket.socket, 31, socket.SOCK_RAW)", "EAFNOSUPPORT"),
    "family high": ("kernel('socket', 40 | 1 << 32, 1, 0)", "EAFNOSUPPORT"),
    "family 0": ("kernel('socket', 0, 1, 0)", "EAFNOSUPPORT"),
    "uevent": ("attempt(socket.socket, 16, socket.SOCK_RAW, 15)", "EAFNOSUPPORT"),
}


@pytest.mark.parametrize("what", CALLS)
def test_calls_are_refused(inside: Inside, what: str) -> None:
    call, expected = CALLS[what]
    assert said(inside, f"print({call})") == expected


def test_the_filter_makes_the_difference(inside: Inside) -> None:
    """Without a sandbox most of these calls end otherwise, so the table above proves something."""
    harmless = {what: call for what, (call, _) in CALLS.items() if what not in NOT_OUTSIDE}
    script = "\n".join(f"print({call})" for call in harmless.values())
    told = outside(inside, script).splitlines()
    different = [what for what, word in zip(harmless, told, strict=True) if word != CALLS[what][1]]
    assert len(different) > len(harmless) / 2


# They would act on the test's own keyring or processes.
NOT_OUTSIDE = ("add_key", "ptrace", "unshare user", "unshare user high", "clone user")


def test_what_must_work_works(inside: Inside) -> None:
    script = """
import subprocess, threading, asyncio, multiprocessing
families = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
print(*(attempt(socket.socket, family) for family in families), attempt(socket.if_nameindex))
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
print(subprocess.run(["echo", "child"], capture_output=True).stdout.decode().strip())
left, right = socket.socketpair()
left.send(b"pair"); print(right.recv(4).decode())
async def speak():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, _ = await asyncio.open_connection("127.0.0.1", port)
    print("read", await reader.read())
asyncio.run(speak())
"""
    told = said(inside, script).splitlines()
    assert told == ["done done done done", "thread", "child", "pair", "read b''"]


def test_no_capability_and_no_way_to_get_one(inside: Inside) -> None:
    status = inside.run(["cat", "/proc/self/status"]).stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    capabilities = {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert capabilities == {"0" * 16}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


# ---- the probe --------------------------------------------------------------------------------


@pytest.mark.parametrize("network", Network)
def test_the_probe_finds_nothing(network: Network) -> None:
    assert probe(Wrapper(), network) == ()


@pytest.mark.parametrize("parent", ["/var/tmp", "/dev/shm"])
def test_a_workspace_in_places_that_are_special_inside(parent: str) -> None:
    assert probe(Wrapper(), directory=Path(parent)) == ()


def test_the_probe_finds_a_hole_in_the_servers_arguments() -> None:
    found = probe(Wrapper("bwrap", ("--bind", "/tmp", "/tmp")))
    assert found == (
        "SANDBOX_WRAPPER: 'bwrap': other files of the host can be seen inside: use bwrap",
    )


def test_the_probe_says_why_it_does_not_start() -> None:
    found = probe(Wrapper("bwrap", ("--no-such-option",)))
    assert found == (
        "SANDBOX_WRAPPER: 'bwrap': it does not start: bwrap: Unknown option --no-such-option",
    )
