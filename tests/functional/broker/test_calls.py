"""Calls through a broker that runs, to a provider that does what it likes."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import threading
import time
from http.client import HTTPException, HTTPResponse
from pathlib import Path

import pytest

from agentorch.agents import failure_rules
from agentorch.agents.failure_rules import UNCLASSIFIED, classify
from agentorch.broker import client
from agentorch.broker.account import End
from agentorch.core.job import Outcome
from agentorch.core.states import OutcomeClass
from tests.support.broker import KEY, Site, Start, at, text
from tests.support.polling import eventually
from tests.support.provider import Answer, Asked, event, events, head, message, provider, whole

RESPONSE = {
    "type": "response.completed",
    "response": {
        "model": "gpt-5",
        "usage": {
            "input_tokens": 1000,
            "input_tokens_details": {"cached_tokens": 600},
            "output_tokens": 50,
            "output_tokens_details": {"reasoning_tokens": 20},
        },
    },
}
CHUNK = {
    "model": "kimi-k3",
    "choices": [],
    "usage": {
        "prompt_tokens": 1000,
        "cached_tokens": 600,
        "completion_tokens": 50,
        "completion_tokens_details": {"reasoning_tokens": 20},
    },
}


def broken(answer: HTTPResponse) -> bool:
    """Whether an answer ends otherwise than it should."""
    try:
        answer.read()
    except (HTTPException, OSError):
        return True
    return False


def refused(answer: HTTPResponse, kind: str) -> str:
    """The words of a refusal of this kind."""
    body = json.loads(answer.read())
    words = str(body["error"]["message"])
    assert words.startswith(f"agentorch: {kind}: "), words
    return words


# ---- what is forwarded ------------------------------------------------------------------------


def test_an_answer_is_passed_on_to_the_byte_and_the_key_is_put_in(start: Start) -> None:
    odd = b': comment\r\ndata: {"x": "\xff\xfe"}\r\n\r\n' + message()
    with provider(events(odd, request_id="req_1", Connection="X-Hop", X_Hop="1")) as one:
        site = start(**at(one.url))
        answer = site.ask("/anthropic/v1/messages?beta=true", {"a": "ü"}, anthropic_version="1")
        assert (answer.status, answer.read()) == (200, odd)
        assert (answer.headers["request-id"], answer.headers["X-Hop"]) == ("req_1", None)
        asked = one.asked[0]
    assert asked.line == "POST /v1/messages?beta=true HTTP/1.1"
    assert asked.headers["x-api-key"] == KEY
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["anthropic-version"] == "1"
    assert asked.json() == {"a": "ü"}
    assert site.token not in str(asked)


@pytest.mark.parametrize("header", ["x-api-key", "api-key", "x-goog-api-key", "Authorization"])
def test_a_token_comes_where_a_key_would(start: Start, header: str) -> None:
    with provider(whole(b"{}")) as one:
        site = start(**at(one.url))
        value = f"Bearer {site.token}" if header == "Authorization" else site.token
        path = "/openai/v1/responses"
        assert site.ask(path, **{"x-api-key": "", header: value}).status == 200
        assert one.asked[0].headers["authorization"] == f"Bearer {KEY}"


def test_every_event_is_passed_on_before_the_next_one_is_there(start: Start) -> None:
    may = threading.Semaphore(0)

    def slowly(_: Asked, connection: socket.socket) -> None:
        connection.sendall(head(Content_Type="text/event-stream"))
        for number in range(3):
            may.acquire()
            connection.sendall(event({"number": number}))

    with provider(slowly) as one:
        answer = start(**at(one.url)).ask()  # its headers come before there is any event
        for number in range(3):
            may.release()
            assert answer.read1(65536) == event({"number": number})


def test_what_a_provider_packs_is_unpacked(start: Start) -> None:
    import gzip  # noqa: PLC0415

    body = gzip.compress(json.dumps(RESPONSE["response"]).encode())
    with provider(whole(body, Content_Encoding="gzip")) as one:
        site = start(**at(one.url))
        answer = site.ask("/openai/v1/responses")
        assert json.loads(answer.read()) == RESPONSE["response"]
        assert answer.headers["Content-Encoding"] is None
        assert site.account().tokens_in == 1000


def test_a_chat_stream_is_asked_to_tell_its_usage(start: Start) -> None:
    with provider(events(event(CHUNK), b"data: [DONE]\n\n")) as one:
        site = start(**at(one.url))
        asked = b' {"stream": true, "messages": [{"content": "\\"stream_options\\""}]}'
        path = "/openai/v1/chat/completions"
        site.ask(path, asked).read()
        site.ask(path, {"stream": True, "stream_options": {"x": 1}}).read()
        site.ask(path, {"stream": False}).read()
        bodies = [each.json() for each in one.asked]
    assert bodies[0] == {**json.loads(asked), "stream_options": {"include_usage": True}}
    assert bodies[1]["stream_options"] == {"x": 1, "include_usage": True}
    assert bodies[2] == {"stream": False}


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_chat_request_that_is_no_json_object_is_refused(start: Start, body: bytes) -> None:
    with provider(whole(b"{}")) as one:
        answer = start(**at(one.url)).ask("/openai/v1/chat/completions", body)
        assert answer.status == 400
        refused(answer, "policy")
        assert not one.asked


def test_a_large_request_arrives_and_a_too_large_one_is_refused(start: Start) -> None:
    with provider(whole(b"{}")) as one:
        site = start(**at(one.url))
        body = json.dumps({"x": "y" * (20 << 20)}).encode()
        assert site.ask(body=body).status == 200
        assert one.asked[0].body == body
        answer = site.ask(body=b"{}", Content_Length=str(65 << 20))
        assert answer.status == 413
        refused(answer, "policy")


# ---- what is counted --------------------------------------------------------------------------


def counts(site: Site) -> tuple[int, int, int, int]:
    account = site.account()
    return (
        account.tokens_in,
        account.tokens_cached,
        account.tokens_out,
        account.tokens_reasoning,
    )


def test_usage_and_cost_of_the_messages_protocol(start: Start) -> None:
    usage = {
        "input_tokens": 1000,
        "cache_read_input_tokens": 10000,
        "cache_creation_input_tokens": 2000,
        "cache_creation": {"ephemeral_1h_input_tokens": 500},
        "output_tokens": 3,
    }
    started = event({"message": {"model": "claude-sonnet-5", "usage": usage}})
    ended = event({"usage": {"output_tokens": 700}})
    with provider(events(started, ended)) as one:
        site = start(**at(one.url))
        site.ask().read()
        assert counts(site) == (13000, 10000, 700, 0)
        cost = (1000 * 2 + 10000 * 0.2 + 1500 * 2.5 + 500 * 4 + 700 * 10) / 1e6
        assert site.account().cost_usd == pytest.approx(cost)
        assert site.account().models["claude-sonnet-5"].calls == 1


@pytest.mark.parametrize(
    ("path", "answer", "cost"),
    [
        ("responses", events(event(RESPONSE)), 400 * 1.25 + 600 * 0.125 + 50 * 10),
        (
            "responses",
            whole(json.dumps(RESPONSE["response"]).encode()),
            400 * 1.25 + 600 * 0.125 + 50 * 10,
        ),
        ("chat/completions", events(event(CHUNK)), 400 * 3 + 600 * 0.3 + 50 * 15),
        ("chat/completions", whole(json.dumps(CHUNK).encode()), 400 * 3 + 600 * 0.3 + 50 * 15),
    ],
)
def test_usage_and_cost_of_the_other_protocols(
    start: Start, path: str, answer: Answer, cost: float
) -> None:
    with provider(answer) as one:
        site = start(**at(one.url))
        site.ask(f"/openai/v1/{path}").read()
        assert counts(site) == (1000, 600, 50, 20)
        assert site.account().cost_usd == pytest.approx(cost / 1e6)


def test_a_model_without_a_price_is_counted_and_warned_of_once(start: Start) -> None:
    with provider(events(message(model="claude-unheard-of"))) as one:
        site = start(**at(one.url))
        for _ in range(2):
            site.ask().read()
        account = site.account()
    assert (account.unpriced_calls, account.cost_usd, account.tokens_in) == (2, 0.0, 2000)
    assert account.models["claude-unheard-of"].cost_usd is None
    assert site.said().count("no price is known") == 1


def test_the_administrators_prices_come_first(start: Start) -> None:
    with provider(events(message())) as one:
        site = start("--silence-s", "20", **at(one.url))
        site.ask().read()
        own = start.top / "own"
        own.mkdir()
        table = '[[price]]\nmodels = ["claude-*"]\ninput = 1.0\noutput = 2.0\n'
        (own / "prices.toml").write_text(table)
        other = start(**at(one.url, AGENTORCH_CONFIG_DIR=str(own)))
        other.ask().read()
        assert other.account().cost_usd == pytest.approx((1000 * 1 + 100 * 2) / 1e6)


def test_the_usage_is_in_the_account_before_its_event_is_sent_on(start: Start) -> None:
    may = threading.Event()
    started, *rest = message().split(b"\n\n")

    def waits(_: Asked, connection: socket.socket) -> None:
        connection.sendall(head(Content_Type="text/event-stream") + started + b"\n\n")
        may.wait(20)
        connection.sendall(b"\n\n".join(rest))

    with provider(waits) as one:
        site = start(**at(one.url))
        answer = site.ask()
        answer.read1(65536)
        assert counts(site) == (1000, 0, 1, 0)
        may.set()
        answer.read()
        assert counts(site) == (1000, 0, 100, 0)


# ---- budgets ----------------------------------------------------------------------------------


def test_a_used_up_budget_is_refused_and_a_stream_over_it_is_cut(start: Start) -> None:
    with provider(events(message(tokens_in=1_000_000))) as one:
        site = start(**at(one.url))
        site.change(max_cost_usd=1.0)
        asked = {"stream": True, "model": "claude-opus-5-5"}
        assert broken(site.ask(body=asked))
        answer = site.ask(body=asked)
        assert answer.status == 403
        words = refused(answer, "budget")
        account = site.account()
        assert len(one.asked) == 1
    assert account.end is not None
    assert (account.end.kind, account.end.error) == ("budget", "max_cost")
    assert account.cost_usd >= 1.0
    assert meant(words) == (OutcomeClass.BUDGET, "max_cost")


# ---- the ends ---------------------------------------------------------------------------------


def meant(line: str) -> tuple[OutcomeClass, str]:
    """The class that an agent's line of evidence has."""
    unknown = Outcome(
        OutcomeClass.AGENT_ERROR, "x", error=UNCLASSIFIED, details={"evidence": [line]}
    )
    found = classify(unknown, "nobody", failure_rules.rules())
    return found.kind, str(found.error)


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry_After": "3600"},
        {"retry_after_ms": "3600000"},
        {"x_ratelimit_reset_requests": "1h0m0s", "x_ratelimit_remaining_requests": "0"},
    ],
)
def test_a_far_limit_is_told_at_once(start: Start, headers: dict[str, str]) -> None:
    with provider(whole(b"{}", "429 Too Many Requests", **headers)) as one:
        site = start(**at(one.url))
        answer = site.ask()
        assert answer.status == 403
        words = refused(answer, "quota")
        end = site.account().end
        assert end is not None
        assert (end.kind, end.error) == ("quota", "rate_limited")
        assert end.resets_at == pytest.approx(time.time() + 3600, abs=60)
        assert meant(words) == (OutcomeClass.QUOTA, "rate_limited")
        assert site.account().rate_limits


