"""A booted Debian in a container: a real systemd for tests, in about half a second.

The root file system is made once by debootstrap and kept under the user's cache, by suite and
packages; every machine writes to an overlay of its own. Needs root. Nothing of the host is
reachable from inside but what a test binds, and there is no network.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CACHE = Path.home() / ".cache/agentorch-test"
SUITE = "bookworm"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd"),
    *("python3", "python3-click", "python3-jsonschema", "bubblewrap", "git", "libseccomp2"),
    "procps",
)
PROGRAMS = ("systemd-nspawn", "debootstrap", "nsenter")
BOOT_S = 60
STOP_S = 20

# cgroups v1: systemd in the container needs a subtree of its own in every hierarchy.
ENTER_CGROUPS = """
for hierarchy in /sys/fs/cgroup/*/; do
    [ -e "$hierarchy/cgroup.procs" ] && mkdir "$hierarchy$1" || continue
    for file in cpuset.cpus cpuset.mems; do
        [ ! -e "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$hierarchy$1/$file"
    done
    echo $$ >"$hierarchy$1/cgroup.procs"
done
shift
exec "$@"
"""

UNIFIED = Path("/sys/fs/cgroup/unified")
# systemd 257 serves nobody whose control group lies outside of the machine.
JOIN_CGROUP = """
mkdir -p "$1"
echo $$ >"$1/cgroup.procs"
shift
exec "$@"
"""


def missing() -> str | None:
    """Why no machine can be booted here; None where one can."""
    if os.geteuid() != 0:
        return "a machine needs root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


@dataclass(frozen=True)
class Machine:
    """A running machine. `leader` is its first process, as the host numbers it."""

    name: str
    leader: int

    def run(
        self,
        *argv: str,
        check: bool = True,
        uid: int = 0,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a command inside, as root or as another user without any group but its own."""
        command = [*self.enter_argv(), *_as_user_argv(uid), *argv]
        return subprocess.run(
            command,
            input=stdin,
            env=INSIDE | dict(environment or {}),
            capture_output=True,
            timeout=timeout_s,
            check=check,
        )

    def output(self, *argv: str) -> str:
        """What a command printed inside; it must succeed."""
        return self.run(*argv).stdout.decode().strip()

    def enter_argv(self) -> list[str]:
        """Prefix of a command that is to run inside."""
        return [
            *("sh", "-c", JOIN_CGROUP, "sh", str(self._cgroup())),
            "nsenter",
            *("--target", str(self.leader)),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
            "--root",
            "--wd",
            "--",
        ]

    def _cgroup(self) -> Path:
        """A control group of the machine for what tests run: beside that of its first process."""
        text = Path(f"/proc/{self.leader}/cgroup").read_text()
        path = next(line[3:] for line in text.splitlines() if line.startswith("0::"))
        top = UNIFIED if UNIFIED.is_dir() else UNIFIED.parent
        return top / path.lstrip("/") / "../agentorch-test.scope"

    def add_user(self, name: str, uid: int) -> dict[str, str]:
        """A user with a lingering, running manager; the variables that find it."""
        self.run("useradd", "--create-home", "--uid", str(uid), name)
        self.run("loginctl", "enable-linger", name)
        self.run("systemctl", "start", f"user@{uid}.service")
        return {
            "HOME": f"/home/{name}",
            "XDG_RUNTIME_DIR": f"/run/user/{uid}",
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path=/run/user/{uid}/bus",
        }


INSIDE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def _as_user_argv(uid: int) -> list[str]:
    if not uid:
        return []
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]


def cached(suite: str, packages: Sequence[str] = PACKAGES) -> Path:
    """Where the root file system is kept, whether it is there or not."""
    key = hashlib.sha256(" ".join(sorted(packages)).encode()).hexdigest()[:12]
    return CACHE / f"{suite}-{key}"


def tree(suite: str = SUITE, packages: Sequence[str] = PACKAGES) -> Path:
    """The root file system, from the cache or made now (minutes, 430 MB)."""
    made = cached(suite, packages)
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{made.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            _debootstrap(made, suite, packages)
    return made


def _debootstrap(made: Path, suite: str, packages: Sequence[str]) -> None:
    unfinished = made.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    include = f"--include={','.join(packages)}"
    argv = ["debootstrap", "--variant=minbase", include, suite, str(unfinished)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    unfinished.rename(made)


def nspawn_argv(name: str, root: Path, binds: Mapping[Path, str]) -> list[str]:
    """Boots `root` behind an overlay; `binds` are read-only, host path to path inside."""
    return [
        "systemd-nspawn",
        *("--directory", str(root)),
        *("--machine", name),
        *("--volatile=overlay", "--boot", "--quiet"),
        *("--register=no", "--keep-unit", "--private-network"),
        *("--console=pipe", "--notify-ready=yes"),
        *(f"--bind-ro={outside}:{inside}" for outside, inside in binds.items()),
    ]


NSPAWN = {
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    # its own filter answers ENOSYS to newer system calls
    "SYSTEMD_SECCOMP": "0",
    # a covered /proc may not be mounted anew in a user namespace, which every sandbox does
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes",
}


@contextlib.contextmanager
def booted(
    binds: Mapping[Path, str] | None = None,
    suite: str = SUITE,
    packages: Sequence[str] = PACKAGES,
) -> Iterator[Machine]:
    """A machine that has finished booting; it is gone afterwards."""
    root = tree(suite, packages)
    with tempfile.TemporaryDirectory() as scratch, _notifications(Path(scratch)) as ready:
        name = f"agentorch-{Path(scratch).name}".replace("_", "-").lower()
        argv = ["sh", "-c", ENTER_CGROUPS, "sh", name, *nspawn_argv(name, root, binds or {})]
        environment = INSIDE | NSPAWN | {"NOTIFY_SOCKET": ready.getsockname()}
        with (Path(scratch) / "console").open("wb") as console:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        try:
            yield Machine(name, _leader(ready))
        finally:
            _stop(process)
            _remove_cgroups(name)


@contextlib.contextmanager
def _notifications(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(directory / "notify"))
        ready.settimeout(BOOT_S)
        yield ready


def _leader(ready: socket.socket) -> int:
    """The machine's first process, when the machine says that it is up (sd_notify(3))."""
    said: dict[str, str] = {}
    while "READY" not in said:
        lines = ready.recv(4096).decode().splitlines()
        said |= dict(line.split("=", 1) for line in lines if "=" in line)
    return int(said["X_NSPAWN_LEADER_PID"])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _remove_cgroups(name: str) -> None:
    for top in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):  # a killed machine may leave a busy one
                Path(directory).rmdir()
