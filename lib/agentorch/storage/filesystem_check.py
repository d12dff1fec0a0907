"""The check of a file system: whether it can keep the queue's promises, tried at a start."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

from agentorch.core.errors import TryAgain
from agentorch.storage import atomic
from agentorch.storage.paths import Roots

# Filesystems that keep what was synced over a power cut; ext4 only with a journal.
JOURNALLED = frozenset({"ext4", "ext3", "xfs", "btrfs", "zfs", "f2fs", "bcachefs"})


def refusal(roots: Roots) -> str | None:
    """Why the roots can't hold a queue, in words: a write, fsync, link and rename is tried.

    None where it works. Raises TryAgain where the disk is full, read-only or failing.
    """
    try:
        _try(roots)
    except (BlockingIOError, FileNotFoundError):  # taken for a dead one's, and swept by a recovery
        return None
    except OSError as problem:
        if problem.errno in atomic.DISK_TROUBLE:
            raise TryAgain(f"{problem.filename}: {problem.strerror}") from problem
        advice = "queue and artifacts must be writable, on one filesystem, in one mount"
        return f"{problem.filename}: {problem.strerror}: {advice}"
    return None


def _try(roots: Roots) -> None:
    """Try it and leave nothing, but where it is killed: then what recovery removes, as the flock is
    free.
    """
    first = roots.queue.incoming / f".{secrets.token_hex(8)}"
    second = roots.artifacts_root / first.name
    moved = first.with_name(f"{first.name}.moved")
    descriptor = os.open(first, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fsync(descriptor)
        os.link(first, second)
        os.rename(second, moved)
    finally:
        for path in (moved, second, first):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def power_cut_doubt(path: Path) -> str | None:
    """Why what is acknowledged below `path` may not survive a power cut, in words."""
    kind, _ = mount_of(path)
    if kind not in JOURNALLED:
        return f"{path} is on {kind}: what is acknowledged may not survive a power cut there"
    if kind == "ext4" and not has_journal(path):
        return f"{path} is on ext4 without a journal: a power cut breaks it (tune2fs -j)"
    return None


def mount_of(path: Path) -> tuple[str, str]:
    """Return type and options of the file system that a path is on (proc_pid_mountinfo(5))."""
    best, found = "", ("unknown", "")
    real = str(path.resolve())
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        before, _, behind = line.partition(" - ")
        point = before.split()[4].replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, found = point, (behind.split()[0], before.split()[5])
    return found


def has_journal(path: Path) -> bool:
    """Return whether the ext4 that a path is on has a journal; True where that is not known."""
    device = path.stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    counters = Path("/proc/fs/jbd2")
    return not counters.is_dir() or any(p.name.startswith(name) for p in counters.iterdir())
