"""What people decide on jobs, by the commands: what becomes of them, and what is on record."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentorch.artifacts.decision_log import mark, shown_hash
from agentorch.jobqueue.jobqueue import Queue
from agentorch.storage.paths import Roots
from tests.support.installation import Installation, processes_with, step
from tests.support.polling import eventually

KEY = "sk-ant-api03-" + "Zx9" * 31 + "AA"
# what it does the first time, then it succeeds; what it was asked stays in its home
AGENT = """#!/bin/sh
echo run >>"$HOME/runs"
runs=$(wc -l <"$HOME/runs")
cat >"$HOME/request.$runs"
echo "$runs" >>story
[ "$runs" -gt 1 ] || { echo '%s'; exit 0; }
echo '{"type": "result", "status": "success", "summary": "done"}'
"""
QUESTION = {"type": "result", "status": "needs_human", "question": "Which colour?"}
TIMES_OUT = "never comes to an end"


def quota(until: datetime) -> dict[str, Any]:
    """The result of an agent that ran into a limit."""
    error = {"code": "limit", "message": "used up", "class": "quota"}
    resets_at = until.isoformat()
    return {"type": "result", "status": "failed", "error": {**error, "resets_at": resets_at}}


def agent(here: Installation, result: dict[str, Any]) -> dict[str, Any]:
    """A step of an agent that says this the first time."""
    agents = here.top / "agents.d"
    agents.mkdir(exist_ok=True)
    program = agents / "once"
    program.write_text(AGENT % json.dumps(result))
    program.chmod(0o755)
    (agents / "once.toml").write_text(f'command = ["{program}"]\nneeds_git = false\n')
    here.environment["ALLOWED_BINARIES"] = "sh,once"
    return step("ask", "work", agent="once")


def tomorrow() -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)


def queue_of(here: Installation) -> Queue:
    state = here.state
    return Queue(
        Roots(state / "queue", state / "artifacts", state / "workspaces", state / "state.db")
    )


def place(here: Installation, job_id: str) -> str:
    return str(here.status(job_id)["queue_state"])


def decisions(here: Installation, job_id: str) -> list[dict[str, Any]]:
    path = here.artifacts(job_id) / "decisions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def attempts(here: Installation, job_id: str, step_id: str) -> list[str]:
    directory = here.artifacts(job_id) / "steps" / step_id / "attempts"
    return sorted(os.listdir(directory)) if directory.exists() else []


def prompt(here: Installation, job_id: str, step_id: str, attempt: int) -> str:
    path = here.artifacts(job_id) / "steps" / step_id / "attempts" / str(attempt) / "prompt.md"
    return path.read_text()


def asking(here: Installation, *more: dict[str, Any], **fields: Any) -> str:
    """A job whose first step failed and asks what now; it would fail again."""
    job_id = here.submit(step("one", "false", on_failure="ask_human"), *more, **fields)
    here.drain()
    assert place(here, job_id) == "awaiting_approval"
    return job_id


def parked(here: Installation, until: datetime) -> str:
    job_id = here.submit(agent(here, quota(until)), step("two", "true"))
    here.drain()
    assert place(here, job_id) == "parked"
    return job_id


# ---- approve, reject --------------------------------------------------------------------------


def test_a_step_that_failed_is_taken_as_it_is(here: Installation) -> None:
    job_id = asking(here, step("two", "true"))
    here.run("approve", "--accept", "--comment", "good enough", job_id)
    here.drain()
    status = here.status(job_id)
    assert (status["queue_state"], status["status"]) == ("done", "success")
    assert status["state"]["steps"]["one"]["accepted"]
    assert attempts(here, job_id, "one") == ["1"]
    assert "good enough" in prompt(here, job_id, "two", 1)
    assert decisions(here, job_id)[0]["accept"] is True


def test_where_it_was_the_last_step_the_job_succeeds(here: Installation) -> None:
    job_id = asking(here)
    here.run("approve", "--accept", job_id)
    here.drain()
    status = here.status(job_id)
    assert (status["queue_state"], status["result"]["status"]) == ("done", "success")
    assert attempts(here, job_id, "one") == ["1"]


def test_of_a_job_that_did_not_begin_nothing_is_accepted(here: Installation) -> None:
    job_id = here.submit(step("one", "true"), policy={"requires_approval": True})
    done = here.run("approve", "--accept", job_id, code=2)
    assert "no step of it has run" in done.stderr
    assert (place(here, job_id), decisions(here, job_id)) == ("awaiting_approval", [])


def test_a_plan_is_read_before_it_is_implemented(here: Installation) -> None:
    job_id = here.submit(step("plan", "true", approve_after=True), step("work", "true"))
    here.drain()
    assert place(here, job_id) == "awaiting_approval"
    here.run("approve", "--comment", "but in blue", job_id)
    here.drain()
    assert place(here, job_id) == "done"
    assert attempts(here, job_id, "plan") == ["1"]
    assert "but in blue" in prompt(here, job_id, "work", 1)


def test_a_plan_can_be_sent_back_with_a_comment(here: Installation) -> None:
    job_id = here.submit(step("plan", "true", approve_after=True), step("work", "true"))
    here.drain()
    here.run("retry", "--comment", "shorter", job_id)
    here.drain()
    assert place(here, job_id) == "awaiting_approval"
    assert attempts(here, job_id, "plan") == ["1", "2"]
    assert "shorter" in prompt(here, job_id, "plan", 2)
    assert attempts(here, job_id, "work") == []


def test_a_job_that_is_rejected_ends_like_any_other(here: Installation) -> None:
    job_id = asking(here, callback_url="http://127.0.0.1:9/")
    here.run("reject", "--comment", f"not like this, {KEY}", job_id)
    status = here.status(job_id)
    error = status["result"]["error"]
    assert (status["queue_state"], status["state"]["status"]) == ("failed", "failed")
    assert error["code"] == "rejected"
    assert "not like this" in error["message"]
    assert f"# Job {job_id}: failed" in (here.artifacts(job_id) / "report.md").read_text()
    outbox = os.listdir(here.state / "queue/outbox/new")
    assert f"{job_id}-2-failed.json" in outbox
    assert KEY not in everything_of(here, job_id)


def test_a_job_that_never_began_can_be_rejected_and_queued_again(here: Installation) -> None:
    job_id = here.submit(step("one", "true"), policy={"requires_approval": True})
    here.run("reject", job_id)
    assert here.status(job_id)["result"]["error"]["code"] == "rejected"
    here.run("retry", job_id)
    here.drain()
    assert place(here, job_id) == "done"


def test_nobody_gets_around_an_approval_by_a_retry(here: Installation) -> None:
    job_id = here.submit(step("one", "true"), policy={"requires_approval": True})
    assert "approve it" in here.run("retry", job_id, code=2).stderr
    assert place(here, job_id) == "awaiting_approval"


# ---- what was shown ---------------------------------------------------------------------------


def test_a_decision_is_bound_to_what_was_shown(here: Installation) -> None:
    job_id = asking(here)
    seen = here.status(job_id)["shown"]
    assert here.status(job_id)["shown"] == seen
    here.run("retry", job_id)
    here.drain()
    for command in ("approve", "reject"):
        refused = here.run(command, "--hash", seen, job_id, code=2)
        assert "it is not any more what was shown" in refused.stderr
        assert " retried it at " in refused.stderr
    assert place(here, job_id) == "awaiting_approval"
    now = here.status(job_id)["shown"]
    here.run("reject", "--hash", now, job_id)
    assert [line["shown"] for line in decisions(here, job_id)] == [seen, now]
    assert [line["what"] for line in decisions(here, job_id)] == ["retry", "reject"]


@pytest.mark.parametrize(
    "name", ["job.json", "state.json", "result.json", "report.md", "patch.diff"]
)
def test_whatever_changes_changes_the_hash(here: Installation, name: str) -> None:
    job_id = asking(here)
    paths = queue_of(here).roots.artifacts(job_id)
    before = shown_hash(paths)
    (here.artifacts(job_id) / name).write_bytes((here.artifacts(job_id) / name).read_bytes() + b" ")
    assert shown_hash(paths) != before


def test_who_comes_second_is_told_who_was_first(here: Installation) -> None:
    job_id = asking(here)
    here.run("approve", job_id)
    refused = here.run("reject", job_id, code=2)
    line = decisions(here, job_id)[-1]
    first = f"it is pending: {line['who']['name']} approved it at {line['when']}"
    assert refused.stderr == f"agentorch-reject: can't reject job {job_id}: {first}\n"


# a job that one of them rejected might be retried by another
@pytest.mark.parametrize("against", ["reject", "retry"])
def test_of_eight_at_once_one_wins(here: Installation, against: str) -> None:
    job_id = asking(here)
    commands = [["approve"], [against], ["approve", "--accept"], [against]] * 2
    with ThreadPoolExecutor(len(commands)) as pool:
        ended = list(pool.map(lambda argv: here.run(*argv, job_id, code=None), commands))
    assert sorted(done.returncode for done in ended) == [0] + [2] * 7
    (line,) = decisions(here, job_id)
    for done in ended:
        if done.returncode:
            assert f"{line['who']['name']} " in done.stderr
            assert line["when"] in done.stderr


# ---- comments, answers ------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["full", "sliding", "summarize"])
def test_a_comment_is_told_to_the_next_attempt_and_the_next_steps(
    here: Installation, strategy: str
) -> None:
    first = step("one", 'test "$AGENTORCH_ATTEMPT" -gt 1', on_failure="ask_human")
    window = [{"role": "user", "content": f"said before: {n}"} for n in range(20)]
    more = {"context_strategy": strategy, "context_window": window}
    job_id = here.submit(first, step("two", "true"), **more)
    here.drain()
    secret = "a-value-only-the-server-knows"
    here.environment |= {"OPENAI_API_KEY": secret}
    here.run("approve", "--comment", f"mind the gap, {KEY}, {secret}", job_id)
    here.drain()
    assert place(here, job_id) == "done"
    for step_id, attempt in (("one", 2), ("two", 1)):
        told = prompt(here, job_id, step_id, attempt)
        assert "A human decided (approve) and says: mind the gap" in told
    assert "mind the gap" in decisions(here, job_id)[0]["comment"]
    assert KEY not in everything_of(here, job_id)
    assert secret not in everything_of(here, job_id)


def everything_of(here: Installation, job_id: str) -> str:
    files = [path for path in here.artifacts(job_id).rglob("*") if path.is_file()]
    return "".join(path.read_text("utf-8", "replace") for path in files)


def test_a_question_is_answered_and_the_work_goes_on(here: Installation) -> None:
    job_id = here.submit(agent(here, QUESTION), step("two", "true"))
    here.drain()
    assert place(here, job_id) == "awaiting_approval"
    here.run("answer", job_id, "-", given="blue\n")
    here.drain()
    assert place(here, job_id) == "done"
    assert (here.work(job_id) / "story").read_text() == "1\n2\n"
    for step_id, attempt in (("ask", 2), ("two", 1)):
        told = prompt(here, job_id, step_id, attempt)
        assert "A human answers the question: Which colour?\n\nThe answer: blue" in told
    (line,) = decisions(here, job_id)
    assert (line["what"], line["question"], line["comment"]) == ("answer", "Which colour?", "blue")


def test_where_nothing_was_asked_nothing_is_answered(here: Installation) -> None:
    job_id = asking(here)
    assert "asked no question" in here.run("answer", job_id, "blue", code=2).stderr
    asks = here.submit(agent(here, QUESTION))
    here.drain()
    assert "is empty" in here.run("answer", asks, " ", code=2).stderr
    assert decisions(here, job_id) == decisions(here, asks) == []


def test_a_comment_too_long_is_refused(here: Installation) -> None:
    job_id = asking(here)
    refused = here.run("approve", "--comment", "x" * 20001, job_id, code=2)
    assert "longer than 20000" in refused.stderr
    assert (place(here, job_id), decisions(here, job_id)) == ("awaiting_approval", [])


@pytest.mark.parametrize(
    "arguments",
    [
        ("approve", "--comment", "\udcff"),
        ("reject", "--comment", "\udcff"),
        ("cancel", "--comment", "\udcff"),
        ("retry", "--comment", "\udcff"),
        ("hold", "--keep", "--comment", "\udcff"),
    ],
)
def test_a_comment_that_is_no_text_is_refused(
    here: Installation, arguments: tuple[str, ...]
) -> None:
    job_id = asking(here)
    refused = here.run(*arguments, job_id, code=2)
    assert refused.stderr.endswith("what is said about it is not UTF-8\n")
    assert (place(here, job_id), decisions(here, job_id)) == ("awaiting_approval", [])


# ---- hold, release, keep ----------------------------------------------------------------------


def test_a_held_job_is_not_run_before_it_is_released(here: Installation) -> None:
    job_id = here.submit(step("one", "true"))
    here.run("hold", "--comment", "not today", job_id)
    here.drain()
    assert place(here, job_id) == "held"
    assert json.loads((here.artifacts(job_id) / "hold").read_text())["reason"] == "not today"
    assert attempts(here, job_id, "one") == []
    here.run("release", job_id)
    here.drain()
    assert place(here, job_id) == "done"


def test_a_running_job_is_held_when_its_step_has_ended(here: Installation) -> None:
    wait = 'touch "$HOME/begun"; while [ ! -e "$HOME/go" ]; do sleep 0.05; done'
    job_id = here.submit(step("one", wait), step("two", "true"))
    runner = here.start("runner", "--once")
    home = here.state / "workspaces" / job_id / "home/exec"
    eventually((home / "begun").exists)
    told = here.run("hold", job_id).stderr
    assert f"{job_id}: it runs, and is held when its step has ended" in told
    (home / "go").touch()
    assert runner.wait(60) == 0
    assert place(here, job_id) == "held"
    assert here.status(job_id)["state"]["steps"]["one"]["status"] == "success"
    assert attempts(here, job_id, "two") == []
    here.run("release", job_id)
    here.drain()
    assert (place(here, job_id), attempts(here, job_id, "one")) == ("done", ["1"])


def test_a_hold_of_a_running_job_can_be_taken_back(here: Installation) -> None:
    wait = 'touch "$HOME/begun"; while [ ! -e "$HOME/go" ]; do sleep 0.05; done'
    job_id = here.submit(step("one", wait), step("two", "true"))
    runner = here.start("runner", "--once")
    home = here.state / "workspaces" / job_id / "home/exec"
    eventually((home / "begun").exists)
    here.run("hold", job_id)
    here.run("release", job_id)
    (home / "go").touch()
    assert runner.wait(60) == 0
    assert place(here, job_id) == "done"


def test_a_parked_job_is_released_before_its_time(here: Installation) -> None:
    job_id = parked(here, tomorrow())
    here.run("release", job_id)
    assert (place(here, job_id), here.status(job_id)["state"]["parked"]) == ("pending", None)
    here.drain()
    assert place(here, job_id) == "done"
    assert (here.work(job_id) / "story").read_text() == "1\n2\n"


def test_a_parked_job_is_held_beyond_its_time(here: Installation) -> None:
    job_id = parked(here, tomorrow())
    here.run("hold", job_id)
    assert place(here, job_id) == "held"
    assert here.status(job_id)["state"]["parked"]["kind"] == "quota"
    here.run("release", job_id)
    here.drain()
    assert place(here, job_id) == "done"


@pytest.mark.parametrize("crashed", ["pending", "parked"])
def test_a_marker_alone_holds_whoever_claims_the_job(here: Installation, crashed: str) -> None:
    """A hold that died between its marker and its rename."""
    job_id = parked(here, tomorrow()) if crashed == "parked" else here.submit(step("two", "true"))
    queue = queue_of(here)
    mark(queue.roots.artifacts(job_id).hold, {"name": "alice"}, "wait", datetime.now(UTC))
    if crashed == "parked":
        due(here, job_id)
    here.drain()
    assert place(here, job_id) == "held"
    assert attempts(here, job_id, "two") == []
    here.run("release", job_id)
    here.drain()
    assert place(here, job_id) == "done"


def due(here: Installation, job_id: str) -> None:
    """As if the clock were where a parked job's time has come: its times are moved back."""
    past = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)
    queue = queue_of(here)
    for until, key in queue.list_parked():
        queue.paths.parked_file(key, until).rename(queue.paths.parked_file(key, past))
    path = here.artifacts(job_id) / "state.json"
    state = json.loads(path.read_text())
    state["parked"]["until"] = past.isoformat()
    path.write_text(json.dumps(state))


