"""The everyday commands as a user meets them: what they print, where, and what they exit with."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentorch.commands import COMMANDS
from tests.support.installation import ROOT, Installation, step
from tests.support.polling import eventually

MINIMAL = '{"goal": "x"}'


# ---- submit -----------------------------------------------------------------------------------


def test_jobs_come_from_files_lines_and_standard_input(here: Installation) -> None:
    one, lines = here.top / "one.json", here.top / "lines.jsonl"
    one.write_text('{\n  "goal": "one"\n}\n')
    lines.write_text('{"goal": "two"}\n\n{"goal": "three"}\n')
    done = here.run("submit", str(one), str(lines), "-", given='{"goal": "four"}')
    ids = done.stdout.split()
    listed = [json.loads(line) for line in here.run("ls", "--json").stdout.splitlines()]
    assert [row["goal"] for row in listed] == ["one", "two", "three", "four"]
    assert [row["job_id"] for row in listed] == ids
    assert done.stderr == ""


def test_goal_project_and_priority(here: Installation) -> None:
    aliases = {"PROJECT_ALIASES": f"shop={here.repository}"}
    arguments = ["--goal", "g", "--project", "shop", "--priority", "2", "--json"]
    answered = json.loads(here.run("submit", *arguments, given="", code=0, **aliases).stdout)
    row = json.loads(here.run("ls", "--json", "--pending").stdout)
    assert answered == {"job_id": row["job_id"], "state": "pending"}
    assert (row["project_id"], row["priority"]) == ("shop", 2)


BAD = [
    ("not json", "line 1, column 1"),
    ('{"goal": ""}', ".goal: is empty"),
    (
        '{"goal": "x", "steps": [{"step_id": "a", "agent": "cluade", "role": "r", "prompt": "p"}]}',
        "'claude'",
    ),
    ('{"goal": "x"}\n{"goal": 1}', "line 2: .goal: expected string"),
    ('{"goal": "x", "project_id": "nope"}', "PROJECT_ALIASES"),
    ("", "not JSON"),
    ("[]", "expected an object"),
    ('{"goal": "x", "workdir": "none"}', "/none' is not a directory"),
    ('{"goal": "x", "workdir": "/"}', ".workdir: '/' is the whole machine"),
]


@pytest.mark.parametrize(("text", "said"), BAD)
def test_bad_documents_are_refused_and_leave_nothing(
    here: Installation, text: str, said: str
) -> None:
    done = here.run("submit", "-", given=text, code=2)
    assert said in done.stderr
    assert all(
        line.startswith("agentorch-submit: standard input: ") for line in done.stderr.splitlines()
    )
    assert done.stdout == ""
    assert not here.state.exists()


def test_of_very_many_problems_the_first_are_told(here: Installation) -> None:
    document = json.dumps({"goal": "x", "tags": [1] * 500})
    lines = here.run("submit", "-", given=document, code=2).stderr.splitlines()
    assert len(lines) == 101
    assert lines[-1] == "agentorch-submit: and 400 more problems"


def test_an_answer_that_can_not_be_written_is_said(here: Installation) -> None:
    here.submit(step("a", "true"))
    line = f"{' '.join(here.argv('ls'))} > /dev/full"
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, env=here.environment, check=False
    )
    assert done.returncode == 75
    assert done.stderr == "agentorch-ls: standard output: No space left on device\n"


def test_a_missing_file_and_no_file_are_usage_errors(here: Installation) -> None:
    assert "none.json: No such file" in here.run("submit", "none.json", code=2).stderr
    assert here.run("submit", code=2).stdout == ""


def test_a_duplicate_is_refused_and_the_others_are_queued(here: Installation) -> None:
    text = (
        '{"goal": "x", "job_id": "same-id-1"}\n{"goal": "y", "job_id": "same-id-1"}\n{"goal": "z"}'
    )
    done = here.run("submit", "-", given=text, code=2)
    assert len(done.stdout.split()) == 2
    assert "'same-id-1' is there already" in done.stderr


def test_a_malformed_variable_is_a_configuration_error(here: Installation) -> None:
    done = here.run("submit", "--goal", "x", SANDBOX="maybe", LOG_LEVEL="LOUD", code=78)
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == ["SANDBOX", "LOG_LEVEL"]


def test_below_the_floor_of_free_space_nothing_is_accepted(here: Installation) -> None:
    done = here.run("submit", "--goal", "x", AGENTORCH_MIN_FREE_BYTES=str(1 << 58), code=75)
    assert str(here.state) in done.stderr
    assert done.stdout == ""
    assert here.run("ls").stdout == ""


def test_submit_waits_for_the_end_where_asked(here: Installation) -> None:
    runner = here.start("runner")
    done = here.run(
        "submit",
        "--wait",
        "-",
        given=json.dumps({"goal": "g", "steps": [step("a", "exit 1")]}),
        code=1,
    )
    assert here.status(done.stdout.strip())["status"] == "failed"
    assert runner.poll() is None


# ---- questions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call", [["ls"], ["status", "nobody-knows"], ["doctor"], ["wait", "nobody-knows"]]
)
def test_a_question_makes_no_directory(here: Installation, call: list[str]) -> None:
    here.run(*call, code=None)
    assert not here.state.exists()


def test_an_id_may_be_shortened_and_a_mistyped_one_is_helped(here: Installation) -> None:
    for name in ("alpha-001", "alpha-002", "beta-0001"):
        here.run("submit", "-", given=json.dumps({"goal": "x", "job_id": name}))
    assert here.status("beta")["job_id"] == "beta-0001"
    assert "alpha-001, alpha-002" in here.run("status", "alpha", code=1).stderr
    assert "did you mean beta-0001" in here.run("status", "bata-0001", code=1).stderr
    assert here.run("cancel", "nothing-like-it", code=2).stdout == ""
    assert here.run("status", "../../etc", code=1).stdout == ""


def test_ids_come_from_standard_input_so_commands_make_a_pipeline(here: Installation) -> None:
    ids = [here.submit(step("a", "test -e $HOME/go")) for _ in range(3)]
    here.drain()
    failed = here.run("ls", "--failed").stdout
    assert failed.split() == ids
    assert here.run("retry", given=failed).stdout == failed
    assert here.run("ls", "--pending").stdout == failed
    assert here.run("ls", "--failed", "--done").stdout == ""


def test_a_decision_on_several_says_which_were_refused_and_takes_the_others(
    here: Installation,
) -> None:
    job_id = here.submit(step("a", "true"))
    done = here.run("cancel", "nobody-knows", job_id, code=2)
    assert done.stdout == f"{job_id}\n"
    assert "no job 'nobody-knows'" in done.stderr


def test_logs_and_diff_of_what_is_not_there_yet(here: Installation) -> None:
    job_id = here.submit(step("a", "true"))
    assert here.run("logs", job_id).stdout == ""
    assert "has no patch yet" in here.run("diff", job_id, code=1).stderr
    assert "has no step 'b'" in here.run("logs", "--step", "b", job_id, code=1).stderr


def test_logs_follow_a_running_step_to_the_jobs_end(here: Installation) -> None:
    job_id = here.submit(
        step("a", "echo first; while ! [ -e $HOME/go ]; do sleep 0.05; done; echo last"),
        step("b", "echo second step"),
    )
    follower = here.start("logs", "-f", job_id)
    assert follower.stdout is not None
    here.start("runner")
    assert follower.stdout.readline() == "agentorch: step a, attempt 1, exec\n"
    assert follower.stdout.readline() == "stdout: first\n"
    (here.state / "workspaces" / job_id / "home/exec/go").touch()
    out, _ = follower.communicate(timeout=20)
    assert out.splitlines()[0] == "stdout: last"
    assert "stdout: second step" in out
    assert follower.returncode == 0


def test_a_table_on_a_terminal_shows_state_and_no_escapes_of_others(here: Installation) -> None:
    here.submit(step("a", "true"), goal="evil \x1b]0;title\x07 \x1b[31mgoal")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        here.argv("ls"),
        stdout=theirs,
        env=here.environment | {"TERM": "xterm", "COLUMNS": "100"},
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "GOAL" in shown
    assert "pending" in shown
    assert "\x1b]0" not in shown
    assert "\x1b[31m" not in shown


def test_wait_has_a_limit(here: Installation) -> None:
    job_id = here.submit(step("a", "true"))
    assert "no runner is alive" in here.run("wait", "--timeout", "0.2", job_id, code=124).stderr
    here.start("runner")
    here.run("wait", job_id)
    assert here.run("wait", job_id).stderr == ""


def test_a_closed_pipe_is_no_traceback(here: Installation) -> None:
    for _ in range(3):
        here.submit(step("a", "true"))
    line = f"{sys.executable} {ROOT / 'bin/agentorch-ls'} --json | true"
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, env=here.environment, check=False
    )
    assert "Traceback" not in done.stderr


# ---- doctor -----------------------------------------------------------------------------------


def test_doctor_is_content_and_leaves_nothing(here: Installation) -> None:
    here.submit(step("a", "true"))
    before = sorted(here.state.rglob("*"))
    done = here.run("doctor", "--json")
    checks = {c["check"]: c for c in map(json.loads, done.stdout.splitlines())}
    assert checks["state"]["state"] == checks["git"]["state"] == checks["sandbox"]["state"] == "ok"
    assert checks["agent exec"]["state"] == "ok"
    assert sorted(here.state.rglob("*")) == before


def test_doctor_names_a_problem_and_its_remedy(here: Installation) -> None:
    done = here.run("doctor", SANDBOX_WRAPPER="no-such-wrapper", code=1)
    assert "no-such-wrapper" in done.stdout
    agents = here.top / "agents.d"
    agents.mkdir()
    (agents / "broken.toml").write_text("command = 5\n")
    assert "broken.toml" in here.run("doctor", code=1).stdout


# ---- every executable -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*COMMANDS, "recover"])
def test_every_command_is_agentorch_name_too(here: Installation, name: str) -> None:
    dispatcher = [sys.executable, str(ROOT / "bin/agentorch"), name, "--help"]
    done = subprocess.run(
        dispatcher, capture_output=True, text=True, check=True, env=here.environment
    )
    assert done.stdout.startswith(f"Usage: agentorch {name}")
    assert done.stderr == ""


@pytest.fixture
def debian() -> Iterator[Path]:
    """A copy of the programs that any user can read, for Debian's own Python and its packages."""
    wanted = "import click, jsonschema, rich"
    found = subprocess.run(["/usr/bin/python3", "-c", wanted], capture_output=True, check=False)
    if found.returncode:
        pytest.skip("Debian's python3-click, python3-jsonschema or python3-rich is missing")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        top = Path(name)
        top.chmod(0o755)
        for part in ("bin", "lib"):
            shutil.copytree(ROOT / part, top / part)
        yield top


