"""The rows of agentorch-budget: what is spent, reserved and left, by project and by agent. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from agentorch.ledger.budgets import CALLS, DAY, Cap
from agentorch.ledger.money import DaySpending, Reservation, SpendingBook

PROJECT, AGENT = "project", "agent"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `kind` is day, project or agent; `name` is empty for a day, and for jobs without a project.
    `cap_usd` and `left_usd`, and the same for calls, are None where there is no cap.
    """

    kind: str
    name: str
    spent_usd: float
    reserved_usd: float
    cap_usd: float | None
    left_usd: float | None
    calls: int
    reserved_calls: int
    cap_calls: int | None
    left_calls: int | None
    unpriced_calls: int


def budget_rows(book: SpendingBook) -> Iterator[Row]:
    """Yield the row of the day, then of each project and agent with spending or with a cap."""
    caps = {cap.name: cap for cap in book.caps}
    yield _row(DAY, "", book.spent, book.reserved, caps.get(DAY), caps.get(CALLS))
    for kind in (PROJECT, AGENT):
        name_of = attrgetter(kind)
        capped = {cap.partition(":")[2] for cap in caps if cap.startswith(f"{kind}:")}
        seen = {name_of(one) for one in (*book.spent, *book.reserved)}
        for name in sorted(seen | capped):
            yield _row(
                kind,
                name,
                [one for one in book.spent if name_of(one) == name],
                [one for one in book.reserved if name_of(one) == name],
                caps.get(f"{kind}:{name}"),
            )


def _row(
    kind: str,
    name: str,
    spent: Iterable[DaySpending],
    reserved: Iterable[Reservation],
    dollars: Cap | None,
    calls: Cap | None = None,
) -> Row:
    gone, coming = list(spent), list(reserved)
    return Row(
        kind,
        name,
        spent_usd=_cents(sum(one.usd for one in gone)),
        reserved_usd=_cents(sum(one.usd for one in coming)),
        cap_usd=None if dollars is None else dollars.limit,
        left_usd=None if dollars is None else _cents(dollars.remaining),
        calls=sum(one.calls for one in gone),
        reserved_calls=sum(one.calls for one in coming),
        cap_calls=None if calls is None else int(calls.limit),
        left_calls=None if calls is None else int(calls.remaining),
        unpriced_calls=sum(one.unpriced_calls for one in gone),
    )


def _cents(usd: float) -> float:
    """Round away the error of binary fractions."""
    return round(usd, 6)


def budget_documents(book: SpendingBook) -> Iterator[Mapping[str, Any]]:
    """Yield one JSON object for each row and for each blocked credential."""
    for row in budget_rows(book):
        yield {"day": book.day, **vars(row)}
    for wall in book.breakers:
        fields = {"name": wall.credential, "until": wall.until, "reason": wall.reason}
        yield {"day": book.day, "kind": "wall", **fields}
