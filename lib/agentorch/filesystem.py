"""Whether the disk can keep the queue's promises: tried for real, once at a start."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from agentorch import atomic
from agentorch.errors import AgentorchError
from agentorch.paths import Roots

# Filesystems that keep what was synced over a power cut; ext4 only with a journal.
JOURNALLED = frozenset({"ext4", "ext3", "xfs", "btrfs", "zfs", "f2fs", "bcachefs"})


def refusal(roots: Roots) -> str | None:
    """Why the roots can't hold a queue, in words: a write, fsync, link and rename is tried.

    None where it works, and where the disk just can't take it now.
    """
    name = f".doctor-{secrets.token_hex(8)}"
    first, second = roots.queue.incoming / name, roots.artifacts_root / name
    moved = roots.queue.incoming / f"{name}.moved"
    try:
        atomic.replace(first, b"")
        os.link(first, second)
        os.rename(second, moved)
    except AgentorchError as problem:
        return str(problem)
    except OSError as problem:
        if problem.errno in atomic.DISK_TROUBLE - {errno.EROFS}:
            return None
        advice = "queue and artifacts must be writable, on one filesystem, in one mount"
        return f"{problem.filename}: {problem.strerror}: {advice}"
    finally:
        for path in (first, second, moved):
            path.unlink(missing_ok=True)
    return None


def power_cut_doubt(path: Path) -> str | None:
    """Why what is acknowledged below `path` may not survive a power cut, in words."""
    kind, _ = mounted(path)
    if kind not in JOURNALLED:
        return f"{path} is on {kind}: what is acknowledged may not survive a power cut there"
    if kind == "ext4" and not has_journal(path):
        return f"{path} is on ext4 without a journal: a power cut breaks it (tune2fs -j)"
    return None


def mounted(path: Path) -> tuple[str, str]:
    """Type and options of the filesystem that a path is on (proc_pid_mountinfo(5))."""
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
    """Whether the ext4 that a path is on has a journal; True where it can't be told."""
    device = path.stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    counters = Path("/proc/fs/jbd2")
    return not counters.is_dir() or any(p.name.startswith(name) for p in counters.iterdir())
