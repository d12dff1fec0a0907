"""The rules of retention: a decision over ages, sizes and free space. Pure.

Age comes first. Where that leaves too much, the oldest go until it is enough: first workspaces,
which can be made again from the steps' patches, then whole jobs. Nothing that has not ended is
ever among them: it is not told. Nor is a job that somebody pinned, whatever the limits say: what
it takes counts, and where that alone is too much, the plan says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import accumulate

from agentorch.core.job import Key
from agentorch.core.states import State


class Part(StrEnum):
    """The part of a job that is removed."""

    JOB = "job"
    WORKSPACE = "workspace"


@dataclass(frozen=True)
class Rules:
    """The rules for how long and how much is kept; 0 sets no limit."""

    artifacts_ttl_s: int = 0
    workspaces_ttl_s: int = 0
    max_bytes: int = 0
    min_free_bytes: int = 0


@dataclass(frozen=True)
class Ended:
    """A job in done/ or failed/. Sizes are measured where a rule asks for them, else 0."""

    key: Key
    state: State
    ended_at: datetime
    has_workspace: bool
    artifacts_bytes: int = 0
    workspace_bytes: int = 0
    is_pinned: bool = False

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.artifacts_bytes + self.workspace_bytes


@dataclass(frozen=True)
class Removal:
    """One removal, with its reason in words."""

    job: Ended
    part: Part
    why: str

    @property
    def bytes(self) -> int:
        """Return what it frees, as far as sizes were measured."""
        return self.job.bytes if self.part is Part.JOB else self.job.workspace_bytes


@dataclass(frozen=True)
class Plan:
    """The plan of a collection.
    and the limits that can't be met because of pins, in words.
    """

    goes: tuple[Removal, ...] = ()
    kept: tuple[Removal, ...] = ()
    unmet: tuple[str, ...] = ()


def plan(ended: Iterable[Ended], rules: Rules, now: datetime, *, free_bytes: int) -> Plan:
    """Return what a collection does now."""
    jobs = list(ended)
    goes = removals(jobs, rules, now, free_bytes=free_bytes)
    unpinned = [replace(job, is_pinned=False) for job in jobs]
    pinned = {job.key for job in jobs if job.is_pinned}
    would = removals(unpinned, rules, now, free_bytes=free_bytes) if pinned else []
    kept = tuple(removal for removal in would if removal.job.key in pinned)
    return Plan(tuple(goes), kept, tuple(_unmet(jobs, goes, rules, free_bytes)))


def _unmet(
    jobs: Sequence[Ended], goes: Sequence[Removal], rules: Rules, free_bytes: int
) -> Iterator[str]:
    pinned_bytes = sum(job.bytes for job in jobs if job.is_pinned)
    freed_bytes = sum(removal.bytes for removal in goes)
    left_bytes = sum(job.bytes for job in jobs) - freed_bytes
    because = f"pinned jobs take {pinned_bytes} bytes"
    if pinned_bytes and 0 < rules.max_bytes < left_bytes:
        yield f"{because}: more than RETENTION_MAX_BYTES={rules.max_bytes} stay"
    if pinned_bytes and free_bytes + freed_bytes < rules.min_free_bytes:
        yield f"{because}: fewer than RETENTION_MIN_FREE_BYTES={rules.min_free_bytes} are free"


def removals(
    ended: Iterable[Ended], rules: Rules, now: datetime, *, free_bytes: int
) -> list[Removal]:
    """Return what goes, oldest first within each rule."""
    jobs = sorted(ended, key=lambda job: (job.ended_at, str(job.key)))
    pinned_bytes = sum(job.bytes for job in jobs if job.is_pinned)
    jobs = [job for job in jobs if not job.is_pinned]
    gone = [removal for job in jobs if (removal := _removal_by_age(job, rules, now)) is not None]
    left = list(_remaining(jobs, gone))
    if rules.max_bytes:
        excess = pinned_bytes + sum(job.bytes for job in left) - rules.max_bytes
        more = list(
            _removals_until(left, excess, f"ended jobs take more than {rules.max_bytes} bytes")
        )
        gone += more
        left = list(_remaining(left, more))
    if rules.min_free_bytes:
        lacking = rules.min_free_bytes - free_bytes - sum(removal.bytes for removal in gone)
        gone += _removals_until(left, lacking, f"less than {rules.min_free_bytes} bytes are free")
    return gone


def least_age_s(rules: Rules) -> int | None:
    """Return the least age, in seconds, at which anything of a job goes by its age; None: never."""
    ages = [age for age in (rules.artifacts_ttl_s, rules.workspaces_ttl_s) if age]
    return min(ages, default=None)


def _removal_by_age(job: Ended, rules: Rules, now: datetime) -> Removal | None:
    age_s = (now - job.ended_at).total_seconds()
    if 0 < rules.artifacts_ttl_s <= age_s:
        return Removal(job, Part.JOB, _age_text(age_s, rules.artifacts_ttl_s))
    if job.has_workspace and 0 < rules.workspaces_ttl_s <= age_s:
        return Removal(job, Part.WORKSPACE, _age_text(age_s, rules.workspaces_ttl_s))
    return None


def _age_text(age_s: float, kept_s: int) -> str:
    return f"ended {int(age_s)} s ago, kept {kept_s} s"


def _remaining(jobs: Sequence[Ended], gone: Sequence[Removal]) -> Iterator[Ended]:
    parts = {removal.job.key: removal.part for removal in gone}
    for job in jobs:
        part = parts.get(job.key)
        if part is None:
            yield job
        elif part is Part.WORKSPACE:
            yield replace(job, has_workspace=False, workspace_bytes=0)


def _removals_until(jobs: Sequence[Ended], needed_bytes: int, why: str) -> Iterator[Removal]:
    """Yield workspaces until so much is freed; where all of them are not enough, whole jobs as
    well.
    """
    workspaces = [job for job in jobs if job.has_workspace]
    lacking = needed_bytes - sum(job.workspace_bytes for job in workspaces)
    whole = _shortest_prefix(jobs, [job.artifacts_bytes for job in jobs], lacking)
    yield from (Removal(job, Part.JOB, why) for job in whole)
    rest = [job for job in workspaces if job not in whole]
    needed_bytes -= sum(job.bytes for job in whole)
    parts = _shortest_prefix(rest, [job.workspace_bytes for job in rest], needed_bytes)
    yield from (Removal(job, Part.WORKSPACE, why) for job in parts)


def _shortest_prefix(
    jobs: Sequence[Ended], sizes: Sequence[int], needed_bytes: int
) -> Sequence[Ended]:
    """Return as many of the first as are needed."""
    before = [0, *accumulate(sizes)]
    return [job for job, freed in zip(jobs, before, strict=False) if freed < needed_bytes]