def test_a_near_limit_is_passed_on(start: Start) -> None:
    body = b'{"error": {"message": "slow down"}}'
    with provider(whole(body, "429 Too Many Requests", Retry_After="2")) as one:
        site = start(**at(one.url))
        answer = site.ask()
        assert (answer.status, answer.read()) == (429, body)
        assert answer.headers["Retry-After"] == "2"
        assert site.account().end is None


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_refused_key_is_passed_on_and_noted(start: Start, status: str) -> None:
    with provider(whole(b'{"type":"error"}', status)) as one:
        site = start(**at(one.url))
        answer = site.ask()
        assert (f"{answer.status} {answer.reason}", answer.read()) == (status, b'{"type":"error"}')
        end = site.account().end
        assert end is not None
        assert (end.kind, end.error) == ("auth", "auth_failed")


def test_a_limit_that_is_reached_is_remembered_for_the_key(start: Start) -> None:
    faults = [whole(b"{}", "429 Too Many Requests", Retry_After="3600"), whole(b"{}")]

    def next_one(asked: Asked, connection: socket.socket) -> None:
        faults.pop(0)(asked, connection)

    with provider(next_one) as one:
        site = start(**at(one.url))
        words = refused(site.ask(), "quota")
        assert refused(site.ask(), "quota") == words
        assert len(one.asked) == 1
        end = site.account().end
        assert end is not None
        assert end.resets_at is not None
        # another key has a limit of its own
        assert site.ask("/openai/v1/chat/completions", {"model": "gpt-5.6"}).status == 200
        assert len(one.asked) == 2


