"""Files of a job that nobody of ours wrote so: that job fails alone, and every command says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.installation import Installation, step

CONTENTS = (b"", b"{}", b"null", b"[]", b"\xff\xfe", b'{"a":', b'{"steps": 3}', None)


def damage(path: Path, content: bytes | None) -> None:
    """None makes a directory of it."""
    if content is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(content)


def begun(here: Installation) -> str:
    """A job that has failed once and is queued again."""
    job_id = here.submit(step("one", "exit 1"))
    here.drain()
    here.run("retry", job_id)
    return job_id


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", ["job.json", "state.json"])
def test_the_others_go_on(here: Installation, name: str, content: bytes | None) -> None:
    job_id = begun(here)
    damage(here.artifacts(job_id) / name, content)
    whole = here.submit(step("one", "true"))
    here.drain()
    assert here.status(whole)["status"] == "success"
    assert [path.parent.name for path in (here.state / "queue").rglob(f"*{job_id}*")] == ["failed"]
    here.run("reclaim")
    here.run("gc")


@pytest.mark.parametrize("content", CONTENTS)
def test_what_a_dead_runner_left_is_set_aside(here: Installation, content: bytes | None) -> None:
    job_id = begun(here)
    (queued,) = (here.state / "queue/pending").iterdir()
    queued.rename(here.state / "queue/running/1" / queued.name)
    damage(here.artifacts(job_id) / "state.json", content)
    here.run("reclaim")
    assert (here.state / "queue/failed" / queued.name).exists()


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", ["job.json", "state.json", "result.json", "decisions.jsonl"])
def test_every_command_says_it_in_words(
    here: Installation, name: str, content: bytes | None
) -> None:
    job_id = begun(here)
    whole = here.submit(step("one", "true"))
    damage(here.artifacts(job_id) / name, content)
    for argv in (
        *(["status", job_id], ["explain", job_id], ["explain", "--json", job_id]),
        *(["ls"], ["ls", "--json"], ["ls", "--status", "cancelled"], ["ls", "--outcome", "auth"]),
        *(["ls", "--project", "x"], ["ls", "--age", "--by", "agent"], ["report", "--index"]),
        *(["metrics"], ["announce"], ["gc", "--dry-run"], ["notify"], ["logs", job_id]),
        *(["hold", job_id], ["priority", "3", job_id], ["release", job_id], ["cancel", job_id]),
        *(["retry", job_id], ["approve", job_id], ["verify", job_id], ["delete", job_id]),
    ):
        ended = here.run(*argv, code=None)
        assert ended.returncode in (0, 1, 2), (argv, ended.stderr)
    told = [json.loads(line)["job_id"] for line in here.run("ls", "--json").stdout.splitlines()]
    assert whole in told


def test_a_missing_job_json_is_said(here: Installation) -> None:
    job_id = begun(here)
    (here.artifacts(job_id) / "job.json").unlink()
    assert "its job.json is missing" in here.run("explain", job_id, code=1).stderr
    here.drain()
    assert len(list((here.state / "queue/failed").iterdir())) == 1
    shutil.rmtree(here.artifacts(job_id))


def test_a_state_directory_that_is_a_file_is_said(here: Installation) -> None:
    file = here.top / "file"
    file.write_text("")
    for name in ("submit", "ls", "budget", "gc"):
        said = here.run(name, given="{}", code=None, AGENTORCH_STATE_DIR=str(file))
        assert said.returncode in (2, 75, 78), (name, said)
        assert "Traceback" not in said.stderr
