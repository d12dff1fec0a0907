"""A booted Debian in a virtual machine: every controller of control groups, and a disk.

Its disk is made once from the machines' root file system and kept beside it; every machine writes
to an overlay of its own. Emulated, so that it runs anywhere: about 20 s to boot. To kill it is a
power cut: what the guest had not flushed is gone.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support import guest
from tests.support.inside import INSIDE, Inside, Ran, as_user_argv
from tests.support.machine import CACHE, RUNNING, UNITS, cached, making, overlay, tree
from tests.support.machine import missing as machine_missing

SUITE = "trixie"
PROGRAMS = ("qemu-system-x86_64", "qemu-img", "mke2fs")
MEMORY_MB = 1024
# more of them in parallel, emulated by qemu 7.2, and the kernel dies now and then
PROCESSORS = 1
DISK = "4G"
# older than AVX; and qemu 7.2 loses the flags in cmpxchg16b, of which kernels die now and then
CPU = "Nehalem,-cx16"
KERNEL = "root=/dev/vda rw console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests"
BOOT_S = 180
STOP_S = 60
# over what a command may take inside: an emulated machine answers late
GRACE_S = 30
# how much of what it said before it died is told
CONSOLE = 8000

AGENT = Path(guest.__file__)
AGENT_UNIT = """[Unit]
Description=Commands of the test that started this machine
After=multi-user.target

[Service]
ExecStartPre=/sbin/modprobe virtio_console
ExecStart=/usr/bin/python3 /opt/guest.py
OOMScoreAdjust=-1000

[Install]
WantedBy=multi-user.target
"""
# what starts in a second elsewhere may take minutes here
SLOW = "[Manager]\nDefaultTimeoutStartSec=15min\n"
# what a machine without network and people has no need of, and boots slowly by
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("fstrim.timer", "getty@tty1.service", "prometheus-node-exporter.service"),
    *("e2scrub_reap.service", "serial-getty@ttyS0.service", "systemd-udev-trigger.service"),
    *("systemd-random-seed.service", "sys-kernel-config.mount", "sys-kernel-debug.mount"),
)


def missing() -> str | None:
    """Why no virtual machine can be booted here; None where one can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else machine_missing()


# ---- the disk ---------------------------------------------------------------------------------


def disk(suite: str = SUITE) -> Path:
    """The disk, from the cache or made now (seconds, once there is the root file system)."""
    root = tree(suite)
    baked = "\n".join((AGENT.read_text(), AGENT_UNIT, SLOW, *MASKED))
    made = CACHE / f"{root.name}-{hashlib.sha256(baked.encode()).hexdigest()[:12]}.disk"
    with making(made.name):
        if not made.exists():
            _make_disk(made, root)
    return made


def _make_disk(made: Path, root: Path) -> None:
    unfinished = made.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as scratch, overlay(root, Path(scratch)) as merged:
        _bake(merged)
        subprocess.run(
            ["mke2fs", "-q", "-t", "ext4", "-d", str(merged), str(unfinished), DISK], check=True
        )
    unfinished.rename(made)


def _bake(root: Path) -> None:
    units = root / UNITS
    shutil.copy(AGENT, root / "opt/guest.py")
    (units / "agentorch-guest.service").write_text(AGENT_UNIT)
    (units / "multi-user.target.wants/agentorch-guest.service").symlink_to(
        "/etc/systemd/system/agentorch-guest.service"
    )
    for manager in ("system", "user"):
        (root / f"etc/systemd/{manager}.conf.d").mkdir()
        (root / f"etc/systemd/{manager}.conf.d/slow.conf").write_text(SLOW)
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")


# ---- the machine ------------------------------------------------------------------------------


def overlay_argv(base: Path, path: Path) -> list[str]:
    """Makes a disk that holds what is written, over another one."""
    return [
        *("qemu-img", "create", "-q"),
        *("-f", "qcow2"),
        *("-F", "raw"),
        *("-b", str(base)),
        str(path),
    ]