def test_what_went_on_after_all_was_no_end(start: Start) -> None:
    answers = [whole(b"{}", "401 Unauthorized"), whole(b"{}")]

    def next_one(asked: Asked, connection: socket.socket) -> None:
        answers.pop(0)(asked, connection)

    with provider(next_one) as one:
        site = start(**at(one.url))
        site.ask().read()
        assert site.account().end is not None
        site.ask().read()
        assert site.account().end is None


def test_without_a_key_nothing_is_asked(start: Start) -> None:
    with provider(whole(b"{}")) as one:
        site = start(**at(one.url, ANTHROPIC_API_KEY=""))
        words = refused(site.ask(), "auth")
        assert "ANTHROPIC_API_KEY" in words
        assert site.account().providers == {"anthropic": None, "openai": "OPENAI_API_KEY"}
        assert site.account().end == End("auth", "auth_failed", words.split(": ", 2)[2])
        assert not one.asked
    assert meant(words) == (OutcomeClass.AUTH, "auth_failed")


def test_a_provider_that_is_not_there(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    answer = start(**at(url)).ask()
    assert answer.status == 502
    words = refused(answer, "infra")
    assert meant(words) == (OutcomeClass.INFRA, "network_unreachable")


def hangs(asked: Asked, connection: socket.socket) -> None:
    """Until the client is gone."""
    while connection.recv(65536):
        pass


def test_a_provider_that_never_answers(start: Start) -> None:
    with provider(hangs) as one:
        answer = start("--first-byte-s", "0.2", **at(one.url)).ask()
        assert answer.status == 502
        words = refused(answer, "infra")
    assert meant(words) == (OutcomeClass.INFRA, "provider_error")


@pytest.mark.parametrize("option", ["--silence-s", "--total-s"])
def test_a_stream_that_stands_still_is_cut(start: Start, option: str) -> None:
    def stalls(asked: Asked, connection: socket.socket) -> None:
        connection.sendall(head(Content_Type="text/event-stream") + message())
        hangs(asked, connection)

    with provider(stalls) as one:
        site = start(option, "0.5", **at(one.url))
        assert broken(site.ask())
        assert counts(site) == (1000, 0, 100, 0)


def test_an_answer_that_breaks_off_is_seen_to(start: Start) -> None:
    def breaks(_: Asked, connection: socket.socket) -> None:
        start_of_it = head(Content_Type="text/event-stream", Transfer_Encoding="chunked")
        connection.sendall(start_of_it + b"5\r\ndata:\r\n")

    with provider(breaks) as one:
        assert broken(start(**at(one.url)).ask())


def test_a_client_that_goes_away_takes_its_call_along(start: Start) -> None:
    left = threading.Event()

    def streams(asked: Asked, connection: socket.socket) -> None:
        connection.sendall(head(Content_Type="text/event-stream") + message())
        hangs(asked, connection)
        left.set()

    with provider(streams) as one:
        site = start(**at(one.url))
        with site.ask() as answer:
            answer.read1(65536)
            site.hang_up()
        assert left.wait(20)
        assert counts(site) == (1000, 0, 100, 0)


def test_a_client_that_goes_away_before_the_answer(start: Start) -> None:
    left = threading.Event()

    def waits(asked: Asked, connection: socket.socket) -> None:
        hangs(asked, connection)
        left.set()

    with provider(waits) as one:
        site = start(**at(one.url))
        site.send_only()
        eventually(lambda: bool(one.asked))
        site.hang_up()
        assert left.wait(20)


@pytest.mark.parametrize("sent", [b"", b'{"x": '])
def test_a_client_that_goes_away_in_the_middle_of_its_request(start: Start, sent: bytes) -> None:
    with provider(whole(b"{}")) as one:
        site = start(**at(one.url))
        head_ = f"POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {site.token}\r\n"
        with client.connect(site.socket) as connection:
            connection.sendall(head_.encode() + b"Content-Length: 100\r\n\r\n" + sent)
        assert site.ask().status == 200
    assert "rror" not in site.said()


@pytest.mark.needs("openssl")
def test_a_certificate_that_nobody_trusts_and_one_that_is_trusted(
    start: Start, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        (
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ),
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    with provider(whole(b"{}"), context) as one:
        url = one.url.replace("http://127.0.0.1", "https://localhost")
        site = start(**at(url))
        words = refused(site.ask(), "infra")
        assert "certificate" in words
        assert meant(words) == (OutcomeClass.INFRA, "network_unreachable")
        assert not one.asked
        trusting = start(**at(url, SSL_CERT_FILE=str(certificate)))
        assert trusting.ask().status == 200


def test_a_connect_is_judged_by_the_same_grant(start: Start) -> None:
    site = start()
    pair = base64.b64encode(f"x:{site.token}".encode()).decode()
    head_ = f"CONNECT example.com:443 HTTP/1.1\r\nProxy-Authorization: Basic {pair}\r\n\r\n"
    assert b" 403 agentorch: policy: example.com:443 " in site.raw(head_.encode())
    assert len(site.account().refusals) == 1


# ---- who may what -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/anthropic/v1/files",
        "/anthropic/v1/messages/batches",
        "/anthropic/v1/messages/../files",
        "/anthropic/v1/messages%2f..",
        "/anthropic//v1/messages",
        "/anthropic/v1/chat/completions",
        "/openai/v1/messages",
        "/moonshot/v1/chat/completions",
        "/",
        "/agentorch/account",
    ],
)
def test_other_paths_are_refused(start: Start, path: str) -> None:
    with provider(whole(b"{}")) as one:
        site = start(**at(one.url))
        answer = site.ask(path)
        assert answer.status == 403
        assert meant(refused(answer, "policy")) == (OutcomeClass.POLICY, "permission_denied")
        assert len(site.account().refusals) == 1
        assert not one.asked


