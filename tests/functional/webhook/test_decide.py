"""Decisions by HTTP: who may, what is told, what is recorded, and who wins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from agentorch.artifacts import decision_log
from agentorch.artifacts.decision_log import decisions
from agentorch.decisions import decide, hold
from agentorch.jobqueue.reclaim import reclaim
from agentorch.webhook.decide import ALLOWED_KEYS
from tests.support.webhook import (
    ALICE,
    DECIDER,
    ROOT,
    SCOPED,
    TIMEOUT_S,
    TOKEN,
    Answer,
    Door,
    Site,
    opened,
)

ASKS = {"policy": {"requires_approval": True}}
FINGERPRINT = f"sha256:{sha256(DECIDER.encode()).hexdigest()[:8]}"
# An agent that wants to know something, and takes what it is told.
ASKER = """#!/bin/sh
if grep -q "Blue, please"; then
    echo '{"type": "result", "status": "success", "summary": "painted"}'
else
    echo '{"type": "result", "status": "needs_human", "summary": "?", "question": "Which colour?"}'
fi
"""


def decides(
    door: Door, job_id: str, decision: str, token: str | None = DECIDER, **told: Any
) -> Answer:
    body = json.dumps(told).encode() if told else b""
    return door.ask("POST", f"/jobs/{job_id}/{decision}", body, token)


def recorded(door: Door, job_id: str) -> list[dict[str, Any]]:
    return decisions(door.site.queue.roots.artifacts(job_id))


def state(door: Door, job_id: str) -> str:
    answer = door.ask("GET", f"/jobs/{job_id}")
    word: str = answer.document["queue_state"]
    return word


def test_a_decision_is_taken_told_and_recorded(door: Door) -> None:
    job_id = door.queued(**ASKS)
    shown = door.ask("GET", f"/jobs/{job_id}", token=DECIDER).document["shown"]
    answer = decides(door, job_id, "approve", comment="go on", shown=shown)
    assert answer.document == {
        "job_id": job_id,
        "decision": "approve",
        "queue_state": "pending",
        "status_url": f"/jobs/{job_id}",
    }
    (line,) = recorded(door, job_id)
    assert (line["what"], line["comment"], line["shown"]) == ("approve", "go on", shown)
    assert line["who"] == {"token": FINGERPRINT}


def test_a_name_goes_with_a_token(door: Door) -> None:
    job_id = door.queued(project_id="one", **ASKS)
    assert decides(door, job_id, "reject", ALICE, comment="not so").status == 200
    token = f"sha256:{sha256(ALICE.encode()).hexdigest()[:8]}"
    assert recorded(door, job_id)[0]["who"] == {"token": token, "name": "alice"}
    result = door.ask("GET", f"/jobs/{job_id}").document["result"]
    assert (result["status"], result["error"]["code"]) == ("failed", "rejected")
    assert "alice" in result["summary"]


def test_every_way_of_a_job(door: Door) -> None:
    job_id = door.queued()
    for decision, place in (
        ("hold", "held"),
        ("release", "pending"),
        ("cancel", "failed"),
        ("retry", "pending"),
        ("cancel", "failed"),
    ):
        answer = decides(door, job_id, decision, comment="so be it")
        assert (answer.status, answer.document["queue_state"]) == (200, place), answer
        assert state(door, job_id) == place
    assert [line["what"] for line in recorded(door, job_id)] == [
        *("hold", "release", "cancel", "retry", "cancel"),
    ]


def drained(site: Site) -> None:
    """A runner works until nothing is left."""
    argv = [sys.executable, str(ROOT / "bin/agentorch-runner"), "--drain"]
    more = {"ENABLE_REAL_CLI": "1", "ALLOWED_BINARIES": "sh,asker-agent", "SANDBOX": "0"}
    environment = site.environment() | more
    subprocess.run(argv, env=environment, check=True, timeout=TIMEOUT_S, capture_output=True)


def test_a_question_is_answered(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with opened(site) as door:
        pass
    directory = tmp_path / "agents.d"
    directory.mkdir()
    program = directory / "asker-agent"
    program.write_text(ASKER)
    program.chmod(0o755)
    (directory / "asker.toml").write_text(f'command = ["{program}"]\nneeds_git = false\n')
    step = {"step_id": "01", "agent": "asker", "role": "painter", "prompt": "Paint the door."}
    with opened(site) as door:
        job_id = door.queued(steps=[step])
        drained(site)
        told = door.ask("GET", f"/jobs/{job_id}").document
        assert told["status"] == "needs_human", told
        wrong = decides(door, job_id, "answer", text="Red", shown="0" * 64)
        assert wrong.status == 409
        answer = decides(door, job_id, "answer", text="Blue, please", shown=told["shown"])
        assert (answer.status, answer.document["queue_state"]) == (200, "pending"), answer
        drained(site)
        assert door.ask("GET", f"/jobs/{job_id}").document["status"] == "success"


# ---- who may ----------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", sorted(ALLOWED_KEYS))
def test_who_submits_may_not_decide(door: Door, decision: str) -> None:
    job_id = door.queued(project_id="one", **ASKS)
    for token in (TOKEN, SCOPED):
        answer = decides(door, job_id, decision, token, text="x")
        assert answer.status == 403
        assert "WEBHOOK_DECISION_TOKENS" in answer.document["detail"]
    assert (recorded(door, job_id), state(door, job_id)) == ([], "awaiting_approval")


def test_a_token_decides_in_its_projects_and_reads_there(door: Door) -> None:
    own, other, none = door.queued(project_id="two"), door.queued(project_id="three"), door.queued()
    for job_id in (other, none):
        for decision in ALLOWED_KEYS:
            assert decides(door, job_id, decision, ALICE, text="x").status == 403
        assert door.ask("GET", f"/jobs/{job_id}", token=ALICE).status == 403
        assert recorded(door, job_id) == []
    assert door.ask("GET", f"/jobs/{own}/artifacts/job.json", token=ALICE).status == 200
    listed = door.ask("GET", "/jobs?limit=200", token=ALICE).document["jobs"]
    assert {job["project_id"] for job in listed} <= {"one", "two"}
    assert own in {job["job_id"] for job in listed}
    assert decides(door, own, "hold", ALICE).status == 200


def test_who_decides_may_not_submit(door: Door) -> None:
    for document in ({"goal": "x"}, {"goal": "x", "project_id": "one"}, b"{"):
        answer = door.post(document, ALICE)
        assert (answer.status, "WEBHOOK_TOKENS" in answer.document["detail"]) == (403, True)


def test_nobody_decides_where_no_token_does(site: Site) -> None:
    site.variables |= {"WEBHOOK_DECISION_TOKENS": "", "WEBHOOK_TOKENS": ""}
    with opened(site) as door:
        job_id = door.post({"goal": "x"}, "dev-token").document["job_id"]
        answer = decides(door, job_id, "cancel", "dev-token")
        assert (answer.status, "WEBHOOK_DECISION_TOKENS" in answer.content.decode()) == (403, True)
        assert decides(door, job_id, "cancel", None).status == 401
        assert decides(door, job_id, "cancel", DECIDER).status == 403


def test_whoever_asks_too_often_waits(site: Site) -> None:
    site.variables["WEBHOOK_RATE_LIMIT_MAX_REQUESTS"] = "3"
    with opened(site) as door:
        statuses = [decides(door, "no-such-job", "hold").status for _ in range(5)]
    assert statuses == [404, 404, 404, 429, 429]


# ---- bad input --------------------------------------------------------------------------------


def test_a_job_that_is_not_there(door: Door) -> None:
    begun = door.queued(job_id="begins-so-and-goes-on")
    for job_id in ("no-such-job-id", "x", "..", "%00", "begins-so", "..%2fjobs"):
        answer = decides(door, job_id, "cancel")
        assert (answer.status, list(answer.document)) == (404, ["detail"])
    assert door.ask("POST", f"/jobs/{begun}/applaud", b"", DECIDER).status == 404
    assert recorded(door, begun) == []


def test_all_problems_of_a_body_are_named_and_nothing_is_done(door: Door) -> None:
    job_id = door.queued(**ASKS)
    body = b'{"coment": "x", "accept": 1, "step": "01"}'
    answer = door.ask("POST", f"/jobs/{job_id}/approve", body, DECIDER)
    assert answer.status == 400
    assert len(answer.document["detail"].splitlines()) == 3
    for body in (b"[]", b"{", b"\xff", b'{"comment": "a", "comment": "b"}', b"[" * 5000):
        assert door.ask("POST", f"/jobs/{job_id}/approve", body, DECIDER).status == 400
    assert door.ask("POST", f"/jobs/{job_id}/approve", b" " * 300_000, DECIDER).status == 413
    assert (recorded(door, job_id), state(door, job_id)) == ([], "awaiting_approval")


def test_other_methods(door: Door) -> None:
    job_id = door.queued()
    for method in ("GET", "PUT", "DELETE"):
        answer = door.ask(method, f"/jobs/{job_id}/approve", token=DECIDER)
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("decision", "told"),
    [("approve", {}), ("reject", {}), ("answer", {"text": "x"}), ("retry", {}), ("release", {})],
)
def test_the_wrong_state(door: Door, decision: str, told: dict[str, Any]) -> None:
    job_id = door.queued()
    answer = decides(door, job_id, decision, **told)
    assert answer.status == 409
    assert "pending" in answer.document["detail"]
    assert recorded(door, job_id) == []


def test_what_changed_since_it_was_shown(door: Door) -> None:
    job_id = door.queued(**ASKS)
    paths = door.site.queue.roots.artifacts(job_id)
    shown = decision_log.shown_hash(paths)
    paths.patch.write_text("another change")
    for decision in ("approve", "reject"):
        answer = decides(door, job_id, decision, shown=shown)
        assert (answer.status, "shown" in answer.document["detail"]) == (409, True)
    assert recorded(door, job_id) == []
    assert decides(door, job_id, "approve", shown=decision_log.shown_hash(paths)).status == 200


# ---- who wins ---------------------------------------------------------------------------------


def test_the_second_is_told_who_was_first(door: Door) -> None:
    job_id = door.queued(project_id="one", **ASKS)
    assert decides(door, job_id, "approve", ALICE).status == 200
    late = decides(door, job_id, "reject")
    assert late.status == 409
    assert "alice approved it at 2" in late.document["detail"]
    assert len(recorded(door, job_id)) == 1


def test_a_command_and_a_request_at_once(door: Door) -> None:
    """One wins, the other hears who and what; whichever it was."""
    argv = [sys.executable, str(ROOT / "bin/agentorch-reject")]
    for _ in range(4):
        job_id = door.queued(project_id="one", **ASKS)
        command = subprocess.Popen(
            [*argv, job_id],
            env=door.site.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with ThreadPoolExecutor(8) as several:
            asked = [several.submit(decides, door, job_id, "approve", ALICE) for _ in range(8)]
            answers = [one.result() for one in asked]
        _, complaint = command.communicate(timeout=TIMEOUT_S)
        (line,) = recorded(door, job_id)
        won = [one for one in answers if one.status == 200]
        lost = [one.document["detail"] for one in answers if one.status == 409]
        assert len(won) + len(lost) == 8
        if line["what"] == "approve":
            assert (len(won), command.returncode, state(door, job_id)) == (1, 2, "pending")
            lost.append(complaint)
            assert all("alice approved it" in said for said in lost), lost
        else:
            assert (len(won), command.returncode, state(door, job_id)) == (0, 0, "failed")
            assert all("rejected it" in said for said in lost), lost


def test_every_end_that_was_decided_is_counted(site: Site) -> None:
    """Whichever of the webhook's threads took the decision."""
    with opened(site) as door:
        ids = [door.queued(**ASKS) for _ in range(12)]
        with ThreadPoolExecutor(4) as several:
            list(several.map(lambda job_id: decides(door, job_id, "reject"), ids))
        metrics = door.ask("GET", "/metrics", token=None).content.decode()
    assert 'orchestrator_jobs_total{status="failed"} 12.0' in metrics.splitlines()


