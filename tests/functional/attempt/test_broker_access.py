"""A step's way out, in whole jobs: no broker, a broken one, one that dies; what is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentorch.agents.claude.adapter import AGENT
from agentorch.agents.failure_rules import rules_of
from agentorch.attempt import self_test
from agentorch.attempt.broker_access import forget
from agentorch.broker.grants import Grant, digest, remove_expired, write_grant
from agentorch.core.errors import Misconfigured
from agentorch.core.process_end import Ending, Exit
from agentorch.core.states import OutcomeClass
from agentorch.sandbox import occupants
from agentorch.scripted_model import Hang, ModelDouble, Turn, playing
from agentorch.storage import beneath
from tests.support.installation import Installation, processes_with
from tests.support.polling import eventually

pytestmark = pytest.mark.needs("bwrap")

KEY = "sk-canary-" + "9f86d081884c7d659a2feaa0"


def asks(**fields: Any) -> dict[str, Any]:
    """A step of an agent that asks a model."""
    base = {"step_id": "one", "agent": "openai", "role": "implementer", "prompt": "Do it."}
    return {**base, "max_retries": 0, "retry_backoff_sec": 0, "timeout_sec": 40, **fields}


@pytest.fixture
def double() -> Iterator[ModelDouble]:
    with playing([Turn("Done.")]) as double:
        yield double


@pytest.fixture
def ready(here: Installation, double: ModelDouble) -> Installation:
    """A place where an agent that asks a model has all it needs."""
    more = {"ALLOWED_BINARIES": "python,sh,claude", "OPENAI_API_KEY": KEY}
    here.environment |= {**more, "OPENAI_BASE_URL": f"{double.url}/v1"}
    return here


def ended(ready: Installation, **fields: Any) -> dict[str, Any]:
    """The result of a job of one such step."""
    job_id = ready.submit(asks(**fields))
    done = ready.drain()
    assert "Traceback" not in done.stderr
    found: dict[str, Any] = ready.status(job_id)["result"]["steps"][0]
    return found


# ---- the server's broker ----------------------------------------------------------------------


def test_a_broker_that_is_not_there_fails_the_step_in_words(ready: Installation) -> None:
    socket_path = ready.top / "nowhere"
    ready.environment["AGENTORCH_BROKER_SOCKET"] = str(socket_path)
    result = ended(ready, max_retries=1)
    assert (result["outcome"], result["error"]["code"]) == ("infra", "broker_unreachable")
    assert result["attempts"] == 2
    assert f"no broker at {socket_path}" in result["summary"]


def test_grants_that_cannot_be_written_fail_the_step_in_words(ready: Installation) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(ready.top / "socket"))
        ready.environment["AGENTORCH_BROKER_SOCKET"] = str(ready.top / "socket")
        result = ended(ready)
    assert (result["outcome"], result["error"]["code"]) == ("infra", "broker_unreachable")
    assert f"{ready.top}/grants: No such file or directory" in result["summary"]


def test_grants_of_killed_steps_go_when_they_are_over(tmp_path: Path) -> None:
    over, good = (Grant("job", "step", 1, "agent", expires_at) for expires_at in (10, 1000))
    write_grant(tmp_path, over, "first")
    write_grant(tmp_path, good, "second")
    (tmp_path / "other.json").write_text("[]")
    remove_expired(tmp_path, 100)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{digest('second')}.json",
        "other.json",
    }


# ---- a step's own -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("prices.toml", "[[price]\n", "prices.toml: Expected ']]'"),
        ("keys.env", "OPENAI_API_KEY=x\n", "keys.env: mode 0644: others can read it (chmod 600)"),
    ],
)
def test_a_table_that_the_broker_would_refuse_is_said_before(
    ready: Installation, double: ModelDouble, name: str, text: str, words: str
) -> None:
    (ready.top / name).write_text(text)
    (ready.top / name).chmod(0o644)
    result = ended(ready)
    assert (result["outcome"], result["error"]["code"]) == ("policy", "preflight")
    assert words in result["summary"]
    assert not double.asked


def test_of_a_killed_step_nothing_stays_and_the_next_attempt_works(
    ready: Installation, double: ModelDouble
) -> None:
    double.answers[:] = [Hang()]
    job_id = ready.submit(asks(max_retries=1))
    runner = ready.start("runner", "--drain")
    eventually(lambda: double.asked)
    broker = broker_of(job_id)
    step = parent_of(broker)
    os.kill(step, signal.SIGKILL)
    double.answers[:] = [Turn("Done.")]
    assert runner.wait(60) == 0
    assert broker not in processes_with("--grants")
    result = ready.status(job_id)["result"]["steps"][0]
    assert (result["outcome"], result["attempts"]) == ("success", 2)
    assert not (ready.work(job_id).parent / "broker").exists()


def test_a_login_of_a_killed_step_does_not_stay(ready: Installation) -> None:
    fake(ready, HANGS)
    del ready.environment["ANTHROPIC_API_KEY"]
    credential = ready.state / "logins/claude/.claude/.credentials.json"
    credential.parent.mkdir(parents=True)
    credential.write_text('{"canary": true}')
    job_id = ready.submit(asks(agent="claude"))
    runner = ready.start("runner", "--drain", AGENTORCH_SELF_TEST="0")
    eventually(lambda: processes_with("3600") and seeded(ready))
    os.kill(parent_of(broker_of(job_id)), signal.SIGKILL)
    assert runner.wait(60) == 0
    assert ready.status(job_id)["result"]["steps"][0]["error"]["code"] == "exception"
    assert not seeded(ready)


def seeded(ready: Installation) -> list[Path]:
    return list((ready.state / "workspaces").rglob(".credentials.json"))


def test_a_broker_that_dies_in_a_call_is_said_in_the_log(
    ready: Installation, double: ModelDouble
) -> None:
    double.answers[:] = [Hang()]
    job_id = ready.submit(asks())
    runner = ready.start("runner", "--drain")
    eventually(lambda: double.asked)
    os.kill(broker_of(job_id), signal.SIGKILL)
    assert runner.wait(60) == 0
    result = ready.status(job_id)["result"]["steps"][0]
    assert result["outcome"] == "infra", result
    logs = (ready.artifacts(job_id) / "steps/one/logs.txt").read_text()
    assert "the broker is gone, and with it what it counted" in logs


def broker_of(job_id: str) -> int:
    """The broker that a step of this job started."""
    found = [
        pid
        for pid in processes_with(f"{job_id}/broker/")
        if b"--grants" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(found) == 1, found
    return found[0]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# ---- the self-test ----------------------------------------------------------------------------

HANGS = """#!/bin/sh
case $1 in --version) echo 9.9.9; exit;; esac
exec sleep 3600
"""


def fake(ready: Installation, script: str) -> None:
    """A program of the vendor's name, before the system's own on PATH."""
    program = ready.top / "bin/claude"
    program.parent.mkdir()
    program.write_text(script)
    program.chmod(0o755)
    ready.environment |= {"PATH": f"{program.parent}:/usr/bin:/bin", "ANTHROPIC_API_KEY": KEY}


def scratches(ready: Installation) -> list[Path]:
    return list((ready.state / "workspaces").glob(".selftest-*"))


def test_a_self_test_is_cancelled_with_its_step(ready: Installation) -> None:
    fake(ready, HANGS)
    job_id = ready.submit(asks(agent="claude"))
    runner = ready.start("runner", "--drain")
    eventually(lambda: scratches(ready))
    ready.run("cancel", job_id)
    assert runner.wait(20) == 0
    status = ready.status(job_id)
    assert status["status"] == "cancelled"
    assert status["result"]["steps"][0]["outcome"] == "cancelled"
    assert not scratches(ready)


def test_what_a_killed_self_test_left_goes_with_the_next(ready: Installation) -> None:
    fake(ready, HANGS)
    ready.submit(asks(agent="claude"))
    runner = ready.start("runner", "--drain")
    eventually(lambda: [path for path in scratches(ready) if (path / "stdout").exists()])
    first = scratches(ready)[0]
    kill_with_children(runner)
    assert first.exists()
    # what a bwrap that was killed while it set up leaves running
    work = str(first / "work")
    inside = ("bwrap", "--dev-bind", "/", "/", "--bind", work, work, "sleep", "600")
    with subprocess.Popen(inside) as orphan:
        eventually(lambda: occupants(first / "work"))
        runner = ready.start("runner", "--drain")
        eventually(lambda: [path for path in scratches(ready) if path != first])
        eventually(lambda: not first.exists())
        kill_with_children(runner)
        try:
            assert orphan.wait(20)
        finally:
            orphan.kill()


def kill_with_children(runner: subprocess.Popen[str]) -> None:
    """The runner's step dies with it (PR_SET_PDEATHSIG), and with that all else."""
    runner.kill()
    runner.communicate()