def test_what_is_held_or_waits_is_not_held(here: Installation) -> None:
    waits = here.submit(step("one", "true"), policy={"requires_approval": True})
    assert "it is awaiting_approval, not pending" in here.run("hold", waits, code=2).stderr
    held = here.submit(step("one", "true"))
    here.run("hold", held)
    assert "held it back at" in here.run("hold", held, code=2).stderr
    assert "not held or parked" in here.run("release", waits, code=2).stderr


def test_a_job_is_pinned_whatever_its_state(here: Installation) -> None:
    job_id = here.submit(step("one", "true"))
    here.drain()
    here.run("hold", "--keep", "--comment", "a fine example", job_id)
    marker = here.artifacts(job_id) / "keep"
    assert json.loads(marker.read_text())["reason"] == "a fine example"
    here.run("release", "--keep", job_id)
    assert not marker.exists()
    assert place(here, job_id) == "done"
    assert [line["what"] for line in decisions(here, job_id)] == ["keep", "unkeep"]


# ---- retry, cancel ----------------------------------------------------------------------------


def test_a_job_that_is_done_is_run_again(here: Installation) -> None:
    job_id = here.submit(step("one", "echo x >>story"), step("two", "true"))
    here.drain()
    here.run("retry", "--comment", "once more", job_id)
    here.drain()
    assert place(here, job_id) == "done"
    assert attempts(here, job_id, "one") == attempts(here, job_id, "two") == ["1", "2"]
    assert (here.work(job_id) / "story").read_text() == "x\n"
    assert "once more" in prompt(here, job_id, "one", 2)


