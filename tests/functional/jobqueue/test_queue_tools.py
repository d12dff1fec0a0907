"""The tools of whoever looks after a queue: what lies there, how old it is, and taking it away."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agentorch.config.settings import load
from agentorch.core.states import State
from agentorch.jobqueue import age_table
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import find
from agentorch.jobqueue.reclaim import wake
from agentorch.metrics import exposition
from agentorch.storage.paths import Roots
from tests.support.installation import Installation, step
from tests.support.polling import eventually

OLD = datetime.now(UTC) - timedelta(hours=3)


def queue_of(here: Installation) -> Queue:
    state = here.state
    return Queue(
        Roots(state / "queue", state / "artifacts", state / "workspaces", state / "state.db")
    )


def ls(here: Installation, *arguments: str) -> list[str]:
    return here.run("ls", *arguments).stdout.split()


def hold_back(here: Installation, job_id: str, reason: str) -> None:
    here.run("hold", "--comment", reason, job_id)


WALL = """#!/bin/sh
cat >/dev/null
echo '{"type": "result", "status": "failed", "error":
 {"code": "limit", "message": "used up", "class": "quota", "resets_at": "%s"}}' | tr '\\n' ' '
echo
"""


def parked(here: Installation, **fields: object) -> str:
    """A job whose agent ran into a limit that lasts."""
    until = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0)
    agents = here.top / "agents.d"
    agents.mkdir(exist_ok=True)
    program = agents / "wall"
    program.write_text(WALL % until.isoformat())
    program.chmod(0o755)
    (agents / "wall.toml").write_text(f'command = ["{program}"]\nneeds_git = false\n')
    here.environment["ALLOWED_BINARIES"] = "sh,wall"
    job_id = here.submit(step("ask", "work", agent="wall"), **fields)
    here.drain()
    assert here.status(job_id)["queue_state"] == "parked"
    return job_id


# ---- ls ---------------------------------------------------------------------------------------


def test_filters_combine(here: Installation) -> None:
    done = here.submit(step("a", "true"), tags=["night"])
    failed = here.submit(step("a", "true"), step("b", "exit 3"), tags=["night", "x"])
    here.drain()
    waiting = here.submit(step("a", "true"), tags=["day"])
    assert ls(here, "--tag", "night") == [done, failed]
    assert ls(here, "--tag", "night", "--tag", "day") == [done, failed, waiting]
    assert ls(here, "--tag", "night", "--failed") == [failed]
    assert ls(here, "--state", "failed", "--done") == [done, failed]
    assert ls(here, "--outcome", "agent_error") == [failed]
    assert ls(here, "--outcome", "agent_error", "--outcome", "success") == [done, failed]
    assert ls(here, "--outcome", "success", "--tag", "x") == []
    assert ls(here, "--agent", "exec") == [done, failed, waiting]
    assert ls(here, "--agent", "claude") == []
    assert ls(here, "--status", "pending") == [waiting]
    here.run("ls", "--status", "done", code=2)
    assert ls(here, "--project", "-", "--status", "success") == [done]
    assert ls(here, "--project", "shop") == []
    assert ls(here, "--newer", "1h") == [done, failed, waiting]
    assert ls(here, "--older", "1h") == []


def test_an_age_is_since_the_submission(here: Installation) -> None:
    young = here.submit(step("a", "true"))
    queue = queue_of(here)
    old = here.submit(step("a", "true"))
    # what was submitted three hours ago has a name that says so
    document = json.loads(queue.roots.artifacts(old).job.read_bytes())
    found = find(queue, old)
    assert found.key is not None
    path = queue.paths.file(State.PENDING, found.key)
    stamp = OLD.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    path.write_text(json.dumps({**document, "submitted_at": stamp}))
    path.rename(path.with_name(f"5-{age_table.stamp(OLD)}-{old}.json"))
    assert ls(here, "--older", "2h") == [old]
    assert ls(here, "--newer", "2h") == [young]
    assert ls(here, "--older", "2h", "--newer", "4h") == [old]
    assert ls(here, "--older", "4h") == []
    rows = here.run("ls", "--age").stdout.splitlines()
    assert rows[2].split() == ["pending", "2", "1", "0", "0", "1", "0", "0", "0"]
    assert here.run("ls", "--age", "--older", "2h").stdout.splitlines()[2].split()[1] == "1"


def test_the_shape_of_the_queue(here: Installation) -> None:
    here.submit(step("a", "true"), step("b", "true", agent="claude"))
    held = here.submit(step("a", "true"))
    hold_back(here, held, "wait for me")
    by = {
        word: [json.loads(line) for line in here.run("ls", *arguments).stdout.splitlines()]
        for word, arguments in {
            "state": ("--age", "--json"),
            "agent": ("--age", "--by", "agent", "--json"),
            "project": ("--age", "--by", "project", "--json", "--held"),
        }.items()
    }
    told = {word: {row[word]: row["total"] for row in rows} for word, rows in by.items()}
    assert told == {
        "state": {"pending": 1, "held": 1},
        "agent": {"claude": 1, "exec": 2},
        "project": {"-": 1},
    }
    assert all(row["<5m"] == row["total"] for rows in by.values() for row in rows)
    assert "--by belongs to --age" in here.run("ls", "--by", "agent", code=2).stderr


def test_the_shape_by_state_reads_no_job(here: Installation) -> None:
    """A million waiting jobs are told by their names."""
    here.submit(step("a", "true"))
    for path in (here.state / "artifacts").glob("*/job.json"):
        path.write_bytes(b"no document")
    assert "pending" in here.run("ls", "--age").stdout
    assert len(ls(here)) == 1


def test_what_waits_says_why_and_until_when(here: Installation) -> None:
    job_id = parked(here, tags=["wall"])
    held = here.submit(step("a", "true"))
    hold_back(here, held, "wait for \x1b[31mme")
    rows = [json.loads(line) for line in here.run("ls", "--json").stdout.splitlines()]
    told = {row["job_id"]: (row["state"], row["reason"], row["until"]) for row in rows}
    state = here.status(job_id)["state"]
    assert told[job_id] == ("parked", state["parked"]["reason"], state["parked"]["until"])
    assert told[held] == ("held", "wait for \x1b[31mme", None)
    assert ls(here, "--parked") == [job_id]
    assert ls(here, "--held") == [held]
    assert ls(here, "--outcome", "quota") == [job_id]
    shown = on_terminal(here, "ls")
    assert "wait for" in shown
    assert f"until {state['parked']['until'][:4]}" in shown
    assert "\x1b[31mme" not in shown


def on_terminal(here: Installation, *argv: str) -> str:
    """What a program prints on a wide terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        here.argv(*argv), stdout=follower, env={**here.environment, "COLUMNS": "200"}
    )
    os.close(follower)
    shown = b""
    try:
        while piece := os.read(leader, 65536):
            shown += piece
    except OSError:  # EIO: the other end is closed
        pass
    os.close(leader)
    assert process.wait(60) == 0
    return shown.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--older", "3"),
        ("--newer", "1y"),
        ("--state", "lost"),
        ("--outcome", "bad"),
        ("--age", "--by", "day"),
    ],
)
def test_words_that_no_job_can_be(here: Installation, arguments: tuple[str, ...]) -> None:
    done = here.run("ls", *arguments, code=2)
    assert done.stdout == ""
    assert arguments[-1] in done.stderr


