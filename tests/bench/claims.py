"""The cost of a claim over a runner's life, behind a thousand, a hundred thousand, a million jobs.

A runner lists pending/ once for as many claims as its backlog keeps names, so a claim's share of
that listing belongs to its cost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from agentorch.core.job import Key
from agentorch.core.states import State
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.slots import Slot, hold
from agentorch.runner.backlog import KEPT
from agentorch.runner.events import Events
from agentorch.system.signals import Signals
from tests.bench.measure import Figure, Goal, Options, interleaved, median_ratio, seconds
from tests.bench.site import roots_in

# ext4 allows an inode 65000 names
NAMES_OF_ONE_FILE = 60_000
NO_ID = 32 * "0"
US = 1_000_000
SIZES = {"1k": 1000, "100k": 100_000, "1m": 1_000_000}
QUICK_SIZES = {"1k": 20, "100k": 30, "1m": 40}


@dataclass(frozen=True)
class Waiting:
    """A runner's eyes and hands before so many waiting jobs; its first claim took `first_s`."""

    count: int
    events: Events
    slot: Slot
    first_s: float

    def cost_s(self, batch_s: float, batch: int) -> float:
        """What one of a batch of claims cost, its share of the listing included."""
        return batch_s / batch + self.first_s / min(self.count, KEPT)


def figures(options: Options) -> Iterator[Figure]:
    """What a claim costs behind each number of jobs, and the ratios to the least of them."""
    batch = options.size(20, 2)
    sizes = QUICK_SIZES if options.quick else SIZES
    with options.scratch() as scratch, ExitStack() as opened:
        signals = opened.enter_context(Signals(()))
        waiting = {
            name: _waiting(opened, signals, scratch / name, count) for name, count in sizes.items()
        }
        sides = {name: claims(one, batch) for name, one in waiting.items()}
        interleaved(sides, 1)
        taken = interleaved(sides, options.size(40, 2))
    costs = {
        name: [one.cost_s(batch_s, batch) for batch_s in taken[name]]
        for name, one in waiting.items()
    }
    for name, cost in costs.items():
        yield Figure(f"claim_{name}", median(cost) * US, "us")
    for name in ("100k", "1m"):
        ratio = median_ratio(costs[name], costs["1k"])
        yield Figure(f"claim_ratio_{name}_1k", ratio, f"{name}/1k", Goal(1.2))
    yield Figure("first_claim_1m", waiting["1m"].first_s, "s", Goal(3))


def _waiting(opened: ExitStack, signals: Signals, directory: Path, count: int) -> Waiting:
    queue = Queue(roots_in(directory))
    queue.prepare()
    fill(queue.paths.state(State.PENDING), directory, count)
    slot = opened.enter_context(hold(queue, "1", wait=False))
    if slot is None:
        raise RuntimeError("a new slot is taken")
    events: list[Events] = []

    def first() -> None:
        events.append(Events(queue.paths, signals))
        claim(events[0], slot)

    first_s = seconds(first)
    opened.callback(events[0].close)
    return Waiting(count, events[0], slot, first_s)


def fill(pending: Path, directory: Path, count: int) -> None:
    """Makes as many queue files, as names of a few: a claim moves a name and reads nothing."""
    name = str(Key(5, datetime(2026, 1, 1, tzinfo=UTC), NO_ID))
    for number in range(count):
        if number % NAMES_OF_ONE_FILE == 0:
            file = directory / f"job-{number}"
            file.touch()
        os.link(file, f"{pending}/{name.replace(NO_ID, f'{number:032x}')}")


def claims(waiting: Waiting, count: int) -> Callable[[], float]:
    """So many claims, one after the other."""

    def claim_some() -> None:
        for _ in range(count):
            claim(waiting.events, waiting.slot)

    return lambda: seconds(claim_some)


def claim(events: Events, slot: Slot) -> None:
    """One claim, as the runner makes it."""
    key = events.next_pending()
    if key is None or not slot.take(State.PENDING, key):
        raise RuntimeError("nothing to claim")
