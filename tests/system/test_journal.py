"""The story of a job in a real journal: whole, with its fields, forged by nobody."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from agentorch.systemd.message_ids import Message
from tests.support.ground import BINDS, INSTALLED, ROOT, SECRET, UID, Ground, step
from tests.support.machine import RELEASES, booted, missing
from tests.support.selection import one_for

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}; not proved here")

CATALOG = {ROOT / "units": f"{INSTALLED}/units"}
STORY = (Message.SUBMITTED, Message.CLAIMED, Message.STARTED, Message.ENDED, Message.FINISHED)
FLOOD = 100_000
# Two waits inside, of a minute at most each, and the end of the job.
FOLLOWED_S = 300
# What an agent prints to be taken for something else.
HOSTILE = r"""
printf 'a\nPRIORITY=0\nMESSAGE_ID=%032d\n_UID=0\n\n' 7
printf '<0>urgent\n<2>AGENTORCH_JOB=other\n'
printf 'MESSAGE\n\005\0\0\0\0\0\0\0abcde\nAGENTORCH_STATUS=success\n'
printf '\033[2J\033]0;title\007red\033[31m\r\n\000nul\377\376\n'
head -c 1000000 /dev/zero | tr '\0' x; echo
echo "key=SECRET ghp_""aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5" >&2
"""


@pytest.fixture(scope="module", params=one_for(RELEASES, __name__))
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    with booted(BINDS | CATALOG, request.param) as machine:
        yield Ground.on(machine)


@pytest.fixture(params=["fork", "systemd"])
def launcher(request: pytest.FixtureRequest) -> str:
    launcher: str = request.param
    return launcher


def entries(ground: Ground, *matches: str) -> list[dict[str, Any]]:
    """What the journal has, oldest first."""
    ground.machine.run("journalctl", "--sync")
    # a field that is no text, or a long one, is told otherwise without --all
    text = ground.machine.output("journalctl", "--output=json", "--all", *matches)
    return [json.loads(line) for line in text.splitlines()]


def of(found: list[dict[str, Any]], message: Message) -> list[dict[str, Any]]:
    return [one for one in found if one.get("MESSAGE_ID") == message]


def test_a_job_tells_its_story(ground: Ground, launcher: str) -> None:
    script = "echo to stdout; echo to stderr >&2; env >/dev/null"
    job_id = ground.submit(step("one", script), step("two", "exit 3"))
    ground.start_runner("--drain", AGENTORCH_LAUNCHER=launcher)
    assert ground.ended(job_id)["status"] == "failed"
    ground.program("retry", job_id)
    ground.program("cancel", job_id)
    ground.program("cancel", job_id, check=False)
    found = entries(ground, f"AGENTORCH_JOB={job_id}")
    told = [Message(one["MESSAGE_ID"]).name for one in found]
    step_of_one = ["STARTED", "OUTPUT", "OUTPUT", "ENDED"]
    assert told[:2] == ["SUBMITTED", "CLAIMED"]
    assert [name for name in told[2:] if name != "OUTPUT"] == (
        ["STARTED", "ENDED", "STARTED", "ENDED", "FINISHED", "DECIDED", "DECIDED", "REFUSED"]
    )
    assert sorted(told[2:6]) == sorted(step_of_one)
    for one in found:
        assert one["AGENTORCH_JOB"] == job_id
        assert one["MESSAGE"].startswith(f"{job_id}")
        assert one["SYSLOG_IDENTIFIER"].startswith("agentorch-")
    for one in found[2:6]:
        fields = {name: one[f"AGENTORCH_{name}"] for name in ("STEP", "ATTEMPT", "AGENT")}
        assert fields == {"STEP": "one", "ATTEMPT": "1", "AGENT": "exec"}
    printed = {(one["AGENTORCH_STREAM"], one["MESSAGE"]) for one in of(found, Message.OUTPUT)}
    assert printed == {
        ("stdout", f"{job_id}/one: exec: to stdout"),
        ("stderr", f"{job_id}/one: exec (stderr): to stderr"),
    }
    ended = of(found, Message.ENDED)
    assert [one["AGENTORCH_STATUS"] for one in ended] == ["success", "failed"]
    assert {one["AGENTORCH_WHO"] for one in of(found, Message.DECIDED)} == {"agent"}
    assert "it is failed: agent cancelled it at " in of(found, Message.REFUSED)[0]["MESSAGE"]


def test_what_an_agent_prints_forges_nothing(ground: Ground, launcher: str) -> None:
    job_id = ground.submit(step("one", HOSTILE.replace("SECRET", SECRET)))
    ground.start_runner("--drain", AGENTORCH_LAUNCHER=launcher)
    ground.ended(job_id)
    found = entries(ground, f"AGENTORCH_JOB={job_id}")
    printed = of(found, Message.OUTPUT)
    assert len(printed) >= 10
    for one in printed:
        assert (one["PRIORITY"], one["AGENTORCH_STEP"]) == ("6", "one")
        assert "AGENTORCH_STATUS" not in one
        assert isinstance(one["MESSAGE"], str)  # what journalctl takes for no text is a list
        assert re.fullmatch(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f]{1,4300}", one["MESSAGE"])
    assert len(of(found, Message.ENDED)) == 1
    assert entries(ground, "AGENTORCH_JOB=other") == []
    assert entries(ground, "PRIORITY=0") == []
    text = " ".join(one["MESSAGE"] for one in printed)
    assert "<0>urgent" in text
    assert "[line cut]" in text
    assert "key=[redacted:" in text


def test_no_secret_is_in_any_entry(ground: Ground) -> None:
    everything = ground.machine.output("journalctl", "--no-pager", "--output=export", "--all")
    assert len(everything) > 1000
    assert SECRET not in everything
    assert "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5" not in everything


def flooded(ground: Ground, launcher: str) -> tuple[str, float]:
    """A job that prints much, and how long it took."""
    job_id = ground.submit(step("one", f"seq {FLOOD}"))
    began = time.monotonic()
    ground.start_runner("--drain", AGENTORCH_LAUNCHER=launcher)
    assert ground.ended(job_id)["status"] == "success"
    return job_id, time.monotonic() - began


def test_a_journald_that_does_not_read_delays_nobody(ground: Ground, launcher: str) -> None:
    first, usual_s = flooded(ground, launcher)
    found = entries(ground, f"AGENTORCH_JOB={first}")
    gaps = of(found, Message.LEFT_OUT) + of(found, Message.DROPPED)
    assert len(of(found, Message.OUTPUT)) > 100
    assert gaps
    (journald,) = ground.machine.output("pidof", "systemd-journald").split()
    # a runner of its own, started before: systemd itself waits for journald
    ground.machine.run("kill", "-STOP", journald)
    try:
        job_id, stopped_s = flooded(ground, launcher)
    finally:
        ground.machine.run("kill", "-CONT", journald)
    assert stopped_s < 3 * usual_s + 5
    found = entries(ground, f"AGENTORCH_JOB={job_id}")
    shown = of(found, Message.OUTPUT)
    (ended,) = of(found, Message.ENDED)
    assert int(ended["AGENTORCH_MISSING_LINES"]) == FLOOD - len(shown)
    assert f"{FLOOD - len(shown)} lines that its agent printed" in ended["MESSAGE"]
    logs = ground.left_text(job_id, "steps/one/logs.txt")
    assert f"agentorch: {FLOOD - len(shown)} lines are not in the journal\n" in logs


def test_journalctl_explains_each_event(ground: Ground) -> None:
    script = (
        f"cp {INSTALLED}/units/*.catalog /usr/lib/systemd/catalog/ && journalctl --update-catalog"
    )
    ground.machine.run("sh", "-c", script)
    for message in Message:
        text = ground.machine.output("journalctl", "--dump-catalog", message.value)
        assert "Defined-By: agentorch" in text, message.name
    # no locale of the machine asks for the translations: they are at least taken in
    path = "/var/lib/systemd/catalog/database"
    database = ground.machine.run("cat", path).stdout.decode("utf-8", "replace")
    for catalog in (ROOT / "units").glob("*.catalog"):
        for subject in re.findall("(?m)^Subject: .*", catalog.read_text("utf-8")):
            assert subject in database
    job_id = ground.submit(step("one", "true"))
    ground.start_runner("--drain")
    ground.ended(job_id)
    ground.machine.run("journalctl", "--sync")
    shown = ground.machine.output("journalctl", "--catalog", f"AGENTORCH_JOB={job_id}")
    assert "Subject: A step has started" in shown
    assert f"Attempt 1 of step one of job {job_id} begins, with agent exec" in shown


def test_logs_asks_the_journal(ground: Ground) -> None:
    job_id = ground.submit(step("one", "echo from one"), step("two", "echo from two"))
    ground.start_runner("--drain")
    ground.ended(job_id)
    ground.machine.run("journalctl", "--sync")
    environment = {**ground.variables, "PAGER": "cat"}
    argv = (f"{INSTALLED}/bin/agentorch-logs", "--journal", job_id, "--step", "two")
    shown = ground.machine.run(*argv, environment=environment).stdout.decode()
    assert "exec: from two" in shown
    assert "exec: from one" not in shown
    assert "started: attempt 1" in shown


def test_logs_prints_every_entry_as_json(ground: Ground) -> None:
    job_id = ground.submit(step("one", r"printf 'caf\303\251\n'"), step("two", "exit 3"))
    ground.start_runner("--drain")
    ground.ended(job_id)
    found = entries(ground, f"AGENTORCH_JOB={job_id}")
    argv = (f"{INSTALLED}/bin/agentorch-logs", "--journal", "--json", job_id)
    printed = ground.machine.run(*argv, environment=ground.variables).stdout.decode()
    shown = [json.loads(line) for line in printed.splitlines()]
    assert {one["MESSAGE_ID"] for one in shown} >= {message.value for message in STORY}
    assert [of_program(one) for one in shown] == [of_program(one) for one in found]
    assert f"{job_id}/one: exec: café" in [one["MESSAGE"] for one in shown]


def of_program(entry: dict[str, Any]) -> dict[str, Any]:
    """The fields that a program gave an entry, and when the journal got it."""
    own = {name: value for name, value in entry.items() if not name.startswith("_")}
    return {**own, "__REALTIME_TIMESTAMP": entry["__REALTIME_TIMESTAMP"]}


def test_logs_follows_a_job_to_its_end(ground: Ground) -> None:
    job_id = ground.submit(step("one", 'until [ -e "$HOME/go" ]; do sleep 0.1; done; echo gone'))
    script = 'exec "$@" >/var/tmp/followed'
    argv = (f"{INSTALLED}/bin/agentorch-logs", "--journal", "--follow", job_id)
    with ThreadPoolExecutor(1) as pool:
        run = partial(ground.machine.run, environment=ground.variables, timeout_s=FOLLOWED_S)
        follower = pool.submit(run, "sh", "-euc", script, "sh", *argv)
        ground.machine.wait_for(f"grep {job_id} /var/tmp/followed", why="it is submitted")
        ground.start_runner("--drain")
        ground.machine.wait_for("grep 'started: attempt 1' /var/tmp/followed")
        assert not follower.done()
        ground.let_go(job_id)
        assert follower.result().returncode == 0
    lines = ground.machine.output("cat", "/var/tmp/followed").splitlines()
    found = entries(ground, f"AGENTORCH_JOB={job_id}")
    (finished,) = of(found, Message.FINISHED)
    assert lines[-1].endswith(f" agentorch-runner: {finished['MESSAGE']}")
    assert len(lines) == len(found)


def test_a_wrong_configuration_is_one_entry(ground: Ground) -> None:
    variables = {**ground.variables, "RUNNER_MAX_IDLE_SEC": "soon"}
    ground.machine.run(
        *("systemd-run", "--quiet", "--wait", "--unit=wrong", f"--uid={UID}"),
        *(f"--setenv={name}={value}" for name, value in variables.items()),
        *("--", f"{INSTALLED}/bin/agentorch-runner", "--drain"),
        check=False,
    )
    (found,) = entries(ground, "_SYSTEMD_UNIT=wrong.service", f"MESSAGE_ID={Message.MISCONFIGURED}")
    assert found["MESSAGE"].startswith("RUNNER_MAX_IDLE_SEC: 'soon'")
    assert (found["PRIORITY"], found["SYSLOG_IDENTIFIER"]) == ("3", "agentorch-runner")
    assert ground.told("wrong.service", "ExecMainStatus") == "78"
    assert int(found["_UID"]) == UID
