"""The gauges: the state of the queue, the disks and the budgets at the moment of the scrape.

Ended jobs are never listed, for there may be a million of them: the ledger keeps their number.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import Metric

from agentorch import __version__
from agentorch.config.settings import Settings
from agentorch.core.job import Key
from agentorch.core.states import ENDED, State
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.selection import queue_names
from agentorch.jobqueue.slots import live_slots
from agentorch.ledger import metric_families
from agentorch.ledger.budgets import CALLS, DAY, Cap
from agentorch.ledger.ledger import Counts
from agentorch.ledger.money import SpendingBook
from agentorch.metrics.samples import Values, counted_family, empty_family, gauge_family
from agentorch.storage.paths import Roots

# ---- the queue and the disks ------------------------------------------------------------------


@dataclass(frozen=True)
class StateCount:
    """The number of jobs in one state, and when the oldest of them was submitted.

    `oldest` is None where there is no job, or where its file's name is not one of ours.
    """

    jobs: int
    oldest: datetime | None

    def age_s(self, now: datetime) -> float:
        """Return the age of the oldest job in seconds, never less than 0."""
        return 0 if self.oldest is None else max(0.0, (now - self.oldest).total_seconds())


def queue_gauges(settings: Settings, counts: Counts | None, now: datetime) -> Iterator[Metric]:
    """Yield the gauges of the queue and its disks; `counts` is None where the ledger is unreadable.

    Without the counts there is no sample for the ended states.
    """
    queue = Queue(settings.roots)
    waiting = {
        state: count_names(queue_names(queue, state)) for state in State if state not in ENDED
    }
    jobs = (
        counted_family(metric_families.QUEUE_JOBS, counts)
        if counts is not None
        else empty_family(metric_families.QUEUE_JOBS)
    )
    for state, found in waiting.items():
        jobs.add_sample(jobs.name, {"state": state.value}, found.jobs)
    yield jobs
    ages: Values = {(state.value,): found.age_s(now) for state, found in waiting.items()}
    yield gauge_family(metric_families.QUEUE_OLDEST, ages)
    yield gauge_family(metric_families.SLOTS, {(): settings.slots})
    yield gauge_family(metric_families.SLOTS_LIVE, _live_slot_count(queue))
    yield gauge_family(metric_families.FREE_BYTES, _free_bytes(settings.roots))
    yield gauge_family(metric_families.LEDGER_READABLE, {(): counts is not None})
    yield gauge_family(metric_families.BUILD, {(__version__,): 1})


def count_names(names: Iterable[str]) -> StateCount:
    """Return the number and the oldest of these queue files; reads each name once. Pure."""
    jobs, first, oldest = 0, "", "~"
    for name in names:
        if name.endswith(".json"):
            jobs += 1
            # a name begins with one digit of priority and a dash; the submission time follows
            if name[2:] < oldest:
                oldest, first = name[2:], name
    key = Key.parse(first)
    return StateCount(jobs, None if key is None else key.submitted_at)


def _live_slot_count(queue: Queue) -> Values:
    """Return no value where /proc/locks is hidden from this process (proc(5), subset=pid)."""
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


# ---- budgets ----------------------------------------------------------------------------------


def budget_gauges(book: SpendingBook | None) -> Iterator[Metric]:
    """Yield the gauges of the caps; none where the ledger is unreadable (`book` is None). Pure."""
    if book is None:
        return
    caps = {cap.name: cap for cap in book.caps}
    calls = caps.pop(CALLS, None)
    usd = {DAY: Cap(DAY, 0, book.spent_usd, book.reserved_usd), **caps}
    reserved_usd: Values = {(name,): cap.reserved for name, cap in usd.items()}
    yield gauge_family(metric_families.BUDGET_CAP, {(n,): cap.limit for n, cap in caps.items()})
    yield gauge_family(metric_families.BUDGET_SPENT, {(n,): cap.spent for n, cap in usd.items()})
    yield gauge_family(metric_families.BUDGET_RESERVED, reserved_usd)
    used: Values = {("spent",): book.spent_calls, ("reserved",): book.reserved_calls}
    most: Values = {} if calls is None else {("cap",): calls.limit}
    yield gauge_family(metric_families.BUDGET_CALLS, {**most, **used})
    yield gauge_family(metric_families.WALLS, {(): len(book.breakers)})
