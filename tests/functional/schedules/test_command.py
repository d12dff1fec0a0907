"""agentorch-schedule: what it prints, what it submits, and what an earlier job does to that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agentorch.commands.schedule import due_time
from agentorch.schedules.files import schedule_of
from agentorch.schedules.timers import NEEDS_UTC
from agentorch.systemd.on_calendar import last_elapsed, times_in

ROOT = Path(__file__).parents[3]
NIGHTLY: Mapping[str, Any] = {
    "id": "nightly",
    "schedule": "0 3 * * *",
    "payload": {"goal": "x", "tags": ["a"]},
}


class Place:
    """A configuration directory, a state directory, and the programs on them."""

    def __init__(self, top: Path) -> None:
        self.folder = top / "schedules"
        self.state = top / "state"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(top),
            "PYTHONPATH": str(ROOT / "lib"),
            "AGENTORCH_ENV_FILE": "/dev/null",
            "AGENTORCH_CONFIG_DIR": str(top),
            "AGENTORCH_STATE_DIR": str(self.state),
            "PROJECT_ALIASES": f"shop={top}",
            "ALLOWED_BINARIES": "sh",
        }

    def put(self, name: str, document: Any) -> Path:
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{name}.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    def run(
        self, name: str, *arguments: str, code: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            [sys.executable, str(ROOT / "bin" / f"agentorch-{name}"), *arguments],
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == code, (ran.returncode, ran.stdout, ran.stderr)
        return ran

    def schedule(self, *arguments: str, code: int = 0, **variables: str) -> list[str]:
        """The lines that the program answers."""
        return self.run("schedule", *arguments, code=code, **variables).stdout.splitlines()

    def job(self, job_id: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(
            (self.state / "artifacts" / job_id / "job.json").read_text()
        )
        return document

    def in_state(self, state: str) -> list[str]:
        return [
            path.name.split("-", 2)[2][:-5] for path in (self.state / "queue" / state).iterdir()
        ]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# ---- list, next, check, crontab ---------------------------------------------------------------


def test_nothing_is_written_to_read(place: Place) -> None:
    place.put("a", NIGHTLY)
    for verb in ("list", "check", "next", "crontab"):
        place.schedule(verb)
    assert not place.state.exists()


def test_the_list(place: Place) -> None:
    place.put("a", NIGHTLY)
    place.put("b", {**NIGHTLY, "id": "off", "enabled": False})
    tomorrow = datetime.now(UTC) + timedelta(hours=21)
    assert place.schedule("list") == [
        f"nightly\tenabled\t0 3 * * *\t{tomorrow:%Y-%m-%d}T03:00:00.000000Z\t-\t-\t-",
        "off\tdisabled\t0 3 * * *\t-\t-\t-\t-",
    ]
    (job_id,) = place.schedule("run", "nightly")
    told = json.loads(place.schedule("list", "--json")[0])
    assert (told["id"], told["enabled"], told["job_id"]) == ("nightly", True, job_id)
    assert (told["status"], told["last"][:10]) == ("pending", f"{datetime.now(UTC):%Y-%m-%d}")


def test_a_bad_file_is_said_beside_the_list(place: Place) -> None:
    place.put("a", NIGHTLY)
    bad = place.put("b", {**NIGHTLY, "schedule": "0 25 * * *"})
    ran = place.run("schedule", "list")
    assert ran.stdout.startswith("nightly\t")
    words = ".schedule: field 2 (hour): '25': expected 0 to 23"
    assert ran.stderr == f"agentorch-schedule: {bad}: {words}\n"


def test_the_next_times(place: Place) -> None:
    place.put("a", {**NIGHTLY, "id": "a", "schedule": "0 0 1 1 *"})
    place.put("b", {**NIGHTLY, "id": "b", "schedule": "0 0 1 7 *"})
    place.put("c", {**NIGHTLY, "id": "c", "enabled": False})
    lines = place.schedule("next", "-n", "4")
    assert lines == sorted(lines)
    assert sorted(line[5:] for line in lines) == sorted(
        ["01-01T00:00:00Z\ta", "07-01T00:00:00Z\tb"] * 2
    )
    assert [line.split("\t")[1] for line in place.schedule("next", "c", "-n", "2")] == ["c", "c"]
    assert "time" in json.loads(place.schedule("next", "--json")[0])
    ran = place.run("schedule", "next", "d", code=2)
    assert ran.stderr.endswith("there is no schedule 'd'\n")


@pytest.mark.needs("systemd-analyze")
def test_systemd_tells_the_times_of_an_event(place: Place) -> None:
    event = {"id": "event", "on_calendar": "*-01-01 06:30 Asia/Tokyo", "payload": {"goal": "x"}}
    place.put("a", event)
    for zone in ("UTC", "America/New_York"):
        lines = place.schedule("next", "-n", "2", TZ=zone)
        assert [line[4:] for line in lines] == ["-12-31T21:30:00Z\tevent"] * 2
    assert place.schedule("check") == ["event"]
    place.put("a", {**event, "on_calendar": "someday"})
    ran = place.run("schedule", "check", code=2)
    assert "event: .on_calendar: 'someday' is no calendar event" in ran.stderr
    place.put("a", {**event, "on_calendar": "2001-01-01"})
    assert "never runs again" in place.run("schedule", "check", code=2).stderr


def test_times_in_what_systemd_says() -> None:
    said = "Next elapse: Thu 2026-01-01 10:00:00 CET\n   (in UTC): Thu 2026-01-01 09:00:00 UTC\n"
    assert list(times_in(said)) == [datetime(2026, 1, 1, 9, tzinfo=UTC)]
    assert list(times_in("Next elapse: never\n")) == []


def test_check_tells_everything_with_its_place(place: Place) -> None:
    place.put("a", NIGHTLY)
    assert place.schedule("check") == ["nightly"]
    place.put("b", "{")
    place.put("c", {**NIGHTLY, "id": "c", "payload": {"steps": [{"agent": "cluade"}]}})
    place.put("d", {**NIGHTLY, "id": "d", "payload": {"goal": "x", "workdir": "there"}})
    ran = place.run("schedule", "check", code=2)
    assert ran.stdout == ""
    lines = ran.stderr.splitlines()
    assert any("b.json: not JSON: line 1" in line for line in lines)
    assert any("c: .payload: 'goal' is missing" in line for line in lines)
    assert any("c: .payload.steps[0].agent: 'cluade' is unknown" in line for line in lines)
    assert any("d: .payload.workdir: 'there' is not an absolute path" in line for line in lines)
    assert place.schedule("check", str(place.folder / "a.json")) == ["nightly"]
    assert "nowhere: No such file" in place.run("schedule", "check", "nowhere", code=2).stderr


def test_lines_for_cron(place: Place) -> None:
    place.put("a", NIGHTLY)
    assert place.schedule("crontab") == [
        NEEDS_UTC,
        "CRON_TZ=UTC",
        "0 3 * * * agentorch-schedule run --due nightly",
    ]


@pytest.mark.parametrize("words", [["run"], ["run", "a", "b"], ["list", "a"], ["go"], []])
def test_wrong_use(place: Place, words: list[str]) -> None:
    ran = place.run("schedule", *words, code=2)
    assert ran.stdout == ""
    assert "Error: " in ran.stderr


# ---- run --------------------------------------------------------------------------------------


def test_a_run_submits_the_payload(place: Place) -> None:
    place.put("a", NIGHTLY)
    (job_id,) = place.schedule("run", "nightly")
    document = place.job(job_id)
    assert document["source"] == {"type": "cron", "meta": {"schedule": "nightly"}}
    assert (document["goal"], document["tags"], document["workdir"]) == ("x", ["a"], ".")
    assert place.in_state("pending") == [job_id]


def test_a_due_time_is_made_once_and_a_run_by_hand_as_often_as_asked(place: Place) -> None:
    place.put("a", {**NIGHTLY, "schedule": "0 0 1 1 *", "overlap": "queue"})
    (job_id,) = place.schedule("run", "--due", "nightly")
    assert place.job(job_id)["source"]["meta"]["due"].endswith("-01-01T00:00:00.000000Z")
    ran = place.run("schedule", "run", "--due", "nightly")
    assert (ran.stdout, "was made already" in ran.stderr) == ("", True)
    by_hand = [place.schedule("run", "nightly")[0] for _ in range(2)]
    assert place.schedule("run", "--due", "nightly") == []
    assert sorted(place.in_state("pending")) == sorted([job_id, *by_hand])


def test_a_disabled_schedule_runs_by_hand_only(place: Place) -> None:
    place.put("a", {**NIGHTLY, "enabled": False})
    assert place.schedule("run", "--due", "nightly") == []
    assert len(place.schedule("run", "nightly")) == 1


def test_a_payload_that_is_refused_queues_nothing(place: Place) -> None:
    place.put("a", {**NIGHTLY, "payload": {"goal": "x", "project_id": "shp"}})
    ran = place.run("schedule", "run", "nightly", code=2)
    words = ".payload.project_id: 'shp' is not in PROJECT_ALIASES (did you mean 'shop'?)"
    assert ran.stderr == f"agentorch-schedule: {words}\n"
    assert place.in_state("pending") == []
    assert json.loads(place.schedule("list", "--json")[0])["job_id"] is None


def test_skip(place: Place) -> None:
    place.put("a", NIGHTLY)
    (job_id,) = place.schedule("run", "nightly")
    ran = place.run("schedule", "run", "nightly")
    assert ran.stdout == ""
    assert ran.stderr == (
        f"agentorch-schedule: nightly: nothing submitted: job {job_id} of it has not ended "
        "(overlap: skip)\n"
    )
    place.run("cancel", job_id)
    assert len(place.schedule("run", "nightly")) == 1


def test_a_job_that_was_retried_is_seen_again(place: Place) -> None:
    place.put("a", NIGHTLY)
    (job_id,) = place.schedule("run", "nightly")
    place.run("cancel", job_id)
    place.run("retry", job_id)
    assert place.schedule("run", "nightly") == []


def test_a_job_that_waits_for_a_human_has_not_ended(place: Place) -> None:
    asks = {"goal": "x", "policy": {"requires_approval": True}}
    place.put("a", {**NIGHTLY, "payload": asks})
    (job_id,) = place.schedule("run", "nightly")
    assert place.in_state("awaiting_approval") == [job_id]
    assert place.schedule("run", "nightly") == []


def test_a_job_that_is_gone_is_in_nobodys_way(place: Place) -> None:
    place.put("a", NIGHTLY)
    place.schedule("run", "nightly")
    subprocess.run(["rm", "-r", place.state / "artifacts", place.state / "queue"], check=True)
    assert len(place.schedule("run", "nightly")) == 1


def test_queue(place: Place) -> None:
    place.put("a", {**NIGHTLY, "overlap": "queue"})
    ids = [place.schedule("run", "nightly")[0] for _ in range(3)]
    assert sorted(place.in_state("pending")) == sorted(ids)


def test_replace(place: Place) -> None:
    place.put("a", {**NIGHTLY, "overlap": "queue"})
    old = [place.schedule("run", "nightly")[0] for _ in range(2)]
    place.put("a", {**NIGHTLY, "overlap": "replace"})
    told = json.loads(place.schedule("run", "nightly", "--json")[0])
    assert (told["id"], told["state"]) == ("nightly", "pending")
    assert place.in_state("pending") == [told["job_id"]]
    assert sorted(place.in_state("failed")) == sorted(old)
    decisions = (place.state / "artifacts" / old[0] / "decisions.jsonl").read_text()
    assert "replaced by a later run of schedule nightly" in decisions


def test_a_relative_workdir_needs_a_project(place: Place) -> None:
    place.put("a", {**NIGHTLY, "payload": {"goal": "x", "workdir": "a", "project_id": "shop"}})
    assert len(place.schedule("run", "nightly")) == 1


def test_without_a_place_the_workspace_is_empty(place: Place) -> None:
    step = {"step_id": "a", "agent": "exec", "role": "x", "prompt": "ls >file"}
    place.put("a", {**NIGHTLY, "payload": {"goal": "x", "steps": [step]}})
    (job_id,) = place.schedule("run", "nightly")
    place.run("runner", "--drain", ENABLE_REAL_CLI="1", SANDBOX="0")
    work = place.state / "workspaces" / job_id / "work"
    assert [path.name for path in work.iterdir() if path.name != ".git"] == ["file"]


# ---- which time -------------------------------------------------------------------------------


def test_the_time_that_a_run_is_due_for() -> None:
    now = datetime(2026, 3, 4, 5, 6, 7, 8, tzinfo=UTC)
    nightly = schedule_of(NIGHTLY)
    assert due_time(nightly, now, None) == datetime(2026, 3, 4, 3, tzinfo=UTC)
    event = schedule_of({"id": "e", "on_calendar": "daily", "payload": {}})
    assert due_time(event, now, None) == datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
    assert due_time(event, now, datetime(2026, 3, 4, tzinfo=UTC)) == datetime(
        2026, 3, 4, tzinfo=UTC
    )


def test_a_timers_stamp_says_when_it_elapsed(tmp_path: Path) -> None:
    assert last_elapsed("agentorch-schedule@nobodys.timer", {"HOME": str(tmp_path)}) is None
    stamps = tmp_path / "systemd/timers"
    stamps.mkdir(parents=True)
    (stamps / "stamp-a.timer").touch()
    os.utime(stamps / "stamp-a.timer", (1772582400, 1772582400))
    environ = {"XDG_DATA_HOME": str(tmp_path)}
    assert last_elapsed("a.timer", environ) == datetime(2026, 3, 4, tzinfo=UTC)
