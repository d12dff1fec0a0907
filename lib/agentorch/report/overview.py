"""The values of the page of many jobs: the newest, the cost by day, the durations. Bounded."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from agentorch.artifacts.directory import JobArtifacts
from agentorch.core.errors import Damaged
from agentorch.core.job import Job, Key
from agentorch.core.results import sum_metrics
from agentorch.core.states import State
from agentorch.jobqueue.jobqueue import Queue, current_job
from agentorch.jobqueue.lookup import status_word
from agentorch.redaction.redactor import Redactor
from agentorch.report.figures import between_s, figure, moment
from agentorch.report.files import attempt_result_in, result_in, state_in
from agentorch.storage.paths import ArtifactPaths, AttemptPaths

DAYS = 30
CHART_JOBS = 100
HEIGHT = 120.0
_LEAST_S, _DECADES = 1.0, 5  # the axis of durations: one second to about a day
_MARKS = ((1.0, "1 s"), (60.0, "1 min"), (3600.0, "1 h"), (86400.0, "1 d"))


@dataclass(frozen=True)
class Entry:
    """A job in the overview."""

    job: Job
    goal: str
    status: str
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None
    cost_usd: float | None
    tokens: float | None
    summary: str


@dataclass(frozen=True)
class Day:
    """The cost of the jobs that ended on a UTC day, with the place and size of its bar."""

    day: date
    cost_usd: float
    jobs: int
    left: float
    width: float
    height: float


@dataclass(frozen=True)
class Point:
    """A job among the durations."""

    entry: Entry
    x: float
    y: float


@dataclass(frozen=True)
class Overview:
    """The values of the page; `total` is the number of all jobs, listed or not."""

    entries: tuple[Entry, ...]
    total: int
    counts: tuple[tuple[str, int], ...]
    now: datetime

    @property
    def cost_usd(self) -> float | None:
        """The cost of the listed jobs, None where no cost is known."""
        known = [one.cost_usd for one in self.entries if one.cost_usd is not None]
        return sum(known) if known else None

    @property
    def median_s(self) -> float | None:
        """The median duration of the listed jobs, None without any."""
        known = sorted(one.seconds for one in self.entries if one.seconds is not None)
        return known[len(known) // 2] if known else None

    def days(self) -> list[Day]:
        """Return the last days, today last."""
        return days(self.entries, self.now.date())

    def marks(self) -> list[tuple[float, str]]:
        """Return the lines of the axis of durations."""
        return [(height_of(seconds), word) for seconds, word in _MARKS]

    def points(self) -> list[Point]:
        """Return the last jobs that ran, the newest last."""
        return points([one for one in self.entries if one.seconds is not None])


def overview(queue: Queue, limit: int, now: datetime) -> Overview:
    """Return the newest jobs of all states. A job that is removed meanwhile is left out."""
    total: dict[str, int] = {}
    newest: list[tuple[datetime, str, Key, State]] = []
    for state in State:
        for key, _ in queue.list_state(state):
            total[state.value] = total.get(state.value, 0) + 1
            entry = (key.submitted_at, key.job_id, key, state)
            if len(newest) < limit:
                heapq.heappush(newest, entry)
            else:
                heapq.heappushpop(newest, entry)
    listed = [(key, state) for _, _, key, state in sorted(newest, key=lambda one: one[:2])]
    return Overview(
        entries=tuple(_entries(queue, listed[::-1], now)),
        total=sum(total.values()),
        counts=tuple(total.items()),
        now=now,
    )


def _entries(queue: Queue, listed: Sequence[tuple[Key, State]], now: datetime) -> Iterator[Entry]:
    seen = set()
    redactor = Redactor()
    for key, state in listed:
        if key.job_id in seen:
            continue
        with suppress(Damaged):  # its files are torn, or it was removed meanwhile
            job = current_job(queue.roots.artifacts(key.job_id))
            seen.add(key.job_id)
            yield _entry(queue, job, state, redactor, now)


def _entry(queue: Queue, job: Job, place: State, redactor: Redactor, now: datetime) -> Entry:
    paths = queue.roots.artifacts(job.job_id)
    artifacts = JobArtifacts(paths)
    state, result = state_in(artifacts), result_in(artifacts)
    started = None if state is None else moment(state.started_at)
    ended = None if state is None else moment(state.finished_at)
    known = sum_metrics(_attempt_metrics(paths))
    tokens = [figure(known.get(name)) for name in ("tokens_in", "tokens_out")]
    return Entry(
        job=job,
        goal=redactor.redact(job.goal[:2000]),
        status=str((None if state is None else status_word(place, state)) or place),
        started_at=started,
        finished_at=ended,
        seconds=between_s(started, now if place is State.RUNNING else ended),
        cost_usd=figure(known.get("cost_usd")),
        tokens=None if tokens == [None, None] else sum(one or 0 for one in tokens),
        summary="" if result is None else result.summary,
    )


def _attempt_metrics(paths: ArtifactPaths) -> Iterator[Mapping[str, Any]]:
    """Yield the metrics of every attempt; the earlier ones were paid for, too."""
    for step in paths.started_steps():
        for directory in step.attempts.glob("*"):
            result = attempt_result_in(AttemptPaths(directory).result)
            if result is not None:
                yield result.metrics


# ---- charts -----------------------------------------------------------------------------------


def days(entries: Sequence[Entry], today: date) -> list[Day]:
    """Return the cost of each of the last days. Pure."""
    first = today - timedelta(days=DAYS - 1)
    spent = [0.0] * DAYS
    ended = [0] * DAYS
    for one in entries:
        number = -1 if one.finished_at is None else (one.finished_at.date() - first).days
        if 0 <= number < DAYS:
            spent[number] += max(0.0, one.cost_usd or 0.0)
            ended[number] += 1
    most = max(spent)
    step = 100 / DAYS
    return [
        Day(
            day=first + timedelta(days=number),
            cost_usd=spent[number],
            jobs=ended[number],
            left=round(number * step + step * 0.15, 3),
            width=round(step * 0.7, 3),
            height=round(spent[number] / most * HEIGHT, 2) if most else 0.0,
        )
        for number in range(DAYS)
    ]


def points(entries: Sequence[Entry]) -> list[Point]:
    """Return the durations of jobs on a logarithmic axis, from the oldest to the newest."""
    shown = list(reversed(entries[:CHART_JOBS]))
    step = 100 / max(1, len(shown))
    return [
        Point(entry, round((number + 0.5) * step, 3), height_of(entry.seconds or 0.0))
        for number, entry in enumerate(shown)
    ]


def height_of(seconds: float) -> float:
    """Return the distance of a duration from the top of the chart. Pure."""
    share = math.log10(max(seconds, _LEAST_S) / _LEAST_S) / _DECADES
    return round(HEIGHT - min(1.0, share) * HEIGHT, 2)
