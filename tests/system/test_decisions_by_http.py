"""Decisions through the installed webhook: each works in its unit, which is locked down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.installing import installed, started
from tests.support.machine import SUITE, Machine, missing
from tests.support.service import STATE, document, step

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}; not proved here")

TOKENS = """WEBHOOK_TOKEN=token-that-submits
WEBHOOK_DECISION_TOKENS=token-that-decides=* # alice
"""
USUAL = f"""{TOKENS}WEBHOOK_RATE_LIMIT_MAX_REQUESTS=0
ENABLE_REAL_CLI=1
ALLOWED_BINARIES=sh
CALLBACK_ALLOWED_HOSTS=127.0.0.1
"""
RUNNER = "agentorch-runner@1.service"
SLOT = "agentorch-runner@1.path"
APPROVAL = {"requires_approval": True}
NOWHERE = "http://127.0.0.1:9/"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with installed(SUITE, USUAL) as running:
        started(running)
        yield running


def asked(machine: Machine, path: str, token: str, content: Any = None) -> tuple[int, Any]:
    """The status and the document that a request is answered with."""
    argv = ["curl", "--silent", "--max-time", "60", "--write-out", "\n%{http_code}"]
    argv += ["--header", f"Authorization: Bearer {token}"]
    if content is not None:
        argv += ["--data", json.dumps(content)]
    told, _, status = machine.output(*argv, f"http://127.0.0.1:8080{path}").rpartition("\n")
    return int(status), json.loads(told)


def posted(machine: Machine, *scripts: str, **fields: Any) -> str:
    content = {**document(*scripts), "callback_url": NOWHERE, **fields}
    status, told = asked(machine, "/webhook", "token-that-submits", content)
    assert status == 200, told
    job_id: str = told["job_id"]
    return job_id


def decided(machine: Machine, job_id: str, decision: str, **told: Any) -> str:
    """Takes a decision; where the job is then."""
    path = f"/jobs/{job_id}/{decision}"
    status, said = asked(machine, path, "token-that-decides", told)
    assert status == 200, (decision, said, machine.journal())
    place: str = said["queue_state"]
    return place


# a slot that is awake may be quicker than the answer
GOES_ON = ("pending", "running", "done")


def is_in(machine: Machine, job_id: str, state: str) -> None:
    machine.wait_for(f"find {STATE}/queue/{state} -name '*{job_id}*.json' | grep -q .")


def result(machine: Machine, job_id: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(
        machine.output("cat", f"{STATE}/artifacts/{job_id}/result.json")
    )
    return told


def assert_on_record(machine: Machine, job_id: str) -> None:
    """The end is whole, and told; and whoever decided is on record."""
    machine.run("agentorch-verify", job_id)
    machine.wait_for(f"find {STATE}/queue/outbox -name '*{job_id}*' | grep -q .")
    lines = machine.output("cat", f"{STATE}/artifacts/{job_id}/decisions.jsonl").splitlines()
    who = json.loads(lines[-1])["who"]
    assert (who["name"], who["token"].startswith("sha256:")) == ("alice", True)
    match = f"AGENTORCH_JOB={job_id}"
    said = machine.output("journalctl", "-b", "-ocat", match, "AGENTORCH_WHO=alice")
    assert "decided by alice" in said


def asking(machine: Machine) -> str:
    """A job whose step failed, and which asks what to do."""
    steps = [step("echo half >half; exit 1", on_failure="ask_human")]
    job_id = posted(machine, steps=steps)
    is_in(machine, job_id, "awaiting_approval")
    return job_id


def test_what_waits_for_its_start(machine: Machine) -> None:
    job_id = posted(machine, "echo done >file", policy=APPROVAL)
    assert decided(machine, job_id, "approve", comment="go on") in GOES_ON
    is_in(machine, job_id, "done")
    assert decided(machine, job_id, "retry") in GOES_ON
    is_in(machine, job_id, "done")
    job_id = posted(machine, "echo done >file", policy=APPROVAL)
    assert decided(machine, job_id, "reject", comment="no") == "failed"
    assert result(machine, job_id)["error"]["code"] == "rejected"
    assert_on_record(machine, job_id)


def test_what_ran_and_asks(machine: Machine) -> None:
    """Its workspace is there, which the webhook can't see."""
    for decision, place in (("reject", "failed"), ("cancel", "failed")):
        job_id = asking(machine)
        assert decided(machine, job_id, decision) == place
        assert_on_record(machine, job_id)
    job_id = asking(machine)
    assert decided(machine, job_id, "approve", accept=True, comment="good enough") in GOES_ON
    is_in(machine, job_id, "done")


def test_what_runs(machine: Machine) -> None:
    job_id = posted(machine, "touch began; sleep 300", "true")
    machine.wait_for(f"test -e {STATE}/workspaces/{job_id}/work/began")
    assert decided(machine, job_id, "hold") == "running"
    assert decided(machine, job_id, "release") == "running"
    assert decided(machine, job_id, "cancel") in ("running", "failed")
    is_in(machine, job_id, "failed")
    assert result(machine, job_id)["status"] == "cancelled"


def test_whose_step_runs_on_without_an_owner(machine: Machine) -> None:
    """It is not ended under the step: its next owner does that."""
    job_id = posted(machine, "touch began; sleep 300")
    machine.wait_for(f"test -e {STATE}/workspaces/{job_id}/work/began")
    machine.run("systemctl", "stop", SLOT, RUNNER)
    machine.run("agentorch-reclaim")
    is_in(machine, job_id, "pending")
    assert decided(machine, job_id, "cancel") == "pending"
    machine.run("systemctl", "start", SLOT)
    is_in(machine, job_id, "failed")
    assert result(machine, job_id)["status"] == "cancelled"
    machine.wait_for("! pgrep -u agentorch -f 'sleep 300'")


def test_what_nobody_takes(machine: Machine) -> None:
    machine.run("systemctl", "stop", SLOT, RUNNER)
    job_id = posted(machine, "true")
    assert decided(machine, job_id, "hold", comment="later") == "held"
    assert decided(machine, job_id, "release") == "pending"
    assert decided(machine, job_id, "cancel") == "failed"
    assert_on_record(machine, job_id)
    machine.run("systemctl", "start", SLOT)


def test_a_submitters_token_decides_on_nothing_there(machine: Machine) -> None:
    job_id = posted(machine, "true", policy=APPROVAL)
    status, told = asked(machine, f"/jobs/{job_id}/approve", "token-that-submits", {})
    assert (status, "WEBHOOK_DECISION_TOKENS" in told["detail"]) == (403, True)
    assert machine.failed_units() == []
