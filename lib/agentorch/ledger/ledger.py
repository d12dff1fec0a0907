"""The ledger: what is counted, in one SQLite file that outlives the jobs.

    state.db    attempts    an attempt that was counted: a second time changes nothing
                jobs        a job's ends that were counted, and where it lies now that it has ended
                models      the model names that an agent has had
                counts      the counters; as many rows as there are labels, however many jobs ended
                            and the tables about money and credentials (see tills)

An end and its row are one transaction, made durable *before* state.json says that the job or the
attempt has ended: an owner that dies in between leaves it to the next one, who comes here again
and changes nothing. What an attempt has cost is settled in the transaction that counts it.
`forget` removes a job's rows when it is collected; what was spent on a day stays.

Written only by owners of jobs; how it is opened, and by whom, is in `database`.

A file that is broken, or of another version, stops no job: what a job did is worth more than that
it is counted. Whoever counts is told in words, and the gauge agentorch_ledger_readable says so.
Only an attempt that draws on a cap does not begin, for as long as nobody can say what is left.
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
from agentorch.ledger.budgets import Admitted, Ask, Caps
from agentorch.ledger.counts import Addition, AttemptEnd, JobEnd
from agentorch.ledger.money import Book
from agentorch.storage import sqlite
from agentorch.storage.listing import names_in
from agentorch.storage.paths import Roots

VERSION = 2
MAX_MODELS = 20  # of an agent; what it tells beyond these is counted as `other`

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

# By family and labels: the parts' values.
Counts = Mapping[tuple[str, tuple[str, ...]], Mapping[str, float]]


# ---- counting ---------------------------------------------------------------------------------


def count_attempt(roots: Roots, end: AttemptEnd) -> str | None:
    """Counts an attempt's end, once however often it is told. Durable when it returns.

    None where it is counted, else why it can't be, in words. Raises TryAgain where the disk can't
    take it now.
    """
    return _told(roots, lambda db: _count_attempt(db, end))


def count_job(roots: Roots, end: JobEnd, last: AttemptEnd | None = None) -> str | None:
    """Counts a job's end, and that of its last attempt where nobody took that in. As above.

    Nothing stays reserved for the job.
    """

    def count(db: sqlite3.Connection) -> None:
        if last is not None:
            _count_attempt(db, last)
        money.settle_lost(db, roots, end.job_id, end.ended_at)
        _count_job(db, end)

    return _told(roots, count)


def settle_lost(roots: Roots, job_id: str, now: datetime) -> str | None:
    """Settles what is reserved for attempts of a job that left no end, and run no more. As above.

    Nothing is written where nothing is reserved.
    """
    try:
        if not sqlite.look(roots.state_db, lambda db: money.reserved_for(db, job_id)):
            return None
    except Misconfigured as problem:
        return str(problem)
    return _told(roots, lambda db: money.settle_lost(db, roots, job_id, now))


def no_longer_ended(roots: Roots, job_id: str) -> str | None:
    """A job that has ended goes on: it no longer lies where it did. As above."""
    return _told(roots, lambda db: _place(db, job_id, None))


def lies(roots: Roots, job_id: str, place: State) -> str | None:
    """A job that ended elsewhere lies there now; its ends are not counted as ours. As above."""
    return _told(roots, lambda db: _place(db, job_id, place))


def forget(roots: Roots, job_id: str) -> str | None:
    """Removes what is kept of a job; the counters stay. To be called before its queue file goes."""

    def remove(db: sqlite3.Connection) -> None:
        _place(db, job_id, None)
        db.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))
        db.execute("DELETE FROM attempts WHERE job_id = ?", (job_id,))
        money.forget(db, job_id)

    return _told(roots, remove)


def _count_attempt(db: sqlite3.Connection, end: AttemptEnd) -> None:
    end = replace(end, model=_model(db, end))
    row = (
        *(end.job_id, end.step_id, end.attempt, end.project, end.agent, end.model),
        end.ended_at.date().isoformat(),
        *(end.metrics.get("cost_usd"), end.metrics.get("model_calls")),
    )
    marks = ", ".join("?" * len(row))
    new = db.execute(f"INSERT OR IGNORE INTO attempts VALUES ({marks})", row)
    if new.rowcount:
        money.settle(db, end)
        _add(db, counts.of_attempt(end))


def _model(db: sqlite3.Connection, end: AttemptEnd) -> str:
    """The model's name; `other` where the agent has had too many."""
    rows = db.execute("SELECT model FROM models WHERE agent = ?", (end.agent,))
    known = {name for (name,) in rows}
    if end.model not in known and len(known) >= MAX_MODELS:
        return counts.OTHER
    db.execute("INSERT OR IGNORE INTO models VALUES (?, ?)", (end.agent, end.model))
    return end.model


def _count_job(db: sqlite3.Connection, end: JobEnd) -> None:
    _place(db, end.job_id, end.place)
    query = "SELECT ends, taken FROM jobs WHERE job_id = ?"
    ends, taken = db.execute(query, (end.job_id,)).fetchone()
    if ends >= end.number:
        return
    _add(db, counts.of_job(end, taken))
    # a retry begins anew to count who took it, an answer to a question does not
    taken = end.taken if end.status == Status.NEEDS_HUMAN else 0
    change = "UPDATE jobs SET ends = ?, taken = ? WHERE job_id = ?"
    db.execute(change, (end.number, taken, end.job_id))