def test_models_may_be_listed(start: Start) -> None:
    with provider(whole(b"{}")) as one:
        site = start(**at(one.url))
        assert site.ask("/anthropic/v1/models?limit=9", method="GET").status == 200
        assert site.ask("/openai/v1/models/gpt-5", method="GET").status == 200
        assert site.ask("/openai/v1/models/../x", method="GET").status == 403
        assert site.account().calls == 0


def test_no_token_and_a_wrong_one_and_one_that_is_over(start: Start) -> None:
    with provider(whole(b"{}")) as one:
        site = start(**at(one.url))
        for token in ("", "wrong", "x" * 5000, site.token[:-1]):
            refused(site.ask(x_api_key=token), "auth")
        site.change(expires_at=time.time() - 1)
        refused(site.ask(), "auth")
        site.change(expires_at=time.time() + 60)
        assert site.ask().status == 200
        site.grants_file().unlink()
        refused(site.ask(), "auth")


def test_a_grant_may_change_while_it_lasts(start: Start) -> None:
    with provider(whole(b"{}")) as one:
        site = start(**at(one.url))
        site.change(providers=())
        refused(site.ask(), "policy")
        site.change(providers=("anthropic",))
        assert site.ask().status == 200


def test_nobody_else_connects(start: Start) -> None:
    site = start()
    assert site.socket.stat().st_mode & 0o777 == 0o600


