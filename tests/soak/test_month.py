"""A month in minutes; afterwards every job, every cent and every callback is accounted for."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentorch.core.states import State
from tests.soak import audit
from tests.soak.kinds import ok, paid
from tests.soak.month import Month
from tests.soak.outside import Remains
from tests.support.receiver import receiving

pytestmark = [pytest.mark.exhaustive, pytest.mark.needs("gcc", "bwrap")]
SHM = Path("/dev/shm")
SEED = int(os.environ.get("SOAK_SEED", "20280229"))
DAYS = int(os.environ.get("SOAK_DAYS", "31"))
# The other one is for the turn of the year alone.
FEWER_DAYS = min(DAYS, 12)
TOLD, PAID = "soak-told", "soak-paid"
# What no month is without.
ALWAYS = {
    *("killed while it was paid for", "held by its own budget", "hung", "collected"),
    *("approve --comment", "reject --comment", "answer The second.", "edit", "hold --keep"),
    *("retry", "release", "cancel"),
}


@contextmanager
def living(start: datetime, seed: int) -> Iterator[Month]:
    """An installation where fsync is quick: no power is cut here."""
    where = SHM if SHM.is_dir() and os.access(SHM, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="agentorch-soak-", dir=where) as top,
        receiving() as receiver,
    ):
        month = Month(Path(top), start, seed, receiver)
        model = threading.Thread(target=month.model.serve)
        model.start()
        try:
            yield month
        finally:
            month.listener.over.set()
            month.model.close()
            model.join()
            month.here.close()


@pytest.mark.parametrize(
    ("start", "days"),
    [
        pytest.param(datetime(2032, 2, 10, tzinfo=UTC), DAYS, id="29 February"),
        pytest.param(datetime(2031, 12, 26, tzinfo=UTC), FEWER_DAYS, id="a year's end"),
    ],
)
def test_after_a_month_everything_is_accounted_for(start: datetime, days: int) -> None:
    with living(start, SEED) as month:
        month.live(days)
        found = audit.problems(month)
        kinds = {state.value: len(list(month.queue.list_state(state))) for state in State}
        told = f"SOAK_SEED={SEED}, {len(month.seen.submitted)} jobs, {kinds}, {month.seen.happened}"
        print(told)  # noqa: T201  (what there was of everything, for who asks with -s)
        assert not found, "\n".join([told, *found])
        assert not ALWAYS - set(month.seen.happened) or days < 31, told


def test_the_audit_notices_what_is_missing_and_what_is_too_much() -> None:
    with living(datetime(2032, 2, 27, tzinfo=UTC), SEED) as month:
        url = {"callback_url": month.receiver.url}
        month.submit([{"goal": "g", "job_id": TOLD, **url, **ok(month, TOLD)}])
        month.submit([{"goal": "g", "job_id": PAID, **paid(month, PAID)}])
        month.here.drain()
        month.here.run("notify")
        assert audit.problems(month) == []
        _with_callbacks(month)
        _with_people(month)
        _with_money(month)
        _with_files(month)


def _with_callbacks(month: Month) -> None:
    """One is lost; taken twice by a receiver that said so; or told different things."""
    told = month.seen.told.pop(TOLD)
    assert [*audit.callbacks(month)] == [f"{TOLD} ended 1 times, and 0 callbacks are accounted for"]
    month.seen.told[TOLD] = told
    (webhook_id,) = month.seen.taken
    month.seen.taken[webhook_id] *= 2
    assert [*audit.callbacks(month)] == [f"callback {webhook_id} was taken 2 times"]
    month.seen.unanswered[webhook_id] += 1
    assert not [*audit.callbacks(month)]
    month.seen.taken[webhook_id][0] += b" "
    assert "different things" in next(audit.callbacks(month))


def _with_people(month: Month) -> None:
    """A decision is not on record; somebody waited unheard; what was pinned is gone."""
    month.seen.decisions[PAID] += 1
    assert next(audit.decided(month))
    month.seen.waited.add((TOLD, "2032-02-27T01:00:00.000000Z"))
    assert "nobody heard of it" in next(audit.announced(month))
    month.seen.pinned.add("soak-gone")
    month.seen.collected["soak-gone"] = Remains(0, 0.0, 0)
    assert [*audit.pins(month)] == ["soak-gone was pinned, and collected"]
    month.seen.submitted.append("soak-gone")
    assert [*audit.accounts(month)] == ["soak-gone was collected for no reason"]
    month.seen.submitted.remove("soak-gone")


def _with_money(month: Month) -> None:
    """A cent is missing in a bill, a job's till, a day's; one is kept; a day is over its cap."""
    (bill,) = month.seen.billed
    month.seen.billed[bill] += 10
    assert "were billed" in next(audit.cents(month))
    month.seen.billed[bill] -= 10
    assert not [*audit.cents(month)]
    _change(month, f"UPDATE jobs_spending SET usd = usd + 0.01 WHERE job_id = '{PAID}'")
    assert "in its till" in next(audit.cents(month))
    _change(month, f"UPDATE jobs_spending SET usd = usd - 0.01 WHERE job_id = '{PAID}'")
    _change(month, "UPDATE spending SET usd = usd + 0.01")
    assert "the tills of all days" in next(audit.cents(month))
    _change(month, "UPDATE spending SET usd = usd - 0.01")
    _change(month, "INSERT INTO reservations VALUES ('x', 'a', 1, '', 'openai', '', 1, 1, '', '')")
    assert [line.partition(":")[0] for line in audit.cents(month)] == ["still reserved"]
    month.seen.billed[bill] += 5000
    assert next(audit.days(month))


def _with_files(month: Month) -> None:
    """A job is there twice, lost, or a stranger's; a result was altered, an end not counted."""
    (month.here.artifacts(PAID) / "report.md").write_text("all is well")
    assert next(audit.records(month))
    shutil.rmtree(month.here.artifacts(PAID) / "steps/b/attempts/1")
    assert "orchestrator_steps_total" in next(audit.counters(month))
    queued = next(month.queue.paths.state(State.DONE).glob(f"*{TOLD}.json"))
    double = month.queue.paths.state(State.FAILED) / queued.name
    os.link(queued, double)
    assert "accounted for 2 times" in next(audit.accounts(month))
    queued.unlink()
    strange = "5-20320101T000000.000000Z-strangers.json"
    assert "counted as failed, and 1 are" in [*audit.counters(month)][-1]
    double.rename(month.queue.paths.state(State.DONE) / strange)
    assert [line.partition(" ")[0] for line in audit.accounts(month)] == [TOLD, "strangers"]


def _change(month: Month, statement: str) -> None:
    with closing(sqlite3.connect(month.roots.state_db)) as db, db:
        db.execute(statement)