def test_a_done_job_is_run_again_from_a_step(here: Installation) -> None:
    job_id = here.submit(step("one", "true"), step("two", "true"))
    here.drain()
    here.run("retry", "--from", "two", job_id)
    here.drain()
    assert attempts(here, job_id, "one") == ["1"]
    assert attempts(here, job_id, "two") == ["1", "2"]


@pytest.mark.parametrize("where", ["held", "parked", "awaiting_approval", "pending"])
def test_a_job_is_cancelled_wherever_it_lies(here: Installation, where: str) -> None:
    match where:
        case "parked":
            job_id = parked(here, tomorrow())
        case "awaiting_approval":
            job_id = asking(here)
        case _:
            job_id = here.submit(step("one", "true"))
    if where == "held":
        here.run("hold", job_id)
    assert place(here, job_id) == where
    here.run("cancel", job_id)
    status = here.status(job_id)
    assert (status["queue_state"], status["result"]["status"]) == ("failed", "cancelled")
    assert processes_with(job_id) == []
    here.run("retry", job_id)
    assert place(here, job_id) == "pending"


def test_nothing_of_a_parked_jobs_agent_outlives_its_cancel(here: Installation) -> None:
    """Its agent left a daemon that ignores TERM behind, in a session of its own."""
    lingers = agent(here, quota(tomorrow()))
    program = here.top / "agents.d/once"
    daemon = f"trap '' TERM; {TIMES_OUT.split(maxsplit=1)[0]}=1; while :; do sleep 0.1; done # $1"
    spawns = f'setsid sh -c "{daemon}" daemon decided-$AGENTORCH &\n'
    program.write_text(program.read_text().replace("echo run", f"{spawns}echo run", 1))
    job_id = here.submit(lingers)
    here.drain()
    assert place(here, job_id) == "parked"
    here.run("cancel", job_id)
    assert place(here, job_id) == "failed"
    eventually(lambda: processes_with("daemon decided-") == [])


