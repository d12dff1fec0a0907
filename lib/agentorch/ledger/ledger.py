"""The ledger: the counters of jobs and attempts, in one SQLite file that outlives the jobs.

    state.db    attempts    the attempts that were counted: counting one again changes nothing
                jobs        the number of ends of a job that were counted, and the state it lies in
                models      the model names that an agent has had
                counts      the counters; one row for each combination of labels, however many jobs
                            and the tables about money and credentials (see `money`)

An end is counted in one transaction with its row in `attempts` or `jobs`, and that is durable
*before* state.json says that the attempt or the job has ended. An owner that dies in between leaves
a state.json without the end: the next owner takes the end in again, calls the same function here,
finds the row and changes nothing. In the other order a crash would lose the count for good. The
cost of an attempt is settled in the transaction that counts it. `forget_job` removes a job's rows
when the job is collected; the sums of the days stay.

Only the owner of a job writes its rows; `storage.sqlite` has how the file is opened.

A file that is broken, or of another version, stops no job, because the work is worth more than its
count: functions that count return the problem as a sentence, and the gauge
agentorch_ledger_readable is 0. Only an attempt that draws on a cap does not begin while the file is
broken, because it is unknown what is left of the cap.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from agentorch.core.allowance import Allowance, Wait
from agentorch.core.errors import Misconfigured
from agentorch.core.job import Key
from agentorch.core.states import ENDED, OutcomeClass, State, Status
from agentorch.ledger import budgets, counts, metric_families, money
from agentorch.ledger.budgets import AdmissionRequest, AdmissionResult, Caps
from agentorch.ledger.counts import Addition, AttemptEnd, JobEnd
from agentorch.ledger.money import SpendingBook
from agentorch.storage import sqlite
from agentorch.storage.listing import names_in
from agentorch.storage.paths import Roots

VERSION = 2
MAX_MODELS = 20  # for each agent; further names are counted as `other`

SCHEMA = (
    money.SCHEMA
    + """
