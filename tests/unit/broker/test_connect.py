"""What a CONNECT asks, what is decided, what is answered: the pure part."""

from __future__ import annotations

import base64

import pytest

from agentorch.broker.connect import ConnectRequest, answer, parse_request, target
from agentorch.broker.grants import Grant
from agentorch.system.public_connect import Refused

GRANT = Grant("job", "step", 1, "claude", 1e11, hosts=("pypi.org:443", "own.example:8443"))


def head(*lines: str) -> bytes:
    return "\r\n".join(("CONNECT pypi.org:443 HTTP/1.1", *lines)).encode()


def basic(pair: str) -> str:
    return f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}"


@pytest.mark.parametrize(
    ("lines", "token"),
    [
        ((basic("agentorch:secret"),), "secret"),
        ((basic(":secret"),), "secret"),
        ((basic("a:b:c"),), "b:c"),
        (("Host: elsewhere.example", basic("a:secret").upper().split(" ")[0] + " bAsIc YTpi"), "b"),
        (("proxy-authorization:basic YTpi",), "b"),
        ((), None),
        (("Authorization: Basic YTpi",), None),
        (("Proxy-Authorization: Bearer secret",), None),
        (("Proxy-Authorization: Basic %%%",), None),
        (("Proxy-Authorization: Basic /////w==",), None),
        ((basic("no-colon"),), None),
        ((basic("empty:"),), None),
    ],
)
def test_the_token_of_a_question(lines: tuple[str, ...], token: str | None) -> None:
    assert parse_request(head(*lines)) == ConnectRequest("pypi.org:443", token)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"CONNECT",
        b"CONNECT  HTTP/1.1",
        b"CONNECT a b HTTP/1.1",
        b"CONNECT a:1 HTTP/2.0",
        b"CONNECT a:1 HTTP/1.1\nHost: a",
        b"CONNECT a:1 HTTP/1.1\r\nno field",
        b"CONNECT a:1 HTTP/1.1\r\nA: b\r\n folded: c",
        b"CONNECT a:1 HTTP/1.1\r\nA: \0",
        b"CONNECT a:1 HTTP/1.1\r\nSpace : b",
        b"CONNECT \xff:1 HTTP/1.1",
        b"CONNECT " + b"a" * 400 + b":443 HTTP/1.1",
        b"CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic YTpi\r\nProxy-authorization: Basic x",
    ],
)
def test_no_question(block: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse_request(block)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("pypi.org:443", ("pypi.org", 443)),
        ("PyPI.org:443", ("pypi.org", 443)),
        ("pypi.org.:443", ("pypi.org", 443)),
        ("own.example:8443", ("own.example", 8443)),
    ],
)
def test_a_host_of_the_grant(text: str, place: tuple[str, int]) -> None:
    assert target(text, GRANT) == place


@pytest.mark.parametrize(
    "text",
    [
        *("pypi.org:80", "pypi.org:8443", "own.example:443", "other.example:443"),
        # not the name, though it has the name in it
        *("a.pypi.org:443", "pypi.org.evil.example:443", "evil-pypi.org:443", "pypi.org..:443"),
        # no names
        *("151.101.0.223:443", "[2a04:4e42::223]:443", "2130706433:443", "0x7f.1:443"),
        *("localhost:443", "pypi.org", "pypi.org:", ":443", "pypi.org:0", "pypi.org:65536"),
        *("pypi.org:443:443", "pypi.org:+443", "pypi.org:4_43", "*:443"),
        *("http://pypi.org:443", "user@pypi.org:443", "pypi.org:443/", "pypi%2eorg:443"),
    ],
)
def test_no_host_of_the_grant(text: str) -> None:
    with pytest.raises(Refused) as refused:
        target(text, GRANT)
    assert (refused.value.status, refused.value.kind, refused.value.note) == (403, "policy", True)


def test_a_refusal_is_one_line_whatever_is_in_it() -> None:
    text = answer(Refused(403, "policy", "a\r\nX: y\0\x1b[31m\u202e")).decode()
    assert text.split("\r\n")[0] == "HTTP/1.1 403 agentorch: policy: a??X: y??[31m?"
    assert text.split("\r\n\r\n")[1] == "agentorch: policy: a??X: y??[31m?\n"
