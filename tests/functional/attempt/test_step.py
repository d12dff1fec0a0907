"""agentorch-step: one step of a job in the queue, or of a job file with no queue at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.installation import Installation, step


def alone(
    here: Installation, step_id: str, *steps: dict[str, Any], code: int = 0
) -> dict[str, Any]:
    file = here.top / "job.json"
    file.write_text(json.dumps({"goal": "g", "steps": list(steps)}))
    arguments = ["--job", str(file), "--step", step_id, "--workdir", "."]
    done = here.run("step", *arguments, "--output", str(here.top / "out"), code=code)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_steps_of_a_file_work_in_the_directory_itself_and_share_their_output(
    here: Installation,
) -> None:
    steps = (
        step("one", "echo one >> README"),
        step("two", "cat; grep -q one README", input_artifacts=["steps/one/patch.diff"]),
    )
    result = alone(here, "one", *steps)
    assert (result["status"], result["change_status"]) == ("success", "changed")
    assert (here.repository / "README").read_text() == "hello\none\n"
    out = here.top / "out"
    assert json.loads((out / "result.json").read_text()) == result
    assert "+one" in (out / result["artifacts"]["patch_diff"]).read_text()
    assert alone(here, "two", *steps)["status"] == "success"
    assert "+one" in (out / "steps/two/attempts/1/prompt.md").read_text()
    assert (out / "patch.diff").read_bytes() == b""
    assert sorted(p.name for p in out.iterdir() if p.name.startswith(".")) == []
    assert not here.state.exists()
    assert here.git("status", "--porcelain") == " M README\n"


@pytest.mark.parametrize(
    ("script", "code", "status"),
    [("exit 5", 1, "failed"), ("sleep 30", 124, "timeout")],
)
def test_the_exit_code_tells_how_it_ended(
    here: Installation, script: str, code: int, status: str
) -> None:
    assert alone(here, "a", step("a", script, timeout_sec=1), code=code)["status"] == status


def test_output_inside_the_workdir_is_refused(here: Installation) -> None:
    file = here.top / "job.json"
    file.write_text(json.dumps({"goal": "g", "steps": [step("a", "true")]}))
    done = here.run(
        "step", "--job", str(file), "--step", "a", "--workdir", ".", "--output", "out", code=2
    )
    assert "--output" in done.stderr
    assert done.stdout == ""
    assert not (here.repository / "out").exists()


def test_a_step_of_a_finished_job_runs_again_in_its_workspace(here: Installation) -> None:
    job_id = here.submit(step("one", "echo one >> README"), step("two", "echo two >> README"))
    here.drain()
    result = json.loads(here.run("step", job_id, "two").stdout)
    assert (result["status"], result["attempts"]) == ("success", 2)
    assert (here.work(job_id) / "README").read_text() == "hello\none\ntwo\ntwo\n"
    assert here.status(job_id)["queue_state"] == "done"
    published = json.loads((here.artifacts(job_id) / "steps/two/result.json").read_text())
    assert published["attempts"] == 2
    assert "no step" in here.run("step", job_id, "zwei", code=1).stderr


def test_a_step_of_a_pending_job_is_no_obstacle_to_its_runner(here: Installation) -> None:
    job_id = here.submit(step("one", "echo one >> README"))
    assert json.loads(here.run("step", job_id, "one").stdout)["status"] == "success"
    assert here.status(job_id)["queue_state"] == "pending"
    here.drain()
    found = here.status(job_id)
    assert (found["status"], found["result"]["steps"][0]["attempts"]) == ("success", 2)


@pytest.mark.parametrize("arguments", [[], ["x"], ["--job", "f"], ["x", "y", "--workdir", "."]])
def test_half_a_call_is_a_usage_error(here: Installation, arguments: list[str]) -> None:
    assert here.run("step", *arguments, code=2).stdout == ""


def test_a_bad_job_file_is_refused_with_its_places(here: Installation) -> None:
    file = Path(here.top / "job.json")
    file.write_text('{"goal": "", "steps": [{"step_id": "a", "agent": "exce", "role": "r"}]}')
    arguments = ["--job", str(file), "--step", "a", "--workdir", ".", "--output", str(here.top)]
    done = here.run("step", *arguments, code=2)
    assert done.stderr.count("agentorch-step: ") == 3
    assert ".goal: is empty" in done.stderr


def test_an_output_that_can_not_be_made_is_refused(here: Installation) -> None:
    file = here.top / "job.json"
    file.write_text(json.dumps({"goal": "g", "steps": [step("a", "true")]}))
    arguments = ["--job", str(file), "--step", "a", "--workdir", "."]
    done = here.run("step", *arguments, "--output", "/proc/none", code=2)
    assert "--output: '/proc/none': " in done.stderr