# ---- priority ---------------------------------------------------------------------------------


def test_a_job_of_another_priority_is_claimed_in_its_turn(here: Installation) -> None:
    first, second = here.submit(step("one", "true")), here.submit(step("one", "true"))
    here.run("priority", "0", given=f"{second}\n")
    listed = here.run("ls", "--pending").stdout
    assert listed.index(second) < listed.index(first)
    here.run("runner", "--once")
    assert (place(here, first), place(here, second)) == ("pending", "done")
    line = decisions(here, second)[0]
    assert (line["what"], line["before"], line["after"]) == ("priority", 5, 0)


@pytest.mark.parametrize("where", ["held", "parked", "awaiting_approval"])
def test_a_job_keeps_its_place_with_another_priority(here: Installation, where: str) -> None:
    job_id = (
        parked(here, tomorrow())
        if where == "parked"
        else here.submit(
            step("one", "true"), policy={"requires_approval": where == "awaiting_approval"}
        )
    )
    if where == "held":
        here.run("hold", job_id)
    names = os.listdir(here.state / "queue" / where)
    here.run("priority", "2", job_id)
    assert os.listdir(here.state / "queue" / where) == [names[0].replace("5-2", "2-2", 1)]
    assert place(here, job_id) == where
    assert json.loads((here.artifacts(job_id) / "job.json").read_text())["priority"] == 5
    here.run("approve" if where == "awaiting_approval" else "release", job_id)
    here.drain()
    assert place(here, job_id) == "done"


