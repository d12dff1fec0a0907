"""What attempts cost, may cost, and are let in with: the ledger's tables about money.

    reservations    what attempts that run may cost, each from before its start to its end
    spending        what ended attempts have cost, by UTC day (of their end), project and agent
    jobs_spending   the same by job, until the job is forgotten
    breakers        credentials that have run into a limit of their provider's, until when
    uses            the credential that an agent used last, by the model asked for and the project
    warned          which caps people were told of, on the last day that they were

Every function here is given a connection with a transaction begun: what is decided and what is
written belong to one (`ledger` begins and ends it). Of an attempt whose end nobody recorded the
whole reservation counts as spent, unless its process never claimed it: never less than the truth.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from agentorch.core import parking
from agentorch.core.allowance import Allowance, Wait
from agentorch.core.states import OutcomeClass
from agentorch.core.text import one_line
from agentorch.core.times import rfc3339
from agentorch.ledger import budgets, counts
from agentorch.ledger.budgets import Admitted, Ask, Caps, Till
from agentorch.ledger.counts import AttemptEnd
from agentorch.storage.paths import Roots

SCHEMA = """
CREATE TABLE reservations (
    job_id TEXT, step_id TEXT, attempt INTEGER,
    project TEXT, agent TEXT, model TEXT, usd REAL, calls INTEGER, began TEXT,
    cap TEXT, PRIMARY KEY (job_id, step_id, attempt)
) WITHOUT ROWID;
CREATE TABLE spending (
    day TEXT, project TEXT, agent TEXT, usd REAL, calls INTEGER, unpriced_calls INTEGER,
    PRIMARY KEY (day, project, agent)
) WITHOUT ROWID;
CREATE TABLE jobs_spending (job_id TEXT PRIMARY KEY, usd REAL) WITHOUT ROWID;
CREATE TABLE breakers (
    credential TEXT PRIMARY KEY, since REAL, until REAL, walls INTEGER, reason TEXT
) WITHOUT ROWID;
CREATE TABLE uses (
    agent TEXT, model TEXT, project TEXT, credential TEXT, PRIMARY KEY (agent, model, project)
) WITHOUT ROWID;
CREATE TABLE warned (day TEXT, cap TEXT, PRIMARY KEY (day, cap)) WITHOUT ROWID;
"""
SPEND = """
INSERT INTO spending VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET usd = usd + excluded.usd, calls = calls + excluded.calls,
    unpriced_calls = unpriced_calls + excluded.unpriced_calls
"""
SPEND_JOB = """
INSERT INTO jobs_spending VALUES (?, ?) ON CONFLICT DO UPDATE SET usd = usd + excluded.usd
"""
OPEN = "SELECT job_id, step_id, attempt, project, agent, model, usd, calls, began FROM reservations"
MOST_REASON_CHARS = 300


@dataclass(frozen=True)
class Reservation:
    """What an attempt that runs may cost. `project` and `model` are empty where it has none."""

    job_id: str
    step_id: str
    attempt: int
    project: str
    agent: str
    model: str
    usd: float
    calls: int
    began: str


@dataclass(frozen=True)
class Spent:
    """What one project's attempts with one agent have cost on a day."""

    project: str
    agent: str
    usd: float
    calls: int
    unpriced_calls: int


@dataclass(frozen=True)
class Breaker:
    """A credential's wall: until when (RFC 3339), and what its provider said."""

    credential: str
    until: str
    reason: str


@dataclass(frozen=True)
class Book:
    """A day as the ledger has it; `tills` are those of the server's caps."""

    day: str
    spent: Sequence[Spent] = ()
    reserved: Sequence[Reservation] = ()
    breakers: Sequence[Breaker] = ()
    tills: Sequence[Till] = ()

    @property
    def spent_usd(self) -> float:
        return sum(one.usd for one in self.spent)

    @property
    def reserved_usd(self) -> float:
        return sum(one.usd for one in self.reserved)

    @property
    def spent_calls(self) -> int:
        return sum(one.calls for one in self.spent)

    @property
    def reserved_calls(self) -> int:
        return sum(one.calls for one in self.reserved)


# ---- before an attempt ------------------------------------------------------------------------


