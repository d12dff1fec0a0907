"""Steps in transient units of a real user manager: adopted, cancelled, told off truly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.ground import BINDS, PATTERN, SECRET, STATE, UID, Ground, step
from tests.support.machine import RELEASES, booted, missing
from tests.support.selection import one_for

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}; not proved here")

# Says how often it ran, and hangs until it is let go.
LONG = "echo x >> $HOME/runs; : > started; until test -e $HOME/go; do sleep 0.1; done"


@pytest.fixture(scope="module", params=one_for(RELEASES, __name__))
def place(request: pytest.FixtureRequest) -> Iterator[Ground]:
    with booted(BINDS, request.param) as machine:
        yield Ground.on(machine)


@pytest.fixture
def ground(place: Ground) -> Iterator[Ground]:
    yield place
    place.clear()


def test_a_job_end_to_end(ground: Ground) -> None:
    job_id = ground.submit(
        step("one", 'echo hello > file; test -z "${NOTIFY_SOCKET-}"'),
        step("two", "test hello = $(cat file); cat /proc/self/cgroup >$HOME/group"),
    )
    runner = ground.start_runner("--drain")
    found = ground.ended(job_id)
    assert found["status"] == "success", found
    metrics = found["result"]["steps"][0]["metrics"]
    assert metrics["cpu_s"] > 0
    assert metrics["duration_ms"] > 0
    assert ground.machine.output("systemctl", "show", "--value", "-pResult", runner) == "success"
    assert ground.units() == []
    left = ground.machine.output("ls", f"{STATE}/workspaces/{job_id}/unit")
    assert left == ""


def test_nothing_secret_is_told_of_a_unit(ground: Ground) -> None:
    job_id = ground.submit(step("one", LONG))
    runner = ground.start_runner("--once")
    ground.wait_for_file(job_id, "started")
    (unit,) = ground.units()
    assert unit == f"agentorch-step-{job_id}:one:a1.service"
    shown = ground.systemctl("show", unit) + ground.systemctl("cat", unit)
    assert "agentorch-step" in shown
    assert SECRET not in shown
    assert SECRET not in ground.machine.output("ps", "-ww", "-eo", "args")
    environment = f"{STATE}/workspaces/{job_id}/unit/one/environment"
    assert ground.machine.run("test", "-e", environment, check=False).returncode != 0
    main = ground.systemctl("show", "--value", "--property=MainPID", unit).strip()
    passed = ground.machine.output("cat", f"/proc/{main}/environ")
    assert SECRET in passed
    assert f"AGENTORCH_STATE_DIR={STATE}\0" in passed
    assert ground.told(runner, "StatusText") == f"job {job_id}: step one, attempt 1 (exec)"
    ground.let_go(job_id)
    assert ground.ended(job_id)["status"] == "success"
    assert SECRET not in ground.machine.output("journalctl", "--no-pager", "--output=export")


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_the_next_runner_adopts_the_step(ground: Ground, how: str) -> None:
    job_id = ground.submit(step("one", LONG), step("two", "echo y >> $HOME/runs"))
    runner = ground.start_runner()
    ground.wait_for_file(job_id, "started")
    (ground.stop if how == "stopped" else ground.kill)(runner)
    assert len(ground.units()) == 1
    assert ground.status(job_id)["queue_state"] == "running"
    next_runner = ground.start_runner("--drain")
    ground.wait_until_at(next_runner, job_id)
    ground.let_go(job_id)
    found = ground.ended(job_id)
    assert (found["status"], ground.lines(job_id, "runs")) == ("success", 2)
    assert [s["attempts"] for s in found["result"]["steps"]] == [1, 1]


def test_its_step_ended_while_there_was_no_runner(ground: Ground) -> None:
    job_id = ground.submit(step("one", LONG))
    ground.stop_after_start(job_id)
    ground.let_go(job_id)
    ground.machine.wait_for(lambda: ground.units() == [])
    ground.start_runner("--drain")
    assert ground.ended(job_id)["status"] == "success"
    assert ground.lines(job_id, "runs") == 1


def test_twenty_upgrades_in_one_step_are_no_reason_to_fail(ground: Ground) -> None:
    job_id = ground.submit(step("one", LONG))
    for _ in range(20):
        ground.stop_after_start(job_id)
    # nor are deaths while the step lives
    for _ in range(5):
        runner = ground.start_runner()
        ground.wait_until_at(runner, job_id)
        ground.kill(runner)
    ground.let_go(job_id)
    ground.start_runner("--drain")
    assert ground.ended(job_id)["status"] == "success"
    assert ground.lines(job_id, "runs") == 1


def test_another_slot_adopts_it(ground: Ground) -> None:
    job_id = ground.submit(step("one", LONG))
    ground.stop_after_start(job_id)
    other = ground.start_runner("--slot", "other", "--drain")
    ground.wait_until_at(other, job_id)
    ground.let_go(job_id)
    assert ground.ended(job_id)["status"] == "success"
    assert ground.lines(job_id, "runs") == 1


@pytest.mark.parametrize("adopted", [False, True])
def test_cancel(ground: Ground, *, adopted: bool) -> None:
    script = f"trap '' TERM; (setsid sleep 4321 &) ; {LONG}"
    job_id = ground.submit(step("one", script))
    runner = ground.start_runner()
    ground.wait_for_file(job_id, "started")
    if adopted:
        ground.kill(runner)
        runner = ground.start_runner()
    assert "4321" in ground.processes_of("sleep 4321")
    ground.program("cancel", job_id)
    found = ground.ended(job_id, 20)
    assert found["status"] == "cancelled"
    assert ground.processes_of("sleep 4321") == ""
    assert ground.units() == []
    ground.stop(runner)


def test_cancel_while_there_is_no_runner(ground: Ground) -> None:
    job_id = ground.submit(step("one", LONG))
    ground.stop_after_start(job_id)
    ground.program("cancel", job_id)
    assert len(ground.units()) == 1
    ground.start_runner("--drain")
    assert ground.ended(job_id)["status"] == "cancelled"
    assert ground.units() == []


def test_timeout(ground: Ground) -> None:
    job_id = ground.submit(step("one", LONG, timeout_sec=1))
    ground.start_runner("--drain")
    found = ground.ended(job_id)
    assert found["result"]["steps"][0]["outcome"] == "timeout"
    assert ground.units() == []


@pytest.mark.parametrize("adopted", [False, True])
def test_a_killed_step_is_told_by_its_unit(ground: Ground, *, adopted: bool) -> None:
    job_id = ground.submit(step("one", LONG))
    if adopted:
        ground.stop_after_start(job_id)
    else:
        ground.start_runner("--drain")
        ground.wait_for_file(job_id, "started")
    ground.systemctl("kill", "--kill-whom=main", "--signal=KILL", *ground.units())
    if adopted:
        ground.machine.wait_for(lambda: ground.units() == [])
        ground.start_runner("--drain")
    result = ground.ended(job_id)["result"]["steps"][0]
    assert (result["outcome"], result["error"]["code"]) == ("infra", "exception")
    assert result["summary"] == "left no result: its process was killed by SIGKILL"
    end = ground.left(job_id, "steps/one/attempts/1/end.json")
    assert (end["service_result"], end["exit_code"], end["exit_status"]) == (
        "signal",
        "killed",
        "KILL",
    )
    assert end["cpu_s"] > 0
    assert result["metrics"]["cpu_s"] == end["cpu_s"]


def test_a_stop_of_the_unit_gives_the_attempt_back(ground: Ground) -> None:
    job_id = ground.submit(step("one", LONG))
    ground.stop_after_start(job_id)
    ground.systemctl("stop", PATTERN)
    assert ground.units() == []
    attempt = ground.left(job_id, "steps/one/attempts/1/result.json")
    assert attempt["error"]["code"] == "interrupted"
    ground.let_go(job_id)
    ground.start_runner("--drain")
    assert ground.ended(job_id)["status"] == "success"
    assert ground.lines(job_id, "runs") == 2


def test_no_manager_is_waited_for(ground: Ground) -> None:
    ground.machine.run("systemctl", "stop", f"user@{UID}.service")
    job_id = ground.submit(step("one", "true"))
    runner = ground.start_runner("--drain")
    words = "waiting: systemd-run, service manager of user 'agent': Failed to connect"
    ground.machine.wait_for(lambda: ground.told(runner, "StatusText").startswith(words))
    ground.machine.shell("sleep 3")
    said = ground.machine.output("journalctl", "--no-pager", f"--unit={runner}", "--output=cat")
    assert said.count("waiting:") == 1, said
    ground.machine.run("systemctl", "start", f"user@{UID}.service")
    found = ground.ended(job_id)
    assert found["status"] == "success"
    assert found["result"]["steps"][0]["attempts"] == 1


def test_it_leaves_when_idle(ground: Ground) -> None:
    job_id = ground.submit(step("one", "true"))
    runner = ground.start_runner("--idle-s", "1")
    assert ground.ended(job_id)["status"] == "success"
    ground.machine.wait_for(f"! systemctl is-active --quiet {runner}", 20)
    assert ground.told(runner, "Result") == "success"
