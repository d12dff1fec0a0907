"""The times in which a job waited: for a human, held, or parked. Pure.

They follow from its decisions, the ends of its attempts, state.json and the hold marker. A wait
whose end is not recorded (of a parked job) ended when the next attempt began.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentorch.artifacts.state import Parked
from agentorch.core.states import OutcomeClass, State
from agentorch.report.figures import between_s, moment, plain

# Decisions that end a wait for a human, or a hold.
_ANSWERS = frozenset({"approve", "reject", "answer", "retry", "cancel"})
_LETS_GO = frozenset({"release", "retry", "cancel"})
# The outcome classes of attempts after which a job is parked.
_PARKS = frozenset({OutcomeClass.QUOTA.value, OutcomeClass.BUDGET.value})


@dataclass(frozen=True)
class Wait:
    """A time in which the job waited; `end` is None while it lasts.

    `until` is the time to which a job is parked.
    """

    what: str
    start: datetime
    end: datetime | None
    reason: str = ""
    until: datetime | None = None

    def seconds(self, now: datetime) -> float | None:
        """Return the length in seconds; at `now` where the wait still lasts."""
        return between_s(self.start, self.end or now)


@dataclass(frozen=True)
class AttemptRun:
    """The times and the outcome of an attempt."""

    start: datetime
    end: datetime | None
    outcome: str
    summary: str


@dataclass(frozen=True)
class Course:
    """The course of a job, as its files record it.

    `parked` is that part of state.json, `hold` is the content of the hold marker.
    """

    state: State | None
    submitted_at: datetime
    must_be_approved: bool
    ran: tuple[AttemptRun, ...]
    decisions: tuple[Mapping[str, Any], ...]
    parked: Parked | None
    started_at: datetime | None
    hold: Mapping[str, Any]


def waits(course: Course) -> tuple[Wait, ...]:
    """Return all waits of a job, the earliest first."""
    found = (*_human_waits(course), *_holds(course), *_past_parks(course), *_current_park(course))
    return tuple(sorted(found, key=lambda one: one.start))


# ---- for a human ------------------------------------------------------------------------------


def _human_waits(course: Course) -> Iterator[Wait]:
    if course.must_be_approved:
        yield _wait_for_decision(
            course, course.submitted_at, "it was to be approved before its start"
        )
    for number, one in enumerate(course.ran):
        follows = course.ran[number + 1].start if number + 1 < len(course.ran) else None
        if one.end is None:
            continue
        decided = _first_decision(course.decisions, _ANSWERS, one.end, follows)
        if decided is not None and _is_end_of_wait(one, decided):
            yield Wait("for a human", one.end, decided[0], one.summary)
    last = course.ran[-1] if course.ran else None
    if course.state is State.AWAITING_APPROVAL and last is not None and last.end is not None:
        yield Wait("for a human", last.end, None, last.summary)


def _wait_for_decision(course: Course, start: datetime, reason: str) -> Wait:
    decided = _first_decision(course.decisions, _ANSWERS, start, None)
    return Wait("for a human", start, None if decided is None else decided[0], reason)


def _is_end_of_wait(one: AttemptRun, decided: tuple[datetime, str]) -> bool:
    """Return whether the job waited for that decision; before a cancel or retry it may not have."""
    return decided[1] in ("approve", "reject", "answer") or one.outcome == OutcomeClass.NEEDS_HUMAN


# ---- held -------------------------------------------------------------------------------------


def _holds(course: Course) -> Iterator[Wait]:
    for line in course.decisions:
        start = moment(line.get("when"))
        if line.get("what") == "hold" and start is not None:
            end = _first_decision(course.decisions, _LETS_GO, start, None)
            comment = plain(line.get("comment") or "")
            yield Wait("held", start, None if end is None else end[0], comment)
    start = moment(course.hold.get("when"))
    if start is not None and course.hold.get("who") is None:
        yield Wait("held", start, None, plain(course.hold.get("reason") or ""))


# ---- parked -----------------------------------------------------------------------------------


def _past_parks(course: Course) -> Iterator[Wait]:
    for number, one in enumerate(course.ran[:-1]):
        if one.outcome in _PARKS and one.end is not None:
            yield Wait("parked", one.end, course.ran[number + 1].start, one.summary)


def _current_park(course: Course) -> Iterator[Wait]:
    if course.state is State.PARKED:
        known = [one.end for one in course.ran] + [
            moment(line.get("when"))
            for line in course.decisions
            if line.get("what") in ("approve", "answer", "release", "retry")
        ]
        start = max(filter(None, known), default=course.started_at or course.submitted_at)
        parked = course.parked
        until = None if parked is None else moment(parked.until)
        yield Wait("parked", start, None, plain("" if parked is None else parked.reason), until)


def _first_decision(
    lines: Sequence[Mapping[str, Any]],
    wanted: frozenset[str],
    start: datetime,
    end: datetime | None,
) -> tuple[datetime, str] | None:
    """Return the first of these decisions between two moments, as its time and name."""
    for line in lines:
        when, what = moment(line.get("when")), line.get("what")
        if when is None or not isinstance(what, str) or what not in wanted or when < start:
            continue
        return None if end is not None and when > end else (when, what)
    return None