def test_a_kill_in_the_middle_leaves_one_state(site: Site) -> None:
    """A webhook that dies with decisions under way: each job is where its record says, or was."""
    with opened(site) as door:
        ids = [door.queued(**ASKS) for _ in range(12)]
        with ThreadPoolExecutor(4) as several:
            asked = [several.submit(decides, door, job_id, "reject") for job_id in ids]
            asked[3].result()
            os.kill(door.process.pid, signal.SIGKILL)
            for one in asked:
                one.exception()
    reclaim(site.queue)
    with opened(site) as door:
        for job_id in ids:
            answer = decides(door, job_id, "reject")
            assert answer.status in (200, 409), answer
            assert state(door, job_id) == "failed"
            result = door.ask("GET", f"/jobs/{job_id}").document["result"]
            assert result["error"]["code"] == "rejected"


# ---- what is said -----------------------------------------------------------------------------


def test_a_decision_is_in_the_log_with_its_token_and_without(site: Site) -> None:
    site.variables["LOG_JSON"] = "1"
    with opened(site) as door:
        job_id = door.queued(project_id="one", **ASKS)
        assert decides(door, job_id, "approve", ALICE, comment="said-in-private").status == 200
        assert decides(door, job_id, "reject").status == 409
        said = door.said()
    assert [token for token in (ALICE, DECIDER, "said-in-private") if token in said] == []
    entries = [json.loads(line) for line in said.splitlines()]
    alice = f"sha256:{sha256(ALICE.encode()).hexdigest()[:8]}"
    (decided,) = [one for one in entries if one.get("event") == "decided"]
    assert {name: decided[name] for name in ("job", "project", "decision", "who", "token")} == {
        "job": job_id,
        "project": "one",
        "decision": "approve",
        "who": "alice",
        "token": alice,
    }
    (refused,) = [one for one in entries if one.get("event") == "refused"]
    assert (refused["decision"], refused["token"]) == ("reject", FINGERPRINT)
    paths = {one["path"]: one["token"] for one in entries if one.get("event") == "access"}
    assert paths[f"/jobs/{job_id}/approve"] == alice