def test_metrics_tell_of_held_and_parked_jobs(here: Installation) -> None:
    job_id = parked(here)
    hold_back(here, here.submit(step("a", "true")), "later")
    text = here.run("metrics", "--stdout").stdout
    for state in ("held", "parked"):
        assert f'orchestrator_queue_jobs{{state="{state}"}} 1.0' in text
    ages_told = [
        line for line in text.splitlines() if 'state="parked"' in line and "oldest" in line
    ]
    assert [float(line.split()[-1]) > 0 for line in ages_told] == [True]
    assert find(queue_of(here), job_id).state is State.PARKED


# ---- delete -----------------------------------------------------------------------------------


def test_a_deleted_job_leaves_nothing(here: Installation) -> None:
    job_id = here.submit(step("a", "echo x >file; chmod 0 ."), job_id="job-to-delete")
    kept = here.submit(step("a", "true"))
    here.drain()
    assert here.run("delete", job_id).stdout.split() == [job_id]
    left = {str(path) for path in here.state.rglob("*") if job_id in path.name}
    assert left == set()
    assert ls(here) == [kept]
    assert "no job" in here.run("delete", job_id, code=2).stderr
    assert 'orchestrator_queue_jobs{state="done"} 1.0' in here.run("metrics", "--stdout").stdout
    # the id is free
    assert here.submit(step("a", "true"), job_id=job_id) == job_id