def test_a_priority_that_was_half_changed_harms_nothing(here: Installation) -> None:
    """Killed between the document and the rename."""
    ids = [here.submit(step("one", "true")) for _ in range(3)]
    for job_id in ids:
        document = json.loads((here.artifacts(job_id) / "job.json").read_text())
        document["priority"] = 1
        (here.artifacts(job_id) / "job.edited.json").write_text(json.dumps(document))
        assert place(here, job_id) == "pending"
        assert job_id in here.run("ls").stdout
    here.run("cancel", ids[0])
    assert place(here, ids[0]) == "failed"
    here.run("retry", ids[0])
    here.run("hold", ids[1])
    here.run("priority", "1", ids[2])
    assert place(here, ids[2]) == "pending"
    here.run("release", ids[1])
    here.drain()
    assert {place(here, job_id) for job_id in ids} == {"done"}


def test_a_priority_is_a_digit_and_of_a_waiting_job(here: Installation) -> None:
    job_id = here.submit(step("one", "true"))
    for wrong in ("10", "-1", "x"):
        assert here.run("priority", wrong, job_id, code=2).stdout == ""
    here.drain()
    refused = here.run("priority", "1", job_id, code=2).stderr
    assert "can't change the priority of job" in refused
    assert not (here.artifacts(job_id) / "job.edited.json").exists()