# ---- listing ----------------------------------------------------------------------------------


def test_held_and_parked_jobs_are_listed(site: Site) -> None:
    with opened(site) as door:
        ids = [door.queued(priority=n) for n in range(4)]
        hold.hold(site.queue, ids[1])
        parked = next((site.queue.paths.root / "pending").glob(f"*{ids[2]}*"))
        place = site.queue.paths.root / "parked" / f"20990101T000000Z-{parked.name}"
        parked.rename(place)
        decide.cancel(site.queue, ids[3])
        for word, job_id in zip(("pending", "held", "parked", "failed"), ids, strict=True):
            listed = door.ask("GET", f"/jobs?state={word}").document["jobs"]
            assert [(job["job_id"], job["state"]) for job in listed] == [(job_id, word)]
        pages = [door.ask("GET", "/jobs?limit=2").document]
        pages.append(door.ask("GET", f"/jobs?limit=2&after={pages[0]['next']}").document)
        assert [job["job_id"] for page in pages for job in page["jobs"]] == ids
        assert pages[1]["next"] is None
        assert len(door.ask("GET", "/jobs?agent=claude").document["jobs"]) == 4
        assert door.ask("GET", "/jobs?agent=exec").document["jobs"] == []
        assert door.ask("GET", "/jobs?outcome=quota").document["jobs"] == []
        assert door.ask("GET", "/jobs?outcome=fine").status == 400
