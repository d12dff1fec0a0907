"""What must be true of an installation after a month, read from its disk and from what was seen.

Each function yields a line for each thing that is wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from agentorch.artifacts.decision_log import decisions
from agentorch.artifacts.manifest import is_due
from agentorch.core.job import Key
from agentorch.core.states import State
from agentorch.core.times import moment_of
from agentorch.ledger import ledger, metric_families
from agentorch.ledger.budgets import Caps
from agentorch.ledger.money import SpendingBook
from agentorch.storage.json_files import read_json
from agentorch.storage.paths import NEW, REFUSED, WAITING, parked_key
from tests.soak.month import ATTEMPT_USD, DAY_USD, LAB_USD, Month
from tests.soak.outside import TOKEN_USD, Remains

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
        *announced(month),
        *pins(month),
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
    for directory in sorted(month.roots.artifacts_root.glob("[!.]*")):
        spans = sorted(
            (moment_of(result["started_at"]), moment_of(result["finished_at"]))
            for result in map(read_json, directory.glob("steps/*/attempts/*/result.json"))
            if result is not None
        )
        for (_, ended), (began, _) in pairwise(spans):
            if began < ended - timedelta(seconds=2):  # the clock is set in whole seconds
                yield f"{directory.name}: two attempts at a time at {began}"


def cents(month: Month) -> Iterator[str]:
    """Results, the ledger and the provider's bill are of one opinion, job by job and in all.

    Of an attempt that was killed the ledger counts all that it had reserved: never less than was
    billed.
    """
    billed: Counter[str] = Counter()
    for (_, job_id), tokens in month.seen.billed.items():
        billed[job_id] += tokens
    jobs = remaining(month) | month.seen.collected
    for job_id in sorted({*jobs, *billed}):
        remains = jobs.get(job_id, Remains(0, 0.0, 0))
        yield from _of_job(job_id, remains, billed[job_id] * TOKEN_USD)
    spent = sum(_book(month, day).spent_usd for day in _days(month))
    counted = sum(remains.spent_usd for remains in jobs.values())
    if abs(spent - counted) > CENT:
        yield f"the caps_state of all days have ${spent:.6f}, and those of all jobs ${counted:.6f}"
    if reserved := _book(month, _days(month)[-1]).reserved:
        yield f"still reserved: {reserved}"


def _of_job(job_id: str, remains: Remains, billed_usd: float) -> Iterator[str]:
    told, spent = remains.cost_usd, remains.spent_usd
    if abs(spent - told - remains.lost_usd) > CENT:
        lost = f"${told:.6f} and ${remains.lost_usd:.6f} for attempts that were killed"
        yield f"{job_id}: ${spent:.6f} in its till, where its results come to {lost}"
    if not told - CENT <= billed_usd <= spent + CENT:
        yield f"{job_id}: ${billed_usd:.6f} were billed, ${told:.6f} told, ${spent:.6f} spent"


def days(month: Month) -> Iterator[str]:
    """No day, and no project's, is over its cap by more than what one attempt had reserved."""
    everyone: Counter[str] = Counter()
    laboratory: Counter[str] = Counter()
    for (day, job_id), tokens in month.seen.billed.items():
        everyone[day] += tokens
        laboratory[day] += tokens if job_id.endswith("-lab") else 0
    for what, most, billed in (("all", DAY_USD, everyone), ("lab", LAB_USD, laboratory)):
        for day, tokens in billed.items():
            if tokens * TOKEN_USD > most + ATTEMPT_USD + CENT:
                yield f"{what}: ${tokens * TOKEN_USD:.2f} on {day}, where ${most:g} were allowed"


def _book(month: Month, day: str) -> SpendingBook:
    return ledger.read_book(month.roots.state_db, Caps(), day, month.clock.now())


def _days(month: Month) -> list[str]:
    first, last = month.start.date(), month.clock.now().date()
    return [date.fromordinal(n).isoformat() for n in range(first.toordinal(), last.toordinal() + 1)]


def callbacks(month: Month) -> Iterator[str]:
    """Each end of a job was taken by its receiver, or is listed as untold; no other was.

    It was taken twice only where the receiver did not say that it had, and was the same then.
    """
    for webhook_id, bodies in month.seen.taken.items():
        if len(bodies) - month.seen.unanswered[webhook_id] > 1:
            yield f"callback {webhook_id} was taken {len(bodies)} times"
        if len(set(bodies)) != 1:
            yield f"callback {webhook_id} told different things"
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
    for directory in sorted(month.roots.artifacts_root.glob("[!.]*")):
        ours = [line for line in decisions(month.roots.artifacts(directory.name)) if not _own(line)]
        taken = month.seen.decisions[directory.name]
        if len(ours) != taken:
            words = [line["what"] for line in ours]
            yield f"{directory.name}: {taken} decisions were taken, on record are {words}"


def _own(line: dict[str, Any]) -> bool:
    """Whether it is one of the installation itself: a job that waited for too long."""
    return bool(line["who"].get("name") == "agentorch")


def announced(month: Month) -> Iterator[str]:
    """Each job that waited for a human while notify.d could hear was heard of."""
    lines = (month.here.top / "heard").read_text().splitlines()
    heard = {(one["job_id"], one["since"]) for one in map(json.loads, lines)}
    for job_id, since in sorted(month.seen.waited - heard):
        yield f"{job_id} waited since {since}, and nobody heard of it"
    for job_id in sorted({job_id for job_id, _ in heard} - set(month.seen.submitted)):
        yield f"{job_id} was never submitted, and somebody heard of it"


def pins(month: Month) -> Iterator[str]:
    """No job that was pinned is gone."""
    for job_id in sorted(month.seen.pinned & set(month.seen.collected)):
        yield f"{job_id} was pinned, and collected"


def records(month: Month) -> Iterator[str]:
    """The record of each run that has ended is as it was then."""
    ended = [one for one in sorted(remaining(month)) if is_due(month.roots.artifacts(one))]
    verified = month.here.run("verify", *ended, code=None)
    if verified.returncode != 0:
        wrong = [line for line in verified.stdout.splitlines() if "intact" not in line]
        yield f"not as it was at its end: {wrong or verified.stderr}"


def counters(month: Month) -> Iterator[str]:
    """The metrics tell of what there is, and of what there was."""
    jobs = [*remaining(month).values(), *month.seen.collected.values()]
    told = metrics(month)
    for family, truth in (
        (metric_families.JOBS, sum(remains.ends for remains in jobs)),
        (metric_families.STEPS, sum(remains.attempts for remains in jobs)),
        (metric_families.COST_USD, sum(remains.cost_usd for remains in jobs)),
    ):
        counted = sum(told.get(family.name, {}).values())
        if abs(counted - truth) > CENT:
            yield f"{family.name} is {counted:g}, and there were {truth:g}"
    lying = Counter(state for states in places(month).values() for state in states)
    for state in State:
        gauge = told[metric_families.QUEUE_JOBS.name].get((("state", state),), 0)
        if gauge != lying[state]:
            yield f"{gauge:g} jobs are counted as {state}, and {lying[state]} are"


Samples = dict[tuple[tuple[str, str], ...], float]


def metrics(month: Month) -> dict[str, Samples]:
    """What agentorch-metrics says: a family's samples, by their labels."""
    text = month.here.run("metrics", "--stdout").stdout
    found: dict[str, Samples] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.items())] = sample.value
    return found


def remaining(month: Month) -> dict[str, Remains]:
    """The jobs that are there, with what they have come to."""
    directories = sorted(month.roots.artifacts_root.glob("[!.]*"))
    return {one.name: month.remains(one.name) for one in directories}
