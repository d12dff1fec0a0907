"""A job on which somebody decides: found, locked, checked, and in our hands where it is to move.

The order of every decision: the job's lock, the checks, the line in decisions.jsonl, the act. What
moves a job that has no owner takes it into the commands' slot first, so a crash is settled like
that of any dead owner: state.json and the markers say where the job goes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from agentorch.artifacts import decision_log
from agentorch.artifacts.directory import JobArtifacts
from agentorch.artifacts.state import PENDING, JobState
from agentorch.core import conversation
from agentorch.core.conversation import Messages
from agentorch.core.errors import Refused
from agentorch.core.job import Job, Key
from agentorch.core.pipeline import Progress, begin
from agentorch.core.states import TRANSITIONS, Event, State
from agentorch.core.times import rfc3339
from agentorch.jobqueue.finish import give_back
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import Found, find
from agentorch.jobqueue.reclaim import settle
from agentorch.jobqueue.slots import COMMANDS, Slot, hold
from agentorch.redaction.redactor import Redactor, without_secrets
from agentorch.storage import atomic
from agentorch.storage.paths import ArtifactPaths

By = Mapping[str, Any]

APPROVABLE, REJECTABLE, RETRIABLE, CANCELLABLE, HOLDABLE, RELEASABLE = (
    frozenset(state for state, events in TRANSITIONS.items() if event in events)
    for event in (
        Event.APPROVE,
        Event.REJECT,
        Event.RETRY,
        Event.CANCEL,
        Event.HOLD,
        Event.RELEASE,
    )
)
MOST_CHARS = 20000


@dataclass(frozen=True)
class LockedJob:
    """A job under its lock. `by` is who decides, `shown` the hash of what is to be seen of it now,
    `wanted` that of what the decider saw; None: that is not asked.
    """

    queue: Queue
    found: Found
    by: By
    shown: str
    wanted: str | None

    @property
    def job(self) -> Job:
        return self.found.job

    @property
    def paths(self) -> ArtifactPaths:
        return self.queue.roots.artifacts(self.job.job_id)

    @property
    def artifacts(self) -> JobArtifacts:
        return JobArtifacts(self.paths)

    def expect(self, what: str, states: Collection[State], comment: str = "") -> None:
        """Raise Refused where the job is in none of these, was shown another way, or what is said
        about it is too much or no text.
        """
        if self.found.state not in states:
            raise self._refusal(what, states)
        if self.wanted is not None and self.wanted != self.shown:
            raise Refused(
                f"can't {what} job {self.job.job_id}: it is not any more what was shown "
                f"({self.wanted[:12]}…){self.last_decision(': ')}"
            )
        if len(comment) > MOST_CHARS:
            raise Refused(f"what is said about it is longer than {MOST_CHARS} characters")
        if not _is_utf8(comment):
            raise Refused("what is said about it is not UTF-8")

    def _refusal(self, what: str, states: Collection[State]) -> Refused:
        """Why not: where the job is, and who decided that; else where it would have to be."""
        wanted = " or ".join(state for state in State if state in states)
        place = self.found.state or "not in the queue"
        why = self.last_decision(": ") or f", not {wanted}"
        return Refused(f"can't {what} job {self.job.job_id}: it is {place}{why}")

    def last_decision(self, before: str) -> str:
        """Return who decided last, and when; empty where nobody has."""
        lines = decision_log.decisions(self.paths)
        return f"{before}{decision_log.decision_text(lines[-1])}" if lines else ""

    def record(self, what: str, comment: str = "", **more: Any) -> None:
        """Append the decision, without secrets; durable when it returns."""
        line = {"comment": comment, "shown": self.shown, **more}
        decision_log.record(
            self.paths, what, time_of_decision(), self.by, **without_secrets(line, Redactor())
        )

    def clean(self, text: str) -> str:
        """Return the text without secrets."""
        return Redactor().redact(text)

    def with_place(self, place: tuple[State, Key, str | None]) -> LockedJob:
        """Return the same where the job lies somewhere else by now."""
        state, key, slot = place
        return replace(self, found=replace(self.found, state=state, key=key, slot=slot))

    def comment(self, what: str, comment: str) -> None:
        """Report it to the next attempt and the next steps, where there is something to tell."""
        if comment.strip():
            known, strategy = self.artifacts.read_context(self.job), self.job.context_strategy
            self.tell(conversation.add_comment(known, strategy, what, comment))

    def tell(self, messages: Messages) -> None:
        """Replace the conversation; durable when it returns."""
        known = self.artifacts.context_document() or {}
        document = conversation.document(
            self.job.context_strategy, messages, rfc3339(time_of_decision())
        )
        clean = without_secrets(document, Redactor())
        self.artifacts.write_context(clean | {k: known[k] for k in ("after",) if k in known})

    @contextmanager
    def take(self) -> Iterator[tuple[Slot, Key]]:
        """Return the job in the commands' slot. Raises Refused when it was moved meanwhile."""
        with ExitStack() as held:
            slot = held.enter_context(hold(self.queue, COMMANDS, wait=True))
            key, state = self.found.key, self.found.state
            assert slot is not None and key is not None and state is not None  # noqa: PT018
            for stray in slot.held_keys():  # a command died in here
                settle(slot, stray)
            if not slot.take(state, key):
                raise Refused(f"job {self.job.job_id} was moved meanwhile")
            yield slot, key

    def fresh(self) -> JobState:
        """Return what state.json would say of a job that nobody worked on yet."""
        return JobState(self.job.job_id, PENDING, begin(self.job))

    def goes_on(
        self, slot: Slot, key: Key, known: JobState, progress: Progress, *, anew: bool = False
    ) -> None:
        """Give the job back to go on with this progress; `anew`: as if it had lost no owner."""
        as_ = replace(key, taken=0) if anew else None
        give_back(slot, key, self.job, replace(known, progress=progress), as_=as_)


def _is_utf8(text: str) -> bool:
    """Return whether a file can hold it: what was no text on the command line is not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def locked_job(
    queue: Queue, job_ref: str, by: By | None = None, shown: str | None = None
) -> Iterator[LockedJob]:
    """Return the job that a reference means, while nobody else decides on it. Raises UnknownJob."""
    paths = queue.roots.artifacts(find(queue, job_ref).job.job_id)
    with atomic.disk_trouble(paths.directory), decision_log.deciding(paths):
        found = find(queue, paths.directory.name)
        yield LockedJob(
            queue, found, by or decision_log.current_user(), decision_log.shown_hash(paths), shown
        )


def time_of_decision() -> datetime:
    """Return the time of a decision."""
    return datetime.now(UTC)