# ---- the canary -------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [7, 20, len(KEY) - 1])
def test_a_key_never_comes_back(start: Start, cut: int) -> None:
    def repeats(asked: Asked, connection: socket.socket) -> None:
        told = asked.headers["x-api-key"]
        connection.sendall(
            head(Content_Type="text/event-stream", X_Echo=told, x_ratelimit_remaining=told)
        )
        connection.sendall(f"data: {told} and {told[:cut]}".encode())
        time.sleep(0.1)
        connection.sendall(f"{told[cut:]}\n\n".encode())

    with provider(repeats) as one:
        site = start(**at(one.url))
        answer = site.ask()
        seen = text(answer) + str(answer.headers)
        account = str(site.account())
        said = site.said()
    assert "*" * len(KEY) in seen
    for place in (seen, account, said):
        assert KEY not in place
        assert site.token not in place


def test_what_is_not_http_is_not_repeated_in_the_log(start: Start) -> None:
    with provider(whole(b"{}")) as one:
        site = start(**at(one.url))
        for garbage in (
            f"GET / HTTP/1.1\r\nx-api-key {site.token}\r\n\r\n",
            f"\x00{site.token}\r\n\r\n",
            f"POST /anthropic/v1/messages HTTP/1.1\r\nx: {site.token * 2000}\r\n\r\n",
        ):
            site.raw(garbage.encode())
        assert site.ask().status == 200
    assert site.token not in site.said()