# ---- edit -------------------------------------------------------------------------------------


def part(here: Installation, job_id: str) -> dict[str, Any]:
    """What an editor is given: the remaining steps and the cap."""
    keep = here.top / "shown.json"
    editor = here.top / "editor"
    editor.write_text(f'#!/bin/sh\ncp "$1" {keep}\nexit 1\n')
    editor.chmod(0o755)
    edited_on_a_terminal(here, job_id, str(editor), code=2)
    found: dict[str, Any] = json.loads(keep.read_text())
    return found


def edited_on_a_terminal(
    here: Installation, job_id: str, editor: str, code: int = 0, **variables: str
) -> str:
    """Runs agentorch-edit with a terminal as its standard input."""
    leader, follower = pty.openpty()
    try:
        done = subprocess.run(
            here.argv("edit", job_id),
            stdin=follower,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=here.environment | {"EDITOR": editor} | variables,
        )
    finally:
        os.close(leader)
        os.close(follower)
    assert done.returncode == code, done
    return done.stderr


def edited(here: Installation, job_id: str, document: Any, code: int = 0) -> str:
    """Runs agentorch-edit with this on its standard input; what it says."""
    return here.run("edit", job_id, given=json.dumps(document), code=code).stderr


def test_the_remaining_steps_of_a_waiting_job_are_changed(here: Installation) -> None:
    job_id = here.submit(
        step("plan", "true", approve_after=True), step("work", "false"), step("gone", "false")
    )
    here.drain()
    original = (here.artifacts(job_id) / "job.json").read_bytes()
    document = part(here, job_id)
    assert [one["step_id"] for one in document["steps"]] == ["plan", "work", "gone"]
    document["steps"] = [document["steps"][0], step("better", "echo better >story")]
    document["policy"]["max_cost_usd"] = 2.5
    edited(here, job_id, document)
    assert place(here, job_id) == "awaiting_approval"
    here.run("approve", job_id)
    here.drain()
    assert place(here, job_id) == "done"
    assert (here.work(job_id) / "story").read_text() == "better\n"
    assert attempts(here, job_id, "plan") == ["1"]
    assert (here.artifacts(job_id) / "job.json").read_bytes() == original
    line = decisions(here, job_id)[0]
    assert line["what"] == "edit"
    assert line["before"] != line["after"]


