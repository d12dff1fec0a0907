"""A month of an installation in minutes: its clock is set, all else is real.

Twice a day the clock is set on, and what would happen then happens: timers, submissions, people
who decide, a receiver of callbacks that has its days, programs that are killed. All that is chosen
is chosen by the seed. What a path unit would start is started where the unit would see something.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from agentorch.core.states import ENDED, State
from agentorch.jobqueue import outbox
from agentorch.jobqueue.jobqueue import Queue
from agentorch.ledger.counts import UNMETERED
from agentorch.notify.announce import waiting
from agentorch.storage.json_files import read_json
from agentorch.storage.paths import AttemptPaths, Roots
from tests.soak.kinds import DECISIONS, KINDS, Document
from tests.soak.outside import DEAF, DIES, HANGS, HEARER, PRICES, Listener, Model, Remains, Seen
from tests.soak.preloaded import Preloaded
from tests.support import wall
from tests.support.clock import Clock
from tests.support.installation import TIMEOUT_S, Installation, step
from tests.support.receiver import Receiver

DAY_USD, LAB_USD, ATTEMPT_USD = 3.0, 1.2, 2.0
DELAY_S = (0.1, 1.5)
# Nothing waits longer by itself; people then decide on all that asks.
MOST_DAYS_AFTER = 8
NIGHTLY = {"id": "nightly", "schedule": "0 1 * * *"}
CONFIGURATION = {
    "ALLOWED_BINARIES": "sh,python,wall",
    "OPENAI_API_KEY": "sk-canary-" + "9f86d081884c7d659a2feaa0",
    "MAX_DAILY_COST_USD": f"{DAY_USD:g}",
    "MAX_ATTEMPT_COST_USD": f"{ATTEMPT_USD:g}",
    "PROJECT_BUDGETS": f"lab={LAB_USD:g}",
    "CALLBACK_ALLOWED_HOSTS": "127.0.0.1",
    "ARTIFACTS_TTL_SEC": str(9 * 86400),
    "WORKSPACES_TTL_SEC": str(2 * 86400),
    "AGENTORCH_MIN_FREE_BYTES": "0",
    "WORKER_ENTRYPOINT_GROUP": "",
}


class Site(Installation):
    """An installation whose commands begin quickly."""

    preloaded: Preloaded | None = None

    def run(
        self, name: str, *arguments: str, given: str = "", code: int | None = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        assert not variables, "the environment stays as it was when the first command was run"
        if self.preloaded is None:
            self.preloaded = Preloaded(self.environment, self.repository, 2 * TIMEOUT_S)
        done = self.preloaded.run([name, *arguments], given)
        assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def close(self) -> None:
        super().close()
        if self.preloaded is not None:
            self.preloaded.close()


class Month:
    """An installation, and a month of its life."""

    def __init__(self, top: Path, start: datetime, seed: int, receiver: Receiver) -> None:
        self.here = Site(top)
        self.here.start_repository()
        self.clock = Clock(top / "clock").make()
        self.clock.set(start)
        self.chance = random.Random(seed)
        self.seen = Seen()
        self.model = Model(self.clock, self.seen, self.here.state / "artifacts")
        self.receiver = receiver
        self.listener = Listener(receiver, self.seen)
        self.start = start
        self.number = 0
        self._configure(top)
        state = self.here.state
        self.roots = Roots(
            state / "queue", state / "artifacts", state / "workspaces", state / "state.db"
        )
        self.queue = Queue(self.roots)

    def _configure(self, top: Path) -> None:
        wall.install(top / "agents.d")
        (top / "prices.toml").write_text(PRICES)
        (top / "schedules").mkdir()
        nightly = NIGHTLY | {"payload": {"goal": "nightly", "steps": [step("one", "true")]}}
        (top / "schedules/nightly.json").write_text(json.dumps(nightly))
        (top / "notify.d").mkdir()
        (top / "notify.d/hearer").write_text(HEARER)
        (top / "notify.d/hearer").chmod(0o755)
        (top / "heard").touch()
        base = {"OPENAI_BASE_URL": f"{self.model.url}/v1"}
        base["PROJECT_ALIASES"] = f"lab={self.here.repository}"
        self.here.environment |= {**CONFIGURATION, **base, **self.clock.variables()}

    # ---- a day --------------------------------------------------------------------------------

    def live(self, days: int) -> None:
        """So many days, and then as long as it takes until nothing goes on by itself."""
        for day in range(days):
            midnight = self.start + timedelta(days=day)
            self.clock.set(midnight + timedelta(hours=1))
            self.morning()
            self.clock.set(midnight + timedelta(hours=13, minutes=self.chance.randrange(60)))
            self.evening(day)
        self.receiver.status = 204
        for day in range(days, days + MOST_DAYS_AFTER):
            self.clock.set(self.start + timedelta(days=day, hours=2))
            self.decide(1.0)
            self.here.run("reclaim", "--stale-after-sec", "0")
            self.here.drain()
            self.announce()
            if not any(self._lying(state) for state in State if state not in ENDED):
                break
        self.notify()
        self.clock.set(self.clock.now() + timedelta(hours=12))
        self.notify()

    def morning(self) -> None:
        """The nightly job, new jobs, and a runner that may not live long."""
        fired = self.here.run("schedule", "run", "nightly", "--json")
        job_id = json.loads(fired.stdout)["job_id"]
        self.seen.submitted += [job_id] if job_id else []
        self.submit([self.job() for _ in range(self.chance.randrange(1, 4))])
        if self.chance.random() < 0.4:
            self.killed_runner(at_call=self.chance.random() < 0.5)
        self.here.drain()
        self.announce()

    def evening(self, day: int) -> None:
        """People decide, callbacks are sent, retention passes."""
        self.receiver.status = self.chance.choice([204, 204, 204, 500, DIES, HANGS])
        self.decide(0.5)
        self.here.run("reclaim", "--stale-after-sec", "0")
        self.here.drain()
        with self._deaf(self.chance.random() < 0.2):
            self.announce()
        self.notify()
        if day % 4 == 3:
            self.pin()
            self.collect()

    def _lying(self, state: State) -> bool:
        return any(True for _ in self.queue.list_state(state))

    # ---- what is killed -----------------------------------------------------------------------

    def killed_runner(self, *, at_call: bool) -> None:
        """A runner that is killed at some moment, or when a model is asked; its step dies, too."""
        self.model.is_careful = True
        runner = self.here.start("runner", "--drain")
        self.model.doomed = runner if at_call else None
        with suppress(subprocess.TimeoutExpired):
            runner.wait(60 if at_call else self.chance.uniform(*DELAY_S))
        runner.kill()
        runner.communicate()
        self.model.doomed = None
        # an agent that outlives its runner for a moment may still ask
        self.here.run("reclaim", "--stale-after-sec", "0")
        self.model.is_careful = False

    def notify(self) -> None:
        """Sends what is due. A receiver that hangs is waited for once; then who waits is killed."""
        if not any(outbox.due(self.queue.paths, self.clock.now())):
            return
        if self.receiver.status != HANGS or not self.seen.happened["hung"]:
            self.here.run("notify")
        else:
            self._killed_notify()
        self.seen.happened["hung"] += self.receiver.status == HANGS

    def _killed_notify(self) -> None:
        self.listener.asked.clear()
        told = self.here.start("notify")
        assert self.listener.asked.wait(60)
        told.kill()
        told.communicate()

    # ---- people -------------------------------------------------------------------------------

    def submit(self, documents: list[Document]) -> None:
        """Queues jobs, as one person's."""
        lines = "\n".join(json.dumps(one) for one in documents)
        ids = self.here.run("submit", "-", given=lines).stdout.split()
        assert ids == [one["job_id"] for one in documents]
        self.seen.submitted += ids
        self.seen.wants_callback |= {d["job_id"] for d in documents if "callback_url" in d}

    def job(self) -> Document:
        """A job of some kind; half of them want their end told."""
        self.number += 1
        kind = self.chance.choice(list(KINDS))
        job_id = f"soak-{self.number:04}-{kind}"
        document = {"goal": "soak", "job_id": job_id}
        if self.chance.random() < 0.5:
            document["callback_url"] = self.receiver.url
        return document | KINDS[kind](self, job_id)

    def decide(self, eagerness: float) -> None:
        """Decisions on some of the jobs that wait, failed or are held."""
        for state, choose in DECISIONS.items():
            for key, _ in sorted(self.queue.list_state(state)):
                rare = 0.15 if state in (*ENDED, State.PENDING) else eagerness
                if self.chance.random() < rare and (eagerness < 1 or state not in ENDED):
                    choose(self, key.job_id)

    def decided(self, job_id: str, word: str, *words: str, given: str = "") -> None:
        """Carries a decision out, where it is taken."""
        taken = self.here.run(word, job_id, *words, given=given, code=None).returncode == 0
        self.seen.decisions[job_id] += taken
        self.seen.happened[" ".join((word, *words[:1]))] += taken
        if taken and words == ("--keep",):
            self.seen.pinned.add(job_id)

    def announce(self) -> None:
        """Tells notify.d who waits; what it does not take is told again in time."""
        waits = {(one.key.job_id, one.since) for one in waiting(self.queue)}
        if waits:
            self.here.run("announce")
            if not (self.here.top / DEAF).exists():
                self.seen.waited |= waits

    @contextmanager
    def _deaf(self, is_so: bool) -> Iterator[None]:  # noqa: FBT001
        mark = self.here.top / DEAF
        if is_so:
            mark.touch()
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)

    # ---- retention ----------------------------------------------------------------------------

    def pin(self) -> None:
        """Keeps one of the jobs that have ended."""
        found = sorted(set(self.ended()) - self.seen.pinned)
        if found:
            self.decided(self.chance.choice(found), "hold", "--keep")

    def collect(self) -> None:
        """Runs agentorch-gc, having looked at what it may take."""
        before = {job_id: self.remains(job_id) for job_id in self.ended()}
        gone = self.here.run("gc", "--json").stdout.splitlines()
        removed = {one["job_id"]: one for one in map(json.loads, gone) if one["part"] == "job"}
        for job_id, remains in before.items():
            if not self.here.artifacts(job_id).exists():
                remains.reason = removed.get(job_id, {}).get("why", "")
                self.seen.collected[job_id] = remains
                self.seen.happened["collected"] += 1

    def ended(self) -> Iterator[str]:
        for state in sorted(ENDED):
            yield from (key.job_id for key, _ in self.queue.list_state(state))

    def remains(self, job_id: str) -> Remains:
        """What a job has come to by now."""
        paths = self.roots.artifacts(job_id)
        state = read_json(paths.state) or {"ends": 0}
        attempts = [AttemptPaths(one) for one in paths.directory.glob("steps/*/attempts/*")]
        results = [found for one in attempts if (found := read_json(one.result)) is not None]
        costs = sum(one["metrics"].get("cost_usd", 0.0) for one in results)
        lost = sum(map(lost_usd, attempts))
        return Remains(state["ends"], costs, len(results), self._spent_usd(job_id), lost)

    def _spent_usd(self, job_id: str) -> float:
        if not self.roots.state_db.exists():
            return 0.0
        query = "SELECT total(usd) FROM jobs_spending WHERE job_id = ?"
        with closing(sqlite3.connect(self.roots.state_db)) as db:
            (found,) = db.execute(query, (job_id,)).fetchone()
        return float(found)


def lost_usd(attempt: AttemptPaths) -> float:
    """What counts for an attempt beside what its result tells: all it had, if it told nothing."""
    allowance, result = read_json(attempt.allowance), read_json(attempt.result)
    if allowance is None or not attempt.claim.exists():
        return 0.0
    metrics = {UNMETERED: 1} if result is None else result["metrics"]
    most = float(allowance["max_cost_usd"]) if metrics.get(UNMETERED) else 0.0
    return max(0.0, most - metrics.get("cost_usd", 0.0))
