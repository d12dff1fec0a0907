"""What must be true of an installation after a month, read from its disk and from what was seen.

Each function yields a line for each thing that is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from agentorch import families, ledger
from agentorch.approvals import decisions
from agentorch.budgets import Caps
from agentorch.documents import read_json
from agentorch.job import Key
from agentorch.paths import NEW, REFUSED, WAITING, parked_key
from agentorch.states import ENDED, State
from agentorch.tills import Book
from agentorch.times import moment_of

from .month import ATTEMPT_USD, DAY_USD, TOKEN_USD, Month

CENT = 1e-6


def problems(month: Month) -> list[str]:
    """All that is wrong."""
    return [
        *accounts(month),
        *owners(month),
        *cents(month),
        *days(month),
        *callbacks(month),
        *decided(month),
        *records(month),
        *counters(month),
    ]


def places(month: Month) -> dict[str, list[str]]:
    """The states in which each job has a queue file, the ids of all that have one."""
    found: dict[str, list[str]] = {}
    for state in State:
        for path in month.queue.paths.state(state).rglob("*.json"):
            parked = parked_key(path.name) if state is State.PARKED else None
            key = parked[1] if parked is not None else Key.parse(path.name)
            found.setdefault(key.job_id if key else f"? {path}", []).append(state)
    return found


def accounts(month: Month) -> Iterator[str]:
    """Every job that was submitted is there once, or was collected with a reason; no other is."""
    found, collected = places(month), month.seen.collected
    for job_id in month.seen.submitted:
        there = [*found.pop(job_id, []), *(["collected"] if job_id in collected else [])]
        if len(there) != 1:
            yield f"{job_id} is accounted for {len(there)} times: {there}"
        if "collected" in there and not collected[job_id].reason:
            yield f"{job_id} was collected for no reason"
        if there == [State.RUNNING]:
            yield f"{job_id} has an owner, and none lives"
    yield from (f"{job_id} was never submitted, and is {found[job_id]}" for job_id in found)


def owners(month: Month) -> Iterator[str]:
    """No two attempts of a job ever ran at a time."""
    for directory in sorted(month.roots.artifacts_root.iterdir()):
        spans = sorted(
            (moment_of(result["started_at"]), moment_of(result["finished_at"]))
            for result in map(read_json, directory.glob("steps/*/attempts/*/result.json"))
            if result is not None
        )
        for (_, ended), (began, _) in pairwise(spans):
            if began < ended - timedelta(seconds=2):  # the clock is set in whole seconds
                yield f"{directory.name}: two attempts at a time at {began}"


def cents(month: Month) -> Iterator[str]:
    """What results say, what the ledger says, and what the provider billed: one sum."""
    billed = sum(month.seen.billed.values()) * TOKEN_USD
    there = sum(month.remains(one.name).cost_usd for one in month.roots.artifacts_root.iterdir())
    gone = sum(remains.cost_usd for remains in month.seen.collected.values())
    counts = ledger.read(month.roots.state_db)
    counted = sum(
        parts[""] for (name, _), parts in counts.items() if name == families.COST_USD.name
    )
    for what, amount in (("results", there + gone), ("the ledger's counters", counted)):
        if abs(amount - billed) > CENT:
            yield f"{what} come to ${amount:.6f}, and ${billed:.6f} were billed"
    spent = sum(_book(month, day).spent_usd for day in _days(month))
    if abs(spent - billed) > CENT:
        yield f"the tills of all days have ${spent:.6f}, and ${billed:.6f} were billed"
    if reserved := _book(month, _days(month)[-1]).reserved:
        yield f"still reserved: {reserved}"


def days(month: Month) -> Iterator[str]:
    """No day is over its cap by more than what one attempt had reserved."""
    for day, tokens in month.seen.billed.items():
        if tokens * TOKEN_USD > DAY_USD + ATTEMPT_USD + CENT:
            yield f"${tokens * TOKEN_USD:.2f} on {day}, where ${DAY_USD:g} were allowed"


def _book(month: Month, day: str) -> Book:
    return ledger.book(month.roots.state_db, Caps(), day, month.clock.now())


def _days(month: Month) -> list[str]:
    first, last = month.start.date(), month.clock.now().date()
    return [date.fromordinal(n).isoformat() for n in range(first.toordinal(), last.toordinal() + 1)]


def callbacks(month: Month) -> Iterator[str]:
    """Each end of a job was taken by its receiver once, or is listed as untold; no other was."""
    for webhook_id, times in month.seen.taken.items():
        if times != 1:
            yield f"callback {webhook_id} was taken {times} times"
    listed: dict[str, set[str]] = {}
    for path in _outbox(month):
        entry = json.loads(path.read_bytes())
        listed.setdefault(entry["job_id"], set()).add(entry["webhook_id"])
        if path.parent.name == REFUSED and not entry["reason"]:
            yield f"the callback {path.name} was given up for no reason"
    for job_id in month.seen.submitted:
        ends = _ends(month, job_id) if job_id in month.seen.wants_callback else 0
        told = month.seen.told.get(job_id, set()) | listed.get(job_id, set())
        if len(told) != ends:
            yield f"{job_id} ended {ends} times, and {len(told)} callbacks are accounted for"


def _outbox(month: Month) -> Iterator[Path]:
    for where in (NEW, WAITING, REFUSED):
        yield from month.queue.paths.outbox(where).glob("*.json")


def _ends(month: Month, job_id: str) -> int:
    if job_id in month.seen.collected:
        return month.seen.collected[job_id].ends
    return month.remains(job_id).ends


def decided(month: Month) -> Iterator[str]:
    """Every decision that was taken is on record, and none that nobody took."""
    for directory in sorted(month.roots.artifacts_root.iterdir()):
        ours = [line for line in decisions(month.roots.artifacts(directory.name)) if not _own(line)]
        taken = month.seen.decisions[directory.name]
        if len(ours) != taken:
            words = [line["what"] for line in ours]
            yield f"{directory.name}: {taken} decisions were taken, on record are {words}"


def _own(line: dict[str, Any]) -> bool:
    """Whether it is one of the installation itself: a job that waited for too long."""
    return bool(line["who"].get("name") == "agentorch")


def records(month: Month) -> Iterator[str]:
    """The record of each run that has ended is as it was then."""
    ended = [job_id for job_id, states in places(month).items() if set(states) & ENDED]
    verified = month.here.run("verify", *ended, code=None)
    if verified.returncode != 0:
        wrong = [line for line in verified.stdout.splitlines() if "intact" not in line]
        yield f"not as it was at its end: {wrong or verified.stderr}"


def counters(month: Month) -> Iterator[str]:
    """The metrics count what there is, and what there was."""
    counts = ledger.read(month.roots.state_db)
    there = [month.remains(one.name) for one in month.roots.artifacts_root.iterdir()]
    jobs = [*there, *month.seen.collected.values()]
    for family, truth in (
        (families.JOBS, sum(remains.ends for remains in jobs)),
        (families.STEPS, sum(remains.attempts for remains in jobs)),
    ):
        counted = sum(parts[""] for (name, _), parts in counts.items() if name == family.name)
        if counted != truth:
            yield f"{family.name} is {counted:g}, and there were {truth}"
    lying = places(month)
    for state in sorted(ENDED):
        gauge = counts.get((families.QUEUE_JOBS.name, (state,)), {}).get("", 0)
        truth = sum(states == [state] for states in lying.values())
        if gauge != truth:
            yield f"{gauge:g} jobs are counted as {state}, and {truth} are"
