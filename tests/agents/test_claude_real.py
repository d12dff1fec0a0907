"""The real Claude Code in bwrap against the model double, by the adapter's own command line."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from agentorch.agents.base import Endpoint, Request
from agentorch.agents.claude.adapter import AGENT, session_id
from agentorch.core.states import OutcomeClass
from agentorch.scripted_model import Call, Fault, Turn, Usage
from tests.agents.claude_place import DONE, Place, bash, made, request_in, write
from tests.support import clis

NOBODY = 65534
WHY_NOT = clis.missing()
pytestmark = [
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
    pytest.mark.needs("bwrap", "git"),
]


@pytest.fixture
def place() -> Iterator[Place]:
    with made() as place:
        yield place


@pytest.fixture
def request_(place: Place) -> Request:
    return request_in(place)


# ---- the roles --------------------------------------------------------------------------------


def test_an_implementer_edits_a_file(place: Place, request_: Request) -> None:
    edit = {"file_path": str(place.work / "first.txt"), "old_string": "needle", "new_string": "pin"}
    answers = [
        Turn("I look.", (Call("Read", {"file_path": str(place.work / "first.txt")}),)),
        Turn("I edit.", (Call("Edit", edit), write(place.work / "new/hello.txt"))),
        Turn("I test.", (bash("cat first.txt > /tmp/x && cp /tmp/x seen.txt"),)),
        DONE,
    ]
    ran = place.run(request_, answers)
    assert ran.code == 0
    assert (place.work / "first.txt").read_text() == "a pin in here\n"
    assert (place.work / "new/hello.txt").read_text() == "hello\n"
    assert (place.work / "seen.txt").read_text() == "a pin in here\n"
    assert ran.tools == {"Read", "Grep", "Glob", "Edit", "Write", "Bash"}
    outcome = ran.outcome
    assert (outcome.kind, outcome.error) == (OutcomeClass.SUCCESS, None)
    assert outcome.report == DONE.text
    assert outcome.files == ("first.txt", "new/hello.txt")
    assert outcome.session_id == session_id(request_)
    assert outcome.model == "claude-sonnet-4-5"
    assert outcome.metrics == {
        "turns": 5,
        "tool_calls": 4,
        "tokens_in": 400,
        "tokens_cached": 160,
        "tokens_out": 80,
        "tokens_reasoning": 0,
        "cost_usd": pytest.approx(0.001968),
    }


def test_what_the_model_is_asked(place: Place, request_: Request) -> None:
    ran = place.run(replace(request_, options={"effort": "low"}), [DONE])
    (asked,) = ran.asked
    assert asked.path.startswith("/v1/messages")
    headers = {name.lower(): value for name, value in asked.headers.items()}
    assert headers["x-api-key"] == "job-token"
    assert "SYSTEM-CANARY" in json.dumps(asked.document["system"])
    assert "Add a greeting." in json.dumps(asked.document["messages"])
    assert "Co-Authored-By" not in asked.body.decode()
    assert asked.document["stream"] is True


def test_a_reader_searches_and_changes_nothing(place: Place, request_: Request) -> None:
    answers = [
        Turn("", (Call("Grep", {"pattern": "needle"}), Call("Glob", {"pattern": "*.txt"}))),
        Turn("", (write(place.work / "x"), bash("touch y"), bash("touch /tmp/z"))),
        Turn("A plan."),
    ]
    ran = place.run(replace(request_, role="planner", reads_only=True), answers)
    assert ran.tools == {"Read", "Grep", "Glob"}
    found = json.dumps(ran.asked[1].document["messages"][-1])
    assert "first.txt" in found
    assert "No such tool available" in json.dumps(ran.asked[2].document["messages"][-1])
    assert [path.name for path in place.work.iterdir()] == ["first.txt"]
    assert ran.outcome.kind is OutcomeClass.SUCCESS
    assert ran.outcome.files == ()


def test_a_step_that_allows_one_tool_has_one(place: Place, request_: Request) -> None:
    ran = place.run(replace(request_, tools=("Read", "Unheard")), [DONE])
    assert ran.tools == {"Read"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_an_ordinary_user(place: Place, request_: Request) -> None:
    answers = [Turn("", (write(place.work / "hello.txt"), bash("id -u > uid.txt"))), DONE]
    ran = place.run(request_, answers, user=NOBODY)
    assert ran.outcome.kind is OutcomeClass.SUCCESS
    assert (place.work / "uid.txt").read_text() == f"{NOBODY}\n"
    assert (place.work / "hello.txt").stat().st_uid == NOBODY


# ---- the network ------------------------------------------------------------------------------


class Proxy(BaseHTTPRequestHandler):
    """Refuses every host, and keeps what was asked for."""

    asked: ClassVar[list[tuple[str, str | None]]]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Says nothing."""

    def do_CONNECT(self) -> None:
        self.asked.append((self.path, self.headers.get("Proxy-Authorization")))
        self.send_error(403)