CREATE TABLE attempts (
    job_id TEXT, step_id TEXT, attempt INTEGER,
    project TEXT, agent TEXT, model TEXT, day TEXT, cost_usd REAL, calls INTEGER,
    PRIMARY KEY (job_id, step_id, attempt)
) WITHOUT ROWID;
CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY, ends INTEGER, taken INTEGER, place TEXT
) WITHOUT ROWID;
CREATE TABLE models (agent TEXT, model TEXT, PRIMARY KEY (agent, model)) WITHOUT ROWID;
CREATE TABLE counts (
    family TEXT, labels TEXT, part TEXT, value REAL, PRIMARY KEY (family, labels, part)
) WITHOUT ROWID;
"""
)
ADD = """
INSERT INTO counts VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET value = value + excluded.value
"""
READ = "SELECT family, labels, part, value FROM counts"

# The values of the parts (see Addition), by family and labels.
Counts = Mapping[tuple[str, tuple[str, ...]], Mapping[str, float]]


# ---- counting ---------------------------------------------------------------------------------


def count_attempt(roots: Roots, end: AttemptEnd) -> str | None:
    """Count the end of an attempt, once however often this is called. Durable on return.

    Return None where it is counted, else a sentence that says why it is not. Raises TryAgain where
    the disk cannot take it now.
    """
    return _write(roots, lambda db: _count_attempt(db, end))


def count_job(roots: Roots, end: JobEnd, last: AttemptEnd | None = None) -> str | None:
    """Count the end of a job, and of its last attempt where that is not counted yet.

    Nothing stays reserved for the job. Durable, returns and raises as count_attempt().
    """

    def count(db: sqlite3.Connection) -> None:
        # An owner may have died after its attempt left a result and before it was counted. The end
        # of the job counts it now, before settle_lost() would charge the whole reservation for it.
        if last is not None:
            _count_attempt(db, last)
        money.settle_lost(db, roots, end.job_id, end.ended_at)
        _count_job(db, end)

    return _write(roots, count)


def settle_lost(roots: Roots, job_id: str, now: datetime) -> str | None:
    """Settle the reservations for attempts of a job that left no result and no longer run.

    Writes nothing where nothing is reserved. Durable, returns and raises as count_attempt().
    """
    try:
        if not sqlite.look(roots.state_db, lambda db: money.has_reservation(db, job_id)):
            return None
    except Misconfigured as problem:
        return str(problem)
    return _write(roots, lambda db: money.settle_lost(db, roots, job_id, now))


def mark_resumed(roots: Roots, job_id: str) -> str | None:
    """Record that an ended job goes on. Durable, returns and raises as count_attempt().

    Called after state.json says `pending`. A caller that dies before this leaves the gauge
    orchestrator_queue_jobs one too high for the ended state; count_job() at the job's next end sets
    its place, and so corrects it.
    """
    return _write(roots, lambda db: _set_place(db, job_id, None))


def record_place(roots: Roots, job_id: str, place: State) -> str | None:
    """Record the state of a job whose end is not counted here: imported or unreadable jobs.

    Durable, returns and raises as count_attempt(). Called before the queue file is moved there: a
    caller that dies in between is called again by the recovery, which changes nothing here.
    """
    return _write(roots, lambda db: _set_place(db, job_id, place))


def forget_job(roots: Roots, job_id: str) -> str | None:
    """Remove the rows of a job; the counters stay. Durable, returns and raises as count_attempt().

    Must be called before the queue file is removed: a collection that is killed in between finds
    the queue file again and calls this again. In the other order the rows would stay for ever.
    """

    def remove(db: sqlite3.Connection) -> None:
        _set_place(db, job_id, None)
        db.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))
        db.execute("DELETE FROM attempts WHERE job_id = ?", (job_id,))
        money.forget_job(db, job_id)

    return _write(roots, remove)


def _count_attempt(db: sqlite3.Connection, end: AttemptEnd) -> None:
    end = replace(end, model=_limited_model(db, end))
    row = (
        *(end.job_id, end.step_id, end.attempt, end.project, end.agent, end.model),
        end.ended_at.date().isoformat(),
        *(end.metrics.get("cost_usd"), end.metrics.get("model_calls")),
    )
    marks = ", ".join("?" * len(row))
    # The row and all that follows from it are one transaction: a crash leaves both or neither.
    # Where the row exists already, another owner has counted this end before it died.
    new = db.execute(f"INSERT OR IGNORE INTO attempts VALUES ({marks})", row)
    if new.rowcount:
        money.settle(db, end)
        _add(db, counts.attempt_additions(end))


def _limited_model(db: sqlite3.Connection, end: AttemptEnd) -> str:
    """Return the model's name, or `other` where the agent has had too many names already."""
    rows = db.execute("SELECT model FROM models WHERE agent = ?", (end.agent,))
    known = {name for (name,) in rows}
    if end.model not in known and len(known) >= MAX_MODELS:
        return counts.OTHER
    db.execute("INSERT OR IGNORE INTO models VALUES (?, ?)", (end.agent, end.model))
    return end.model


def _count_job(db: sqlite3.Connection, end: JobEnd) -> None:
    _set_place(db, end.job_id, end.place)
    query = "SELECT ends, taken FROM jobs WHERE job_id = ?"
    ends, taken = db.execute(query, (end.job_id,)).fetchone()
    # An owner that died before state.json had this end has counted it. The ends have numbers, so a
    # job that ends again after a retry has a higher one and is counted.
    if ends >= end.number:
        return
    _add(db, counts.job_additions(end, taken))
    # Key.taken starts at 0 again after a retry, but not after the answer to a question.
    taken = end.taken if end.status == Status.NEEDS_HUMAN else 0
    change = "UPDATE jobs SET ends = ?, taken = ? WHERE job_id = ?"
    db.execute(change, (end.number, taken, end.job_id))


