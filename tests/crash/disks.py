"""Disks of the test's own: small ones, full ones, and ones whose power is cut.

Mounts are seen only by the thread that made them and by what it starts: unshare(2) works per
thread. A disk is an ext4 in a file below a loop device, or a tmpfs of some size.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from tests.support.crash_programs import AT_ONCE, Site, memory

CLONE_NEWNS = 0x20000
FS_IOC_SHUTDOWN = 0x8004587D
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
UNMOUNT_S = 30

_libc = ctypes.CDLL(None, use_errno=True)


class Cut(IntEnum):
    """What happens to the journal when the power is cut (FS_IOC_SHUTDOWN's flags).

    LOGFLUSH commits it: all that was renamed is there, what was written perhaps not. NOLOGFLUSH
    does not: what was not synced is gone.
    """

    LOGFLUSH = 1
    NOLOGFLUSH = 2


def missing() -> str | None:
    """Why no disk can be made here, None where one can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    try:
        with threads() as pool, scratch() as top:
            pool.submit(lambda: Disk.make(top, megabytes=8).close()).result()
    except (OSError, subprocess.CalledProcessError) as problem:
        return f"no loop device can be mounted here: {problem}"
    return None


def own_mounts() -> None:
    """What this thread mounts from here on is its own."""
    if _libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    _run("mount", "--make-rprivate", "/")


@contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads with mounts of their own."""
    with ThreadPoolExecutor(AT_ONCE, initializer=own_mounts) as pool:
        yield pool


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for images, in memory where there is room."""
    with tempfile.TemporaryDirectory(prefix="agentorch-disk-", dir=memory()) as top:
        yield Path(top)


@dataclass(frozen=True)
class Disk:
    """A mounted ext4: its image and its mount point lie in `top`."""

    top: Path

    @classmethod
    def make(cls, top: Path, *, megabytes: int) -> Disk:
        """A new one, empty and mounted."""
        disk = cls(top)
        disk.directory.mkdir()
        with disk.image.open("wb") as image:
            image.truncate(megabytes << 20)
        _run(
            "mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", disk.image
        )
        disk.mount()
        return disk

    @property
    def image(self) -> Path:
        return self.top / "image"

    @property
    def directory(self) -> Path:
        return self.top / "mounted"

    def site(self, site: Site) -> Site:
        """The site with its state on this disk."""
        return replace(site, top=self.top, state=self.directory / "state")

    def copy(self, top: Path) -> Disk:
        """A copy of an unmounted one, mounted."""
        other = Disk(top)
        other.directory.mkdir(parents=True)
        _run("cp", "--sparse=always", self.image, other.image)
        other.mount()
        return other

    def mount(self) -> None:
        """Mounts it, in a boot of its own: what the journal holds is replayed."""
        _run("mount", "-o", "loop", self.image, self.directory)
        boot = self.top / "boot"
        boot.write_text(f"{os.urandom(16).hex()}\n")
        _run("mount", "--bind", boot, BOOT_ID)

    def cut_power(self, cut: Cut) -> None:
        """Ends all writing at once; what was not on the disk is lost. It is mounted anew."""
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", cut))
        finally:
            os.close(descriptor)
        self.close()
        self.mount()

    def close(self) -> None:
        """Unmounts it."""
        _run("umount", BOOT_ID)
        unmount(self.directory)


def unmount(directory: Path) -> None:
    """Unmounts; the last processes on it may just be dying."""
    until = time.monotonic() + UNMOUNT_S
    while subprocess.run(["umount", directory], capture_output=True, check=False).returncode:
        assert time.monotonic() < until, "it stays busy"
        time.sleep(0.02)


def mount_tmpfs(directory: Path, options: str) -> None:
    """Mounts a file system in memory."""
    directory.mkdir()
    _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", directory)


def remount(directory: Path, options: str) -> None:
    """Changes the options of a mount."""
    _run("mount", "-o", f"remount,{options}", directory)


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True)