@contextmanager
def proxy() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A proxy with a token, and what it was asked for."""

    class Bound(Proxy):
        asked: ClassVar[list[tuple[str, str | None]]] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://job:job-token@127.0.0.1:{server.server_address[1]}", Bound.asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_model_is_not_asked_through_the_proxy(place: Place, request_: Request) -> None:
    with proxy() as (url, asked):
        ran = place.run(
            request_, [Turn("", (bash("echo $HTTPS_PROXY > proxy.txt"),)), DONE], proxy=url
        )
        assert (place.work / "proxy.txt").read_text() == f"{url}\n"
    assert ran.outcome.kind is OutcomeClass.SUCCESS
    assert not asked


def test_a_login_reaches_the_vendors_hosts_through_the_proxy(
    place: Place, request_: Request
) -> None:
    login = {"accessToken": "at", "refreshToken": "rt", "expiresAt": 4102444800000}
    login_ = {"claudeAiOauth": {**login, "scopes": ["user:inference"], "subscriptionType": "max"}}
    (place.home / ".claude").mkdir()
    (place.home / ".claude/.credentials.json").write_text(json.dumps(login_))
    with proxy() as (url, asked):
        endpoint = Endpoint("anthropic", "http://127.0.0.1:9", "job-token", url, login=True)
        code = place.start(replace(request_, endpoint=endpoint))
    assert place.outcome(code).error == "network_unreachable"
    hosts = {host.removesuffix(":443") for host, _ in asked}
    assert "api.anthropic.com" in hosts <= set(AGENT.capabilities.login_hosts)
    token = base64.b64encode(b"job:job-token").decode()
    assert {authorization for _, authorization in asked} == {f"Basic {token}"}


# ---- sessions ---------------------------------------------------------------------------------


def test_a_session_goes_on_and_costs_what_the_rest_cost(place: Place, request_: Request) -> None:
    first = place.run(request_, [Turn("BEFORE", usage=Usage(1000, 100, 0))])
    again = replace(request_, attempt=2, resume=first.outcome.session_id, body="Go on.")
    second = place.run(again, [DONE])
    said = json.dumps(second.asked[0].document["messages"])
    assert "BEFORE" in said
    assert "Go on." in said
    assert second.outcome.session_id == first.outcome.session_id
    assert second.outcome.metrics["tokens_in"] == 100
    assert second.outcome.metrics["cost_usd"] == pytest.approx(0.000492)


def test_a_prompt_that_looks_like_a_command_is_asked(place: Place, request_: Request) -> None:
    (place.work / "secret.txt").write_text("FILE-CANARY")
    ran = place.run(replace(request_, body="/cost @secret.txt"), [DONE])
    assert len(ran.asked) == 1
    assert "/cost @secret.txt" in ran.asked[0].body.decode()
    assert "FILE-CANARY" not in ran.asked[0].body.decode()


# ---- ends that only a real run shows ----------------------------------------------------------


def test_a_megabyte_of_an_answer(place: Place, request_: Request) -> None:
    ran = place.run(request_, [Turn("0123456789abcde\n" * 65536, pieces=64)])
    assert ran.outcome.kind is OutcomeClass.SUCCESS
    assert len(ran.outcome.report) == 1_000_000


def test_a_key_that_is_refused(place: Place, request_: Request) -> None:
    ran = place.run(request_, [Fault(401, message="invalid x-api-key")])
    assert (ran.code, ran.outcome.error) == (1, "auth_failed")
