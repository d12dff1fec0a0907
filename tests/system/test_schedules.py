"""Schedules on a real systemd: timers come and go with their files; a due time is one job."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.support.installing import installed, started
from tests.support.machine import RELEASES, Machine, missing
from tests.support.selection import one_for
from tests.support.service import STATE, document

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}; not proved here")

USUAL = "ENABLE_REAL_CLI=1\nALLOWED_BINARIES=sh\n"
FOLDER = "/etc/agentorch/schedules"
UID = 1000
JOBS = """
import json, sys
from pathlib import Path
for path in sorted(Path(sys.argv[1]).glob("artifacts/*/job.json")):
    source = json.loads(path.read_text())["source"]
    if source["meta"].get("schedule") == sys.argv[2]:
        assert source["type"] == "cron"
        print(path.parent.name, source["meta"].get("due"))
"""


@pytest.fixture(scope="module", params=one_for(RELEASES, __name__))
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with installed(request.param, USUAL) as running:
        started(running)
        yield running


@pytest.fixture(autouse=True)
def none(machine: Machine) -> None:
    """No schedules yet."""
    machine.shell(f"rm -f {FOLDER}/*.json")
    machine.wait_for("! systemctl list-timers --no-legend 'agentorch-schedule@*' | grep -q .")


def schedule(name: str, **fields: Any) -> dict[str, Any]:
    """A schedule of a job that is soon done."""
    when = {} if "on_calendar" in fields else {"schedule": "0 0 1 1 *"}
    return {"id": name, **when, "payload": document("echo done >file"), **fields}


def put(machine: Machine, name: str, content: Mapping[str, Any] | str) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    machine.put(f"{FOLDER}/{name}.json", text.encode())


def timer(name: str) -> str:
    return f"agentorch-schedule@{name}.timer"


def waits(machine: Machine, name: str) -> None:
    """Returns when the timer is there."""
    machine.wait_for(f"systemctl --quiet is-active {timer(name)}", 30, f"{name} has a timer")


def jobs(machine: Machine, name: str, state: str = STATE) -> list[list[str]]:
    """The jobs of a schedule: ids, and the times that they were due."""
    told = machine.output("python3", "-c", JOBS, state, name)
    return [line.split() for line in told.splitlines()]


def journal(machine: Machine, unit: str) -> str:
    return machine.output("journalctl", "--boot", "--output", "cat", "--unit", unit)


def test_timers_come_and_go_with_their_files(machine: Machine) -> None:
    put(machine, "a", schedule("first", schedule="0 0 13 * 5"))
    put(machine, "b", "{")
    put(machine, "c", schedule("off", enabled=False))
    waits(machine, "first")
    listed = machine.output("systemctl", "list-timers", "--no-legend", "agentorch-schedule@*")
    assert [line.split()[-2] for line in listed.splitlines()] == [timer("first")]
    machine.wait_for("journalctl -b -u agentorch-config | grep -q 'b.json: not JSON'")
    show = ("systemctl", "show", "--value", "--property", "TimersCalendar", timer("first"))
    before = machine.output(*show)
    assert "*-*-13 00:00:00 UTC" in before
    assert "Fri *-*-* 00:00:00 UTC" in before
    put(machine, "a", schedule("first", schedule="30 4 * * *"))
    machine.wait_for(lambda: "*-*-* 04:30:00 UTC" in machine.output(*show), why="it changes")
    assert "04:30:00" in machine.output(
        "sh", "-c", f"TZ=UTC systemctl list-timers --no-legend {timer('first')}"
    )
    machine.run("rm", f"{FOLDER}/a.json")
    machine.wait_for(f"! systemctl --quiet is-active {timer('first')}", why="its timer goes")
    machine.wait_for(f"! test -e /var/lib/systemd/timers/stamp-{timer('first')}")
    assert jobs(machine, "first") == []
    assert machine.failed_units() == []


def test_a_due_time_is_one_job(machine: Machine) -> None:
    put(machine, "once", schedule("once"))
    waits(machine, "once")
    service = "agentorch-schedule@once.service"
    machine.run("systemctl", "start", service)
    machine.run("systemctl", "start", service)
    ((job_id, due),) = jobs(machine, "once")
    assert due.endswith("-01-01T00:00:00.000000Z")
    assert "was made already" in journal(machine, service)
    machine.wait_for(f"ls {STATE}/queue/done | grep -q {job_id}", why="the job succeeds")
    story = machine.output("journalctl", "--output", "cat", f"AGENTORCH_JOB={job_id}")
    assert "submitted by schedule once, pending" in story
    again = machine.output("agentorch-schedule", "run", "once")
    assert again != job_id
    lines = machine.output("agentorch-schedule", "list", "--json").splitlines()
    told = {row["id"]: row["job_id"] for row in map(json.loads, lines)}
    assert told["once"] == again


def test_a_job_that_is_refused_fails_its_unit_and_no_other(machine: Machine) -> None:
    put(machine, "wrong", schedule("wrong", payload={"goal": "x", "project_id": "nowhere"}))
    waits(machine, "wrong")
    service = "agentorch-schedule@wrong.service"
    assert machine.run("systemctl", "start", service, check=False).returncode != 0
    machine.wait_for(f"systemctl --quiet is-failed {service}")
    assert ".payload.project_id: 'nowhere' is not in PROJECT_ALIASES" in journal(machine, service)
    machine.run("rm", f"{FOLDER}/wrong.json")
    machine.wait_for(f"! systemctl --quiet is-failed {service}", why="it is forgotten")


def test_systemd_says_which_time_of_an_event_it_is(machine: Machine) -> None:
    put(machine, "often", schedule("often", on_calendar="*:*:00/5 UTC", overlap="queue"))
    machine.wait_for(lambda: len(jobs(machine, "often")) >= 3, why="it runs three times")
    machine.run("rm", f"{FOLDER}/often.json")
    machine.wait_for(f"! systemctl --quiet is-active {timer('often')}", why="its timer goes")
    due = [when for _, when in jobs(machine, "often")]
    assert len(set(due)) == len(due)
    assert {int(when[17:19]) % 5 for when in due} == {0}


def test_one_run_is_made_up_after_downtime(machine: Machine) -> None:
    for name, persistent in (("missed", True), ("passed", False)):
        put(machine, name, schedule(name, schedule="0 3 * * *", persistent=persistent))
        waits(machine, name)
    assert jobs(machine, "missed") == []
    stamp = f"/var/lib/systemd/timers/stamp-{timer('missed')}"
    machine.run("touch", "--date", "3 days ago", stamp)
    machine.reboot()
    machine.wait_for(lambda: jobs(machine, "missed"), why="the run is made up")
    waits(machine, "passed")
    machine.reboot()
    waits(machine, "missed")
    ((_, due),) = jobs(machine, "missed")
    assert due[11:] == "03:00:00.000000Z"
    assert jobs(machine, "passed") == []


def test_a_users_schedules(machine: Machine) -> None:
    variables = machine.add_user("someone", UID)
    state = "/home/someone/.local/state/agentorch"

    def as_user(*argv: str) -> str:
        ran = machine.run(*argv, uid=UID, environment=variables)
        return ran.stdout.decode().strip()

    folder = "/home/someone/.config/agentorch/schedules"
    as_user("mkdir", "-p", folder)
    as_user("systemctl", "--user", "enable", "--now", "agentorch.target")
    content = json.dumps(schedule("mine", schedule="0 3 * * *", payload={"goal": "x"}))
    as_user("sh", "-c", f"echo '{content}' >{folder}/mine.json")
    machine.wait_for(
        lambda: as_user("sh", "-c", f"systemctl --user is-active {timer('mine')} || :") == "active",
        why="the timer is there",
    )
    assert jobs(machine, "mine", state) == []
    stamp = as_user("sh", "-c", f"find /home/someone -name 'stamp-{timer('mine')}'")
    as_user("touch", "--date", "3 days ago", stamp)
    machine.run("systemctl", "restart", f"user@{UID}.service")
    machine.wait_for(lambda: jobs(machine, "mine", state), why="the run is made up")
    assert len(jobs(machine, "mine", state)) == 1
