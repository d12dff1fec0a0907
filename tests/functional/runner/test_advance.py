"""`advance` is re-entrant: whoever drives a job may be replaced between any two calls of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentorch.agents.registry import load as load_agents
from agentorch.artifacts.directory import JobArtifacts
from agentorch.attempt import start
from agentorch.config.settings import Settings, load
from agentorch.contracts.accept import ServerRules, accept
from agentorch.core.job import Key
from agentorch.core.states import State
from agentorch.decisions.decide import approve
from agentorch.decisions.hold import hold
from agentorch.jobqueue import slots
from agentorch.jobqueue.jobqueue import Queue
from agentorch.launch.fork import Fork
from agentorch.runner.advance import ClaimedJob, advance
from agentorch.runner.events import Events
from agentorch.runner.owner import LEAVE_NOW, Owner
from agentorch.runner.waits import (
    Finished,
    Rest,
    WaitsForAttempt,
    WaitsForPerson,
    WaitsForTime,
)
from agentorch.system.signals import Signals
from agentorch.systemd.journal import Journal
from tests.support.installation import step

pytestmark = pytest.mark.needs("bwrap", "git")
LONGEST_S = 120


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "source").mkdir()
    return load(
        {
            "AGENTORCH_ENV_FILE": "/dev/null",
            "AGENTORCH_STATE_DIR": str(tmp_path / "state"),
            "ENABLE_REAL_CLI": "1",
            "ALLOWED_BINARIES": "sh",
            "AGENTORCH_LAUNCHER": "fork",
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
        }
    )


@contextmanager
def owning(settings: Settings) -> Iterator[Owner]:
    """An owner of slot 1, with the embedded launcher."""
    queue = Queue(settings.roots)
    queue.prepare()
    agents = load_agents(settings)
    with Signals(LEAVE_NOW) as signals, slots.hold(queue, "1", wait=True) as slot:
        assert slot is not None
        events = Events(queue.paths, signals)
        run_step = partial(start.run_forked, settings, agents)
        launcher = Fork(settings.roots, run_step, events.close)
        try:
            yield Owner(settings, agents, slot, launcher, events, Journal("test", settings))
        finally:
            events.close()


def submit(owner: Owner, source: Path, *steps: dict[str, Any], **fields: Any) -> Key:
    """The key of a job that is queued."""
    document = {"goal": "g", "steps": list(steps), "workdir": str(source), **fields}
    rules = ServerRules(owner.agents.abilities(), ())
    job, normal = accept(document, rules, datetime.now(UTC))
    owner.slot.queue.submit(job, normal)
    return job.key


def claim(owner: Owner, key: Key, state: State = State.PENDING) -> None:
    assert owner.slot.take(state, key)


def drive(owner: Owner, key: Key, *, forgetful: bool) -> tuple[Rest, list[str]]:
    """Where the job rests, and what it waited for; a forgetful driver knows the disk alone."""
    job, waited = ClaimedJob(owner, key), []
    for _ in itertools.repeat(None, LONGEST_S * 10):
        match advance(job):
            case WaitsForAttempt(attempt):
                waited.append(attempt.step.step_id)
                owner.events.wait(0.1)
            case WaitsForTime(left_s):
                waited.append("time")
                owner.events.wait(left_s)
            case rest:
                return rest, waited
        if forgetful:
            job = ClaimedJob(owner, key)
    raise AssertionError("it never came to rest")


def end(owner: Owner, key: Key) -> dict[str, Any]:
    """What matters of a job's end."""
    artifacts = JobArtifacts(owner.settings.roots.artifacts(key.job_id))
    result, state = artifacts.job_result(), artifacts.read_state()
    assert result is not None
    assert state is not None
    steps = [(one.step_id, str(one.outcome), one.attempts) for one in result.steps]
    return {"status": result.status, "steps": steps, "patch": artifacts.read_patch()}


FAILS_ONCE = step(
    "a",
    'test -e "$HOME/.tried" || { touch "$HOME/.tried"; echo half >half; exit 1; }; echo a >a',
    max_retries=2,
    retry_backoff_sec=0.2,
)
STEPS = (FAILS_ONCE, step("b", "exit 3", max_retries=0, on_failure="continue"), step("c", "cat a"))


def test_a_driver_that_forgets_all_comes_to_the_same_end(
    settings: Settings, tmp_path: Path
) -> None:
    ends = []
    for forgetful in (False, True):
        with owning(settings) as owner:
            key = submit(owner, tmp_path / "source", *STEPS)
            claim(owner, key)
            rest, waited = drive(owner, key, forgetful=forgetful)
            assert rest == Finished(State.DONE)
            assert {"a", "b", "c"} <= set(waited)
            ends.append(end(owner, key))
    assert ends[0] == ends[1]
    assert ends[0]["steps"] == [("a", "success", 2), ("b", "agent_error", 1), ("c", "success", 1)]


def test_a_pause_between_tries_is_counted_from_the_disk(settings: Settings, tmp_path: Path) -> None:
    with owning(settings) as owner:
        fails = step("a", "exit 1", max_retries=1, retry_backoff_sec=30)
        key = submit(owner, tmp_path / "source", fails)
        claim(owner, key)
        job = ClaimedJob(owner, key)
        while isinstance(waits := advance(job), WaitsForAttempt):
            owner.events.wait(0.1)
        assert isinstance(waits, WaitsForTime)
        assert 0 < waits.left_s <= 30
        again = advance(ClaimedJob(owner, key))
        assert isinstance(again, WaitsForTime)
        assert again.left_s <= waits.left_s
        job.artifacts.paths.cancel.touch()
        assert advance(job) == Finished(State.FAILED)


def test_a_person_is_waited_for_by_nobody(settings: Settings, tmp_path: Path) -> None:
    with owning(settings) as owner:
        asks = step("a", "exit 1", max_retries=0, on_failure="ask_human")
        key = submit(owner, tmp_path / "source", asks)
        claim(owner, key)
        rest, _ = drive(owner, key, forgetful=True)
        assert rest == WaitsForPerson(State.AWAITING_APPROVAL)
        approve(owner.slot.queue, key.job_id, accept=True)
        claim(owner, key)
        assert drive(owner, key, forgetful=True)[0] == Finished(State.DONE)


def test_a_hold_comes_between_two_steps(settings: Settings, tmp_path: Path) -> None:
    with owning(settings) as owner:
        key = submit(owner, tmp_path / "source", step("a", "true"), step("b", "true"))
        claim(owner, key)
        job = ClaimedJob(owner, key)
        assert isinstance(advance(job), WaitsForAttempt)
        hold(owner.slot.queue, key.job_id)
        rest, waited = drive(owner, key, forgetful=True)
        assert rest == WaitsForPerson(State.HELD)
        assert set(waited) <= {"a"}


def test_it_never_waits_itself(settings: Settings, tmp_path: Path) -> None:
    """An attempt that runs on is no reason not to return."""
    with owning(settings) as owner:
        key = submit(owner, tmp_path / "source", step("a", "read line <fifo || sleep 60"))
        claim(owner, key)
        job = ClaimedJob(owner, key)
        for _ in range(3):
            assert isinstance(advance(job), WaitsForAttempt)
        job.artifacts.paths.cancel.touch()
        rest, _ = drive(owner, key, forgetful=False)
        assert rest == Finished(State.FAILED)
        assert end(owner, key)["status"] == "cancelled"