def _set_place(db: sqlite3.Connection, job_id: str, place: State | None) -> None:
    """Set the ended state that a job lies in (None: it has not ended), and adjust the sums."""
    # The sums change by the difference to the recorded place. So it makes no difference how often
    # this is repeated after crashes.
    db.execute("INSERT OR IGNORE INTO jobs VALUES (?, 0, 0, NULL)", (job_id,))
    (before,) = db.execute("SELECT place FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    if before == place:
        return
    db.execute("UPDATE jobs SET place = ? WHERE job_id = ?", (place, job_id))
    _add(db, [_place_addition(before, -1)] if before else [])
    _add(db, [_place_addition(place, 1)] if place else [])


def _place_addition(place: str, value: int) -> Addition:
    return Addition(metric_families.QUEUE_JOBS.name, (place,), value)


def _add(db: sqlite3.Connection, additions: Iterable[Addition]) -> None:
    db.executemany(ADD, ((a.family, json.dumps(a.labels), a.part, a.value) for a in additions))


def _write(roots: Roots, act: Callable[[sqlite3.Connection], None]) -> str | None:
    try:
        with sqlite.transaction(roots.state_db, lambda db: _create_tables(db, roots)) as db:
            act(db)
    except Misconfigured as problem:
        return str(problem)
    return None


# ---- money ------------------------------------------------------------------------------------


def admit(roots: Roots, request: AdmissionRequest, caps: Caps, now: datetime) -> AdmissionResult:
    """Decide whether an attempt may begin; what it may cost is reserved, durably, on return.

    A broken ledger holds back only attempts that draw on a cap. Raises TryAgain where the disk
    cannot take it now.
    """
    found: list[AdmissionResult] = []
    problem = _write(roots, lambda db: found.append(money.admit(db, roots, request, caps, now)))
    if problem is None:
        return found[0]
    if not budgets.applicable_limits(request, caps):
        return AdmissionResult(Allowance())
    until = now + timedelta(seconds=budgets.RECHECK_S)
    return AdmissionResult(
        Wait(OutcomeClass.BUDGET, f"it is unknown what is left: {problem}", until)
    )


def clear_credential(roots: Roots, credential: str) -> bool:
    """Unblock a credential that has met a usage limit, and return whether it was blocked.

    Durable on return. Raises TryAgain and Misconfigured.
    """
    found: list[bool] = []
    problem = _write(roots, lambda db: found.append(money.clear_credential(db, credential)))
    if problem is not None:
        raise Misconfigured(problem)
    return found[0]


def read_book(path: Path, caps: Caps, day: str, now: datetime) -> SpendingBook:
    """Return what was spent on a UTC day, and what is reserved.

    Needs no write access and creates nothing. Raises Misconfigured where the file is broken
    or may not be read, TryAgain where it is busy.
    """

    def read(db: sqlite3.Connection) -> SpendingBook | None:
        if _is_empty(db):
            return None
        _check_version(path, db)
        return money.read_book(db, caps, day, now)

    return sqlite.look(path, read) or money.empty_book(caps, day)


# ---- the file ---------------------------------------------------------------------------------


def read_counts(path: Path) -> Counts:
    """Return the counters; none where there is no ledger yet.

    Needs no write access and creates nothing. Raises Misconfigured where the file is broken
    or may not be read, TryAgain where it is busy.
    """
    return sqlite.look(path, lambda db: _select_counts(db, path)) or {}


def _select_counts(db: sqlite3.Connection, path: Path) -> Counts:
    if _is_empty(db):
        return {}
    _check_version(path, db)
    found: dict[tuple[str, tuple[str, ...]], dict[str, float]] = {}
    for family, labels, part, value in db.execute(READ):
        found.setdefault((family, tuple(json.loads(labels))), {})[part] = float(value)
    return found


def _create_tables(db: sqlite3.Connection, roots: Roots) -> None:
    """Create the tables where there are none.

    One transaction: a process that is killed in it leaves an empty file, which the next one fills.
    """
    if _is_empty(db):
        db.execute("BEGIN IMMEDIATE")
        if _is_empty(db):  # another process may have been quicker
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            for state in sorted(ENDED):
                _record_earlier_ends(db, roots, state)
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    _check_version(roots.state_db, db)


def _record_earlier_ends(db: sqlite3.Connection, roots: Roots, state: State) -> None:
    """Record the jobs that had ended before there was a ledger, without counting their ends."""
    with suppress(FileNotFoundError):
        keys = map(Key.parse, names_in(roots.queue.state(state)))
        rows = ((key.job_id, state.value) for key in keys if key is not None)
        db.executemany("INSERT OR IGNORE INTO jobs VALUES (?, 0, 0, ?)", rows)
    query = "SELECT count(*) FROM jobs WHERE place = ?"
    (lying,) = db.execute(query, (state.value,)).fetchone()
    _add(db, [_place_addition(state, lying)])


def _is_empty(db: sqlite3.Connection) -> bool:
    tables: int = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return tables == 0


def _check_version(path: Path, db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        words = f"a ledger of version {version}, where this program knows {VERSION}"
        raise Misconfigured(f"{path}: {words}: {sqlite.ADVICE}")
