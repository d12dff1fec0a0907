"""The facts about a job, read from files: nothing is created or locked, no daemon is needed.

Of a runner or a step that died without a result the journal has the last words.

/proc/locks says whether a slot has an owner. A file that is missing or torn is left out.
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
from agentorch.artifacts.directory import JobArtifacts, read_step_result
from agentorch.artifacts.state import JobState
from agentorch.config.settings import Settings
from agentorch.core.errors import Misconfigured
from agentorch.core.job import Expiry
from agentorch.core.results import StepResult
from agentorch.core.states import ENDED, OutcomeClass, State
from agentorch.core.text import one_line
from agentorch.core.times import moment_of
from agentorch.explain.facts import AttemptFacts, Facts, Hold, Park, SlotFacts
from agentorch.jobqueue import slots
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import Found
from agentorch.storage.json_files import read_json
from agentorch.storage.listing import names_in
from agentorch.storage.paths import ArtifactPaths, AttemptPaths
from agentorch.systemd.reader import JournalReader, entry_line

MAX_LINES = 5
LINE_CHARS = 160
MAX_BYTES = 16 * 1024
_OWN_PREFIX = "agentorch: "


def gather_facts(queue: Queue, found: Found, settings: Settings, now: datetime) -> Facts:
    """Return the facts about a job at `now`."""
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
        last_decision=_last_decision(paths),
    )
    match found.state:
        case State.PENDING:
            return replace(_add_slots(whole, queue, settings), jobs_ahead=_jobs_ahead(queue, found))
        case State.RUNNING:
            return _add_run(_add_slots(whole, queue, settings), queue, found)
        case State.AWAITING_APPROVAL:
            return _add_wait(whole, paths, found, settings, known)
        case State.PARKED:
            return replace(whole, park=_park(queue, found, known))
        case _ if found.state in ENDED:
            return _add_end(whole, paths, found, known)
    return whole


# ---- the step ---------------------------------------------------------------------------------


def _current(paths: ArtifactPaths, found: Found, known: JobState | None) -> AttemptFacts:
    """Return the current step and its latest attempt; of a parked job the one that was parked."""
    steps = {step.step_id: step for step in found.job.steps}
    step_id = found.job.steps[0].step_id if known is None else known.progress.current
    step = steps.get(step_id, found.job.steps[0])
    plain = AttemptFacts(step.step_id, step.agent)
    if known is None or step.step_id != step_id:
        return plain
    progress = known.progress.step(step_id)
    record = known.records.get(step_id)
    began = None if record is None or record.started_at is None else moment_of(record.started_at)
    plain = replace(plain, number=progress.attempt, status=str(progress.status), began=began)
    if not progress.attempt:
        return plain
    attempt = paths.step(step_id).attempt(progress.attempt)
    result = read_step_result(attempt.result)
    return plain if result is None else _with_result(plain, attempt, result)


def _with_result(plain: AttemptFacts, attempt: AttemptPaths, result: StepResult) -> AttemptFacts:
    evidence = tuple(_evidence(attempt, result.details))
    if not evidence and result.outcome is OutcomeClass.INFRA:  # its process left nothing to read
        evidence = _journal_lines(result.job_id, result.step_id)
    return replace(
        plain,
        kind=result.outcome,
        code=result.error_code,
        summary=one_line(result.summary, 2 * LINE_CHARS),
        question=result.question or "",
        evidence=evidence,
    )


def _evidence(attempt: AttemptPaths, details: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that decided the outcome class, else the last lines of the agent."""
    matched = details.get("evidence")
    lines = map(str, matched) if isinstance(matched, list) else _last_lines(attempt.logs)
    shown = [one_line(line, LINE_CHARS) for line in lines]
    yield from [line for line in shown if line][-MAX_LINES:]


def _journal_lines(job_id: str, step_id: str | None = None) -> tuple[str, ...]:
    """Return the journal's last entries about a job or a step; why it can't be read, where not."""
    try:
        entries = JournalReader([job_id], step_id).last_entries(MAX_LINES)
    except Misconfigured as problem:
        return tuple(problem.problems)
    return tuple(one_line(entry_line(entry), LINE_CHARS) for entry in entries)


def _last_lines(logs: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError), logs.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - MAX_BYTES))
        lines = file.read(MAX_BYTES).decode("utf-8", "replace").splitlines()
        kept = [line for line in lines if not line.startswith(_OWN_PREFIX)]
        return [line.removeprefix("stdout: ").removeprefix("stderr: ") for line in kept]
    return []


# ---- waiting ----------------------------------------------------------------------------------