def test_debians_packages_are_enough(here: Installation, debian: Path) -> None:
    environment = here.environment | {"PYTHONPATH": str(debian / "lib")}

    def run(name: str, *arguments: str, code: int = 0) -> str:
        argv = ["/usr/bin/python3", str(debian / "bin" / f"agentorch-{name}"), *arguments]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env=environment, cwd=here.repository
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    bad = here.top / "bad.json"
    bad.write_text('{"goal": "", "job_id": "x", "callback_url": "ftp://x", "steps": [{}]}')
    assert run("submit", str(bad), code=2).count("\n") == 8
    run("submit", "--goal", "x")
    run("runner", "--drain")
    assert run("ls", "--failed").strip()


def test_root_acts_as_the_service_user_on_the_systems_state(
    here: Installation, debian: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    state, passwd = debian / "state", debian / "passwd"
    state.mkdir()
    os.chown(state, 4242, 4242)
    passwd.write_text(
        Path("/etc/passwd").read_text() + "agentorch:x:4242:4242::/var/lib/agentorch:/bin/sh\n"
    )
    script = f"""
        mount -t tmpfs none /var/lib
        mkdir /var/lib/agentorch
        mount --bind {passwd} /etc/passwd
        mount --bind {state} /var/lib/agentorch
        cd /srv
        /usr/bin/python3 {debian}/bin/agentorch-submit --goal x
        mkdir --mode=700 /var/lib/mine
        cd /var/lib/mine
        /usr/bin/python3 {debian}/bin/agentorch-submit --goal x 2>&1
    """
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(debian / "lib")}
    argv = ["unshare", "-m", "sh", "-euc", script]
    done = subprocess.run(argv, check=False, stdout=subprocess.PIPE, env=environment)
    assert done.returncode == 2
    assert b"'/var/lib/mine' can't be read by uid 4242" in done.stdout
    assert {path.stat().st_uid for path in (state / "queue").rglob("*")} == {4242}