def exit_of(ending: Ending, *, oom: bool = False) -> Exit:
    return Exit(ending, None, signal.SIGKILL, 120.0, oom)


def test_a_slow_machine_is_no_broken_sandbox() -> None:
    for exit_ in (exit_of(Ending.TIMEOUT), exit_of(Ending.SIGNALLED, oom=True)):
        outcome = self_test.cut_short("claude", exit_)
        assert outcome is not None
        assert (outcome.kind, outcome.error) == (OutcomeClass.INFRA, "preflight")
    assert self_test.cut_short("claude", exit_of(Ending.SIGNALLED)) is None


FORGES = """#!/bin/sh
case $1 in --version) echo 9.9.9; exit;; esac
echo "arguments: $*" >&2
echo '{"type":"system","subtype":"init","session_id":"--evil","model":"m"}'
exit 1
"""


def test_a_session_whose_name_is_an_option_is_not_gone_on_with(ready: Installation) -> None:
    fake(ready, FORGES)
    job_id = ready.submit(asks(agent="claude", max_retries=1, options={"resume": True}))
    ready.drain(AGENTORCH_SELF_TEST="0")
    attempts = ready.artifacts(job_id) / "steps/one/attempts"
    first, second = (attempts / number for number in "12")
    assert json.loads((first / "result.json").read_text())["session_id"] == "--evil"
    assert "arguments:" in (second / "raw_stderr.txt").read_text()
    assert "--evil" not in (second / "raw_stderr.txt").read_text()


