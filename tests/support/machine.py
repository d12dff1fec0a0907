"""A booted Debian in a container: a real systemd for tests, in about half a second.

The root file system is made once by debootstrap and kept under the user's cache, by suite and
packages; every machine writes to an overlay of its own, in memory, which lives as long as the
machine does, over its reboots. Needs root. Nothing of the host is reachable from inside but what a
test binds, and there is no network.
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
from pathlib import Path

from tests.support.inside import INSIDE, Inside, Ran, as_user_argv

CACHE = Path.home() / ".cache/agentorch-test"
SUITE = "bookworm"
# what all has to work on
RELEASES = (SUITE, "trixie")
# What the .deb depends on, what tests use, and a kernel for where a container is not enough.
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "udev"),
    *("python3", "python3-aiohttp", "python3-click", "python3-httpx", "python3-jsonschema"),
    *("python3-jinja2", "python3-prometheus-client", "python3-rich", "python3-waitress"),
    *("python3-sdnotify", "python3-systemd"),
    *("acl", "bubblewrap", "curl", "git", "libseccomp2", "procps", "prometheus-node-exporter"),
    *("linux-image-cloud-amd64", "initramfs-tools"),
)
PROGRAMS = ("systemd-nspawn", "debootstrap", "nsenter")
BOOT_S = 60
STOP_S = 20

# cgroups v1: systemd in the container needs a subtree of its own in every hierarchy.
ENTER_CGROUPS = """
for hierarchy in /sys/fs/cgroup/*/; do
    [ -e "$hierarchy/cgroup.procs" ] && mkdir -p "$hierarchy$1" || continue
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

# /sys is the host's: nobody in here is to trigger its events again
NOT_INSIDE = ("systemd-udevd.service", "systemd-udev-trigger.service")
UNITS = "etc/systemd/system"

# Those that run now: a failed test shows their journals.
RUNNING: list[Inside] = []


def missing() -> str | None:
    """Why no machine can be booted here; None where one can."""
    if os.geteuid() != 0:
        return "a machine needs root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


# ---- root file systems ------------------------------------------------------------------------


def cached(suite: str, packages: Sequence[str] = PACKAGES) -> Path:
    """Where the root file system is kept, whether it is there or not."""
    key = hashlib.sha256(" ".join(sorted(packages)).encode()).hexdigest()[:12]
    return CACHE / f"{suite}-{key}"


def tree(suite: str = SUITE, packages: Sequence[str] = PACKAGES) -> Path:
    """The root file system, from the cache or made now (minutes, a gigabyte)."""
    made = cached(suite, packages)
    with making(made.name):
        if not made.is_dir():
            _debootstrap(made, suite, packages)
    return made


@contextlib.contextmanager
def making(name: str) -> Iterator[None]:
    """One process makes a thing of the cache; the others wait for it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _debootstrap(made: Path, suite: str, packages: Sequence[str]) -> None:
    unfinished = made.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    include = f"--include={','.join(packages)}"
    argv = ["debootstrap", "--variant=minbase", include, suite, str(unfinished)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    unfinished.rename(made)


@contextlib.contextmanager
def overlay(lower: Path, scratch: Path) -> Iterator[Path]:
    """A writable view of a tree, in memory; `scratch` is an empty directory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(scratch)], check=True)
    try:
        upper, work, merged = (scratch / name for name in ("upper", "work", "root"))
        for directory in (upper, work, merged):
            directory.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        mount = ["mount", "-t", "overlay", "-o", options, "overlay", str(merged)]
        subprocess.run(mount, check=True)
        try:
            yield merged
        finally:
            subprocess.run(["umount", "--lazy", str(merged)], check=False)
    finally:
        subprocess.run(["umount", "--lazy", str(scratch)], check=False)


# ---- a machine --------------------------------------------------------------------------------


def nspawn_argv(name: str, root: Path, binds: Mapping[Path, str]) -> list[str]:
    """Boots `root`; `binds` are read-only, host path to path inside."""
    return [
        "systemd-nspawn",
        *("--directory", str(root)),
        *("--machine", name),
        *("--boot", "--quiet"),
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


class Machine(Inside):
    """A machine. `leader` is its first process, as the host numbers it; new after each boot."""

    def __init__(self, name: str, root: Path, scratch: Path, binds: Mapping[Path, str]) -> None:
        self.name = name
        self.leader = 0
        self.console = scratch / "console"
        self._notify = scratch / "notify"
        self._argv = nspawn_argv(name, root, binds)
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self,
        *argv: str,
        check: bool = True,
        uid: int = 0,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout_s: float = 60,
    ) -> Ran:
        return subprocess.run(
            [*self.enter_argv(), *as_user_argv(uid), *argv],
            input=stdin,
            env=INSIDE | dict(environment or {}),
            capture_output=True,
            timeout=timeout_s,
            check=check,
        )

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

    def start(self) -> None:
        """Boots; returns when the machine says that it is up."""
        argv = ["sh", "-c", ENTER_CGROUPS, "sh", self.name, *self._argv]
        with _notifications(self._notify) as ready, self.console.open("ab") as console:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=INSIDE | NSPAWN | {"NOTIFY_SOCKET": str(self._notify)},
            )
            self.leader = _leader(ready)

    def stop(self) -> None:
        """Shuts down in order; whatever does not stop in time is killed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._end(self._process)

    def reboot(self) -> None:
        self.run("systemctl", "--no-block", "reboot")
        assert self._process is not None
        # it leaves the restart to whoever started it (--keep-unit)
        self._process.wait(BOOT_S)
        self.start()

    def power_cut(self) -> None:
        """As a crash of everything that runs; what was written stays, synced or not."""
        assert self._process is not None
        os.kill(self.leader, signal.SIGKILL)
        self._end(self._process)
        self.start()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.leader, signal.SIGKILL)
            process.kill()
            process.wait()


@contextlib.contextmanager
def booted(
    binds: Mapping[Path, str] | None = None,
    suite: str = SUITE,
    packages: Sequence[str] = PACKAGES,
) -> Iterator[Machine]:
    """A machine that has finished booting; it is gone afterwards."""
    lower = tree(suite, packages)
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        # a host name, which neither holds a _ nor ends with a -
        name = f"agentorch-{scratch.name}".replace("_", "0")
        (scratch / "disk").mkdir()
        with overlay(lower, scratch / "disk") as root:
            for unit in NOT_INSIDE:
                (root / UNITS / unit).symlink_to("/dev/null")
            machine = Machine(name, root, scratch, binds or {})
            RUNNING.append(machine)
            try:
                machine.start()
                yield machine
            finally:
                RUNNING.remove(machine)
                machine.stop()
                _remove_cgroups(name)


@contextlib.contextmanager
def _notifications(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(path))
        ready.settimeout(BOOT_S)
        yield ready


def _leader(ready: socket.socket) -> int:
    """The machine's first process, when the machine says that it is up (sd_notify(3))."""
    said: dict[str, str] = {}
    while "READY" not in said:
        lines = ready.recv(4096).decode().splitlines()
        said |= dict(line.split("=", 1) for line in lines if "=" in line)
    return int(said["X_NSPAWN_LEADER_PID"])


def _remove_cgroups(name: str) -> None:
    for top in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):  # a killed machine may leave a busy one
                Path(directory).rmdir()