def test_the_runner_goes_on_after_a_bad_agent_manifest(here: Installation) -> None:
    agents = here.top / "agents.d"
    agents.mkdir()
    (agents / "broken.toml").write_text("command = 5\n")
    job_id = here.submit(step("a", "true"))
    here.drain()
    assert here.status(job_id)["status"] == "success"


def test_an_agent_that_is_gone_by_the_time_of_the_claim(here: Installation) -> None:
    agents = here.top / "agents.d"
    agents.mkdir()
    (agents / "mine.toml").write_text('command = ["/bin/true"]\n')
    job_id = here.submit({"step_id": "a", "agent": "mine", "role": "r", "prompt": "p"})
    (agents / "mine.toml").unlink()
    here.drain()
    found = here.status(job_id)
    assert (found["queue_state"], found["result"]["error"]["code"]) == ("failed", "unknown_agent")


def test_two_slots_share_forty_jobs_and_each_runs_once(here: Installation) -> None:
    counted = here.top / "counted"
    counted.mkdir()
    script = f"echo $AGENTORCH_JOB >> {counted}/$AGENTORCH_JOB"
    text = "\n".join(
        json.dumps({"goal": str(n), "steps": [step("a", script)], "policy": {"sandbox": False}})
        for n in range(40)
    )
    ids = here.run("submit", "-", given=text).stdout.split()
    runners = [here.start("runner", "--drain", "--slot", slot, SANDBOX="0") for slot in ("a", "b")]
    for runner in runners:
        runner.communicate(timeout=120)
        assert runner.returncode == 0
    assert len(here.run("ls", "--done").stdout.split()) == 40
    assert [len((counted / job_id).read_text().split()) for job_id in ids] == [1] * 40
    eventually(lambda: not list((here.state / "queue/pending").iterdir()))