def test_what_has_not_ended_or_is_pinned_is_not_deleted(here: Installation) -> None:
    ended = here.submit(step("a", "true"))
    pinned = here.submit(step("a", "true"))
    here.drain()
    waiting = here.submit(step("a", "true"))
    here.run("hold", "--keep", pinned)
    done = here.run("delete", given=f"{pinned}\n{waiting}\nnone-such\n{ended}\n", code=2)
    assert done.stdout.split() == [ended]
    assert f"{waiting}: it is pending: cancel it first" in done.stderr
    assert f"{pinned}: it is pinned, by " in done.stderr
    assert "no job 'none-such'" in done.stderr
    assert sorted(ls(here)) == sorted([pinned, waiting])


def test_a_running_job_is_not_deleted(here: Installation) -> None:
    job_id = here.submit(step("a", 'while [ ! -e "$HOME/go" ]; do sleep 0.02; done'))
    here.start("runner", "--once")
    eventually(lambda: here.status(job_id)["queue_state"] == "running")
    assert "it is running" in here.run("delete", job_id, code=2).stderr
    assert "somebody works on it" in here.run("export", job_id, code=2).stderr
    here.run("cancel", job_id)
    here.run("wait", job_id, code=1)


# ---- ids on standard input --------------------------------------------------------------------

READERS = [
    *("status", "logs", "diff", "report", "verify", "wait", "explain", "export", "delete"),
    *("approve", "reject", "hold", "release", "cancel", "retry", "unlock", "priority 3"),
]


@pytest.mark.parametrize("command", READERS)
def test_commands_read_ids_from_standard_input(here: Installation, command: str) -> None:
    job_id = here.submit(step("a", "echo x >file"), job_id="job-on-stdin")
    here.drain()
    name, *arguments = command.split()
    done = here.run(name, *arguments, given=f"{job_id} and more words\n", code=None)
    assert "give " not in done.stderr, done
    assert job_id in done.stdout + done.stderr or done.returncode == 0
    unknown = here.run(name, *arguments, given="none-such\n", code=None)
    assert "no job 'none-such'" in unknown.stderr
    assert unknown.returncode in (1, 2)


def test_an_id_that_is_no_text_is_one_of_no_job(here: Installation) -> None:
    unknown = here.run("explain", given="\u00fc\n", code=1, PYTHONIOENCODING="ascii:strict")
    assert unknown.stderr.startswith("agentorch-explain: no job '")


# ---- another's state --------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="to give a file away one has to be root")
def test_anothers_state_is_refused_in_a_line(here: Installation) -> None:
    job_id = here.submit(step("a", "true"))
    before = here.status(job_id)
    for path in (here.state, *here.state.rglob("*")):
        path.chmod(path.stat().st_mode | (0o5 if path.is_dir() else 0o4))
        os.chown(path, 65534, 65534)
    # root without its capabilities: as good as anybody
    argv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *here.argv("hold", job_id)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=here.environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith(": Permission denied: only root and nobody may change it")
    assert here.status(job_id) == before


# ---- wait -------------------------------------------------------------------------------------


def test_wait_says_that_a_job_is_held_and_waits_on(here: Installation) -> None:
    held = here.submit(step("a", "true"))
    hold_back(here, held, "not before noon")
    waiting = here.start("wait", held)
    assert waiting.stderr is not None
    line = waiting.stderr.readline()
    assert line == (
        f"agentorch-wait: {held}: held back: not before noon: agentorch-release lets it go on\n"
    )
    here.run("release", held)
    here.drain()
    assert waiting.wait(60) == 0


def test_wait_says_until_when_a_job_is_parked(here: Installation) -> None:
    job_id = parked(here)
    done = here.run("wait", "--timeout", "0", job_id, code=124)
    until = here.status(job_id)["state"]["parked"]["until"]
    assert f"{job_id}: parked until {until}: " in done.stderr
    assert done.stderr.endswith(": it goes on by itself\n")
    assert "no runner is alive" not in done.stderr
    assert wake(queue_of(here), datetime.now(UTC) + timedelta(days=3)) == [job_id]


def test_names_in_other_states_are_not_the_parked_ones(tmp_path: Path) -> None:
    """The oldest parked job is told by its own time, not by the one at which it goes on."""
    name = f"20310101T000000Z-5-{age_table.stamp(OLD)}-job-12345678.json"
    environment = {"AGENTORCH_STATE_DIR": str(tmp_path), "AGENTORCH_ENV_FILE": "/dev/null"}
    settings = load(environment)
    Queue(settings.roots).prepare()
    (settings.roots.queue.state(State.PARKED) / name).touch()
    text = exposition.read_metrics(settings, OLD + timedelta(hours=1)).text.decode()
    assert 'agentorch_queue_oldest_seconds{state="parked"} 3600.0' in text
