"""The record of which programs ran for a waiting job, which run again, and when. Pure.

A record is of one occasion: the job began to wait. At the next one it begins anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from agentorch.core.callback import DELAYS_S, GIVE_UP_S
from agentorch.core.times import moment_of, rfc3339


@dataclass(frozen=True)
class Failure:
    """A program that did not take it: how often, since when and why. `again_at` None: given up."""

    tries: int
    first_at: str
    again_at: str | None
    reason: str


@dataclass(frozen=True)
class Announced:
    """The record of one occasion."""

    occasion: str
    told: tuple[str, ...] = ()
    failed: Mapping[str, Failure] = field(default_factory=dict)

    def due(self, names: Iterable[str], now: datetime) -> list[str]:
        """Those of the programs that are to be run now."""
        return [name for name in names if name not in self.told and self._is_due(name, now)]

    def _is_due(self, name: str, now: datetime) -> bool:
        failure = self.failed.get(name)
        if failure is None:
            return True
        return failure.again_at is not None and moment_of(failure.again_at) <= now

    def with_success(self, name: str) -> Announced:
        """Return the same after a program has taken it."""
        left = {other: failure for other, failure in self.failed.items() if other != name}
        return replace(self, told=(*self.told, name), failed=left)

    def with_failure(self, name: str, reason: str, now: datetime) -> Announced:
        """Return the same after a program has failed: it is run again, at growing intervals, for a
        day.
        """
        before = self.failed.get(name)
        tries = 1 if before is None else before.tries + 1
        first_at = rfc3339(now) if before is None else before.first_at
        delay_s = DELAYS_S[min(tries, len(DELAYS_S)) - 1]
        is_over = (now - moment_of(first_at)).total_seconds() + delay_s > GIVE_UP_S
        again_at = None if is_over else rfc3339(now + timedelta(seconds=delay_s))
        failure = Failure(tries, first_at, again_at, reason)
        return replace(self, failed={**self.failed, name: failure})


def from_document(document: Mapping[str, Any] | None, occasion: str) -> Announced:
    """Return what a record says of an occasion: nothing, where it is of another or there is
    none.
    """
    if document is None or document["occasion"] != occasion:
        return Announced(occasion)
    failed = {name: Failure(**failure) for name, failure in document["failed"].items()}
    return Announced(occasion, tuple(document["told"]), failed)


def document_of(announced: Announced) -> dict[str, Any]:
    """Return the record as it is written."""
    return asdict(announced)