@pytest.mark.parametrize("where", ["pending", "held", "parked"])
def test_a_job_is_edited_where_it_lies(here: Installation, where: str) -> None:
    job_id = parked(here, tomorrow()) if where == "parked" else here.submit(step("one", "false"))
    if where == "held":
        here.run("hold", job_id)
    names = os.listdir(here.state / "queue" / where)
    document = part(here, job_id)
    document["steps"][-1] |= {"agent": "exec", "prompt": "echo edited >edited"}
    path = here.top / "edited.json"
    path.write_text(json.dumps(document))
    here.run("edit", "--file", str(path), job_id)
    assert os.listdir(here.state / "queue" / where) == names
    if where != "pending":
        here.run("release", job_id)
    here.drain()
    assert place(here, job_id) == "done"
    assert (here.work(job_id) / "edited").exists()


def test_a_job_that_is_being_cancelled_is_not_held(here: Installation) -> None:
    job_id = here.submit(step("one", "sleep 60"))
    runner = here.start("runner", "--drain")
    eventually((here.artifacts(job_id) / "steps/one/attempts/1/claim").exists)
    runner.send_signal(signal.SIGSTOP)
    here.run("cancel", job_id)
    said = here.run("hold", job_id, code=2).stderr
    assert f"can't hold job {job_id}: it is being cancelled: root cancelled it at " in said
    runner.send_signal(signal.SIGCONT)
    eventually(lambda: place(here, job_id) == "failed")


def test_what_was_approved_meanwhile_is_not_edited(here: Installation) -> None:
    job_id = here.submit(step("one", "echo seen"), policy={"requires_approval": True})
    approves = " ".join(shlex.quote(word) for word in here.argv("approve", job_id))
    editor = f"sh -c '{approves} && sed -i s/seen/unseen/ \"$0\"'"
    said = edited_on_a_terminal(here, job_id, editor, code=2)
    assert f"can't edit job {job_id}: it is pending: root approved it at " in said
    here.drain()
    assert (here.artifacts(job_id) / "steps/one/raw_stdout.txt").read_text() == "seen\n"


@pytest.mark.parametrize("editor", ["rm", 'sh -c \'rm "$0"; mkdir "$0"\''])
def test_an_editor_that_leaves_no_file_changes_nothing(here: Installation, editor: str) -> None:
    job_id = here.submit(step("one", "true"))
    assert "left no file" in edited_on_a_terminal(here, job_id, editor, code=2)
    assert not (here.artifacts(job_id) / "job.edited.json").exists()


BAD_EDITS = [
    ({"steps": []}, [".steps: one step or more is needed"]),
    ([], [".: expected an object"]),
    ({"steps": [step("two", "x")], "goal": "other"}, [".goal: can't be edited"]),
    ({"steps": [step("two", "x")], "policy": {"network": "allow"}}, [".policy.network: can't"]),
    (
        {"steps": [step("two", "x", agent="cluade"), step("three", "x", timeout_sec=0)]},
        [".steps[0].agent", ".steps[1].timeout_sec"],
    ),
    ({"steps": [step("other", "x")]}, [".steps[0]: the job stopped at step 'two'"]),
    ({"steps": [step("two", "x"), step("one", "x")]}, ["one"]),
    ({"steps": [step("two", "x")], "policy": {"max_cost_usd": -1}}, [".policy.max_cost_usd"]),
]


