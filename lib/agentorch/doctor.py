"""Checks that try things: each ends in one line, and a problem's line says what to do about it."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentorch import atomic
from agentorch.agents.registry import Registry
from agentorch.agents.registry import load as load_agents
from agentorch.errors import AgentorchError
from agentorch.paths import Roots
from agentorch.policy import Effective
from agentorch.preflight import Ground, check
from agentorch.sandbox import Wrapper, probe
from agentorch.settings import Settings

# Filesystems that survive a power cut as long as we sync; ext4 only with a journal.
JOURNALLED = frozenset({"ext4", "ext3", "xfs", "btrfs", "zfs", "f2fs", "bcachefs"})


@dataclass(frozen=True)
class Check:
    """What a check found."""

    name: str
    state: Literal["ok", "warning", "problem"]
    words: str


def examine(settings: Settings) -> Iterator[Check]:
    """Every check. Leaves nothing behind, and makes no directory."""
    yield Check("configuration", "ok", f"state in {settings.state_directory}")
    yield from state_checks(settings)
    yield git_check()
    yield sandbox_check(settings)
    yield from agent_checks(settings)


# ---- the state --------------------------------------------------------------------------------


def state_checks(settings: Settings) -> Iterator[Check]:
    """Whether the roots can hold the queue's promises."""
    roots = settings.roots
    places = (roots.queue_root, roots.artifacts_root, roots.workspaces_root)
    missing = [place for place in places if not place.is_dir()]
    if missing:
        words = f"{missing[0]} is not there yet: the first agentorch-submit makes it"
        yield Check("state", "warning", words)
        return
    yield writing_check(roots)
    yield journal_check(roots.queue_root)
    yield space_check(settings)


def writing_check(roots: Roots) -> Check:
    """A real write, fsync, link and rename between queue and artifacts."""
    name = f".doctor-{secrets.token_hex(8)}"
    first, second = roots.queue.incoming / name, roots.artifacts_root / name
    try:
        atomic.replace(first, b"")
        os.link(first, second)
        os.rename(second, roots.queue.incoming / f"{name}.moved")
    except (OSError, AgentorchError) as problem:
        words = f"{problem}: queue and artifacts must be writable, on one filesystem, in one mount"
        return Check("state", "problem", words)
    finally:
        for path in (first, second, roots.queue.incoming / f"{name}.moved"):
            path.unlink(missing_ok=True)
    return Check("state", "ok", f"write, fsync, link and rename work in {roots.queue_root}")


def journal_check(path: Path) -> Check:
    """Whether the filesystem below the queue keeps its order over a power cut."""
    kind, options = mounted(path)
    if kind not in JOURNALLED:
        words = f"{path} is on {kind}: what is acknowledged may not survive a power cut there"
        return Check("filesystem", "warning", words)
    if kind == "ext4" and not has_journal(path):
        words = f"{path} is on ext4 without a journal: a power cut breaks it (tune2fs -j)"
        return Check("filesystem", "warning", words)
    return Check("filesystem", "ok", f"{kind} ({options})")


def mounted(path: Path) -> tuple[str, str]:
    """The type and options of the filesystem that a path is on (proc_pid_mountinfo(5))."""
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


def space_check(settings: Settings) -> Check:
    """Whether more is free than the floor below which nothing is accepted."""
    free = os.statvfs(settings.roots.queue_root)
    free_bytes = free.f_bavail * free.f_frsize
    floor = settings.min_free_disk_bytes
    if free_bytes < floor:
        words = f"{free_bytes} bytes are free, AGENTORCH_MIN_FREE_BYTES asks for {floor}: make room"
        return Check("space", "problem", words)
    return Check("space", "ok", f"{free_bytes // 1_000_000} MB are free")


# ---- programs ---------------------------------------------------------------------------------


def git_check() -> Check:
    """Whether git runs."""
    program = shutil.which("git")
    if program is None:
        return Check("git", "problem", "not found on PATH: apt install git")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    state: Literal["ok", "problem"] = "ok" if done.returncode == 0 else "problem"
    return Check("git", state, done.stdout.strip() or done.stderr.strip())


def sandbox_check(settings: Settings) -> Check:
    """Whether the sandbox starts, and keeps what it should keep."""
    if not settings.sandbox:
        return Check("sandbox", "warning", "SANDBOX=0: jobs that don't ask for it run without one")
    wrapper = Wrapper(settings.sandbox_wrapper, settings.sandbox_wrapper_args)
    problems = probe(wrapper, settings.network)
    if problems:
        return Check("sandbox", "problem", "; ".join(problems))
    return Check("sandbox", "ok", f"{settings.sandbox_wrapper}: starts, no network, read-only root")


def agent_checks(settings: Settings) -> Iterator[Check]:
    """Whether each agent could run, and what is wrong with those that were not taken."""
    agents = load_agents(settings)
    for problem in agents.problems():
        yield Check("agents", "problem", problem)
    if not settings.real_cli:
        names = ", ".join(sorted(agents.names()))
        yield Check("agents", "ok", f"simulated (ENABLE_REAL_CLI=0): {names}")
        return
    for name in sorted(agents.names()):
        yield agent_check(settings, agents, name)


def agent_check(settings: Settings, agents: Registry, name: str) -> Check:
    """Whether one agent's program is allowed, there, and new enough."""
    capabilities = agents.get(name).capabilities
    if capabilities is None:
        return Check(f"agent {name}", "warning", "can only be simulated here")
    allowed = Effective(settings.sandbox, settings.network, frozenset(settings.allowed_binaries))
    environment = {"PATH": settings.environment.get("PATH", os.defpath)}
    ground = Ground(allowed, environment, settings.min_binary_versions, source_is_git=True)
    problems = check(capabilities, ground)
    if problems:
        words = "; ".join(problem.words for problem in problems)
        return Check(f"agent {name}", "warning", words)
    return Check(f"agent {name}", "ok", f"{capabilities.binary} is there and allowed")