def qemu_argv(boot: Path, image: Path, port: Path, console: Path) -> list[str]:
    """Boots a disk with the kernel of the directory `boot`, emulated; `port` takes commands."""
    kernel, initrd = (max(boot.glob(f"{name}-*")) for name in ("vmlinuz", "initrd.img"))
    return [
        # what runs in there waits seconds for what others wait milliseconds for: it goes first
        *("nice", "-n", "-10"),
        "qemu-system-x86_64",
        *("-machine", "q35"),
        *("-cpu", CPU),
        *("-accel", "tcg,thread=single"),
        *("-smp", str(PROCESSORS)),
        *("-m", str(MEMORY_MB)),
        *("-display", "none"),
        *("-nic", "none"),
        *("-monitor", "none"),
        "-no-reboot",
        *("-serial", f"file:{console}"),
        *("-kernel", str(kernel)),
        *("-initrd", str(initrd)),
        *("-append", KERNEL),
        *("-drive", f"file={image},format=qcow2,if=virtio,cache=writeback"),
        *("-device", "virtio-rng-pci"),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=port,path={port},server=on,wait=off"),
        *("-device", "virtserialport,chardev=port,name=agentorch"),
    ]


class Virtual(Inside):
    """A virtual machine."""

    patience = 5

    def __init__(self, suite: str, scratch: Path) -> None:
        self.name = f"virtual {suite}"
        self.console = scratch / "console"
        self._port = scratch / "port"
        self._disk = scratch / "disk.qcow2"
        subprocess.run(overlay_argv(disk(suite), self._disk), check=True)
        self._argv = qemu_argv(cached(suite) / "boot", self._disk, self._port, self.console)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def run(
        self,
        *argv: str,
        check: bool = True,
        uid: int = 0,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout_s: float = 60,
    ) -> Ran:
        command = [*as_user_argv(uid), *argv]
        said = self._ask(
            {
                "argv": command,
                "environment": INSIDE | dict(environment or {}),
                "stdin": base64.b64encode(stdin).decode(),
                "timeout_s": timeout_s,
            },
            timeout_s + GRACE_S,
        )
        if "timeout" in said:
            raise subprocess.TimeoutExpired(command, timeout_s)
        code = int(str(said["code"]))
        out, errors = (base64.b64decode(str(said[name])) for name in ("stdout", "stderr"))
        if check and code:
            raise subprocess.CalledProcessError(code, command, out, errors)
        return Ran(command, code, out, errors)

    def _ask(self, message: dict[str, object] | None, timeout_s: float) -> dict[str, object]:
        """Sends a message, waits for the next one."""
        assert self._socket is not None
        self._socket.settimeout(timeout_s)
        with self._socket.makefile("rwb", buffering=0) as port:
            if message is not None:
                guest.write(port, message)
            return guest.read(port)

    def start(self) -> None:
        """Boots; returns when the machine takes commands."""
        self._port.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL)
        self._socket = _connected(self._port, self._process)
        try:
            self._ask(None, BOOT_S)
        except (EOFError, TimeoutError) as problem:
            said = self.console.read_bytes()[-CONSOLE:].decode(errors="replace")
            raise OSError(f"{self.name} did not boot: {said}") from problem

    def stop(self) -> None:
        """Kills it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._socket is not None:
            self._socket.close()

    def reboot(self) -> None:
        self.run("systemctl", "--no-block", "reboot")
        assert self._process is not None
        self._process.wait(STOP_S)
        self.stop()
        self.start()

    def power_cut(self) -> None:
        self.stop()
        self.start()


def _connected(path: Path, process: subprocess.Popen[bytes]) -> socket.socket:
    """A connection to the port; qemu makes its socket when it starts."""
    port = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            port.connect(str(path))
            return port
    raise OSError(f"qemu ended with {process.returncode}")


@contextlib.contextmanager
def virtual(suite: str = SUITE) -> Iterator[Virtual]:
    """A virtual machine that has finished booting; it is gone afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        machine = Virtual(suite, Path(directory))
        RUNNING.append(machine)
        try:
            machine.start()
            yield machine
        finally:
            RUNNING.remove(machine)
            machine.stop()