@pytest.mark.parametrize(("document", "said"), BAD_EDITS)
def test_a_bad_edit_changes_nothing_and_says_all(
    here: Installation, document: Any, said: list[str]
) -> None:
    job_id = here.submit(step("one", "true"), step("two", "false", on_failure="ask_human"))
    here.drain()
    before = everything_of(here, job_id)
    told = edited(here, job_id, document, code=2)
    assert all(words in told for words in said), told
    assert everything_of(here, job_id) == before
    assert place(here, job_id) == "awaiting_approval"


def test_an_edit_of_what_is_no_json_or_no_file_is_refused(here: Installation) -> None:
    job_id = here.submit(step("one", "true"))
    assert "not JSON" in here.run("edit", job_id, given="{", code=2).stderr
    assert "No such file" in here.run("edit", "--file", "none", job_id, code=2).stderr


def test_steps_of_a_job_that_runs_or_ended_are_not_edited(here: Installation) -> None:
    job_id = here.submit(step("one", "true"))
    here.drain()
    said = edited(here, job_id, {"steps": [step("one", "false")]}, code=2)
    assert "it is done, not pending" in said
    assert decisions(here, job_id) == []


def test_what_was_written_in_an_editor_is_kept_where_it_is_refused(here: Installation) -> None:
    job_id = here.submit(step("one", "true"))
    editor = here.top / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/exec/none-such/ "$1"\n')
    editor.chmod(0o755)
    said = edited_on_a_terminal(here, job_id, str(editor), code=2, TMPDIR=str(here.top))
    (kept,) = here.top.glob("agentorch-edit-*.json")
    assert f"what you wrote is in {kept}" in said
    assert ".steps[0].agent: 'none-such' is unknown" in said


def test_an_edit_of_what_changed_meanwhile_is_refused(here: Installation) -> None:
    """Somebody else edits the job while the editor is open."""
    job_id = here.submit(step("one", "true"))
    other = here.top / "other.json"
    other.write_text(json.dumps({"steps": [step("one", "echo other")]}))
    editor = here.top / "editor"
    again = " ".join(here.argv("edit", "--file", str(other), job_id))
    editor.write_text(f'#!/bin/sh\n{again} </dev/null\nsed -i s/true/false/ "$1"\n')
    editor.chmod(0o755)
    said = edited_on_a_terminal(here, job_id, str(editor), code=2)
    assert "it is not any more what was shown" in said
    now = json.loads((here.artifacts(job_id) / "job.edited.json").read_text())
    assert now["steps"][0]["prompt"] == "echo other"


# ---- much later -------------------------------------------------------------------------------


def after_a_reboot(here: Installation) -> None:
    """Three days later: nothing of /tmp and no process is left, every file is old."""
    # a killed runner's step is killed too, by the kernel, but may still be at a system call
    eventually(lambda: not processes_with(str(here.top), "environ"))
    for path in here.state.glob("workspaces/*/io"):
        shutil.rmtree(path)
    old = time.time() - 3 * 86400
    for path in here.state.rglob("*"):
        os.utime(path, (old, old), follow_symlinks=False)


def test_an_approval_after_three_days_and_a_reboot_goes_on_at_the_step(here: Installation) -> None:
    job_id = here.submit(
        step("one", "echo one >>story"),
        step("two", 'test "$AGENTORCH_ATTEMPT" -gt 1; echo two >>story', on_failure="ask_human"),
    )
    here.drain()
    after_a_reboot(here)
    here.run("approve", job_id)
    runner = here.start("runner", "--slot", "killed")
    eventually(lambda: place(here, job_id) != "pending")
    runner.kill()
    runner.wait()
    after_a_reboot(here)
    here.run("reclaim", "--stale-after-sec", "0")
    here.drain()
    assert place(here, job_id) == "done"
    assert (here.work(job_id) / "story").read_text() == "one\ntwo\n"
    assert attempts(here, job_id, "one") == ["1"]


def test_a_parked_job_goes_on_after_three_days_and_a_reboot(here: Installation) -> None:
    job_id = parked(here, tomorrow())
    after_a_reboot(here)
    due(here, job_id)
    here.drain()
    assert place(here, job_id) == "done"
    assert (here.work(job_id) / "story").read_text() == "1\n2\n"
