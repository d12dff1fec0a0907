"""A request on its way to the provider: what is taken from it, what is put in. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from agentorch.broker.wire_formats import Wire

# RFC 9110, section 7.6.1, and what was made for this one connection.
_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"),
        *("upgrade", "proxy-authenticate", "proxy-authorization", "host", "content-length"),
        *("expect", "via", "forwarded"),
    }
)
# Where tokens and keys go, and what only ever tells about somebody.
_OURS = frozenset(
    {
        *("authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "accept-encoding"),
        *("openai-organization", "openai-project"),
    }
)
_FROM_PROVIDER = frozenset(
    {"set-cookie", "alt-svc", "strict-transport-security", "clear-site-data"}
)
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,200})"')
_STREAM = re.compile(rb'"stream"\s*:\s*true')


@dataclass(frozen=True)
class CallBody:
    """A request's body: its model, and whether the answer is to come as a stream."""

    body: bytes
    model: str
    stream: bool


def token(headers: Mapping[str, str]) -> str:
    """Return the token that came where a key would; empty where there is none."""
    kind, _, given = headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and given.strip():
        return given.strip()
    names = ("x-api-key", "api-key", "x-goog-api-key")
    return next((headers[name].strip() for name in names if headers.get(name)), "")


def to_provider(
    headers: Mapping[str, str], credentials: Mapping[str, str], length: int | None
) -> dict[str, str]:
    """Return the headers for the provider: the key for the token, and nothing of this
    connection.
    """
    named = {one.strip().lower() for one in headers.get("Connection", "").split(",")}
    dropped = _HOP | _OURS | named
    kept = {name: value for name, value in headers.items() if name.lower() not in dropped}
    counted = {} if length is None else {"Content-Length": str(length)}
    # The meter reads what comes; a token a letter would not compress well anyway.
    return {**kept, "Accept-Encoding": "identity", **counted, **credentials}


def to_client(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers for the agent.

    The length is left out where the body was unpacked on the way.
    """
    named = {one.strip().lower() for one in headers.get("Connection", "").split(",")}
    dropped = (_HOP - {"content-length"}) | _FROM_PROVIDER | named
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        dropped |= {"content-encoding", "content-length"}
    return {name: value for name, value in headers.items() if name.lower() not in dropped}


def parse_body(body: bytes, wire: Wire) -> CallBody:
    """Return what a request asks for; a stream of the chat protocol is made to say its usage at its
    end.

    Raises ValueError where such a request is no JSON object.
    """
    if wire is Wire.CHAT and body:
        return _chat(body)
    model = _MODEL.search(body)
    name = model[1].decode("utf-8", "replace") if model else ""
    return CallBody(body, name, _STREAM.search(body) is not None)


def _chat(body: bytes) -> CallBody:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise ValueError("the request is not JSON") from problem
    if not isinstance(document, dict):
        raise ValueError("the request is not a JSON object")  # noqa: TRY004  (of a document)
    model = document.get("model")
    name = model if isinstance(model, str) else ""
    stream = document.get("stream") is True
    options = document.get("stream_options")
    if not stream or (isinstance(options, dict) and options.get("include_usage") is True):
        return CallBody(body, name, stream)
    if "stream_options" in document:
        more = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        return CallBody(json.dumps({**document, "stream_options": more}).encode(), name, stream)
    # As little as possible is changed: providers cache by what they are sent.
    begin = body.index(b"{") + 1
    put_in = b'"stream_options":{"include_usage":true},'
    return CallBody(body[:begin] + put_in + body[begin:], name, stream)