def admit(db: sqlite3.Connection, roots: Roots, ask: Ask, caps: Caps, now: datetime) -> Admitted:
    """Whether an attempt may begin; where it may, what it may cost is reserved."""
    settle_lost(db, roots, ask.job_id, now)
    wall = _wall(db, ask, now)
    if wall is not None:
        return Admitted(wall)
    day = budgets.day_of(now)
    tills = [
        _till(db, cap, most, day, ask.job_id) for cap, most in budgets.caps_of(ask, caps).items()
    ]
    admission = budgets.decide(ask, tills, caps.attempt_usd, now)
    if isinstance(admission, Allowance):
        _reserve(db, ask, admission, now)
    return Admitted(admission, tuple(_near(db, tills, day)))


def _reserve(db: sqlite3.Connection, ask: Ask, allowance: Allowance, now: datetime) -> None:
    row = (
        *(ask.job_id, ask.step_id, ask.attempt, ask.project or "", ask.agent, ask.model or ""),
        *(allowance.max_cost_usd or 0.0, 1, rfc3339(now), allowance.cap or ""),
    )
    db.execute("INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def _near(db: sqlite3.Connection, tills: Iterable[Till], day: str) -> Iterable[str]:
    """What people are to hear of caps, once a day each."""
    db.execute("DELETE FROM warned WHERE day < ?", (day,))
    for till in tills:
        mark = (day, till.cap)
        if till.cap == budgets.JOB or not till.is_near:
            continue
        if db.execute("INSERT OR IGNORE INTO warned VALUES (?, ?)", mark).rowcount:
            yield budgets.near_words(till)


def _till(db: sqlite3.Connection, cap: str, most: float, day: str, job_id: str = "") -> Till:
    """A cap, and what is gone of it: attempts that still run count on every day."""
    what = "calls" if cap == budgets.CALLS else "usd"
    if cap == budgets.JOB:
        spent = _total(db, "SELECT total(usd) FROM jobs_spending WHERE job_id = ?", job_id)
        query = "SELECT total(usd) FROM reservations WHERE job_id = ?"
        # its steps run one after the other: nobody else draws on it
        return Till(cap, most, spent, _total(db, query, job_id))
    kind, _, name = cap.partition(":")
    only, values = (f" AND {kind} = ?", (name,)) if name else ("", ())
    spent = _total(db, f"SELECT total({what}) FROM spending WHERE day = ?{only}", day, *values)
    query = f"SELECT total({what}) FROM reservations WHERE true{only}"
    tight = _total(db, "SELECT count(*) FROM reservations WHERE cap = ?", cap) > 0
    return Till(cap, most, spent, _total(db, query, *values), tight)


def _total(db: sqlite3.Connection, query: str, *values: str) -> float:
    (found,) = db.execute(query, values).fetchone()
    return float(found)


# ---- at its end -------------------------------------------------------------------------------


def settle(db: sqlite3.Connection, end: AttemptEnd) -> None:
    """What an attempt has cost, instead of what was reserved for it. To be called once for it."""
    reserved = _taken(db, end.job_id, end.step_id, end.attempt)
    usd = counts.dollars(end, 0.0 if reserved is None else reserved.usd)
    calls, unpriced = (
        counts.calls(end, 0 if reserved is None else reserved.calls),
        int(end.metrics.get("unpriced_calls", 0)),
    )
    if usd or calls:
        _spend(
            db, end.job_id, end.ended_at, Spent(end.project or "", end.agent, usd, calls, unpriced)
        )
    if end.credential is None:
        return
    if reserved is not None:
        use = (end.agent, reserved.model, end.project or "", end.credential)
        db.execute("INSERT OR REPLACE INTO uses VALUES (?, ?, ?, ?)", use)
    _judge(db, end, end.credential)


def settle_lost(db: sqlite3.Connection, roots: Roots, job_id: str, now: datetime) -> None:
    """Settles what is still reserved for a job of which no attempt runs any more."""
    for lost in _open(db, "WHERE job_id = ?", job_id):
        _taken(db, lost.job_id, lost.step_id, lost.attempt)
        claim = roots.artifacts(job_id).step(lost.step_id).attempt(lost.attempt).claim
        if claim.exists():
            spent = Spent(lost.project, lost.agent, lost.usd, lost.calls, 0)
            _spend(db, job_id, now, spent)


def reserved_for(db: sqlite3.Connection, job_id: str) -> bool:
    """Whether something is reserved for a job; no table of ours may be there yet."""
    query = "SELECT count(*) FROM sqlite_master WHERE name = 'reservations'"
    (tables,) = db.execute(query).fetchone()
    return bool(tables and _open(db, "WHERE job_id = ?", job_id))


def forget(db: sqlite3.Connection, job_id: str) -> None:
    """Removes what is kept of a job by itself; the days keep what it has cost."""
    db.execute("DELETE FROM jobs_spending WHERE job_id = ?", (job_id,))


def _spend(db: sqlite3.Connection, job_id: str, when: datetime, spent: Spent) -> None:
    day = budgets.day_of(when)
    figures = (spent.usd, spent.calls, spent.unpriced_calls)
    db.execute(SPEND, (day, spent.project, spent.agent, *figures))
    db.execute(SPEND_JOB, (job_id, spent.usd))


def _taken(db: sqlite3.Connection, job_id: str, step_id: str, attempt: int) -> Reservation | None:
    """The reservation of an attempt, which is one no more; None where there was none."""
    only = "WHERE job_id = ? AND step_id = ? AND attempt = ?"
    found = _open(db, only, job_id, step_id, attempt)
    db.execute(f"DELETE FROM reservations {only}", (job_id, step_id, attempt))
    return found[0] if found else None


def _open(db: sqlite3.Connection, only: str = "", *values: str | int) -> list[Reservation]:
    return [Reservation(*row) for row in db.execute(f"{OPEN} {only}", values)]


# ---- credentials ------------------------------------------------------------------------------


def _wall(db: sqlite3.Connection, ask: Ask, now: datetime) -> Wait | None:
    """The wall of the credential that an attempt would use, as far as that is known."""
    query = "SELECT credential FROM uses WHERE agent = ? AND model = ? AND project = ?"
    use = db.execute(query, (ask.agent, ask.model or "", ask.project or "")).fetchone()
    credential = ask.login or (use[0] if use else None)
    query = "SELECT until, reason FROM breakers WHERE credential = ? AND until > ?"
    row = db.execute(query, (credential, now.timestamp())).fetchone()
    if row is None:
        return None
    words = f"the limit of {credential} is reached: {row[1]}"
    return Wait(OutcomeClass.QUOTA, words, datetime.fromtimestamp(row[0], UTC))


def _judge(db: sqlite3.Connection, end: AttemptEnd, credential: str) -> None:
    """Closes a credential to all where an attempt met its limit, and opens it after a success."""
    if end.outcome == OutcomeClass.SUCCESS:
        # one that began before may have had its last answer before, too
        query = "DELETE FROM breakers WHERE credential = ? AND since <= ?"
        db.execute(query, (credential, end.began_at.timestamp()))
    elif end.outcome == OutcomeClass.QUOTA:
        _close(db, end, credential)


def _close(db: sqlite3.Connection, end: AttemptEnd, credential: str) -> None:
    query = "SELECT until, walls FROM breakers WHERE credential = ?"
    known, walls = db.execute(query, (credential,)).fetchone() or (0.0, 0)
    # those that ran at the same time met the same wall
    walls += known <= end.began_at.timestamp()
    until = parking.resume_time({"resets_at": end.resets_at}, walls, end.ended_at).timestamp()
    reason = one_line(end.summary, MOST_REASON_CHARS)
    row = (credential, end.ended_at.timestamp(), max(known, until), walls, reason)
    db.execute("INSERT OR REPLACE INTO breakers VALUES (?, ?, ?, ?, ?)", row)


def clear(db: sqlite3.Connection, credential: str) -> bool:
    """Opens a credential by hand; whether it was closed."""
    query = "DELETE FROM breakers WHERE credential = ?"
    return db.execute(query, (credential,)).rowcount > 0


# ---- looking ----------------------------------------------------------------------------------


def book(db: sqlite3.Connection, caps: Caps, day: str, now: datetime) -> Book:
    """A day, with what is reserved where it is today."""
    is_today = day == budgets.day_of(now)
    rows = db.execute(
        "SELECT project, agent, usd, calls, unpriced_calls FROM spending WHERE day = ?", (day,)
    )
    tills = [_till(db, cap, most, day) for cap, most in caps.named.items()]
    return Book(
        day,
        [Spent(*row) for row in rows],
        _open(db) if is_today else (),
        _breakers(db, now) if is_today else (),
        tills if is_today else [replace(till, reserved=0) for till in tills],
    )


def nothing(caps: Caps, day: str) -> Book:
    """A day of which there is nothing."""
    return Book(day, tills=[Till(cap, most) for cap, most in caps.named.items()])


def _breakers(db: sqlite3.Connection, now: datetime) -> list[Breaker]:
    query = "SELECT credential, until, reason FROM breakers WHERE until > ? ORDER BY credential"
    rows = db.execute(query, (now.timestamp(),))
    return [Breaker(name, rfc3339(datetime.fromtimestamp(t, UTC)), why) for name, t, why in rows]
