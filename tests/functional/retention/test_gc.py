"""agentorch-gc on real jobs: what has ended goes, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agentorch.retention.collect import TRASH
from tests.support.installation import Installation, step
from tests.support.polling import eventually

ALL = {"ARTIFACTS_TTL_SEC": "0", "WORKSPACES_TTL_SEC": "0", "RETENTION_MAX_BYTES": "1"}
NONE = {"ARTIFACTS_TTL_SEC": "0", "WORKSPACES_TTL_SEC": "0"}
ENDED_LONG_AGO = "2020-01-01T00:00:00.000000Z"


def collected(here: Installation, *arguments: str, **variables: str) -> list[dict[str, Any]]:
    done = here.run("gc", "--json", *arguments, given="", code=0, **variables)
    return [json.loads(line) for line in done.stdout.splitlines()]


def left(here: Installation) -> set[str]:
    """The names of all that is there of jobs."""
    roots = ("artifacts", "workspaces", "queue/done", "queue/failed")
    return {
        name
        for root in roots
        for name in os.listdir(here.state / root)
        if name != TRASH or os.listdir(here.state / root / name)
    }


def aged(here: Installation, job_id: str) -> None:
    """The job ended years ago: its state and its place in the queue say so."""
    path = here.artifacts(job_id) / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"finished_at": ENDED_LONG_AGO}))
    job = here.artifacts(job_id) / "job.json"
    document = json.loads(job.read_text()) | {"submitted_at": ENDED_LONG_AGO}
    job.write_text(json.dumps(document))  # in place: the queue file is the same inode
    for queued in here.state.glob(f"queue/*/5-*-{job_id}.json"):
        queued.rename(queued.with_name(f"5-20200101T000000.000000Z-{job_id}.json"))


def test_an_ended_job_goes_whole(here: Installation) -> None:
    job_id = here.submit(step("one", "echo x >new"))
    here.drain()
    planned = collected(here, "--dry-run", **ALL)
    assert [(one["job_id"], one["part"]) for one in planned] == [(job_id, "job")]
    assert job_id in left(here)
    (one,) = collected(here, **ALL)
    assert one["bytes"] == planned[0]["bytes"] > 4096
    assert left(here) == set()
    assert collected(here, **ALL) == []
    assert here.run("status", job_id, code=1).stderr.count(job_id) == 1


def test_age_is_since_the_end(here: Installation) -> None:
    old, young = (here.submit(step("one", "true")) for _ in range(2))
    here.drain()
    aged(here, old)
    week = {"ARTIFACTS_TTL_SEC": "604800", "WORKSPACES_TTL_SEC": "172800"}
    assert [one["job_id"] for one in collected(here, **week)] == [old]
    assert here.status(young)["status"] == "success"


def test_a_workspace_may_go_before_its_job(here: Installation) -> None:
    job_id = here.submit(step("one", "echo x >new"), step("two", "false"))
    here.drain()
    aged(here, job_id)
    (one,) = collected(here, ARTIFACTS_TTL_SEC="0", WORKSPACES_TTL_SEC="1")
    assert one["part"] == "workspace"
    assert not here.work(job_id).exists()
    # a retry makes it again, from the base and what the first step did
    here.run("retry", job_id)
    here.drain()
    assert (here.work(job_id) / "new").read_text() == "x\n"


def test_what_has_not_ended_stays(here: Installation) -> None:
    pending = here.submit(step("one", "true"))
    waiting = here.submit(
        step("one", "true"),
        policy={"requires_approval": True},
    )
    here.run("runner", "--once")
    again = here.submit(step("one", "true"))
    assert [one["job_id"] for one in collected(here, **ALL)] == [pending]
    assert {here.status(job_id)["queue_state"] for job_id in (waiting, again)} == {
        "awaiting_approval",
        "pending",
    }


def test_a_running_job_stays(here: Installation) -> None:
    job_id = here.submit(step("one", 'touch "$HOME/here"; sleep 60'))
    runner = here.start("runner")
    ran = here.state / "workspaces" / job_id / "home/exec/here"
    eventually(ran.exists)
    assert collected(here, **ALL) == []
    runner.terminate()
    runner.communicate(timeout=60)


def test_a_tree_that_nobody_may_write_goes_too(here: Installation) -> None:
    here.submit(step("one", "mkdir -p a/b && touch a/b/c && chmod -R a-w,u-x a"))
    here.drain()
    assert len(collected(here, **ALL)) == 1
    assert left(here) == set()


def test_nothing_is_written_to_look(here: Installation) -> None:
    assert collected(here, "--dry-run", **ALL) == []
    assert collected(here, **NONE) == []
    assert not here.state.exists()


def test_what_a_killed_collection_moved_away_goes_with_the_next(
    here: Installation,
) -> None:
    job_id = here.submit(step("one", "true"))
    here.drain()
    for root in ("workspaces", "artifacts"):
        trash = here.state / root / TRASH
        trash.mkdir()
        (here.state / root / job_id).rename(trash / job_id)
    assert len(collected(here, **ALL)) == 1
    assert left(here) == set()


def test_an_id_that_is_used_again_is_another_job(here: Installation) -> None:
    job_id = here.submit(step("one", "true"), job_id="again-and-again")
    here.drain()
    lost = here.state / "lost"
    here.artifacts(job_id).rename(lost)  # as a collection does that is then killed
    here.submit(step("one", "true"), job_id=job_id)
    collected(here, **ALL)
    assert here.status(job_id)["queue_state"] == "pending"
    here.drain()
    assert here.status(job_id)["status"] == "success"


def test_a_pinned_job_stays_whatever_the_limits_say(here: Installation) -> None:
    """And who asks is told what would have gone; a limit that is not met then is told, too."""
    kept, gone = (here.submit(step("one", "echo x >new")) for _ in range(2))
    here.drain()
    aged(here, kept)
    (here.artifacts(kept) / "keep").touch()
    week = {"ARTIFACTS_TTL_SEC": "604800", "WORKSPACES_TTL_SEC": "172800"}
    shown = here.run("gc", "--dry-run", given="", code=0, **week).stdout
    assert shown.startswith(f"{kept}\tkept\tpinned, else its job would go: ended ")
    told = collected(here, "--dry-run", **week, RETENTION_MAX_BYTES="1")
    assert [(one["job_id"], one["kept"]) for one in told] == [(gone, None), (kept, "pinned")]
    done = here.run("gc", given="", code=0, **week, RETENTION_MAX_BYTES="1")
    assert done.stdout == f"{gone}\tjob\tended jobs take more than 1 bytes\n"
    assert "pinned jobs take" in done.stderr
    assert done.stderr.endswith(" bytes: more than RETENTION_MAX_BYTES=1 stay\n")
    assert (here.work(kept) / "new").read_text() == "x\n"
    as_service = here.run(
        "gc", given="", code=0, **week, RETENTION_MAX_BYTES="1", AGENTORCH_UNIT="1", LOG_JSON="1"
    )
    (entry,) = [json.loads(line) for line in as_service.stderr.splitlines()]
    assert entry["event"] == "pinned"
    (here.artifacts(kept) / "keep").unlink()
    assert [one["job_id"] for one in collected(here, **week)] == [kept]


@pytest.mark.parametrize("free", ["0", "9999T"])
def test_free_space(here: Installation, free: str) -> None:
    here.submit(step("one", "true"))
    here.drain()
    removed = collected(here, **NONE, RETENTION_MIN_FREE_BYTES=free)
    assert len(removed) == (free != "0")
    assert (left(here) == set()) is (free != "0")


def test_a_line_a_removal(here: Installation, tmp_path: Path) -> None:
    job_id = here.submit(step("one", "true"))
    here.drain()
    printed = here.run("gc", "--dry-run", given="", code=0, **ALL).stdout
    assert printed == f"{job_id}\tjob\tended jobs take more than 1 bytes\n"


def test_the_key_of_a_job_that_is_gone_is_free(here: Installation) -> None:
    """And nobody else's is: what a job says of its key is anybody's word."""
    digest = "ab" * 32
    keys = here.state / "queue/idempotency"
    meta = {"type": "manual", "meta": {"idempotency": digest}}
    other, own = (here.submit(step("one", "true"), source=meta) for _ in range(2))
    evil = here.submit(
        step("one", "true"),
        source={"type": "manual", "meta": {"idempotency": "../../artifacts/precious"}},
    )
    (keys / digest).symlink_to(own)
    precious = here.state / "artifacts/precious"
    precious.symlink_to(evil)
    here.drain()
    aged(here, other)
    collected(here, ARTIFACTS_TTL_SEC="604800")
    assert (keys / digest).is_symlink()
    collected(here, **ALL)
    assert not (keys / digest).is_symlink()
    assert precious.is_symlink()