# ---- what is refused at every door ------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"agent": "claud"}, "agent"),
        ({"options": {"effort": "huge"}}, "effort"),
        ({"options": {"sorcery": 1}}, "sorcery"),
        ({"agent": "claude", "model": "gpt-5"}, "model"),
        ({"agent": "claude", "allowed_tools": ["Telnet"]}, "Telnet"),
    ],
)
def test_both_doors_refuse_the_same(
    ready: Installation, fields: dict[str, Any], place: str
) -> None:
    document = json.dumps({"goal": "g", "steps": [asks(**fields)]})
    (ready.top / "job.json").write_text(document)
    submitted = ready.run("submit", "-", given=document, code=2)
    where = ("--workdir", str(ready.repository), "--output", str(ready.top / "out"))
    file = ("--job", str(ready.top / "job.json"), "--step", "one")
    stepped = ready.run("step", *file, *where, code=2)
    for done in (submitted, stepped):
        assert place in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert not (ready.top / "out").exists()


def test_models_that_the_server_no_longer_lists_are_refused(
    ready: Installation, double: ModelDouble
) -> None:
    job_id = ready.submit(asks(model="gpt-5.6"))
    ready.drain(ALLOWED_MODELS="gpt-4*")
    result = ready.status(job_id)["result"]["steps"][0]
    assert (result["outcome"], result["error"]["code"]) == ("policy", "policy")
    assert "'gpt-5.6' (see ALLOWED_MODELS)" in result["summary"]
    assert not double.asked


def test_a_pattern_too_large_is_said_with_its_place() -> None:
    end = {"pattern": "a{99999999999}", "class": "auth", "error": "x"}
    with pytest.raises(Misconfigured, match=r"x\.toml: end 1: the repetition number is too large"):
        rules_of({"end": [end]}, "x.toml")


def test_a_step_with_no_queue_leaves_its_files_and_nothing_else(ready: Installation) -> None:
    document = {"goal": "g", "steps": [asks()]}
    (ready.top / "job.json").write_text(json.dumps(document))
    where = ("--workdir", str(ready.repository), "--output", str(ready.top / "out"))
    ready.run("step", "--job", str(ready.top / "job.json"), "--step", "one", *where)
    kept = {path.name for path in (ready.top / "out").iterdir()}
    left = {"steps", "result.json", "report.md", "patch.diff", "logs.txt", "raw_stdout.txt"}
    assert kept <= left | {"raw_stderr.txt"}, kept
    assert ready.git("status", "--porcelain") == ""


def test_two_steps_with_no_queue_do_not_share_an_output(
    ready: Installation, double: ModelDouble
) -> None:
    (ready.top / "job.json").write_text(json.dumps({"goal": "g", "steps": [asks()]}))
    where = ("--workdir", str(ready.repository), "--output", str(ready.top / "out"))
    argv = ("--job", str(ready.top / "job.json"), "--step", "one", *where)
    double.answers[:] = [Hang()]
    first = ready.start("step", *argv)
    eventually(lambda: double.asked)
    second = ready.run("step", *argv, code=2)
    assert "--output: another agentorch-step is at work in" in second.stderr
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 130
    assert not (ready.top / "out/.agentorch").exists()


# ---- an agent that closes its HOME ------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="to be another user one has to be root")
def test_a_directory_that_an_agent_closed_is_in_the_way_and_no_bug() -> None:
    with tempfile.TemporaryDirectory(prefix="agentorch-test-", dir="/var/tmp") as name:
        home = Path(name)
        (home / ".claude").mkdir()
        (home / ".claude/.credentials.json").write_text("{}")
        for path in (home / ".claude/.credentials.json", home / ".claude", home):
            os.chown(path, 65534, 65534)
        (home / ".claude").chmod(0o500)
        with nobody():
            with pytest.raises(beneath.NotBeneath):
                beneath.write(home, ".claude/.credentials.json", b"")
            forget(AGENT, home)
        assert not home.exists()
        home.mkdir()


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
