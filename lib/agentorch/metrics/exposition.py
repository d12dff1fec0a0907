"""The metrics of a queue in the Prometheus text format, and the file that node_exporter reads.

What is counted comes from the ledger; the rest is looked at now. What has ended is never listed,
so that this takes as long behind a million ended jobs as behind ten. Nothing is written or made
but the one file.

https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client.core import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.utils import floatToGoString

from agentorch import __version__
from agentorch.config.settings import Settings
from agentorch.core.errors import Misconfigured
from agentorch.core.job import Key
from agentorch.core.states import ENDED, State, Status
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.selection import queue_names
from agentorch.jobqueue.slots import live_slots
from agentorch.ledger import ledger, metric_families
from agentorch.ledger.budgets import CALLS, DAY, Till, day_of
from agentorch.ledger.caps import caps_of
from agentorch.ledger.counts import ABOVE, SUM
from agentorch.ledger.ledger import Counts
from agentorch.ledger.metric_families import Family, Kind
from agentorch.ledger.money import Book
from agentorch.storage import atomic
from agentorch.storage.paths import Roots

# A family's values, by its labels'.
Values = Mapping[tuple[str, ...], float]

# Those that can be told before they come: a counter that appears has lost its first increase.
STATUSES = tuple(
    str(status) for status in Status if status not in (Status.RUNNING, Status.RETRYABLE)
)
BEFORE: Mapping[Family, tuple[tuple[str, ...], ...]] = {
    metric_families.JOBS: tuple((status,) for status in STATUSES),
    metric_families.STEPS: tuple((status,) for status in STATUSES),
    metric_families.QUEUE_JOBS: tuple((state.value,) for state in sorted(ENDED)),
}


@dataclass(frozen=True)
class Exposition:
    """All metrics as text; `problem` says why the counters are missing, None where they are not."""

    text: bytes
    problem: str | None = None


def exposition(settings: Settings) -> bytes:
    """All metrics as Prometheus reads them. Raises TryAgain where the ledger is busy."""
    return look(settings, datetime.now(UTC)).text


def look(settings: Settings, now: datetime) -> Exposition:
    """The same, with what is wrong with the ledger. Reads only."""
    counted: Counts | None = None
    book: Book | None = None
    problem: str | None = None
    path, today = settings.roots.state_db, day_of(now)
    try:
        counted = ledger.read(path)
        book = ledger.book(path, caps_of(settings), today, now)
    except Misconfigured as broken:
        problem = str(broken)
    registry = CollectorRegistry(auto_describe=False)
    found = [*_counted(counted), *_money(book), *_looked_at(settings, counted, now)]
    registry.register(_Collector(found))
    return Exposition(generate_latest(registry), problem)


class _Collector:
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def write(path: Path, text: bytes) -> bool:
    """Puts the file where node_exporter reads it, in one rename; False where nobody would read it.

    For all to read, whatever the umask: its reader is another user. Not synced: after a power cut
    it is written anew. Raises Misconfigured where we may not, TryAgain where the disk can't.
    """
    if not path.parent.is_dir():
        return False
    # node_exporter reads what ends in .prom
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with atomic.disk_trouble(path):
            _replace(path, temporary, text)
    except PermissionError as problem:
        words = f"AGENTORCH_METRICS_FILE: {path}: {problem.strerror}"
        raise Misconfigured(f"{words}: this user must be able to write to its directory") from None
    return True


def _replace(path: Path, temporary: Path, text: bytes) -> None:
    try:
        with temporary.open("xb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# ---- counted ----------------------------------------------------------------------------------


def _counted(counts: Counts | None) -> Iterator[Metric]:
    """The ledger's families; none where it can't be read."""
    if counts is not None:
        yield from (counted(family, counts) for family in metric_families.COUNTED)


def counted(family: Family, counts: Counts) -> Metric:
    """A family with what the ledger has of it, and with what is to be told before that. Pure."""
    metric = empty(family)
    known = {labels for name, labels in counts if name == family.name}
    before = BEFORE.get(family, () if family.labels else ((),))
    for values in sorted({*known, *before}):
        labels = dict(zip(family.labels, values, strict=True))
        for suffix, more, value in _samples(family, counts.get((family.name, values), {})):
            metric.add_sample(f"{family.name}{suffix}", {**labels, **more}, value)
    return metric


def _samples(
    family: Family, parts: Mapping[str, float]
) -> Iterator[tuple[str, dict[str, str], float]]:
    match family.kind:
        case Kind.HISTOGRAM:
            for bound in (*family.buckets, float(ABOVE)):
                yield "_bucket", {"le": bound_word(bound)}, _at_most(bound, parts)
            yield "_sum", {}, parts.get(SUM, 0)
            yield "_count", {}, _at_most(float(ABOVE), parts)
        case Kind.SUMMARY:
            yield "_sum", {}, parts.get(SUM, 0)
            yield "_count", {}, parts.get("count", 0)
        case _:
            yield "", {}, parts.get("", 0)


def bound_word(bound: float) -> str:
    """A bucket's bound as a label, in the spelling that node_exporter gives to it, too. Pure."""
    word: str = floatToGoString(bound)  # type: ignore[no-untyped-call]
    return word.removesuffix(".0")


