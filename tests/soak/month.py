"""A month of an installation in minutes: its clock is set, all else is real.

Twice a day the clock is set on, and what would happen then happens: timers, submissions, people
who decide, a receiver of callbacks that has its days, runners that are killed. All that is chosen
is chosen by the seed. What `audit` can't read from the disk afterwards is kept in `Seen`.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.jobs import wall
from tests.jobs.conftest import Installation, step
from tests.notify.receiver import Receiver

from agentorch.documents import read_json
from agentorch.jobqueue import Queue
from agentorch.paths import Roots
from agentorch.scripted import ModelDouble, Turn, Usage
from agentorch.scripted.script import Answer, Fault
from agentorch.scripted.server import Asked
from agentorch.states import ENDED, State
from agentorch.times import rfc3339

from .clock import Clock

Document = dict[str, Any]
TOKEN_USD = 0.001
PRICES = '[[price]]\nmodels = ["priced-1"]\ninput = 1000.0\noutput = 0.0\n'
DAY_USD, ATTEMPT_USD = 3.0, 2.0
NIGHTLY = {"id": "nightly", "schedule": "0 1 * * *", "payload": {"goal": "nightly", "steps": []}}
CONFIGURATION = {
    "ALLOWED_BINARIES": "sh,python,wall",
    "OPENAI_API_KEY": "sk-canary-" + "9f86d081884c7d659a2feaa0",
    "MAX_DAILY_COST_USD": f"{DAY_USD:g}",
    "MAX_ATTEMPT_COST_USD": f"{ATTEMPT_USD:g}",
    "CALLBACK_ALLOWED_HOSTS": "127.0.0.1",
    "ARTIFACTS_TTL_SEC": str(9 * 86400),
    "WORKSPACES_TTL_SEC": str(2 * 86400),
    "AGENTORCH_MIN_FREE_BYTES": "0",
    "WORKER_ENTRYPOINT_GROUP": "",
}


@dataclass
class Remains:
    """What a job had come to when retention took it."""

    ends: int
    cost_usd: float
    attempts: int
    reason: str = ""


@dataclass
class Seen:
    """What happened and is not to be read from the state directory. `billed` is by UTC day."""

    submitted: list[str] = field(default_factory=list)
    wants_callback: set[str] = field(default_factory=set)
    decisions: Counter[str] = field(default_factory=Counter)
    collected: dict[str, Remains] = field(default_factory=dict)
    billed: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)  # callbacks that were taken, by webhook-id
    told: dict[str, set[str]] = field(default_factory=dict)  # and their ids by job


class Model(ModelDouble):
    """Bills as many tokens as a prompt says, and is behind a wall until the moment it names."""

    def __init__(self, clock: Clock, seen: Seen) -> None:
        super().__init__([Turn()])
        self.clock = clock
        self.seen = seen

    def next(self, asked: Asked) -> Answer:
        text, now = asked.body.decode(), self.clock.now()
        wall_until = re.search(r"wall=(\S+?Z)", text)
        if wall_until is not None:
            until = datetime.fromisoformat(wall_until[1].replace("Z", "+00:00"))
            if now < until:
                return Fault(429, retry_after=format_datetime(until, usegmt=True))
        tokens = re.search(r"tokens=(\d+)", text)
        count = 0 if tokens is None else int(tokens[1])
        self.seen.billed[now.date().isoformat()] += count  # in tokens: exact
        return Turn("Done.", usage=Usage(input=count, output=0, cached=0))


class Month:
    """An installation, and a month of its life."""

    def __init__(self, top: Path, start: datetime, seed: int, receiver: Receiver) -> None:
        self.here = Installation(top)
        self.here.start_repository()
        self.clock = Clock(top / "clock").make()
        self.clock.set(start)
        self.chance = random.Random(seed)
        self.seen = Seen()
        self.model = Model(self.clock, self.seen)
        self.receiver = receiver
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
        base = {"OPENAI_BASE_URL": f"{self.model.url}/v1"}
        self.here.environment |= {**CONFIGURATION, **base, **self.clock.variables()}
        self.receiver.by_hand = self._received

    # ---- the receiver -------------------------------------------------------------------------

    def _received(self, request: BaseHTTPRequestHandler) -> None:
        if self.receiver.status == 0:  # it dies in the middle
            request.close_connection = True
            return
        request.send_response(self.receiver.status)
        request.send_header("Content-Length", "0")
        request.end_headers()
        if self.receiver.status == 204:
            told = self.receiver.told[-1]
            webhook_id = told.headers["webhook-id"]
            self.seen.taken[webhook_id] += 1
            self.seen.told.setdefault(json.loads(told.body)["job_id"], set()).add(webhook_id)

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
        for day in range(days, days + 6):
            self.clock.set(self.start + timedelta(days=day, hours=2))
            self.decide(1.0)
            self.timers()
            self.here.drain()
        self.here.run("notify")

    def morning(self) -> None:
        """The nightly job, new jobs, and a runner that may not live long."""
        fired = self.here.run("schedule", "run", "nightly", "--json")
        job_id = json.loads(fired.stdout)["job_id"]
        self.seen.submitted += [job_id] if job_id else []
        self.submit([self.job() for _ in range(self.chance.randrange(1, 3))])
        if self.chance.random() < 0.4 and not self._costs_money():
            self.killed_runner()
        self.timers()
        self.here.drain()

    def evening(self, day: int) -> None:
        """People decide, callbacks are sent, retention passes."""
        self.receiver.status = self.chance.choice([204, 204, 204, 500, 0])
        self.decide(0.5)
        self.timers()
        self.here.drain()
        self.here.run("notify")
        if day % 3 == 2:
            self.collect()

    def timers(self) -> None:
        """What the timer of agentorch-reclaim does."""
        self.here.run("reclaim", "--stale-after-sec", "0")

    def killed_runner(self) -> None:
        """A runner that is killed at some moment; its forked step dies with it."""
        runner = self.here.start("runner", "--drain")
        with suppress(subprocess.TimeoutExpired):
            runner.wait(self.chance.uniform(0.1, 1.5))
        runner.kill()
        runner.communicate()

    def _costs_money(self) -> bool:
        """Whether a runner would run what is paid for: what a killed attempt cost, nobody knows."""
        lying = [*self.queue.list_state(State.PENDING), *self.queue.list_state(State.PARKED)]
        return any("paid" in key.job_id or "walled" in key.job_id for key, _ in lying)

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
        document = {"goal": "soak", "job_id": f"soak-{self.number:04}-{kind}"}
        if self.chance.random() < 0.5:
            document["callback_url"] = self.receiver.url
        return document | KINDS[kind](self)

    def decide(self, eagerness: float) -> None:
        """Decisions on some of the jobs that wait, failed or are held."""
        for state, choose in DECISIONS.items():
            for key, _ in sorted(self.queue.list_state(state)):
                rare = 0.15 if state in (*ENDED, State.PENDING) else eagerness
                if self.chance.random() < rare and (eagerness < 1 or state not in ENDED):
                    self._decided(key.job_id, choose(self, key.job_id))

    def _decided(self, job_id: str, words: tuple[str, ...]) -> None:
        if self.here.run(words[0], job_id, *words[1:], code=None).returncode == 0:
            self.seen.decisions[job_id] += 1

    # ---- retention ----------------------------------------------------------------------------

    def collect(self) -> None:
        """Runs agentorch-gc, having looked at what it may take."""
        before = {job_id: self.remains(job_id) for job_id in self.ended()}
        gone = self.here.run("gc", "--json").stdout.splitlines()
        removed = {one["job_id"]: one for one in map(json.loads, gone) if one["part"] == "job"}
        for job_id, remains in before.items():
            if not self.here.artifacts(job_id).exists():
                remains.reason = removed.get(job_id, {}).get("why", "")
                self.seen.collected[job_id] = remains

    def ended(self) -> Iterator[str]:
        for state in sorted(ENDED):
            yield from (key.job_id for key, _ in self.queue.list_state(state))

    def remains(self, job_id: str) -> Remains:
        """What a job has come to by now."""
        state = read_json(self.here.artifacts(job_id) / "state.json") or {"ends": 0}
        results = [*self.here.artifacts(job_id).glob("steps/*/attempts/*/result.json")]
        costs = [(read_json(path) or {})["metrics"].get("cost_usd", 0.0) for path in results]
        return Remains(state["ends"], sum(costs), len(results))


# ---- what is submitted ------------------------------------------------------------------------


def ok(_: Month) -> Document:
    return {"steps": [step("a", "echo a >> notes; sleep 0.2"), step("b", "echo b >> notes")]}


def flaky(_: Month) -> Document:
    once = '[ -e "$HOME/once" ] || { : >"$HOME/once"; exit 1; }'
    return {"steps": [step("a", once, max_retries=1)]}


def broken(_: Month) -> Document:
    return {"steps": [step("a", "echo half >> notes; exit 1")]}


def plan(_: Month) -> Document:
    return {"steps": [{**step("a", "echo plan"), "approve_after": True}, step("b", "true")]}


def gate(month: Month) -> Document:
    then = month.chance.choice(["reject", "cancel"])
    waiting = {"then": then, "after_sec": 2 * 86400}
    policy = {"sandbox": True, "network": "deny", "allowed_binaries": []}
    policy |= {"requires_approval": True, "waiting": waiting}
    return {"steps": [step("a", "true")], "policy": policy}


def question(_: Month) -> Document:
    return _walled({"a": ["ask:Which one?", "success"]})


def parked(month: Month) -> Document:
    until = month.clock.now() + timedelta(hours=month.chance.uniform(1, 60))
    return _walled({"a": [f"quota:{rfc3339(until)}", "success"], "b": ["success"]})


def paid(month: Month) -> Document:
    return _asks(f"tokens={month.chance.randrange(200, 1900)}")


def walled(month: Month) -> Document:
    until = month.clock.now() + timedelta(hours=month.chance.uniform(1, 30))
    stamp = until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _asks(f"tokens={month.chance.randrange(10, 500)} wall={stamp}")


def _asks(prompt: str) -> Document:
    one = step("a", prompt, agent="openai", role="reviewer", model="priced-1", timeout_sec=60)
    return {"steps": [one, step("b", "true")]}


def _walled(outcomes: dict[str, list[str]]) -> Document:
    return {
        "goal": json.dumps(outcomes),
        "steps": [step(one, "go on", agent="wall") for one in outcomes],
    }


KINDS: dict[str, Callable[[Month], Document]] = {
    "ok": ok,
    "flaky": flaky,
    "broken": broken,
    "plan": plan,
    "gate": gate,
    "question": question,
    "parked": parked,
    "paid": paid,
    "paid-more": paid,
    "walled": walled,
}


def of_waiting(month: Month, job_id: str) -> tuple[str, ...]:
    """What somebody does about a job that waits for a human."""
    if month.chance.random() < 0.25:
        return ("reject", "--comment", "no")
    if job_id.endswith("question"):
        return ("answer", "The second.")
    return ("approve", "--comment", "fine")


DECISIONS: dict[State, Callable[[Month, str], tuple[str, ...]]] = {
    State.AWAITING_APPROVAL: of_waiting,
    State.FAILED: lambda _, __: ("retry",),
    State.PENDING: lambda _, __: ("hold",),
    State.HELD: lambda _, __: ("release",),
    State.PARKED: lambda month, _: (month.chance.choice(["release", "cancel"]),),
}
