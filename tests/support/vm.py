"""A booted Debian in a virtual machine: every controller of control groups, and a disk.

Its disk is made once from the machines' root file system and kept beside it; every machine writes
to an overlay of its own. Emulated, so that it runs anywhere: about 20 s to boot. To kill it is a
power cut: what the guest had not flushed is gone.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
PART_BYTES = 1 << 16
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


class Port:
    """The test's end of the port: questions with their numbers, and the answers to them.

    A question that got no answer in time leaves nothing behind that would be taken for another's:
    its late answer has another number, and half a message is kept until the rest of it has come
    or gone.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._number = 0
        self._received = bytearray()
        self._unsent = bytearray()

    def close(self) -> None:
        self._socket.close()

    def wait_until_up(self, timeout_s: float) -> None:
        """Wait for the message of a machine that has booted; TimeoutError, ConnectionError."""
        end = time.monotonic() + timeout_s
        while "up" not in self._next_message(end):
            pass

    def ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Return the answer to a question; TimeoutError, ConnectionError where none comes."""
        end = time.monotonic() + timeout_s
        self._number += 1
        self._unsent += guest.encoded(question | {"number": self._number})
        while self._unsent:
            self._wait_at_most_until(end)
            del self._unsent[: self._socket.send(self._unsent)]
        while (answer := self._next_message(end)).get("number") != self._number:
            pass
        return answer

    def _next_message(self, end: float) -> dict[str, Any]:
        length = 4 + int.from_bytes(self._received_bytes(4, end), "big")
        message: dict[str, Any] = json.loads(self._received_bytes(length, end)[4:])
        del self._received[:length]
        return message

    def _received_bytes(self, length: int, end: float) -> bytes:
        """Return the first bytes of what has come, when so many have; they stay."""
        while len(self._received) < length:
            self._wait_at_most_until(end)
            more = self._socket.recv(PART_BYTES)
            if not more:
                raise ConnectionResetError("the machine is gone")
            self._received += more
        return bytes(self._received[:length])

    def _wait_at_most_until(self, end: float) -> None:
        # 0 would make the socket not wait at all, and raise something else
        self._socket.settimeout(max(end - time.monotonic(), 0.001))


class Virtual(Inside):
    """A virtual machine."""

    patience = 5

    def __init__(self, suite: str, scratch: Path) -> None:
        self.name = f"virtual {suite}"
        self.console = scratch / "console"
        self._port_path = scratch / "port"
        self._disk = scratch / "disk.qcow2"
        subprocess.run(overlay_argv(disk(suite), self._disk), check=True)
        self._argv = qemu_argv(cached(suite) / "boot", self._disk, self._port_path, self.console)
        self._process: subprocess.Popen[bytes] | None = None
        self._port: Port | None = None

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
        question = {
            "argv": command,
            "environment": INSIDE | dict(environment or {}),
            "stdin": base64.b64encode(stdin).decode(),
            "timeout_s": timeout_s,
        }
        if self._port is None:
            raise OSError(f"{self.name} is not up")
        said = self._port.ask(question, timeout_s + GRACE_S)
        if "timeout" in said:
            raise subprocess.TimeoutExpired(command, timeout_s)
        code = int(said["code"])
        out, errors = (base64.b64decode(said[name]) for name in ("stdout", "stderr"))
        if check and code:
            raise subprocess.CalledProcessError(code, command, out, errors)
        return Ran(command, code, out, errors)

    def start(self) -> None:
        """Boots; returns when the machine takes commands."""
        self._port_path.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL)
        self._port = Port(_connected(self._port_path, self._process))
        try:
            self._port.wait_until_up(BOOT_S)
        except (ConnectionError, TimeoutError) as problem:
            said = self.console.read_bytes()[-CONSOLE:].decode(errors="replace")
            raise OSError(f"{self.name} did not boot: {said}") from problem

    def stop(self) -> None:
        """Kills it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._port is not None:
            self._port.close()
            self._port = None

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
