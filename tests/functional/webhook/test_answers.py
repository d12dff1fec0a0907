"""Every route and every answer of the contract, by the program itself."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from agentorch.artifacts.decision_log import shown_hash
from agentorch.core.states import State
from tests.support.webhook import SCOPED, TOKEN, Door, Site, opened

STEP = {"step_id": "01", "agent": "exec", "role": "worker", "prompt": "true"}


def test_a_job_is_queued_as_its_answer_says(door: Door) -> None:
    answer = door.post({"goal": "x", "workdir": "/etc", "source": {"type": "manual"}})
    told = answer.document
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert list(told) == ["status", "job_id", "artifacts_dir", "status_url"]
    assert told["status"] == "queued"
    written = json.loads((Path(told["artifacts_dir"]) / "job.json").read_bytes())
    assert written["workdir"] == "."
    assert written["metadata"] == {"ignored_workdir": "/etc"}
    assert written["source"]["type"] == "webhook"
    assert told["job_id"] in {key.job_id for key, _ in door.site.queue.list_state(State.PENDING)}
    status = door.ask("GET", told["status_url"])
    assert status.document == {
        "job_id": told["job_id"],
        "status": "pending",
        "queue_state": "pending",
        "state": None,
        "shown": shown_hash(door.site.queue.roots.artifacts(told["job_id"])),
        "result": None,
    }


def test_an_approval_is_waited_for(door: Door) -> None:
    answer = door.post({"goal": "x", "policy": {"requires_approval": True}})
    assert answer.document["status"] == "awaiting_approval"


def test_the_servers_way_of_handing_over(site: Site) -> None:
    site.variables["DEFAULT_ARTIFACT_HANDOFF"] = "patch_first"
    with opened(site) as door:
        job_id = door.queued()
    written = json.loads(site.queue.roots.artifacts(job_id).job.read_bytes())
    assert written["artifact_handoff"] == "patch_first"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b"[]", "expected an object"),
        (b"{}", "'goal' is missing"),
        (b'{"goal": "x", "goal": "y"}', "stands there twice"),
        (b'{"goal": NaN}', "NaN"),
        (b'{"goal": "\xff"}', "not UTF-8"),
        (b'{"goal": "x", "a": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested deeper"),
        (b'{"goal": "x", "project_id": "elsewhere"}', "elsewhere"),
        (b'{"goal": "x", "steps": [1]}', ".steps[0]"),
        (b'{"goal": "x", "policy": {"sandbox": 1}}', ".policy.sandbox"),
        (b'{"goal": "x", "workdir": 5}', ".workdir"),
        (b'{"goal": "x", "source": 5}', ".source"),
        (b'{"goal": "x", "metadata": 5, "workdir": "/"}', ".metadata"),
        (b'{"goal": "x", "unknown": 1}', "unknown"),
        (b'{"goal": "x", "job_id": "../../etc/x"}', ".job_id"),
        (b"", "not JSON"),
    ],
)
def test_bad_input_is_named(door: Door, body: bytes, said: str) -> None:
    answer = door.post(body)
    assert answer.status == 400
    assert list(answer.document) == ["detail"]
    assert said in answer.document["detail"]


def test_all_problems_at_once(door: Door) -> None:
    step = {**STEP, "agent": "cluade", "timeout_sec": 0}
    detail = door.post({"goal": "", "steps": [step]}).document["detail"]
    assert [line.split(":")[0] for line in detail.splitlines()] == [
        ".goal",
        ".steps[0].timeout_sec",
        ".steps[0].agent",
    ]


def test_an_id_is_taken_once(door: Door) -> None:
    assert door.queued(job_id="taken-by-http") == "taken-by-http"
    again = door.post({"goal": "x", "job_id": "taken-by-http"})
    assert (again.status, list(again.document)) == (409, ["detail"])


@pytest.mark.parametrize("header", [None, "", "Basic eDp5", "Bearer", "Bearer ", TOKEN])
def test_no_bearer_token(door: Door, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for method, path in (("POST", "/webhook"), ("GET", "/jobs"), ("GET", "/jobs/whatever-id")):
        answer = door.ask(method, path, b"{}" if method == "POST" else None, None, **headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("token", ["x", TOKEN[:-1], TOKEN + "x", "dev-token", "\xfc", "*"])
def test_an_unknown_token(door: Door, token: str) -> None:
    assert door.post({"goal": "x"}, token).status == 403
    assert door.ask("GET", "/jobs/whatever-id", token=token).status == 403


def test_a_scoped_token_sees_its_projects_and_no_other(door: Door) -> None:
    assert door.post({"goal": "x"}, SCOPED).status == 403
    assert door.post({"goal": "x", "project_id": "three"}, SCOPED).status == 403
    assert door.post({"goal": "x", "project_id": ["one"]}, SCOPED).status == 403
    assert door.post({"goal": "x", "project_id": "no-such"}, SCOPED).status == 403
    own = door.post({"goal": "x", "project_id": "one"}, SCOPED)
    assert own.status == 200
    other, none = door.queued(project_id="three"), door.queued()
    assert door.ask("GET", f"/jobs/{own.document['job_id']}", token=SCOPED).status == 200
    for job_id in (other, none):
        assert door.ask("GET", f"/jobs/{job_id}", token=SCOPED).status == 403
        assert door.ask("GET", f"/jobs/{job_id}/artifacts/job.json", token=SCOPED).status == 403
    listed = door.ask("GET", "/jobs?limit=200", token=SCOPED).document["jobs"]
    assert {job["project_id"] for job in listed} == {"one"}
    assert door.ask("GET", "/jobs?project=three", token=SCOPED).status == 403
    assert door.ask("GET", "/jobs?project=one", token=SCOPED).status == 200


@pytest.mark.parametrize(
    "path",
    ["/jobs/no-such-job-id", "/jobs/x", "/jobs/..%2f..%2fetc", "/jobs/%00", "/", "/webhook/", "/x"],
)
def test_nothing_is_there(door: Door, path: str) -> None:
    answer = door.ask("GET", path)
    assert (answer.status, list(answer.document)) == (404, ["detail"])


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/webhook", "POST"),
        ("PUT", "/webhook", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("DELETE", "/jobs", "GET, HEAD"),
        ("OPTIONS", "/jobs/some-job-id", "GET, HEAD"),
    ],
)
def test_another_method_is_needed(door: Door, method: str, path: str, allowed: str) -> None:
    answer = door.ask(method, path)
    assert (answer.status, answer.headers["Allow"]) == (405, allowed)


def test_a_body_of_just_the_limit_and_one_byte_more(site: Site) -> None:
    site.variables["MAX_WEBHOOK_BODY_BYTES"] = "1000"
    with opened(site) as door:
        whole = json.dumps({"goal": ""}).encode()
        fits = json.dumps({"goal": "x" * (1000 - len(whole))}).encode()
        assert len(fits) == 1000
        assert door.post(fits).status == 200
        assert door.post(fits + b" ").status == 413
        chunked = b"3e8\r\n" + fits + b"\r\n1\r\n \r\n0\r\n\r\n"
        head = b"POST /webhook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: "
        answer = door.raw(head + f"Bearer {TOKEN}\r\n\r\n".encode() + chunked)
        assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_over_the_limit_is_refused_before_it_is_read(door: Door) -> None:
    for expect in (b"", b"Expect: 100-continue\r\n"):
        head = (
            b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n" + expect + b"\r\n"
        )
        with socket.create_connection(("127.0.0.1", door.port), timeout=10) as client:
            client.sendall(head)
            assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_who_is_refused_while_sending_reads_the_answer(door: Door) -> None:
    for _ in range(5):
        assert door.post(b"x" * 3_000_000).status == 413


# ---- listing ----------------------------------------------------------------------------------


def test_a_listing_is_read_page_by_page(site: Site) -> None:
    with opened(site) as door:
        ids = [door.queued(tags=["even" if n % 2 == 0 else "odd"], priority=n) for n in range(7)]
        pages, after = [], ""
        while True:
            page = door.ask("GET", f"/jobs?limit=3{after}").document
            pages.append([job["job_id"] for job in page["jobs"]])
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        assert pages == [ids[:3], ids[3:6], ids[6:]]
        odd = door.ask("GET", "/jobs?tag=odd&limit=2").document
        assert [job["job_id"] for job in odd["jobs"]] == [ids[1], ids[3]]
        rest = door.ask("GET", f"/jobs?tag=odd&limit=2&after={odd['next']}").document
        assert ([job["job_id"] for job in rest["jobs"]], rest["next"]) == ([ids[5]], None)
        assert door.ask("GET", "/jobs?state=done").document == {"jobs": [], "next": None}
        assert len(door.ask("GET", "/jobs?state=pending").document["jobs"]) == 7


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=201", "limit=x", "limit=%C2%B2", "state=there", "after=x", "after=%FF"),
        "&".join(["a=1"] * 50),
    ],
)
def test_a_listing_that_makes_no_sense(door: Door, query: str) -> None:
    answer = door.ask("GET", f"/jobs?{query}")
    assert (answer.status, list(answer.document)) == (400, ["detail"])


# ---- artifacts --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def left(door: Door) -> str:
    """A job with what an agent could leave."""
    job_id = door.queued()
    here = door.site.queue.roots.artifacts(job_id).directory
    step = here / "steps/01"
    step.mkdir(parents=True)
    for name in ("report.md", "patch.diff", "logs.txt", "page.html", "noend", "evil.svg"):
        (step / name).write_text(f"<script>{name}</script>")
    (step / "link.txt").symlink_to("/etc/passwd")
    (step / "up").symlink_to("/etc")
    os.mkfifo(step / "fifo.txt")
    (step / ".hidden.txt").write_text("x")
    (step / "big.txt").write_bytes(b"0123456789" * 2_000_000)
    return job_id


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("report.md", "text/markdown; charset=utf-8"),
        ("patch.diff", "text/x-diff; charset=utf-8"),
        ("logs.txt", "text/plain; charset=utf-8"),
        ("page.html", None),
        ("noend", None),
        ("evil.svg", None),
    ],
)
def test_an_artifact_as_what_it_is(
    door: Door, left: str, name: str, content_type: str | None
) -> None:
    path = f"/jobs/{left}/artifacts/steps/01/{name}"
    answer, head = door.ask("GET", path), door.ask("HEAD", path)
    assert answer.content == f"<script>{name}</script>".encode()
    assert answer.headers["Content-Type"] == content_type or "application/octet-stream"
    assert answer.headers.get("Content-Disposition") == (None if content_type else "attachment")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    del answer.headers["Date"], head.headers["Date"]
    assert (head.status, head.content) == (200, b"")
    assert head.headers.items() == answer.headers.items()


@pytest.mark.parametrize(
    "path",
    [
        *("steps/01/link.txt", "steps/01/up/passwd", "steps/01/fifo.txt", "steps/01/.hidden.txt"),
        *("steps/01", "steps", "", "/", "/etc/passwd", "nothing.txt", "job.json/", ".lock"),
        *("../../../etc/passwd", "steps/../job.json", "%2e%2e/x", "..%2f..%2fx", "./job.json"),
        *("%00", "job.json%00", "a%0d%0aX-Evil:%201", "%ff", "%ef%bc%8e%ef%bc%8e/job.json"),
        *("x" * 300, "/".join(["d"] * 900)),
    ],
)
def test_no_artifact_is_elsewhere(door: Door, left: str, path: str) -> None:
    answer = door.ask("GET", f"/jobs/{left}/artifacts/{path}")
    assert (answer.status, list(answer.document)) == (404, ["detail"])


def test_a_large_artifact_is_streamed(door: Door, left: str) -> None:
    """Asked for three times, it takes the memory of a tenth of one."""
    before = door.rss_kib()
    for _ in range(3):
        answer = door.ask("GET", f"/jobs/{left}/artifacts/steps/01/big.txt")
        assert len(answer.content) == 20_000_000
    assert door.rss_kib() - before < 2000


# ---- health -----------------------------------------------------------------------------------


def test_health_tries_the_disk(site: Site) -> None:
    with opened(site) as door:
        assert door.ask("GET", "/health", token=None).document == {"ok": True}
        assert door.ask("HEAD", "/health", token=None).status == 200


def test_below_the_floor_nothing_is_taken(site: Site) -> None:
    site.variables["AGENTORCH_MIN_FREE_BYTES"] = str(1 << 58)
    with opened(site) as door:
        for answer in (
            door.ask("GET", "/health", token=None),
            door.post({"goal": "x"}),
            door.post({"goal": "x"}, Idempotency_Key="a"),
        ):
            assert (answer.status, list(answer.document)) == (503, ["detail"])
            assert int(answer.headers["Retry-After"]) > 0
        assert not list(site.queue.paths.keys.iterdir())
        assert not list(site.queue.roots.artifacts_root.iterdir())


def test_a_state_that_can_not_be_made_is_503_and_then_not(site: Site) -> None:
    site.state.write_text("in the way")
    with opened(site) as door:
        assert door.post({"goal": "x"}).status == 503
        assert door.ask("GET", "/health", token=None).status == 503
        site.state.unlink()
        assert door.post({"goal": "x"}).status == 200


# ---- what is said -----------------------------------------------------------------------------


def test_tokens_and_queries_are_never_logged(site: Site) -> None:
    site.variables["LOG_JSON"] = "1"
    with opened(site) as door:
        job_id = door.queued()
        door.ask("GET", "/jobs?tag=secret-in-a-query")
        door.post({"goal": "x"}, "wrong-token-secret")
        door.ask("GET", "/evil%0apath%1b[31m")
        said = door.said()
    for secret in (TOKEN, "wrong-token-secret", "secret-in-a-query"):
        assert secret not in said
    entries: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines()]
    asked = [one for one in entries if one.get("event") == "access"]
    queued = next(one for one in asked if one.get("job") == job_id)
    assert (queued["method"], queued["path"], queued["status"]) == ("POST", "/webhook", 200)
    assert {"ms", "bytes", "peer"} <= set(queued)
    assert [one["job"] for one in entries if one.get("event") == "submitted"] == [job_id]
    assert asked[-1]["path"] == "/evil?path"
