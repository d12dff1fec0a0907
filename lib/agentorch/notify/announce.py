"""Tells the administrator's programs, those in notify.d, that a job waits for a human.

    QUEUE_ROOT/announcing.lock      flock held by who tells; a second one waits
    artifacts/ID/announced          which programs have heard of this time of waiting

A job waits for a human in awaiting_approval/, and in held/ where it was its own budget that held
it. Each time it begins to is an occasion, which every program hears of once: the record is durable
after a program has ended well, so one whose run a crash ended is run again. Programs don't wait
for each other, and no job's lock is held meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentorch.artifacts.decision_log import shown_hash
from agentorch.artifacts.directory import JobArtifacts
from agentorch.config.settings import SECRET, Settings
from agentorch.core.errors import Damaged
from agentorch.core.job import Key
from agentorch.core.states import State
from agentorch.core.text import one_line, printable
from agentorch.core.times import rfc3339
from agentorch.jobqueue.jobqueue import Queue, current_document
from agentorch.notify import hooks
from agentorch.notify.announce_rules import Announced, document_of, from_document
from agentorch.storage import atomic
from agentorch.storage.json_files import Document, read_json
from agentorch.storage.paths import ArtifactPaths
from agentorch.systemd.journal import Journal
from agentorch.systemd.message_ids import Message

# A program has LIMIT_S for one job. After TURN_S (not less, or one that hangs would never be told
# of a second job) it is told of no more until the next minute: what is new is heard by the others.
LIMIT_S = 60.0
TURN_S = 60.0
MOST_VARIABLE_CHARS = 1000


@dataclass(frozen=True)
class Waiting:
    """A job that waits for a human, and the occasion, as its record names it."""

    key: Key
    state: State
    occasion: str
    since: str


@dataclass(frozen=True)
class Due:
    """The programs that are due for a job that waits."""

    waiting: Waiting
    programs: tuple[Path, ...]


# ---- who waits --------------------------------------------------------------------------------


def waiting(queue: Queue) -> Iterator[Waiting]:
    """Yield the jobs that wait for a human, in claim order."""
    for state in (State.AWAITING_APPROVAL, State.HELD):
        for key in sorted(key for key, _ in queue.list_state(state)):
            paths = queue.roots.artifacts(key.job_id)
            asks = state is State.AWAITING_APPROVAL
            with suppress(Damaged):  # agentorch-explain tells of it
                if (
                    found := _waiting_job(paths, key) if asks else _held_job(paths, key)
                ) is not None:
                    yield found


def _waiting_job(paths: ArtifactPaths, key: Key) -> Waiting:
    known = JobArtifacts(paths).read_state()
    ends, finished_at = (0, None) if known is None else (known.ends, known.finished_at)
    since = finished_at or rfc3339(key.submitted_at)
    return Waiting(key, State.AWAITING_APPROVAL, f"asked-{ends}", since)


def _held_job(paths: ArtifactPaths, key: Key) -> Waiting | None:
    """Return None where a human holds the job: nobody is to be asked."""
    hold = read_json(paths.hold)
    if hold is None or hold["who"] is not None:
        return None
    return Waiting(key, State.HELD, f"held-{hold['when']}", hold["when"])


def due_programs(queue: Queue, programs: Sequence[Path], now: datetime) -> list[Due]:
    """Return the programs that are due now, each with the job that waits."""
    found = []
    for one in waiting(queue) if programs else ():
        known = _known_occasion(queue, one)
        names = set(known.due([path.name for path in programs], now))
        if names:
            found.append(Due(one, tuple(path for path in programs if path.name in names)))
    return found


def _known_occasion(queue: Queue, one: Waiting) -> Announced:
    return from_document(
        read_json(queue.roots.artifacts(one.key.job_id).announcements), one.occasion
    )


# ---- what is told -----------------------------------------------------------------------------


def program_input(queue: Queue, one: Waiting) -> Document:
    """Return what a program reads on its stdin."""
    paths = queue.roots.artifacts(one.key.job_id)
    job, state = current_document(paths), JobArtifacts(paths).read_state()
    step_id = job["steps"][0]["step_id"] if state is None else state.progress.current
    reason, question = _why(paths, one, step_id)
    seen = shown_hash(paths)
    return {
        "event": one.state.value,
        "job_id": one.key.job_id,
        "project_id": job["project_id"],
        "goal": printable(job["goal"]),
        "step": step_id,
        "reason": reason,
        "question": question,
        "shown": seen,
        "since": one.since,
        "how_to": how_to(one, question is not None, seen),
    }


def _why(paths: ArtifactPaths, one: Waiting, step_id: str) -> tuple[str, str | None]:
    """Why a job waits, and what its agent asks, None: nothing."""
    if one.state is State.HELD:
        return printable(str((read_json(paths.hold) or {}).get("reason"))), None
    artifacts = JobArtifacts(paths)
    result = artifacts.job_result()
    if result is None:
        return "it is to be approved before it starts", None
    step = artifacts.step_result(step_id)
    question = None if step is None else step.question
    return printable(result.summary), None if question is None else printable(question)


def how_to(one: Waiting, asks: bool, seen: str) -> dict[str, str]:  # noqa: FBT001  (its question)
    """Return the commands by which a human decides. Pure."""
    job_id = one.key.job_id
    look = {"look": f"agentorch-status {job_id}"}
    if one.state is State.HELD:
        release = {"release": f"agentorch-release {job_id}"}
        return {**look, **release, "cancel": f"agentorch-cancel {job_id}"}
    return {
        **look,
        **({"answer": f"agentorch-answer --hash={seen} {job_id} TEXT"} if asks else {}),
        "approve": f"agentorch-approve --hash={seen} {job_id}",
        "reject": f"agentorch-reject --hash={seen} {job_id}",
    }


def environment(settings: Settings, told: Document) -> dict[str, str]:
    """Return the environment of a program: ours without secrets, and the job's variables. Pure.
    Pure.
    """
    secret = SECRET | set(settings.sensitive_env_vars)
    ours = {name: value for name, value in settings.environment.items() if name not in secret}
    return {**ours, **_variables(told)}


def _variables(told: Mapping[str, Any]) -> dict[str, str]:
    lines = {
        f"AGENTORCH_{name.upper()}": one_line(str(value), MOST_VARIABLE_CHARS)
        for name, value in told.items()
        if name != "how_to" and value is not None
    }
    return {**lines, "AGENTORCH_HOW_TO": "\n".join(told["how_to"].values())}


# ---- telling ----------------------------------------------------------------------------------


async def announce(
    queue: Queue, settings: Settings, entries: Sequence[Due], journal: Journal, limit_s: float
) -> None:
    """Run every program for the jobs that it is due for, each on its own."""
    turn = _Turn(queue, settings, journal, limit_s, time.monotonic() + TURN_S)
    programs = sorted({program for entry in entries for program in entry.programs})
    async with asyncio.TaskGroup() as group:
        for program in programs:
            jobs = [entry.waiting for entry in entries if program in entry.programs]
            group.create_task(turn.tell_all(program, jobs))


@dataclass(frozen=True)
class _Turn:
    queue: Queue
    settings: Settings
    journal: Journal
    limit_s: float
    until: float

    async def tell_all(self, program: Path, jobs: Sequence[Waiting]) -> None:
        for one in jobs:
            if time.monotonic() > self.until:
                return
            await self._tell(program, one)

    async def _tell(self, program: Path, one: Waiting) -> None:
        if not self.queue.paths.file(one.state, one.key).exists():  # somebody has decided
            return
        try:
            told = program_input(self.queue, one)
        except (Damaged, FileNotFoundError):  # the same, and it was removed
            return
        content = atomic.encode_line(told)
        problem = await hooks.run(program, content, environment(self.settings, told), self.limit_s)
        self._remember(program.name, one, problem, told)

    def _remember(self, name: str, one: Waiting, problem: str | None, told: Document) -> None:
        """Nothing is awaited in here: what the others remember of the same job is kept."""
        known, now = _known_occasion(self.queue, one), datetime.now(UTC)
        fresh = (
            known.with_success(name) if problem is None else known.with_failure(name, problem, now)
        )
        path = self.queue.roots.artifacts(one.key.job_id).announcements
        try:
            with atomic.disk_trouble(path):
                atomic.replace_json(path, document_of(fresh))
        except FileNotFoundError:  # the job was removed meanwhile
            return
        self._say(name, problem, fresh, told)

    def _say(self, name: str, problem: str | None, known: Announced, told: Document) -> None:
        fields = {"job": told["job_id"], "project": told["project_id"], "program": name}
        if problem is None:
            self.journal.info(f"notify.d/{name} was told that it waits", Message.TOLD, **fields)
            return
        again_at = known.failed[name].again_at
        then = "it is run no more for this" if again_at is None else f"again at {again_at}"
        words = f"notify.d/{name}: {problem}; {then}"
        self.journal.warning(words, Message.UNTOLD, **fields, tries=known.failed[name].tries)


def complain_of(refused: Mapping[str, str], journal: Journal) -> None:
    """Say which files of notify.d are not run, and why."""
    for name, reason in refused.items():
        journal.warning(f"notify.d/{name} is not run: {reason}", Message.UNTOLD, program=name)
