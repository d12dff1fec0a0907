"""The pure parts: routes, tokens, windows, clients, keys, cursors, what a bind means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.config.settings import DEV_TOKEN, load
from agentorch.config.variables import Decider
from agentorch.core.errors import Invalid, Misconfigured
from agentorch.webhook import idempotency, tokens
from agentorch.webhook.clients import client_address, parse_networks, rate_key
from agentorch.webhook.decide import ALLOWED_KEYS, FUNCTIONS, parse_decision
from agentorch.webhook.rate_limit import Limit, Limiter, Window, admit
from agentorch.webhook.responses import Refusal
from agentorch.webhook.routes import ROUTES, Endpoint, Found, WrongMethod, find_route
from agentorch.webhook.sockets import Bind, parse_bind
from agentorch.webhook.submit import from_outside
from agentorch.webhook.tokens import Tokens

LIMIT = Limit(requests=3, window_s=60)


# ---- routes -----------------------------------------------------------------------------------


def test_a_path_leads_to_its_endpoint() -> None:
    found = find_route("GET", "/jobs/some-id/artifacts/steps/01/report.md")
    assert isinstance(found, Found)
    assert found.route.endpoint is Endpoint.ARTIFACT
    assert found.names == {"job_id": "some-id", "path": "steps/01/report.md"}
    assert find_route("GET", "/jobs/a/b") is None
    assert find_route("GET", "/jobs/") is None
    assert find_route("GET", "") is None
    assert find_route("PUT", "/jobs") == WrongMethod(("GET", "HEAD"))


# ---- tokens -----------------------------------------------------------------------------------


def test_a_token_is_its_own_and_no_beginning_of_it() -> None:
    known = tokens.list_callers(Tokens({"alpha": None, "beta": frozenset({"p"})}))
    found = tokens.identify("beta", known)
    assert found is not None
    assert found.submits == frozenset({"p"})
    projects = ("p", "q", None, ["p"], 5)
    assert [found.may_submit(project) for project in projects] == [True, *[False] * 4]
    for token in ("", "alph", "alphaa", "ALPHA", "alpha\0", "\udcff"):
        assert tokens.identify(token, known) is None


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer x", "x"), ("bearer  x ", "x"), ("Bearer", None), ("Basic x", None), (None, None)],
)
def test_a_bearer_header(header: str | None, token: str | None) -> None:
    assert tokens.bearer_token(header) == token


def test_the_token_that_everybody_knows_is_for_this_host() -> None:
    tokens.refuse_dev_token(Tokens({DEV_TOKEN: None}), local=True)
    tokens.refuse_dev_token(Tokens({"other": None}), local=False)
    with pytest.raises(Misconfigured, match="WEBHOOK_TOKEN"):
        tokens.refuse_dev_token(Tokens({DEV_TOKEN: None}), local=False)


def test_the_token_that_everybody_knows_decides_nowhere() -> None:
    with pytest.raises(Misconfigured, match="WEBHOOK_DECISION_TOKENS"):
        tokens.refuse_dev_token(Tokens({}, {DEV_TOKEN: Decider(None)}), local=True)


def test_who_submits_decides_on_nothing() -> None:
    submits, both, decides = tokens.list_callers(
        Tokens(
            {"alpha": None, "beta": frozenset({"p"})},
            {"beta": Decider(frozenset({"q"}), "bob"), "gamma": Decider(None)},
        )
    )
    rights = [
        (it.may_submit("p"), it.may_decide("p"), it.may_decide("q"), it.may_read("q"))
        for it in (submits, both, decides)
    ]
    assert rights == [
        (True, False, False, True),
        (True, False, True, True),
        (False, True, True, True),
    ]
    assert [it.sees_all for it in (submits, both, decides)] == [True, False, True]
    assert both.identity == {"token": "sha256:f44e64e7", "name": "bob"}
    assert submits.identity == {"token": "sha256:8ed3f6ad"}


def test_the_tokens_of_credentials_come_first(tmp_path: Path) -> None:
    environment = {
        "AGENTORCH_ENV_FILE": "/dev/null",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "WEBHOOK_TOKENS": "a=*",
        "WEBHOOK_DECISION_TOKENS": "b=*",
    }
    assert tokens.load_tokens(load(environment)) == Tokens({"a": None}, {"b": Decider(None)})
    (tmp_path / "webhook-tokens").write_text("c=one\nd=*\n")
    (tmp_path / "webhook-decision-tokens").write_text("e=one|two # Eve\n\nf=*\n")
    assert tokens.load_tokens(load(environment)) == Tokens(
        {"c": frozenset({"one"}), "d": None},
        {"e": Decider(frozenset({"one", "two"}), "Eve"), "f": Decider(None)},
    )
    for name in ("webhook-tokens", "webhook-decision-tokens"):
        (tmp_path / name).write_text("")
    assert tokens.load_tokens(load(environment)) == Tokens({}, {})
    (tmp_path / "webhook-decision-tokens").write_text("the-secret")
    with pytest.raises(Misconfigured) as refused:
        tokens.load_tokens(load(environment))
    assert "the-secret" not in str(refused.value)


# ---- bodies of decisions ----------------------------------------------------------------------


def test_a_body_is_what_its_decision_takes() -> None:
    assert parse_decision(Endpoint.CANCEL, b" ") == parse_decision(Endpoint.CANCEL, b"{}") == {}
    told = {"comment": "x", "accept": True, "shown": None}
    assert parse_decision(Endpoint.APPROVE, json.dumps(told).encode()) == told
    assert parse_decision(Endpoint.RETRY, b'{"step": "01_plan"}') == {"step": "01_plan"}


@pytest.mark.parametrize(
    ("decision", "body", "said"),
    [
        (Endpoint.APPROVE, b"[]", [".: expected object, found an array"]),
        (Endpoint.APPROVE, b"{", ["not JSON"]),
        (
            Endpoint.REJECT,
            b'{"coment": "x", "accept": 1, "step": "/"}',
            [
                ".: 'coment' is unknown (did you mean 'comment'?)",
                ".accept: expected boolean, found a number",
                ".step: '/' does not match",
                ".: 'accept' does not belong to reject",
                ".: 'step' does not belong to reject",
            ],
        ),
        (Endpoint.ANSWER, b"", [".: 'text' is missing"]),
        (Endpoint.ANSWER, b'{"text": ""}', [".text: is empty"]),
        (Endpoint.HOLD, b'{"comment": null}', [".comment: expected string, found null"]),
    ],
)
def test_what_is_no_body_of_a_decision(decision: Endpoint, body: bytes, said: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        parse_decision(decision, body)
    problems = refused.value.problems
    assert [problem.startswith(want) for problem, want in zip(problems, said, strict=True)] == [
        True for _ in said
    ], problems


def test_every_decision_has_its_route_its_keys_and_its_act() -> None:
    routed = {route.endpoint for route in ROUTES if route.path.startswith("/jobs/{job_id}/")}
    assert set(ALLOWED_KEYS) == set(FUNCTIONS) == routed - {Endpoint.ARTIFACT}
    assert all(it.path.endswith(f"/{it.endpoint}") for it in ROUTES if it.endpoint in ALLOWED_KEYS)


# ---- windows ----------------------------------------------------------------------------------


def test_a_window_begins_with_its_first_request() -> None:
    window = None
    for now_s in (100, 110, 120):
        window, wait_s = admit(window, LIMIT, now_s)
        assert wait_s is None
    assert admit(window, LIMIT, 121) == (window, 39)
    assert admit(window, LIMIT, 160) == (Window(160, 1), None)


@given(st.lists(st.floats(0, 30), max_size=60))
def test_no_window_holds_more_than_its_limit_and_waiting_helps(gaps: list[float]) -> None:
    now_s, window = 0.0, None
    for gap_s in gaps:
        now_s += gap_s
        window, wait_s = admit(window, LIMIT, now_s)
        assert window.requests <= LIMIT.requests
        if wait_s is not None:
            assert 0 < wait_s <= LIMIT.window_s + 1e-6
            assert admit(window, LIMIT, now_s + wait_s + 1e-6)[1] is None


def test_a_flood_of_addresses_costs_no_memory_and_gains_nothing() -> None:
    limiter = Limiter(LIMIT, max_clients=10)
    first = [limiter.count_request(f"a{n}", 0) for n in range(10)]
    flood = [limiter.count_request(f"b{n}", 1) for n in range(100)]
    assert first == [None] * 10
    assert flood == [None] * 3 + [60] * 97
    assert limiter.clients == 11
    assert limiter.count_request("a3", 2) is None
    assert limiter.remaining_s(2) == 59
    assert limiter.count_request("new", 61) is None
    assert limiter.clients <= 11


def test_one_client_that_never_stops_does_not_keep_the_others_windows() -> None:
    limiter = Limiter(LIMIT, max_clients=10)
    for now_s in range(0, 600, 5):
        limiter.count_request("constant", now_s)
        limiter.count_request(f"once-{now_s}", now_s)
    # twelve seconds of windows are kept at a time, and one for all the others
    assert limiter.clients <= 11
    assert limiter.count_request("fresh", 700) is None


def test_no_limit() -> None:
    limiter = Limiter(Limit(0, 60))
    assert [limiter.count_request("a", 0) for _ in range(100)] == [None] * 100
    assert (limiter.clients, limiter.remaining_s(0)) == (0, 0)


# ---- clients ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "is_client"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "garbage", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, garbage", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("localhost", None, "127.0.0.1"),
        ("::ffff:10.0.0.1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_the_nearest_hop_that_is_no_proxy(peer: str, forwarded: str | None, is_client: str) -> None:
    assert client_address(peer, forwarded, parse_networks(["10.0.0.0/8"])) == is_client


def test_an_ipv6_customer_is_counted_once() -> None:
    assert rate_key("2001:db8::1") == rate_key("2001:db8::ffff:1") == "2001:db8::/64"
    assert rate_key("192.0.2.1") == "192.0.2.1"


# ---- keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", idempotency.HEADERS)
def test_a_delivery_has_its_key(name: str) -> None:
    assert idempotency.idempotency_key({name.lower(): "72d3162e-cc78"}) == "72d3162e-cc78"


def test_what_its_sender_says_outright_counts_first() -> None:
    headers = {"x-github-delivery": "b", "idempotency-key": "a"}
    assert idempotency.idempotency_key(headers) == "a"
    assert idempotency.idempotency_key({"x-gitlab-event-uuid": "a", "x-request-id": "b"}) is None


@pytest.mark.parametrize("given", ["", "x" * 256, "a\tb", "a\x01", "\xe9", "a\x7f"])
def test_what_is_no_key_is_refused(given: str) -> None:
    with pytest.raises(Refusal) as refused:
        idempotency.idempotency_key({"idempotency-key": given})
    assert refused.value.answer.status == 400


def test_a_key_belongs_to_its_token_and_project() -> None:
    mine = idempotency.key_digest(b"t", "p", "k")
    others = [(b"u", "p", "k"), (b"t", "q", "k"), (b"t", None, "k"), (b"t", "p", "l")]
    assert mine not in [idempotency.key_digest(*one) for one in others]
    assert len(mine) == 64


def test_nobody_says_for_himself_which_key_he_came_with() -> None:
    source = from_outside({"source": {"type": "cron", "meta": {"idempotency": "x", "a": 1}}})
    assert source == {"source": {"type": "webhook", "meta": {"a": 1}}}


# ---- binds ------------------------------------------------------------------------------------


def test_what_a_bind_means() -> None:
    assert parse_bind("127.0.0.1:80") == Bind("127.0.0.1", 80)
    assert parse_bind("[::1]:0") == Bind("::1", 0)
    assert str(parse_bind("unix:/run/x.sock").path) == "/run/x.sock"
    for text in ("", "80", ":80", "host:", "host:x", "host:65536", "unix:", "host:²"):
        with pytest.raises(Invalid, match="--bind"):
            parse_bind(text)
