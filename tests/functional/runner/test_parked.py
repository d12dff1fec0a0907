"""Jobs that wait for a time, for a human behind a step, or because somebody holds them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentorch.core.parking import SPARE_S
from agentorch.core.states import State
from agentorch.core.times import moment_of, rfc3339
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.slots import hold
from agentorch.storage.json_files import read_json
from agentorch.storage.paths import Roots
from tests.support import wall
from tests.support.clock import Clock
from tests.support.installation import Installation, step
from tests.support.polling import eventually


class Site:
    """An installation with the agent of `wall`, and a clock that is set."""

    def __init__(self, here: Installation) -> None:
        self.here = here
        wall.install(here.top / "agents.d")
        here.environment["ALLOWED_BINARIES"] = "sh,wall"
        self.clock = Clock(here.top / "clock").make()
        here.environment |= self.clock.variables()
        state = here.state
        self.roots = Roots(
            state / "queue", state / "artifacts", state / "workspaces", state / "state.db"
        )
        self.queue = Queue(self.roots)

    def submit(self, plan: dict[str, list[str]], **fields: Any) -> str:
        """A job whose steps end as is planned; further fields are of every step."""
        steps = [step(step_id, "go on", agent="wall", **fields) for step_id in plan]
        document = {"goal": json.dumps(plan), "steps": steps}
        return self.here.run("submit", "-", given=json.dumps(document)).stdout.strip()

    def ahead(self, **spans: int) -> str:
        """A moment that far from now, as an agent tells it."""
        return rfc3339(datetime.now(UTC) + timedelta(**spans))

    def state(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.here.status(job_id)["state"]
        return found

    def place(self, job_id: str) -> str:
        return str(self.here.status(job_id)["queue_state"])

    def runs(self, job_id: str, step_id: str = "a") -> int:
        """How many attempts of a step there were."""
        return len(list((self.here.artifacts(job_id) / "steps" / step_id / "attempts").iterdir()))

    def result(self, job_id: str, number: int, step_id: str = "a") -> dict[str, Any] | None:
        """How an attempt of a step ended, None where it left no end."""
        attempts = self.here.artifacts(job_id) / "steps" / step_id / "attempts"
        return read_json(attempts / str(number) / "result.json")

    def patched(self, job_id: str, step_id: str | None = None) -> str:
        """The story that the patch of a job, or of a step, makes of the repository."""
        only = [] if step_id is None else ["--step", step_id]
        tree = self.here.top / f"tree-{job_id}-{step_id}"
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(self.here.repository, tree)
        (self.here.top / "p").write_text(self.here.run("diff", job_id, *only).stdout)
        self.here.git("apply", str(self.here.top / "p"), cwd=tree)
        return (tree / "story").read_text()


@pytest.fixture
def site(here: Installation) -> Site:
    return Site(here)


def test_a_quota_parks_until_the_told_time_and_no_try_is_burnt(site: Site) -> None:
    told = site.ahead(hours=3)
    job_id = site.submit({"a": [f"quota:{told}", "error", "success"]}, max_retries=1)
    site.here.drain()
    known = site.state(job_id)
    assert (site.place(job_id), known["status"]) == ("parked", "parked")
    assert known["parked"]["kind"] == "quota"
    until = moment_of(known["parked"]["until"])
    assert 0 <= (moment_of(told) + timedelta(seconds=SPARE_S) - until).total_seconds() < 1
    assert (known["steps"]["a"]["tries"], known["steps"]["a"]["parks"]) == (0, 1)
    site.clock.put_off(2 * 3600)
    site.here.run("reclaim")
    assert site.place(job_id) == "parked"
    site.clock.put_off(3 * 3600 + 60)
    site.here.run("reclaim")
    assert site.place(job_id) == "pending"
    site.here.drain()
    found = site.here.status(job_id)
    assert (found["queue_state"], found["status"]) == ("done", "success")
    assert found["state"]["parked"] is None
    # the second failed by itself, and its retry starts from what the parked one left
    assert site.patched(job_id, "a") == site.patched(job_id) == "a 1\na 3\n"


def test_a_due_job_goes_on_by_a_warm_runner_alone(site: Site) -> None:
    job_id = site.submit({"a": [f"quota:{site.ahead(seconds=2)}", "success"], "b": ["success"]})
    runner = site.here.start("runner")
    eventually(lambda: site.place(job_id) == "parked")
    eventually(lambda: site.place(job_id) == "done", 30)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(20) == 0
    assert site.patched(job_id) == "a 1\na 2\nb 1\n"
    assert site.patched(job_id, "a") == "a 1\na 2\n"


def test_without_a_told_time_each_wall_in_a_row_doubles_the_wait(site: Site) -> None:
    job_id = site.submit({"a": ["quota", "quota", "quota", "success"]})
    waits = []
    for hours in (1, 2, 3):
        before = site.clock.now()
        site.here.drain()
        until = moment_of(site.state(job_id)["parked"]["until"])
        waits.append(round((until - before).total_seconds() / 60))
        site.clock.put_off(hours * 3600)
    assert waits == [5, 10, 20]
    site.here.drain()
    assert site.place(job_id) == "done"
    assert site.state(job_id)["steps"]["a"]["tries"] == 1


def test_a_workspace_that_was_lost_meanwhile_is_made_again(site: Site) -> None:
    plan = {"a": ["success"], "b": [f"quota:{site.ahead(hours=1)}", "success"], "c": ["success"]}
    job_id = site.submit(plan)
    site.here.drain()
    shutil.rmtree(site.here.state / "workspaces" / job_id)
    site.clock.put_off(2 * 3600)
    site.here.drain()
    assert site.place(job_id) == "done"
    # what the parked attempt did is gone with it
    assert site.patched(job_id) == "a 1\nb 2\nc 1\n"


@pytest.mark.parametrize("code", ["max_turns", "max_cost", "anything"])
def test_a_step_that_used_up_its_own_is_not_begun_again(site: Site, code: str) -> None:
    job_id = site.submit({"a": [f"budget:{code}"]}, max_retries=3)
    site.here.drain()
    assert (site.place(job_id), site.runs(job_id)) == ("failed", 1)


def test_an_agent_that_calls_for_a_budget_that_is_there_makes_no_hot_loop(site: Site) -> None:
    job_id = site.submit({"a": ["budget:budget_exceeded"]})
    site.here.drain()
    assert (site.place(job_id), site.runs(job_id)) == ("parked", 2)
    assert site.state(job_id)["parked"]["kind"] == "budget"


def test_a_step_that_is_to_be_approved_waits_with_its_report_and_goes_on_behind_it(
    site: Site,
) -> None:
    here = site.here
    plan = {**step("plan", "echo plan >> story; echo the plan"), "approve_after": True}
    job_id = here.submit(plan, step("build", "echo build >> story"))
    here.drain()
    found = here.status(job_id)
    assert (found["queue_state"], found["status"]) == ("awaiting_approval", "needs_human")
    assert found["state"]["current_step"] == "plan"
    assert found["state"]["steps"]["plan"]["status"] == "success"
    assert "the plan" in (here.artifacts(job_id) / "report.md").read_text()
    here.run("approve", job_id)
    here.drain()
    assert here.status(job_id)["status"] == "success"
    assert site.runs(job_id, "plan") == 1
    assert site.patched(job_id) == "plan\nbuild\n"


def test_the_last_step_may_be_to_be_approved(site: Site) -> None:
    only = {**step("a", "echo a > story"), "approve_after": True}
    job_id = site.here.submit(only)
    site.here.drain()
    assert site.place(job_id) == "awaiting_approval"
    site.here.run("approve", job_id)
    site.here.drain()
    assert (site.place(job_id), site.runs(job_id)) == ("done", 1)


def test_a_running_job_that_is_held_goes_to_held_when_its_step_has_ended(site: Site) -> None:
    job_id = site.submit({"a": ["wait"], "b": ["success"]})
    runner = site.here.start("runner")
    home = site.here.state / "workspaces" / job_id / "home/wall"
    eventually((home / "began-a").exists)
    site.here.run("hold", job_id)
    assert site.place(job_id) == "running"
    (home / "go").touch()
    eventually(lambda: site.place(job_id) == "held")
    site.here.run("release", job_id)
    eventually(lambda: site.place(job_id) == "done")
    assert runner.poll() is None
    assert (site.runs(job_id, "a"), site.runs(job_id, "b")) == (1, 1)


def test_a_held_job_that_runs_into_a_wall_is_held_not_parked(site: Site) -> None:
    job_id = site.submit({"a": [f"quota:{site.ahead(hours=1)}", "success"]})
    site.here.drain()
    (until, key) = site.queue.list_parked()[0]
    # its owner died between its park and the rename, and somebody held it just then
    with hold(site.queue, "other", wait=False) as slot:
        assert slot is not None
        assert slot.take(State.PARKED, key)
    (site.here.artifacts(job_id) / "hold").write_text("{}")
    site.here.run("reclaim", "--stale-after-sec", "0")
    assert until > datetime.now(UTC)
    assert site.place(job_id) == "held"


def test_a_parked_job_is_cancelled(site: Site) -> None:
    job_id = site.submit({"a": [f"quota:{site.ahead(hours=1)}"]})
    site.here.drain()
    site.here.run("cancel", job_id)
    found = site.here.status(job_id)
    assert (found["queue_state"], found["status"]) == ("failed", "cancelled")
    assert found["state"]["parked"] is None
    assert os.listdir(site.roots.queue_root / "parked") == []


def test_a_parked_job_is_released_before_its_time(site: Site) -> None:
    job_id = site.submit({"a": [f"quota:{site.ahead(hours=1)}", "success"]})
    site.here.drain()
    site.here.run("release", job_id)
    site.here.drain()
    assert site.place(job_id) == "done"
    assert site.patched(job_id) == "a 1\na 2\n"


def test_a_done_job_is_run_again_as_a_new_attempt(site: Site) -> None:
    job_id = site.submit({"a": ["success"], "b": ["success"]})
    site.here.drain()
    site.here.run("retry", job_id, "--from", "b")
    site.here.drain()
    assert site.place(job_id) == "done"
    assert (site.runs(job_id, "a"), site.runs(job_id, "b")) == (1, 2)
    assert site.patched(job_id) == "a 1\nb 2\n"
    site.here.run("retry", job_id, "--from", "a")
    site.here.drain()
    assert (site.runs(job_id, "a"), site.runs(job_id, "b")) == (2, 3)
    assert site.patched(job_id) == "a 2\nb 3\n"


def test_what_was_parked_is_not_there_when_a_human_has_the_step_begun_anew(site: Site) -> None:
    plan = {"a": [f"quota:{site.ahead(hours=1)}", "error", "success"]}
    job_id = site.submit(plan, on_failure="ask_human")
    site.here.drain()
    site.clock.put_off(2 * 3600)
    site.here.drain()
    assert site.place(job_id) == "awaiting_approval"
    site.here.run("approve", job_id)
    site.here.drain()
    assert site.patched(job_id) == site.patched(job_id, "a") == "a 3\n"


def test_a_step_that_is_run_by_hand_leaves_its_parked_job_parked(site: Site) -> None:
    job_id = site.submit({"a": [f"quota:{site.ahead(hours=1)}", "success"]})
    site.here.drain()
    before = os.listdir(site.roots.queue_root / "parked")
    site.here.run("step", job_id, "a")
    assert os.listdir(site.roots.queue_root / "parked") == before
    site.clock.put_off(2 * 3600)
    site.here.drain()
    assert site.place(job_id) == "done"


def test_a_runner_that_is_killed_at_any_moment_parks_its_job_once(site: Site) -> None:
    told = site.ahead(hours=1)
    for delay_s in (0.3, 0.6, 0.9, 1.2):
        job_id = site.submit({"a": [f"quota:{told}", f"quota:{told}", "success"]})
        runner = site.here.start("runner")
        with contextlib.suppress(subprocess.TimeoutExpired):
            runner.wait(delay_s)
        runner.kill()
        runner.communicate()
        site.here.run("reclaim", "--stale-after-sec", "0")
        site.here.drain()
        assert site.place(job_id) == "parked"
        # the first may have been killed before it left a directory
        results = [site.result(job_id, n) for n in range(1, site.runs(job_id) + 2)]
        # no wall was run into twice
        assert [r["outcome"] for r in results if r is not None] == ["quota"]
    for hours in (2, 4):  # where the first attempt's end was recorded, the second one meets a wall
        site.clock.put_off(hours * 3600)
        site.here.drain()
    assert len(list(site.queue.list_state(State.DONE))) == 4


def test_a_month_that_a_warm_runner_waits_for_is_no_trouble(site: Site) -> None:
    job_id = site.submit({"a": [f"quota:{site.ahead(days=31)}"]})
    runner = site.here.start("runner")
    eventually(lambda: site.place(job_id) == "parked")
    later = site.here.submit(step("a", "true"))
    eventually(lambda: site.place(later) == "done")
    assert runner.poll() is None
