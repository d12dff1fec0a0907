"""A day's money as rows: what was spent, is reserved and is left, of all, by project and by agent.

Pure: the ledger's book in, rows out, for agentorch-budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from agentorch.ledger.budgets import CALLS, DAY, Till
from agentorch.ledger.money import Book, Reservation, Spent

PROJECT, AGENT = "project", "agent"


@dataclass(frozen=True)
class Row:
    """One line: `kind` is day, project or agent; `name` is empty for a day, and for jobs of no
    project. `cap_usd` and `left_usd`, and the same of calls, are None where there is no cap.
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


def rows(book: Book) -> Iterator[Row]:
    """The day, then each project and each agent that has spent, may spend, or has a cap."""
    tills = {till.cap: till for till in book.tills}
    yield _row(DAY, "", book.spent, book.reserved, tills.get(DAY), tills.get(CALLS))
    for kind in (PROJECT, AGENT):
        name_of = attrgetter(kind)
        capped = {cap.partition(":")[2] for cap in tills if cap.startswith(f"{kind}:")}
        seen = {name_of(one) for one in (*book.spent, *book.reserved)}
        for name in sorted(seen | capped):
            yield _row(
                kind,
                name,
                [one for one in book.spent if name_of(one) == name],
                [one for one in book.reserved if name_of(one) == name],
                tills.get(f"{kind}:{name}"),
            )


def _row(
    kind: str,
    name: str,
    spent: Iterable[Spent],
    reserved: Iterable[Reservation],
    dollars: Till | None,
    calls: Till | None = None,
) -> Row:
    gone, coming = list(spent), list(reserved)
    return Row(
        kind,
        name,
        spent_usd=_cents(sum(one.usd for one in gone)),
        reserved_usd=_cents(sum(one.usd for one in coming)),
        cap_usd=None if dollars is None else dollars.most,
        left_usd=None if dollars is None else _cents(dollars.left),
        calls=sum(one.calls for one in gone),
        reserved_calls=sum(one.calls for one in coming),
        cap_calls=None if calls is None else int(calls.most),
        left_calls=None if calls is None else int(calls.left),
        unpriced_calls=sum(one.unpriced_calls for one in gone),
    )


def _cents(usd: float) -> float:
    """Without what binary fractions add to it."""
    return round(usd, 6)


def documents(book: Book) -> Iterator[Mapping[str, Any]]:
    """The rows and the walls, an object each."""
    for row in rows(book):
        yield {"day": book.day, **vars(row)}
    for wall in book.breakers:
        told = {"name": wall.credential, "until": wall.until, "reason": wall.reason}
        yield {"day": book.day, "kind": "wall", **told}