def _at_most(bound: float, parts: Mapping[str, float]) -> float:
    """How many a histogram saw up to a bound; whatever the bounds were when they were counted."""
    return sum(value for part, value in parts.items() if part != SUM and float(part) <= bound)


# ---- money ------------------------------------------------------------------------------------


def _money(book: Book | None) -> Iterator[Metric]:
    """What is gone of the caps; nothing where the ledger can't be read."""
    if book is None:
        return
    tills = {till.cap: till for till in book.tills}
    calls = tills.pop(CALLS, None)
    usd = {DAY: Till(DAY, 0, book.spent_usd, book.reserved_usd), **tills}
    yield gauge(metric_families.BUDGET_CAP, {(cap,): till.most for cap, till in tills.items()})
    yield gauge(metric_families.BUDGET_SPENT, {(cap,): till.spent for cap, till in usd.items()})
    yield gauge(
        metric_families.BUDGET_RESERVED, {(cap,): till.reserved for cap, till in usd.items()}
    )
    known: Values = {("spent",): book.spent_calls, ("reserved",): book.reserved_calls}
    most: Values = {} if calls is None else {("cap",): calls.most}
    yield gauge(metric_families.BUDGET_CALLS, {**most, **known})
    yield gauge(metric_families.WALLS, {(): len(book.breakers)})


# ---- looked at --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lying:
    """How many jobs lie in a state, and when the oldest was submitted; None where none does."""

    jobs: int
    oldest: datetime | None

    def age_s(self, now: datetime) -> float:
        return 0 if self.oldest is None else max(0.0, (now - self.oldest).total_seconds())


def _looked_at(settings: Settings, counts: Counts | None, now: datetime) -> Iterator[Metric]:
    queue = Queue(settings.roots)
    waiting = {state: _lying(queue, state) for state in State if state not in ENDED}
    jobs = (
        counted(metric_families.QUEUE_JOBS, counts)
        if counts is not None
        else empty(metric_families.QUEUE_JOBS)
    )
    for state, found in waiting.items():
        jobs.add_sample(jobs.name, {"state": state.value}, found.jobs)
    yield jobs
    ages: Values = {(state.value,): found.age_s(now) for state, found in waiting.items()}
    yield gauge(metric_families.QUEUE_OLDEST, ages)
    yield gauge(metric_families.SLOTS, {(): settings.slots})
    yield gauge(metric_families.SLOTS_LIVE, _live(queue))
    yield gauge(metric_families.FREE_BYTES, _free_bytes(settings.roots))
    yield gauge(metric_families.LEDGER_READABLE, {(): counts is not None})
    yield gauge(metric_families.BUILD, {(__version__,): 1})


def _lying(queue: Queue, state: State) -> Lying:
    return counted_names(queue_names(queue, state))


def counted_names(names: Iterable[str]) -> Lying:
    """What names of queue files tell; each is looked at once, for there may be a million. Pure."""
    jobs, first, oldest = 0, "", "~"
    for name in names:
        if name.endswith(".json"):
            jobs += 1
            # behind the priority a name begins with the time
            if name[2:] < oldest:
                oldest, first = name[2:], name
    key = Key.parse(first)
    return Lying(jobs, None if key is None else key.submitted_at)


def _live(queue: Queue) -> Values:
    """Nothing where the kernel's locks are hidden from us (proc(5), subset=pid)."""
    try:
        return {(): len(live_slots(queue))}
    except FileNotFoundError:
        return {}


def _free_bytes(roots: Roots) -> Values:
    named = {
        "queue": roots.queue_root,
        "artifacts": roots.artifacts_root,
        "workspaces": roots.workspaces_root,
    }
    found: dict[tuple[str, ...], float] = {}
    for name, path in named.items():
        if path.is_dir():
            free = os.statvfs(path)
            found[name,] = free.f_bavail * free.f_frsize
    return found


def gauge(family: Family, values: Values) -> Metric:
    """A family with these values, by their labels. Pure."""
    metric = empty(family)
    for labels, value in values.items():
        metric.add_sample(family.name, dict(zip(family.labels, labels, strict=True)), value)
    return metric


def empty(family: Family) -> Metric:
    """A family without a sample; prometheus_client puts a counter's suffix back. Pure."""
    name = family.name.removesuffix("_total") if family.kind is Kind.COUNTER else family.name
    return Metric(name, family.words, family.kind.value)
