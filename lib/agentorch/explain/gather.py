"""The facts about a job, from files alone: nothing is made or locked, and nobody is asked.

Whether a slot has an owner is read from /proc/locks. What is missing or torn is not told.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from agentorch.artifacts import decision_log
from agentorch.artifacts.directory import JobArtifacts, JobState
from agentorch.config.settings import Settings
from agentorch.core.job import Expiry
from agentorch.core.states import ENDED, OutcomeClass, State
from agentorch.core.text import one_line
from agentorch.core.times import moment_of
from agentorch.explain.facts import Attempted, Facts, Hold, Park, SlotFacts
from agentorch.jobqueue import slots
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import Found
from agentorch.storage.json_files import Document, read_json
from agentorch.storage.listing import names_in
from agentorch.storage.paths import ArtifactPaths, AttemptPaths

MOST_LINES = 5
LINE_CHARS = 160
MOST_BYTES = 16 * 1024
_OURS = "agentorch: "


def facts(queue: Queue, found: Found, settings: Settings, now: datetime) -> Facts:
    """What is known of a job at `now`."""
    paths = queue.roots.artifacts(found.job.job_id)
    known = JobArtifacts(paths).read_state()
    whole = Facts(
        job_id=found.job.job_id,
        state=found.state,
        now=now,
        submitted_at=found.job.submitted_at,
        current=_current(paths, found, known),
        hold=_hold(paths),
        is_cancelled=paths.cancel.exists(),
        has_begun=known is not None,
        decided=_decided(paths),
    )
    match found.state:
        case State.PENDING:
            return replace(_queued(whole, queue, settings), before=_before(queue, found))
        case State.RUNNING:
            return _run(_queued(whole, queue, settings), queue, found)
        case State.AWAITING_APPROVAL:
            return _asked(whole, paths, found, settings, known)
        case State.PARKED:
            return replace(whole, park=_park(queue, found, known))
        case _ if found.state in ENDED:
            return _over(whole, paths, found, known)
    return whole


# ---- the step ---------------------------------------------------------------------------------


def _current(paths: ArtifactPaths, found: Found, known: JobState | None) -> Attempted:
    """The current step and its latest attempt; of a parked one, the one that was parked."""
    steps = {step.step_id: step for step in found.job.steps}
    step_id = found.job.steps[0].step_id if known is None else known.progress.current
    step = steps.get(step_id, found.job.steps[0])
    plain = Attempted(step.step_id, step.agent)
    if known is None or step.step_id != step_id:
        return plain
    progress = known.progress.step(step_id)
    record = known.records.get(step_id)
    began = None if record is None or record.started_at is None else moment_of(record.started_at)
    plain = replace(plain, number=progress.attempt, status=str(progress.status), began=began)
    if not progress.attempt:
        return plain
    attempt = paths.step(step_id).attempt(progress.attempt)
    result = read_json(attempt.result)
    return plain if result is None else _attempted(plain, attempt, result)


def _attempted(plain: Attempted, attempt: AttemptPaths, result: Document) -> Attempted:
    error = result.get("error") or {}
    return replace(
        plain,
        kind=OutcomeClass(result["outcome"]),
        code=error.get("code"),
        summary=one_line(result["summary"], 2 * LINE_CHARS),
        question=result.get("question") or "",
        evidence=tuple(_evidence(attempt, error.get("details") or {})),
    )


def _evidence(attempt: AttemptPaths, details: Mapping[str, Any]) -> Iterator[str]:
    """The lines that the class was told by, else the last ones that the agent printed."""
    told = details.get("evidence")
    lines = [str(line) for line in told] if isinstance(told, list) else _printed(attempt.logs)
    shown = [one_line(line, LINE_CHARS) for line in lines]
    yield from [line for line in shown if line][-MOST_LINES:]


def _printed(logs: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError), logs.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - MOST_BYTES))
        lines = file.read(MOST_BYTES).decode("utf-8", "replace").splitlines()
        kept = [line for line in lines if not line.startswith(_OURS)]
        return [line.removeprefix("stdout: ").removeprefix("stderr: ") for line in kept]
    return []


# ---- waiting ----------------------------------------------------------------------------------


def _before(queue: Queue, found: Found) -> int:
    own = str(found.key)
    try:
        return sum(name < own for name in names_in(queue.paths.state(State.PENDING)))
    except FileNotFoundError:
        return 0


def _queued(whole: Facts, queue: Queue, settings: Settings) -> Facts:
    return replace(whole, slots=tuple(_slots(queue)), low=tuple(_low(settings)))


def _slots(queue: Queue) -> Iterator[SlotFacts]:
    """The runners' slots, each with the job that it has."""
    alive = set(slots.live_slots(queue))
    jobs = {slot: key.job_id for key, slot in queue.list_state(State.RUNNING)}
    for name in queue.slots():
        if name not in slots.RESERVED:
            yield _slot(queue, name, name in alive, jobs.get(name))


