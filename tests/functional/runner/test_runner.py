"""A runner that is told to leave, killed, or left without a slot; and the decisions on its jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.support.installation import Installation, step
from tests.support.polling import eventually


def gate(here: Installation, job_id: str, name: str) -> bool:
    return (here.work(job_id) / name).exists()


LONG = "echo $$ >> $HOME/runs; : > started; test -e $HOME/go || sleep 600"


def running(here: Installation, *extra: dict[str, object]) -> str:
    """A job whose first step is done and whose second hangs until told otherwise."""
    return here.submit(step("one", "echo x >> $HOME/ones"), step("two", LONG), *extra)


def let_go(here: Installation, job_id: str) -> None:
    (here.state / "workspaces" / job_id / "home/exec/go").touch()


def runs(here: Installation, job_id: str, name: str) -> int:
    return len((here.state / "workspaces" / job_id / "home/exec" / name).read_text().splitlines())


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_runner_that_is_told_to_leave_gives_its_job_back(
    here: Installation, how: signal.Signals
) -> None:
    job_id = running(here)
    runner = here.start("runner")
    eventually(lambda: gate(here, job_id, "started"))
    runner.send_signal(how)
    assert runner.wait(20) == 0
    found = here.status(job_id)
    assert (found["queue_state"], found["status"]) == ("pending", "pending")
    assert found["state"]["steps"]["two"]["summary"] == "interrupted"
    attempt = json.loads((here.artifacts(job_id) / "steps/two/attempts/1/result.json").read_text())
    assert attempt["error"]["code"] == "interrupted"
    let_go(here, job_id)
    here.drain()
    assert here.status(job_id)["status"] == "success"
    assert (runs(here, job_id, "ones"), runs(here, job_id, "runs")) == (1, 2)


def test_hup_finishes_the_job_first(here: Installation) -> None:
    job_id = here.submit(step("a", ": > started; sleep 1; echo done > done"))
    later = here.submit(step("a", "true"))
    runner = here.start("runner")
    eventually(lambda: gate(here, job_id, "started"))
    runner.send_signal(signal.SIGHUP)
    assert runner.wait(20) == 0
    assert here.status(job_id)["status"] == "success"
    assert here.status(later)["queue_state"] == "pending"


def test_a_killed_runners_job_goes_on_at_its_step_in_the_same_slot(here: Installation) -> None:
    job_id = running(here)
    runner = here.start("runner")
    eventually(lambda: gate(here, job_id, "started"))
    runner.kill()
    runner.wait()
    assert here.status(job_id)["queue_state"] == "running"
    (here.work(job_id) / "litter").touch()
    let_go(here, job_id)
    here.drain()
    found = here.status(job_id)
    assert found["status"] == "success"
    assert (runs(here, job_id, "ones"), runs(here, job_id, "runs")) == (1, 2)
    assert not gate(here, job_id, "litter")


def test_an_idle_runner_takes_a_dead_ones_job_at_once(here: Installation) -> None:
    job_id = running(here)
    first = here.start("runner", "--slot", "1")
    eventually(lambda: gate(here, job_id, "started"))
    here.start("runner", "--slot", "2")
    let_go(here, job_id)
    eventually((here.state / "queue/running/2/.lock").exists)
    time.sleep(0.3)  # the second one is in its wait
    first.kill()
    first.wait()
    here.run("wait", job_id, "--timeout", "10")
    assert runs(here, job_id, "ones") == 1


def test_a_killed_step_is_an_outcome_and_the_runner_lives(here: Installation) -> None:
    job_id = here.submit(step("a", LONG, max_retries=1))
    runner = here.start("runner")
    eventually(lambda: gate(here, job_id, "started"))
    children = Path(f"/proc/{runner.pid}/task/{runner.pid}/children")
    let_go(here, job_id)
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    here.run("wait", job_id, "--timeout", "20")
    assert runner.poll() is None
    lost = json.loads((here.artifacts(job_id) / "steps/a/attempts/1/result.json").read_text())
    assert lost["outcome"] == "infra"
    assert "SIGKILL" in lost["summary"]
    assert here.status(job_id)["result"]["steps"][0]["attempts"] == 2


def test_a_job_that_kills_its_runners_does_not_loop(here: Installation) -> None:
    job_id = running(here)
    attempts = here.artifacts(job_id) / "steps/two/attempts"

    def went_on(known: int) -> bool:
        return len(list(attempts.glob("*/claim"))) > known or bool(
            here.run("ls", "--failed").stdout
        )

    for _ in range(8):
        known = len(list(attempts.glob("*/claim")))
        runner = here.start("runner")
        eventually(partial(went_on, known), 60)
        runner.kill()
        runner.wait()
    assert len(list(attempts.glob("*/claim"))) <= 5
    here.drain()
    found = here.status(job_id)
    assert (found["queue_state"], found["result"]["error"]["code"]) == ("failed", "infra")


def test_what_a_killed_steps_sandbox_left_running_is_ended_not_waited_for(
    here: Installation,
) -> None:
    """A bwrap whose starter is killed while it sets up goes on: it notices too late."""
    job_id = running(here)
    runner = here.start("runner")
    eventually(lambda: gate(here, job_id, "started"))
    runner.kill()
    runner.wait()
    lock, work = here.artifacts(job_id) / "steps/two/.lock", str(here.work(job_id))
    inside = ("bwrap", "--dev-bind", "/", "/", "--bind", work, work, "sleep", "600")
    eventually(lambda: subprocess.run(["flock", "-n", lock, "true"], check=False).returncode == 0)
    with subprocess.Popen(["flock", "--no-fork", lock, *inside]) as orphan:
        eventually(lambda: subprocess.run(["flock", "-n", lock, "true"], check=False).returncode)
        let_go(here, job_id)
        following = here.start("runner", "--drain")
        try:
            assert following.wait(60) == 0
        finally:
            orphan.kill()
    assert here.status(job_id)["status"] == "success"


def test_a_busy_slot_is_not_entered(here: Installation) -> None:
    job_id = running(here)
    here.start("runner")
    eventually(lambda: gate(here, job_id, "started"))
    refused = here.run("runner", "--drain", code=75)
    assert "live owner" in refused.stderr
    second = here.start("runner")
    let_go(here, job_id)
    here.run("cancel", job_id)
    here.run("wait", job_id, code=1)
    assert second.poll() is None


def test_cancel_ends_a_running_job_and_all_its_processes(here: Installation) -> None:
    job_id = here.submit(step("a", "trap '' TERM; (setsid sleep 4444 &) ; : > started; sleep 4444"))
    here.start("runner")
    eventually(lambda: gate(here, job_id, "started"))
    assert here.run("cancel", job_id, "--comment", "enough").stdout == f"{job_id}\n"
    here.run("wait", job_id, "--timeout", "20", code=1)
    found = here.status(job_id)
    assert (found["status"], found["queue_state"]) == ("cancelled", "failed")
    assert found["result"]["steps"][0]["status"] == "cancelled"
    line = json.loads((here.artifacts(job_id) / "decisions.jsonl").read_text())
    assert (line["what"], line["comment"], line["who"]["uid"]) == ("cancel", "enough", os.getuid())


def test_cancel_ends_a_pending_and_a_waiting_job(here: Installation) -> None:
    pending = here.submit(step("a", "true"))
    waiting = here.submit(step("a", "true"), policy={"requires_approval": True})
    here.run("cancel", given=f"{pending}\n{waiting}\n")
    for job_id in (pending, waiting):
        found = here.status(job_id)
        assert (found["status"], found["queue_state"]) == ("cancelled", "failed")
        assert found["result"]["status"] == "cancelled"
    assert "pending" not in here.run("cancel", pending, code=2).stdout


def test_retry_goes_on_where_the_job_failed(here: Installation) -> None:
    job_id = here.submit(
        step("one", "echo x >> $HOME/ones"),
        step("two", "echo x >> $HOME/twos; echo y >> README; test -e $HOME/go"),
    )
    here.drain()
    let_go(here, job_id)
    assert here.run("retry", job_id).stdout == f"{job_id}\n"
    assert here.status(job_id)["status"] == "pending"
    here.drain()
    assert here.status(job_id)["status"] == "success"
    assert (runs(here, job_id, "ones"), runs(here, job_id, "twos")) == (1, 2)
    assert (here.work(job_id) / "README").read_text() == "hello\ny\n"


def test_retry_from_an_earlier_step_starts_from_before_it(here: Installation) -> None:
    job_id = here.submit(
        step("one", "echo one >> README"),
        step("two", "echo two >> README"),
        step("three", "echo three >> README; test -e $HOME/go"),
    )
    here.drain()
    let_go(here, job_id)
    assert "no step" in here.run("retry", job_id, "--from", "four", code=2).stderr
    here.run("retry", job_id, "--from", "two")
    here.drain()
    found = here.status(job_id)
    assert found["status"] == "success"
    assert (here.work(job_id) / "README").read_text() == "hello\none\ntwo\nthree\n"
    assert [found["state"]["steps"][s]["attempt"] for s in ("one", "two", "three")] == [1, 2, 2]


def test_retry_after_the_workspace_is_gone_rebuilds_it(here: Installation) -> None:
    job_id = here.submit(
        step("one", "echo one >> README"), step("two", "grep -q one README; test -e $HOME/go")
    )
    here.drain()
    (here.state / "workspaces" / job_id).rename(here.top / "gone")
    (here.repository / "README").write_text("moved on\n")
    here.git("commit", "-qam", "second")
    here.run("retry", job_id)
    (here.state / "workspaces" / job_id / "home/exec").mkdir(parents=True)
    let_go(here, job_id)
    here.drain()
    assert here.status(job_id)["status"] == "success"
    assert (here.work(job_id) / "README").read_text() == "hello\none\n"


def test_a_job_that_needs_a_human_goes_on_a_day_later(here: Installation) -> None:
    job_id = here.submit(
        step("one", "echo x >> $HOME/ones"),
        step("two", "test -e $HOME/go", on_failure="ask_human"),
        step("three", "true"),
    )
    here.drain()
    found = here.status(job_id)
    assert (found["status"], found["queue_state"]) == ("needs_human", "awaiting_approval")
    assert found["result"]["error"]["code"] == "awaiting_human"
    here.run("wait", job_id, code=3)
    yesterday = (datetime.now(UTC) - timedelta(days=1)).timestamp()
    for path in here.state.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (yesterday, yesterday))
    here.drain()
    assert here.status(job_id)["queue_state"] == "awaiting_approval"
    let_go(here, job_id)
    here.run("approve", "--job", job_id)
    here.drain()
    assert here.status(job_id)["status"] == "success"
    assert runs(here, job_id, "ones") == 1
    assert "it is done: " in here.run("approve", job_id, code=2).stderr


def test_a_job_that_requires_approval_waits_before_it_starts(here: Installation) -> None:
    job_id = here.submit(step("a", "true"), policy={"requires_approval": True})
    assert here.status(job_id)["queue_state"] == "awaiting_approval"
    here.drain()
    assert here.status(job_id)["state"] is None
    here.run("approve", job_id)
    here.drain()
    assert here.status(job_id)["status"] == "success"


def test_unlock_fails_a_dead_owners_job_and_refuses_a_live_owners(here: Installation) -> None:
    job_id = running(here)
    runner = here.start("runner")
    eventually(lambda: gate(here, job_id, "started"))
    assert "agentorch-cancel" in here.run("unlock", "--job", job_id, code=2).stderr
    runner.kill()
    runner.wait()
    here.run("unlock", "--job", job_id)
    found = here.status(job_id)
    assert (found["status"], found["queue_state"]) == ("failed", "failed")
    assert found["result"]["error"]["code"] == "unlocked"
    assert "nothing to unlock" in here.run("unlock", job_id, code=2).stderr


def test_reclaim_takes_from_the_dead_and_never_from_the_stopped(here: Installation) -> None:
    job_id = running(here)
    runner = here.start("runner")
    eventually(lambda: gate(here, job_id, "started"))
    runner.send_signal(signal.SIGSTOP)
    assert json.loads(here.run("reclaim", "--stale-after-sec", "0").stdout)["reclaimed"] == 0
    runner.kill()
    runner.wait()
    young = json.loads(here.run("reclaim").stdout)
    assert young == {"reclaimed": 0, "stale_after_sec": 600}
    assert json.loads(here.run("reclaim", "--stale-after-sec", "0").stdout)["reclaimed"] == 1
    found = here.status(job_id)
    assert (found["queue_state"], found["status"]) == ("pending", "pending")


def test_what_no_claim_is_on_record_of_is_not_young(here: Installation) -> None:
    """Its owner died before it wrote one, or left it for the next to adopt."""
    job_id = running(here)
    slot = here.state / "queue/running/9"
    slot.mkdir()
    (slot / ".lock").touch()
    (queued,) = (here.state / "queue/pending").glob("*.json")
    queued.rename(slot / queued.name)
    assert json.loads(here.run("reclaim").stdout) == {"reclaimed": 1, "stale_after_sec": 600}
    assert here.status(job_id)["queue_state"] == "pending"


def test_priority_is_claimed_first_even_by_a_runner_that_listed_already(here: Installation) -> None:
    order = "printf '%s\\n' \"$AGENTORCH_GOAL\" >> " + str(here.top / "order")
    first = here.submit(step("a", ": > started; while ! [ -e $HOME/go ]; do sleep 0.05; done"))
    here.submit(step("a", order), goal="later", policy={"sandbox": False})
    here.start("runner", SANDBOX="0")
    eventually(lambda: gate(here, first, "started"))
    last = here.submit(step("a", order), goal="urgent", priority=0, policy={"sandbox": False})
    let_go(here, first)
    here.run("wait", last)
    eventually(lambda: len((here.top / "order").read_text().splitlines()) == 2)
    assert (here.top / "order").read_text() == "urgent\nlater\n"
