"""The three protocols that models speak: their paths, and the form of their errors. Pure."""

from __future__ import annotations

import json
import re
from enum import StrEnum


class Wire(StrEnum):
    """A protocol, by the last words of its path."""

    MESSAGES = "messages"
    RESPONSES = "responses"
    CHAT = "chat"


# What may be asked: method and path, and the protocols that have it.
_PATHS: dict[tuple[str, str], frozenset[Wire]] = {
    ("POST", "v1/messages"): frozenset({Wire.MESSAGES}),
    ("POST", "v1/messages/count_tokens"): frozenset({Wire.MESSAGES}),
    ("POST", "v1/responses"): frozenset({Wire.RESPONSES}),
    ("POST", "v1/chat/completions"): frozenset({Wire.CHAT}),
    ("GET", "v1/models"): frozenset(Wire),
}
_ONE_MODEL = re.compile(r"(v1/models)/[A-Za-z0-9_][A-Za-z0-9._:@-]{0,199}")
# Those whose answers cost money.
PAID = frozenset({"v1/messages", "v1/responses", "v1/chat/completions"})


def wire_of(method: str, rest: str, wires: tuple[Wire, ...]) -> Wire | None:
    """Return the provider's protocol that has this path; None: it may not be asked."""
    one = _ONE_MODEL.fullmatch(rest)
    having = _PATHS.get((method, one[1] if one else rest), frozenset())
    return next((wire for wire in wires if wire in having), None)


def without_numbers(words: str) -> str:
    """Words for a CLI: OpenCode takes a 429 or 500 anywhere in them, in $13.0500 too, for an error
    that goes by itself, and tries again until its step's time is over.
    """
    return re.sub(r"\d[\d.]*", "N", words)


def refusal(wire: Wire, status: int, message: str) -> bytes:
    """Return the body of an answer of ours, in the form of the protocol's own errors."""
    kind = "permission_error" if status == 403 else "api_error"
    if wire is Wire.MESSAGES:
        document = {"type": "error", "error": {"type": kind, "message": message}}
    else:
        error = {"message": message, "type": kind, "param": None, "code": "agentorch"}
        document = {"error": error}
    return json.dumps(document).encode()


def upstream_url(base_url: str, rest: str, wire: Wire) -> str:
    """Return where a path is at the provider. `base_url` as its own clients take it.

    Clients of OpenAI's protocols are given a URL that ends with the version (`…/v1`, `…/v4`),
    clients of Anthropic's one without it; a URL without any path is the same to all.
    """
    base = base_url.rstrip("/")
    path = base.split("://", 1)[-1].partition("/")[2]
    versioned = path != "" if wire is not Wire.MESSAGES else path.endswith("v1")
    return f"{base}/{rest.removeprefix('v1/') if versioned else rest}"
