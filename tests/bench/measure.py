"""What every row needs: a figure, and several sides of a comparison measured turn by turn.

Other programs use the machine meanwhile. So what is compared is measured in one run, in small
rounds, one side after the other, and a figure is the median of its rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory


class Unmeasured(Exception):
    """What a row measures is not here; str() says what, and how to get it."""


@dataclass(frozen=True)
class Options:
    """How a run is made: where its files go, and whether it only shows that it works."""

    directory: Path | None = None
    quick: bool = False

    def size(self, usual: int, quick: int) -> int:
        """One of two sizes."""
        return quick if self.quick else usual

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory of the row's own, removed afterwards."""
        with TemporaryDirectory(prefix="agentorch-bench-", dir=self.directory) as name:
            yield Path(name)


@dataclass(frozen=True)
class Goal:
    """What a figure is to be: at most, or at least, this."""

    bound: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


@dataclass(frozen=True)
class Figure:
    """A measured figure; one without a goal explains another."""

    name: str
    value: float
    unit: str
    goal: Goal | None = None

    @property
    def ok(self) -> bool | None:
        return None if self.goal is None else self.goal.met(self.value)

    def document(self) -> dict[str, object]:
        """The figure as one JSON object."""
        return {
            "name": self.name,
            "value": float(f"{self.value:.4g}"),
            "unit": self.unit,
            "goal": None if self.goal is None else str(self.goal),
            "ok": self.ok,
        }


def seconds(act: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def interleaved(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each side says of itself, round by round, every round in another order."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        names = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in names:
            taken[name].append(sides[name]())
    return taken


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the rounds' ratios: what disturbs a round disturbs both its sides."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
