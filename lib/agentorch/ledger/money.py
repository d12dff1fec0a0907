"""The ledger's tables about money and credentials.

    reservations    what running attempts may cost, each from before its start to its end
    spending        what ended attempts have cost, by UTC day (of their end), project and agent
    jobs_spending   the same by job, until the job is forgotten
    breakers        credentials that have met a usage limit of their provider, and until when
    uses            the credential that an agent used last, by requested model and project
    warned          the caps about which a warning was given, on the latest such day

Every function here takes a connection inside a transaction, which `ledger` begins and commits: a
decision and what is written because of it become durable together or not at all. An attempt that
left no recorded end counts with its whole reservation, unless its process never claimed it; so the
ledger never shows less than was spent.
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
from agentorch.ledger.budgets import AdmissionRequest, AdmissionResult, Cap, Caps
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
MAX_REASON_CHARS = 300


@dataclass(frozen=True)
class Reservation:
    """The amount that a running attempt may cost. `project` and `model` are empty for none."""

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
class DaySpending:
    """The cost of one project's attempts with one agent on a day."""

    project: str
    agent: str
    usd: float
    calls: int
    unpriced_calls: int


@dataclass(frozen=True)
class Breaker:
    """A credential that has met a usage limit: until when (RFC 3339), and the provider's words."""

    credential: str
    until: str
    reason: str


@dataclass(frozen=True)
class SpendingBook:
    """The spending of one day; `caps` are the server's, as far as they are set."""

    day: str
    spent: Sequence[DaySpending] = ()
    reserved: Sequence[Reservation] = ()
    breakers: Sequence[Breaker] = ()
    caps: Sequence[Cap] = ()

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


def admit(
    db: sqlite3.Connection, roots: Roots, request: AdmissionRequest, caps: Caps, now: datetime
) -> AdmissionResult:
    """Decide whether an attempt may begin, and reserve what it may cost where it may."""
    # An earlier owner of this job may have died after its reservation: before a new one is made
    # the old one is settled, or it would take from the caps for ever.
    settle_lost(db, roots, request.job_id, now)
    wait = _credential_wait(db, request, now)
    if wait is not None:
        return AdmissionResult(wait)
    day = budgets.utc_day(now)
    found = [
        _read_cap(db, name, limit, day, request.job_id)
        for name, limit in budgets.applicable_limits(request, caps).items()
    ]
    admission = budgets.decide_admission(request, found, caps.attempt_usd, now)
    if isinstance(admission, Allowance):
        _reserve(db, request, admission, now)
    return AdmissionResult(admission, tuple(_new_warnings(db, found, day)))