def _slot(queue: Queue, name: str, is_alive: bool, job_id: str | None) -> SlotFacts:  # noqa: FBT001
    state = JobArtifacts(queue.roots.artifacts(job_id)).told_state() if job_id else None
    step_id = None if state is None else state["current_step"]
    return SlotFacts(name, is_alive, name not in slots.RESERVED, job_id, step_id)


def _low(settings: Settings) -> Iterator[str]:
    """The roots of whose disks less is free than a runner asks for."""
    floor, seen = settings.min_free_disk_bytes, set()
    for root in (settings.roots.queue_root, settings.roots.workspaces_root):
        try:
            found = os.statvfs(root)
        except FileNotFoundError:  # nothing was ever queued
            continue
        free = found.f_bavail * found.f_frsize
        if free < floor and found.f_fsid not in seen:
            seen.add(found.f_fsid)
            yield f"{root}: {free} bytes are free, fewer than AGENTORCH_MIN_FREE_BYTES={floor}"


def _run(whole: Facts, queue: Queue, found: Found) -> Facts:
    name = found.slot or ""
    is_alive = slots.seems_held(queue.paths.slot_lock(name))
    lock = queue.roots.artifacts(whole.job_id).step(whole.current.step_id).lock
    return replace(
        whole,
        slot=_slot(queue, name, is_alive, whole.job_id),
        runs_on=not is_alive and slots.seems_held(lock),
    )


def _asked(
    whole: Facts, paths: ArtifactPaths, found: Found, settings: Settings, known: JobState | None
) -> Facts:
    ended = None if known is None else known.finished_at
    since = found.job.submitted_at if ended is None else moment_of(ended)
    own = found.job.policy.waiting
    rule = settings.waiting if own.then is None else own
    expires = None
    if rule.then not in (None, Expiry.WAIT):
        expires = (Expiry(rule.then), since + timedelta(seconds=rule.after_s))
    return replace(whole, since=since, shown=decision_log.shown_hash(paths), expires=expires)


def _hold(paths: ArtifactPaths) -> Hold | None:
    marker = read_json(paths.hold)
    if marker is None:
        return None
    by = marker["who"]
    who = None if by is None else decision_log.name_of(by)
    return Hold(who, moment_of(marker["when"]), one_line(marker["reason"], 2 * LINE_CHARS))


def _park(queue: Queue, found: Found, known: JobState | None) -> Park | None:
    until = next((until for until, key in queue.list_parked() if key == found.key), None)
    if until is None:  # it was woken just now
        return None
    parked = None if known is None else known.parked
    if parked is None:
        return Park(until, "", "")
    return Park(until, parked.kind, one_line(parked.reason, 2 * LINE_CHARS))


# ---- ended ------------------------------------------------------------------------------------


def _over(whole: Facts, paths: ArtifactPaths, found: Found, known: JobState | None) -> Facts:
    result = read_json(paths.result) or {}
    error = result.get("error")
    ended = None if known is None else known.finished_at
    return replace(
        whole,
        since=None if ended is None else moment_of(ended),
        error=None if error is None else (error["code"], one_line(error["message"], 400)),
        ran=(len(result.get("steps", ())), len(found.job.steps)),
        cost_usd=result.get("metrics", {}).get("cost_usd"),
    )


def _decided(paths: ArtifactPaths) -> str:
    """The last decision on the job, with its comment."""
    lines = [line for line in decision_log.decisions(paths) if isinstance(line, dict)]
    if not lines:
        return ""
    comment = one_line(str(lines[-1].get("comment") or ""), LINE_CHARS)
    return decision_log.decision_text(lines[-1]) + (f": {comment}" if comment else "")
