"""Agents that misbehave, in whole jobs: a clear outcome, nothing left, and the runner lives on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.installation import ROOT, Installation, step

MARK = "7777.5"

CASES: dict[str, tuple[str, str]] = {
    "floods": ("head -c 200000000 /dev/zero | tr '\\0' x", "success"),
    "floods_in_lines": ("yes | head -c 100000000", "success"),
    "is_binary": ("head -c 1000000 /dev/urandom; head -c 1000 /dev/urandom >&2", "success"),
    "forks_away": (
        f"(setsid sh -c 'trap \"\" TERM HUP; sleep {MARK}' &) ; (sleep {MARK} &)",
        "success",
    ),
    "forks_many": (f"i=0; while [ $i -lt 200 ]; do (sleep {MARK} &); i=$((i+1)); done", "success"),
    "ignores_term": (f"trap '' TERM; sleep {MARK}", "timeout"),
    "closes_output": ("exec >&- 2>&-; sleep 0.2; echo gone || :", "success"),
    "closes_and_hangs": (f"exec >&- 2>&- <&-; sleep {MARK}", "timeout"),
    "kills_itself": ("kill -9 $$", "failed"),
    "stops_itself": ("kill -STOP $$", "timeout"),
    "deletes_its_work": ("rm -rf ./* .git", "success"),
    "makes_a_maze": ("mkdir -p a/b/c; mkfifo a/pipe; ln -s / a/root; chmod 0 a/b", "success"),
    "reads_stdin": ("cat; read x || echo none", "success"),
    "prints_escapes": ("printf '\\033]0;evil\\007\\033[2J\\r\\nMESSAGE_ID=1\\n'; exit 3", "failed"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_misbehaving_agent_has_a_clear_end(here: Installation, name: str) -> None:
    script, status = CASES[name]
    job_id = here.submit(step("a", script, timeout_sec=60 if status == "success" else 2))
    after = here.submit(step("a", "echo fine"))
    here.drain()
    found = here.status(job_id)
    assert found["status"] == status, found["result"]
    assert here.status(after)["status"] == "success"
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if MARK.encode() in _bytes(p)]
    attempt = here.artifacts(job_id) / "steps/a/attempts/1"
    for file in ("logs.txt", "raw_stdout.txt", "raw_stderr.txt"):
        assert (attempt / file).stat().st_size < 2_000_000
    assert "\x1b" not in found["result"]["summary"] + found["result"]["steps"][0]["summary"]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


def test_an_agent_that_fills_the_disk_is_stopped_and_the_runner_lives(here: Installation) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    document = {
        "goal": "g",
        "steps": [
            step("a", "cat /dev/zero > big", timeout_sec=60),
        ],
    }
    (here.top / "job.json").write_text(json.dumps(document))
    (here.top / "next.json").write_text(
        '{"goal": "g", "steps": [' + json.dumps(step("a", "true")) + "]}"
    )
    runner, submit, ls = (" ".join(here.argv(name)) for name in ("runner", "submit", "ls"))
    script = f"""
        mkdir {here.state}
        mount -t tmpfs -o size=64m none {here.state}
        cd {here.repository}
        {submit} {here.top}/job.json {here.top}/next.json
        {runner} --drain
        {ls} --json
        cat {here.state}/artifacts/*/result.json
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-euc", script],
        capture_output=True,
        text=True,
        check=False,
        env=here.environment | {"AGENTORCH_MIN_FREE_BYTES": str(16 << 20)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"job_id"')]
    assert [row["status"] for row in rows] == ["failed", "success"]
    assert '"disk_full"' in done.stdout


def third_party(here: Installation) -> None:
    agents = here.top / "agents.d"
    agents.mkdir()
    shutil.copy(ROOT / "examples/agents/shell-agent", agents)
    manifest = (ROOT / "examples/agents/shell.toml").read_text()
    (agents / "shell.toml").write_text(manifest.replace("/etc/agentorch/agents.d", str(agents)))


def test_the_example_of_a_third_party_agent_works(here: Installation) -> None:
    third_party(here)
    job_id = here.submit({"step_id": "note", "agent": "shell", "role": "scribe", "prompt": "note"})
    here.drain(ALLOWED_BINARIES="shell-agent")
    found = here.status(job_id)
    assert found["status"] == "success", found
    (result,) = found["result"]["steps"]
    assert result["summary"] == "noted step note"
    assert (result["metrics"]["tokens_in"], result["metrics"]["cost_usd"]) == (0, 0)
    assert "+Step note was here, as scribe." in here.run("diff", job_id).stdout
    assert "Appended a line" in (here.artifacts(job_id) / "steps/note/report.md").read_text()


@pytest.mark.parametrize(
    ("asked", "status", "queue"),
    [("needs_human", "needs_human", "awaiting_approval"), ("failed", "failed", "failed")],
)
def test_a_workdir_that_is_no_repository(
    here: Installation, asked: str, status: str, queue: str
) -> None:
    third_party(here)
    manifest = here.top / "agents.d/shell.toml"
    manifest.write_text(manifest.read_text().replace("needs_git = false", "needs_git = true"))
    plain = here.top / "plain"
    plain.mkdir()
    asking: dict[str, Any] = {"step_id": "a", "agent": "shell", "role": "r", "prompt": "p"}
    job_id = here.submit(asking, workdir=str(plain))
    here.drain(ALLOWED_BINARIES="shell-agent", NON_GIT_WORKDIR_STATUS=asked)
    found = here.status(job_id)
    assert (found["status"], found["queue_state"]) == (status, queue)
    assert found["result"]["steps"][0]["error"]["code"] == "non_git_workdir"


def test_a_binary_that_is_too_old_or_missing_says_what_to_do(here: Installation) -> None:
    old = here.submit(step("a", "true"))
    here.drain(MIN_BINARY_VERSIONS="sh=99.0")
    third_party(here)
    (here.top / "agents.d/shell-agent").unlink()
    gone = here.submit({"step_id": "a", "agent": "shell", "role": "r", "prompt": "p"})
    here.drain(ALLOWED_BINARIES="shell-agent")
    assert here.status(old)["result"]["steps"][0]["error"]["code"] == "preflight"
    error = here.status(gone)["result"]["steps"][0]["error"]
    assert error["code"] == "preflight"
    assert "copy shell-agent" in error["message"]


@pytest.mark.parametrize("script", ["cat /dev/zero > ~/big", "cat /dev/zero", "yes >&2"])
def test_what_filled_the_disk_goes_wherever_it_was(here: Installation, script: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    document = {"goal": "g", "steps": [step("a", script, timeout_sec=60)]}
    following = {"goal": "g", "steps": [step("a", "true")]}
    lines = f"{json.dumps(document)}\n{json.dumps(following)}\n"
    (here.top / "jobs.json").write_text(lines)
    runner, submit, ls = (" ".join(here.argv(name)) for name in ("runner", "submit", "ls"))
    commands = f"""
        mkdir {here.state}
        mount -t tmpfs -o size=64m none {here.state}
        cd {here.repository}
        {submit} {here.top}/jobs.json
        {runner} --drain
        {ls} --json
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-euc", commands],
        capture_output=True,
        text=True,
        check=False,
        env=here.environment | {"AGENTORCH_MIN_FREE_BYTES": str(16 << 20)},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"job_id"')]
    assert [row["status"] for row in rows] == ["failed", "success"], done.stderr


def test_an_agent_can_not_reach_the_lock_of_its_step(here: Installation) -> None:
    script = """
        for descriptor in /proc/[0-9]*/fd/*; do
            case $(readlink "$descriptor") in
                */.lock) echo x > "$descriptor"; chmod 0 "$descriptor"; echo touched ;;
            esac
        done
    """
    job_id = here.submit(step("a", script))
    here.drain()
    assert here.status(job_id)["status"] == "success"
    lock = here.artifacts(job_id) / "steps/a/.lock"
    assert (lock.stat().st_size, lock.stat().st_mode & 0o777) == (0, 0o640)
    assert "touched" not in here.run("logs", job_id).stdout


def test_a_runner_that_starts_on_a_read_only_disk_waits_for_it(here: Installation) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk of its own")
    runner, ls, doctor = (" ".join(here.argv(name)) for name in ("runner", "ls", "doctor"))
    here.submit(step("a", "true"))
    script = f"""
        mount --bind {here.state} {here.state}
        mount -o remount,bind,ro {here.state}
        {doctor} >doctor || test $? -eq 1
        {runner} --drain 2>said &
        until grep -q waiting said; do sleep 0.1; done
        mount -o remount,bind,rw {here.state}
        wait $!
        {ls} --done
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-euc", script],
        capture_output=True,
        text=True,
        check=False,
        env=here.environment,
        cwd=here.top,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1
    assert "Read-only file system" in (here.top / "said").read_text()
    assert "make it writable" in (here.top / "doctor").read_text()