# ---- many and large ---------------------------------------------------------------------------


def resident_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines["VmHWM"].split()[0])


@pytest.mark.parametrize("one_line", [True, False])
def test_a_huge_answer_passes_in_little_memory(start: Start, one_line: bool) -> None:  # noqa: FBT001
    part = b"x" * (1 << 20)
    usage = json.dumps(RESPONSE["response"])[1:].encode()

    def huge(asked: Asked, connection: socket.socket) -> None:
        connection.sendall(head(Content_Type="text/event-stream"))
        if one_line:
            connection.sendall(b'data: {"response": {"text": "')
            for _ in range(50):
                connection.sendall(part)
            connection.sendall(b'", ' + usage + b"}\n\n")
            return
        for _ in range(50):
            connection.sendall(event({"delta": "y" * 1000}) * 1024)
        connection.sendall(event(RESPONSE))

    with provider(huge) as one:
        site = start(**at(one.url))
        site.ask("/openai/v1/models", method="GET").read()
        before = resident_kib(site.pid)
        answer = site.ask("/openai/v1/responses")
        size = 0
        while chunk := answer.read1(1 << 20):
            size += len(chunk)
        assert size > 50_000_000
        assert counts(site) == (1000, 600, 50, 20)
        assert resident_kib(site.pid) - before < 8 << 10