def test_bytes_that_are_no_utf8_are_a_problem_and_no_bug(here: Installation) -> None:
    refused = here.run("submit", "--goal", "x\udce9", code=2)
    assert ".goal: 'x\\udce9' is not UTF-8" in refused.stderr
    directory = here.top / "x\udce9"
    directory.mkdir()
    document = json.dumps({"goal": "g", "workdir": "."})
    done = subprocess.run(
        here.argv("submit", "-"),
        input=document,
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
        env=here.environment,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert ".workdir: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not here.state.exists()
    job_id = here.submit(step("a", "true"))
    here.run("cancel", "--comment", "x\udce9", job_id, code=2)
    assert here.status(job_id)["status"] == "pending"
    here.run("cancel", job_id, SUDO_UID="nobody")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_is_no_traceback(here: Installation, closed: str) -> None:
    job_id = here.submit(step("a", "echo here"))
    runner, logs = (" ".join(here.argv(name)) for name in ("runner", "logs"))
    script = f"{runner} --drain {closed} && {logs} {job_id} {closed}"
    done = subprocess.run(
        ["sh", "-euc", script],
        capture_output=True,
        text=True,
        check=False,
        env=here.environment,
        cwd=here.repository,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert here.status(job_id)["status"] == "success"


def test_a_report_has_no_escapes_of_its_goal(here: Installation) -> None:
    document = {"goal": "\x1b]0;t\x07 \u202eg", "steps": [step("a", "true", role="r\n# x\x1b[31m")]}
    job_id = here.run("submit", "-", given=json.dumps(document)).stdout.strip()
    here.drain()
    report = (here.artifacts(job_id) / "report.md").read_text()
    assert "\x1b" not in report
    assert "\u202e" not in report
    assert "\n# x" not in report
