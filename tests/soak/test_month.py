"""A month in minutes; afterwards every job, every cent and every callback is accounted for."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.notify.receiver import receiving

from agentorch.states import State

from . import audit
from .month import Month, ok, paid

pytestmark = [pytest.mark.needs("gcc"), pytest.mark.needs("bwrap")]
SHM = Path("/dev/shm")
SEED = int(os.environ.get("SOAK_SEED", "20280229"))
DAYS = int(os.environ.get("SOAK_DAYS", "31"))


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
            month.model.close()
            model.join()
            month.here.close()


@pytest.mark.parametrize(
    "start",
    [datetime(2032, 2, 10, tzinfo=UTC), datetime(2031, 12, 15, tzinfo=UTC)],
    ids=["29 February", "a year's end"],
)
def test_after_a_month_everything_is_accounted_for(start: datetime) -> None:
    with living(start, SEED) as month:
        month.live(DAYS)
        found = audit.problems(month)
        kinds = {state.value: len(list(month.queue.list_state(state))) for state in State}
        told = f"SOAK_SEED={SEED}, {len(month.seen.submitted)} jobs, {kinds}"
        assert not found, "\n".join([told, *found])
        assert month.seen.submitted


def test_the_audit_notices_what_is_missing_and_what_is_too_much() -> None:
    with living(datetime(2032, 2, 27, tzinfo=UTC), SEED) as month:
        url = {"callback_url": month.receiver.url}
        job_id = "soak-tampered"
        month.submit([{"goal": "g", "job_id": job_id, **url, **ok(month)}])
        month.submit([{"goal": "g", "job_id": "soak-paid", **paid(month)}])
        month.here.drain()
        month.here.run("notify")
        assert audit.problems(month) == []
        assert month.seen.billed
        # a callback is lost
        told = month.seen.told.pop(job_id)
        assert [*audit.callbacks(month)] == [
            f"{job_id} ended 1 times, and 0 callbacks are accounted for"
        ]
        month.seen.told[job_id] = told
        # a job is there twice, lost, or was never submitted
        queued = next(month.queue.paths.state(State.DONE).glob(f"*{job_id}.json"))
        double = month.queue.paths.state(State.FAILED) / queued.name
        os.link(queued, double)
        assert "accounted for 2 times" in next(audit.accounts(month))
        queued.unlink()
        double.rename(
            month.queue.paths.state(State.DONE) / "5-20320101T000000.000000Z-strangers.json"
        )
        assert [line.partition(" ")[0] for line in audit.accounts(month)] == [job_id, "strangers"]
        # a cent is missing
        month.seen.billed["2032-02-27"] += 10
        assert any("were billed" in line for line in audit.cents(month))
        # a day is over its cap
        month.seen.billed["2032-02-27"] += 5000
        assert next(audit.days(month))
        # a decision is not on record, a result was altered, an end was not counted
        month.seen.decisions["soak-paid"] += 1
        assert next(audit.decided(month))
        (month.here.artifacts("soak-paid") / "report.md").write_text("all is well")
        assert next(audit.records(month))
        shutil.rmtree(month.here.artifacts("soak-paid") / "steps/b/attempts/1")
        assert next(audit.counters(month))