def test_twenty_streams_at_once(start: Start) -> None:
    may = threading.Barrier(20)

    def together(_: Asked, connection: socket.socket) -> None:
        connection.sendall(head(Content_Type="text/event-stream"))
        may.wait(20)
        connection.sendall(message())

    with provider(together) as one:
        site = start(**at(one.url))
        answers = [site.ask() for _ in range(20)]
        assert [answer.read() for answer in answers] == [message()] * 20
        account = site.account()
    assert (account.calls, account.tokens_in, account.tokens_out) == (20, 20000, 2000)


# ---- what has no hope -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "kind", "code"),
    [
        ("429 Too Many Requests", {"code": "insufficient_quota"}, "auth", "credit_empty"),
        ("400 Bad Request", {"message": "Your credit balance is too low"}, "auth", "credit_empty"),
        ("404 Not Found", {"code": "model_not_found"}, "policy", "model_unknown"),
        (
            "429 Too Many Requests",
            {"type": "usage_limit_reached", "resets_in_seconds": 7200},
            "quota",
            "rate_limited",
        ),
    ],
)
def test_what_can_not_get_better_is_told_at_once(
    start: Start, status: str, error: dict[str, object], kind: str, code: str
) -> None:
    body = json.dumps({"error": error}).encode()
    with provider(whole(body, status)) as one:
        site = start(**at(one.url))
        words = refused(site.ask(), kind)
        end = site.account().end
        assert end is not None
        assert (end.kind, end.error) == (kind, code)
        assert meant(words)[0] == kind
        if "resets_in_seconds" in error:
            assert end.resets_at == pytest.approx(time.time() + 7200, abs=60)


def test_who_fails_again_and_again_is_not_asked_for_ever(start: Start) -> None:
    with provider(whole(b'{"error": {}}', "529 Overloaded")) as one:
        site = start(**at(one.url))
        assert [site.ask().status for _ in range(4)] == [529, 529, 529, 403]
        end = site.account().end
        assert end is not None
        assert (end.kind, end.error) == ("infra", "overloaded")


def test_failures_count_in_a_row_only(start: Start) -> None:
    bad, good = whole(b'{"error": {}}', "500 Internal Server Error"), whole(b"{}")
    answers = [bad, bad, bad, good, bad, bad, bad]

    def next_one(asked: Asked, connection: socket.socket) -> None:
        answers.pop(0)(asked, connection)

    with provider(next_one) as one:
        site = start(**at(one.url))
        assert [site.ask().status for _ in range(7)] == [500, 500, 500, 200, 500, 500, 500]


def test_a_provider_that_is_not_there_is_not_asked_for_ever(start: Start) -> None:
    site = start(**at("http://127.0.0.1:9"))
    assert [site.ask().status for _ in range(4)] == [502, 502, 502, 403]
    end = site.account().end
    assert end is not None
    assert (end.kind, end.error) == ("infra", "network_unreachable")


def test_a_cap_on_what_has_no_price_is_refused(start: Start) -> None:
    with provider(whole(b"{}")) as one:
        site = start(**at(one.url))
        site.change(max_cost_usd=1.0)
        words = refused(site.ask(body={"model": "a-model-of-nobody"}), "budget")
        assert "a-model-of-nobody" in words
        assert one.asked == []


def test_words_for_a_cli_have_no_number_that_it_could_take_for_a_status(start: Start) -> None:
    with provider(events(message(tokens_in=1_000_000))) as one:
        site = start(**at(one.url))
        site.change(max_cost_usd=1.0)
        asked = {"stream": True, "model": "claude-opus-5-5"}
        assert broken(site.ask(body=asked))
        words = refused(site.ask(body=asked), "budget")
        assert not any(character.isdigit() for character in words), words
        end = site.account().end
        assert end is not None
        assert any(character.isdigit() for character in end.words)