def _jobs_ahead(queue: Queue, found: Found) -> int:
    own = str(found.key)
    try:
        return sum(name < own for name in names_in(queue.paths.state(State.PENDING)))
    except FileNotFoundError:
        return 0


def _add_slots(whole: Facts, queue: Queue, settings: Settings) -> Facts:
    return replace(whole, slots=tuple(_slots(queue)), low_disks=tuple(_low_disks(settings)))


def _slots(queue: Queue) -> Iterator[SlotFacts]:
    """Yield the runners' slots, each with its job."""
    alive = set(slots.live_slots(queue))
    jobs = {slot: key.job_id for key, slot in queue.list_state(State.RUNNING)}
    for name in queue.slots():
        if name not in slots.RESERVED:
            yield _slot(queue, name, name in alive, jobs.get(name))


def _slot(queue: Queue, name: str, is_alive: bool, job_id: str | None) -> SlotFacts:  # noqa: FBT001
    state = JobArtifacts(queue.roots.artifacts(job_id)).read_state() if job_id else None
    step_id = None if state is None else state.progress.current
    return SlotFacts(name, is_alive, name not in slots.RESERVED, job_id, step_id)


def _low_disks(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each disk of the queue that has less free space than a runner needs."""
    floor, seen = settings.min_free_disk_bytes, set()
    for root in (settings.roots.queue_root, settings.roots.workspaces_root):
        try:
            found = os.statvfs(root)
        except FileNotFoundError:  # nothing was queued yet
            continue
        free = found.f_bavail * found.f_frsize
        if free < floor and found.f_fsid not in seen:
            seen.add(found.f_fsid)
            yield f"{root}: {free} bytes are free, less than AGENTORCH_MIN_FREE_BYTES={floor}"


def _add_run(whole: Facts, queue: Queue, found: Found) -> Facts:
    name = found.slot or ""
    is_alive = slots.seems_held(queue.paths.slot_lock(name))
    lock = queue.roots.artifacts(whole.job_id).step(whole.current.step_id).lock
    if not is_alive:
        evidence = _journal_lines(whole.job_id)
        whole = replace(whole, current=replace(whole.current, evidence=evidence))
    return replace(
        whole,
        slot=_slot(queue, name, is_alive, whole.job_id),
        runs_on=not is_alive and slots.seems_held(lock),
    )


def _add_wait(
    whole: Facts, paths: ArtifactPaths, found: Found, settings: Settings, known: JobState | None
) -> Facts:
    ended = None if known is None else known.finished_at
    since = found.job.submitted_at if ended is None else moment_of(ended)
    own = found.job.policy.waiting
    rule = settings.waiting if own.then is None else own
    expires = None
    if rule.then not in (None, Expiry.WAIT):
        expires = (Expiry(rule.then), since + timedelta(seconds=rule.after_s))
    shown_hash = decision_log.shown_hash(paths)
    return replace(whole, since=since, shown_hash=shown_hash, expires=expires)


def _hold(paths: ArtifactPaths) -> Hold | None:
    marker = read_json(paths.hold)
    if marker is None:
        return None
    by = marker["who"]
    who = None if by is None else decision_log.name_of(by)
    return Hold(who, moment_of(marker["when"]), one_line(marker["reason"], 2 * LINE_CHARS))


def _park(queue: Queue, found: Found, known: JobState | None) -> Park | None:
    until = next((until for until, key in queue.list_parked() if key == found.key), None)
    if until is None:  # a runner has just queued it again
        return None
    parked = None if known is None else known.parked
    if parked is None:
        return Park(until, "", "")
    return Park(until, parked.kind, one_line(parked.reason, 2 * LINE_CHARS))


# ---- ended ------------------------------------------------------------------------------------


def _add_end(whole: Facts, paths: ArtifactPaths, found: Found, known: JobState | None) -> Facts:
    result = JobArtifacts(paths).job_result()
    error = None if result is None else result.error
    ended = None if known is None else known.finished_at
    return replace(
        whole,
        since=None if ended is None else moment_of(ended),
        error=None if error is None else (error.code, one_line(error.message, 400)),
        steps_run=(0 if result is None else len(result.steps), len(found.job.steps)),
        cost_usd=None if result is None else result.metrics.get("cost_usd"),
    )


def _last_decision(paths: ArtifactPaths) -> str:
    """Return the last decision on the job as a sentence, with its comment; empty without one."""
    lines = [line for line in decision_log.decisions(paths) if isinstance(line, dict)]
    if not lines:
        return ""
    comment = one_line(str(lines[-1].get("comment") or ""), LINE_CHARS)
    return decision_log.decision_text(lines[-1]) + (f": {comment}" if comment else "")