def _place(db: sqlite3.Connection, job_id: str, place: State | None) -> None:
    """Notes where an ended job lies; the sums follow what is noted, so twice is once."""
    db.execute("INSERT OR IGNORE INTO jobs VALUES (?, 0, 0, NULL)", (job_id,))
    (before,) = db.execute("SELECT place FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    if before == place:
        return
    db.execute("UPDATE jobs SET place = ? WHERE job_id = ?", (place, job_id))
    _add(db, [_lying(before, -1)] if before else [])
    _add(db, [_lying(place, 1)] if place else [])


def _lying(place: str, value: int) -> Addition:
    return Addition(metric_families.QUEUE_JOBS.name, (place,), value)


def _add(db: sqlite3.Connection, additions: Iterable[Addition]) -> None:
    db.executemany(ADD, ((a.family, json.dumps(a.labels), a.part, a.value) for a in additions))


def _told(roots: Roots, act: Callable[[sqlite3.Connection], None]) -> str | None:
    try:
        with sqlite.transaction(roots.state_db, lambda db: _prepare(db, roots)) as db:
            act(db)
    except Misconfigured as problem:
        return str(problem)
    return None


# ---- money ------------------------------------------------------------------------------------


def admit(roots: Roots, ask: Ask, caps: Caps, now: datetime) -> Admitted:
    """Whether an attempt may begin; what it may cost is reserved for it, durably, on return.

    A ledger that is broken holds back an attempt that draws on a cap, and no other. Raises TryAgain
    where the disk can't take it now.
    """
    found: list[Admitted] = []
    problem = _told(roots, lambda db: found.append(money.admit(db, roots, ask, caps, now)))
    if problem is None:
        return found[0]
    if not budgets.caps_of(ask, caps):
        return Admitted(Allowance())
    until = now + timedelta(seconds=budgets.LOOK_AGAIN_S)
    return Admitted(Wait(OutcomeClass.BUDGET, f"nobody can say what is left: {problem}", until))


def clear(roots: Roots, credential: str) -> bool:
    """Lets attempts use a credential again that has met a limit; whether there was one.

    Raises TryAgain and Misconfigured.
    """
    found: list[bool] = []
    problem = _told(roots, lambda db: found.append(money.clear(db, credential)))
    if problem is not None:
        raise Misconfigured(problem)
    return found[0]


def book(path: Path, caps: Caps, day: str, now: datetime) -> Book:
    """What was spent on a UTC day, and what is reserved. Needs no write access and makes nothing.

    Raises Misconfigured where the file is broken or may not be read, TryAgain where it is busy.
    """

    def read_book(db: sqlite3.Connection) -> Book | None:
        if _is_empty(db):
            return None
        _check_version(path, db)
        return money.book(db, caps, day, now)

    return sqlite.look(path, read_book) or money.nothing(caps, day)


# ---- the file ---------------------------------------------------------------------------------


def read(path: Path) -> Counts:
    """The counters; none where there is no ledger yet. Needs no write access and makes nothing.

    Raises Misconfigured where it is broken or may not be read, TryAgain where it is busy.
    """
    return sqlite.look(path, lambda db: _counts(db, path)) or {}


def _counts(db: sqlite3.Connection, path: Path) -> Counts:
    if _is_empty(db):
        return {}
    _check_version(path, db)
    found: dict[tuple[str, tuple[str, ...]], dict[str, float]] = {}
    for family, labels, part, value in db.execute(READ):
        found.setdefault((family, tuple(json.loads(labels))), {})[part] = float(value)
    return found


def _prepare(db: sqlite3.Connection, roots: Roots) -> None:
    """Makes the tables where there are none."""
    if _is_empty(db):
        db.execute("BEGIN IMMEDIATE")
        if _is_empty(db):  # nobody was quicker
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            for state in sorted(ENDED):
                _note_ended(db, roots, state)
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    _check_version(roots.state_db, db)


def _note_ended(db: sqlite3.Connection, roots: Roots, state: State) -> None:
    """What ended before there was a ledger: it lies there, and is not counted as an end of now."""
    with suppress(FileNotFoundError):
        keys = map(Key.parse, names_in(roots.queue.state(state)))
        rows = ((key.job_id, state.value) for key in keys if key is not None)
        db.executemany("INSERT OR IGNORE INTO jobs VALUES (?, 0, 0, ?)", rows)
    query = "SELECT count(*) FROM jobs WHERE place = ?"
    (lying,) = db.execute(query, (state.value,)).fetchone()
    _add(db, [_lying(state, lying)])


def _is_empty(db: sqlite3.Connection) -> bool:
    tables: int = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return tables == 0


def _check_version(path: Path, db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        words = f"a ledger of version {version}, where this program knows {VERSION}"
        raise Misconfigured(f"{path}: {words}: {sqlite.ADVICE}")