def _reserve(
    db: sqlite3.Connection, request: AdmissionRequest, allowance: Allowance, now: datetime
) -> None:
    # Committed before allowance.json is written and the attempt is started. An owner that dies in
    # between leaves a reservation of an attempt that no process claimed: settle_lost() of the next
    # owner removes it, and it costs nothing.
    row = (
        *(request.job_id, request.step_id, request.attempt),
        *(request.project or "", request.agent, request.model or ""),
        *(allowance.max_cost_usd or 0.0, 1, rfc3339(now), allowance.cap or ""),
    )
    db.execute("INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def _new_warnings(db: sqlite3.Connection, caps: Iterable[Cap], day: str) -> Iterable[str]:
    """Yield the warnings about caps that are nearly used up, each cap once a day."""
    db.execute("DELETE FROM warned WHERE day < ?", (day,))
    for cap in caps:
        mark = (day, cap.name)
        if cap.name == budgets.JOB or not cap.is_near:
            continue
        # The mark is committed before the runner logs the warning: one that dies in between loses
        # the warning of that day, but the cap itself holds.
        if db.execute("INSERT OR IGNORE INTO warned VALUES (?, ?)", mark).rowcount:
            yield budgets.warning_text(cap)


def _read_cap(
    db: sqlite3.Connection, cap_name: str, limit: float, day: str, job_id: str = ""
) -> Cap:
    """Return a cap with what is spent and reserved of it; reservations count on every day."""
    unit = "calls" if cap_name == budgets.CALLS else "usd"
    if cap_name == budgets.JOB:
        spent = _total(db, "SELECT total(usd) FROM jobs_spending WHERE job_id = ?", job_id)
        query = "SELECT total(usd) FROM reservations WHERE job_id = ?"
        # a job's steps run one after the other, so there is no other attempt that could draw on it
        return Cap(cap_name, limit, spent, _total(db, query, job_id))
    kind, _, name = cap_name.partition(":")
    only, values = (f" AND {kind} = ?", (name,)) if name else ("", ())
    spent = _total(db, f"SELECT total({unit}) FROM spending WHERE day = ?{only}", day, *values)
    query = f"SELECT total({unit}) FROM reservations WHERE true{only}"
    tight = _total(db, "SELECT count(*) FROM reservations WHERE cap = ?", cap_name) > 0
    return Cap(cap_name, limit, spent, _total(db, query, *values), tight)


def _total(db: sqlite3.Connection, query: str, *values: str) -> float:
    (found,) = db.execute(query, values).fetchone()
    return float(found)


# ---- at its end -------------------------------------------------------------------------------


def settle(db: sqlite3.Connection, end: AttemptEnd) -> None:
    """Replace the reservation of an attempt by what it has cost.

    Must be called once for each attempt; `ledger` makes sure of that with its table `attempts`.
    """
    # One transaction removes the reservation and adds the spending: a crash leaves both or neither,
    # so an attempt is never free of charge, and never charged twice.
    reserved = _remove_reservation(db, end.job_id, end.step_id, end.attempt)
    usd = counts.dollars(end, 0.0 if reserved is None else reserved.usd)
    calls, unpriced = (
        counts.calls(end, 0 if reserved is None else reserved.calls),
        int(end.metrics.get("unpriced_calls", 0)),
    )
    if usd or calls:
        _add_spending(
            db,
            end.job_id,
            end.ended_at,
            DaySpending(end.project or "", end.agent, usd, calls, unpriced),
        )
    if end.credential is None:
        return
    if reserved is not None:
        use = (end.agent, reserved.model, end.project or "", end.credential)
        db.execute("INSERT OR REPLACE INTO uses VALUES (?, ?, ?, ?)", use)
    _update_breaker(db, end, end.credential)


def settle_lost(db: sqlite3.Connection, roots: Roots, job_id: str, now: datetime) -> None:
    """Settle what is still reserved for a job of which no attempt runs any more.

    Must be called only while the job is locked and none of its attempts runs.
    """
    # These are the attempts whose process or owner was killed before the end was recorded. The
    # claim file says which of them had begun: one that had may have spent its whole reservation,
    # one that had not cannot have called a model.
    for lost in _reservations(db, "WHERE job_id = ?", job_id):
        _remove_reservation(db, lost.job_id, lost.step_id, lost.attempt)
        claim = roots.artifacts(job_id).step(lost.step_id).attempt(lost.attempt).claim
        if claim.exists():
            spent = DaySpending(lost.project, lost.agent, lost.usd, lost.calls, 0)
            _add_spending(db, job_id, now, spent)


def has_reservation(db: sqlite3.Connection, job_id: str) -> bool:
    """Return whether something is reserved for a job; the tables may not exist yet."""
    query = "SELECT count(*) FROM sqlite_master WHERE name = 'reservations'"
    (tables,) = db.execute(query).fetchone()
    return bool(tables and _reservations(db, "WHERE job_id = ?", job_id))


def forget_job(db: sqlite3.Connection, job_id: str) -> None:
    """Remove what is kept of a single job; its cost stays in the sums of the days."""
    db.execute("DELETE FROM jobs_spending WHERE job_id = ?", (job_id,))


def _add_spending(db: sqlite3.Connection, job_id: str, when: datetime, spent: DaySpending) -> None:
    day = budgets.utc_day(when)
    figures = (spent.usd, spent.calls, spent.unpriced_calls)
    db.execute(SPEND, (day, spent.project, spent.agent, *figures))
    db.execute(SPEND_JOB, (job_id, spent.usd))


def _remove_reservation(
    db: sqlite3.Connection, job_id: str, step_id: str, attempt: int
) -> Reservation | None:
    """Remove the reservation of an attempt and return it; None where there was none."""
    only = "WHERE job_id = ? AND step_id = ? AND attempt = ?"
    found = _reservations(db, only, job_id, step_id, attempt)
    db.execute(f"DELETE FROM reservations {only}", (job_id, step_id, attempt))
    return found[0] if found else None


def _reservations(db: sqlite3.Connection, only: str = "", *values: str | int) -> list[Reservation]:
    return [Reservation(*row) for row in db.execute(f"{OPEN} {only}", values)]


# ---- credentials ------------------------------------------------------------------------------


def _credential_wait(
    db: sqlite3.Connection, request: AdmissionRequest, now: datetime
) -> Wait | None:
    """Return the wait for the credential that the attempt would use, as far as that is known.

    None where the credential has met no limit, or where no attempt of this kind ever ended.
    """
    query = "SELECT credential FROM uses WHERE agent = ? AND model = ? AND project = ?"
    use = db.execute(query, (request.agent, request.model or "", request.project or "")).fetchone()
    credential = request.login or (use[0] if use else None)
    query = "SELECT until, reason FROM breakers WHERE credential = ? AND until > ?"
    row = db.execute(query, (credential, now.timestamp())).fetchone()
    if row is None:
        return None
    words = f"the usage limit of {credential} is reached: {row[1]}"
    return Wait(OutcomeClass.QUOTA, words, datetime.fromtimestamp(row[0], UTC))


def _update_breaker(db: sqlite3.Connection, end: AttemptEnd, credential: str) -> None:
    """Block a credential for all after an attempt met its limit; unblock it after a success."""
    if end.outcome == OutcomeClass.SUCCESS:
        # an attempt that began before the limit was met may have got its answers before it, too
        query = "DELETE FROM breakers WHERE credential = ? AND since <= ?"
        db.execute(query, (credential, end.began_at.timestamp()))
    elif end.outcome == OutcomeClass.QUOTA:
        _block_credential(db, end, credential)


def _block_credential(db: sqlite3.Connection, end: AttemptEnd, credential: str) -> None:
    query = "SELECT until, walls FROM breakers WHERE credential = ?"
    known, walls = db.execute(query, (credential,)).fetchone() or (0.0, 0)
    # attempts that ran when the limit was met ran into the same one: it counts once
    walls += known <= end.began_at.timestamp()
    until = parking.resume_time({"resets_at": end.resets_at}, walls, end.ended_at).timestamp()
    reason = one_line(end.summary, MAX_REASON_CHARS)
    row = (credential, end.ended_at.timestamp(), max(known, until), walls, reason)
    db.execute("INSERT OR REPLACE INTO breakers VALUES (?, ?, ?, ?, ?)", row)


def clear_credential(db: sqlite3.Connection, credential: str) -> bool:
    """Unblock a credential and return whether it was blocked."""
    query = "DELETE FROM breakers WHERE credential = ?"
    return db.execute(query, (credential,)).rowcount > 0


# ---- reading ----------------------------------------------------------------------------------


def read_book(db: sqlite3.Connection, caps: Caps, day: str, now: datetime) -> SpendingBook:
    """Return the spending of a day; with reservations and blocked credentials if it is today."""
    is_today = day == budgets.utc_day(now)
    rows = db.execute(
        "SELECT project, agent, usd, calls, unpriced_calls FROM spending WHERE day = ?", (day,)
    )
    found = [_read_cap(db, name, limit, day) for name, limit in caps.limits.items()]
    return SpendingBook(
        day,
        [DaySpending(*row) for row in rows],
        _reservations(db) if is_today else (),
        _breakers(db, now) if is_today else (),
        found if is_today else [replace(cap, reserved=0) for cap in found],
    )


def empty_book(caps: Caps, day: str) -> SpendingBook:
    """Return the book of a day on which nothing was spent."""
    return SpendingBook(day, caps=[Cap(name, limit) for name, limit in caps.limits.items()])


def _breakers(db: sqlite3.Connection, now: datetime) -> list[Breaker]:
    query = "SELECT credential, until, reason FROM breakers WHERE until > ? ORDER BY credential"
    rows = db.execute(query, (now.timestamp(),))
    return [Breaker(name, rfc3339(datetime.fromtimestamp(t, UTC)), why) for name, t, why in rows]
