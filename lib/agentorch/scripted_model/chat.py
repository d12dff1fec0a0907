"""The Chat Completions wire: POST …/v1/chat/completions with `stream: true`.

After the events of https://platform.openai.com/docs/api-reference/chat-streaming: chunks with one
choice each, a chunk that holds the usage alone where `stream_options.include_usage` asks for it,
and `[DONE]`. A tool call goes out in two pieces, as providers send them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agentorch.scripted_model.script import Call, Fault, Turn, Usage

CREATED = 1_750_000_000
DONE = b"data: [DONE]\n\n"
# The provider's own words where a script gives none: type and code.
KINDS: Mapping[int, tuple[str, str | None]] = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


def events(turn: Turn, request: dict[str, Any]) -> Iterator[bytes]:
    """Yield the stream of an answer, an event each."""
    yield _delta(request, {"role": "assistant", "content": ""})
    for piece in pieces(turn.text, turn.pieces):
        yield _delta(request, {"content": piece})
    for number, call in enumerate(turn.calls):
        for part in _call(number, call):
            yield _delta(request, {"tool_calls": [part]})
    yield _delta(request, {}, "tool_calls" if turn.calls else "stop")
    if (request.get("stream_options") or {}).get("include_usage"):
        yield _chunk(request, choices=[], usage=usage(turn.usage))
    yield DONE


def beginning(text: str, request: dict[str, Any]) -> Iterator[bytes]:
    """Yield the first events of an answer that is never finished."""
    yield _delta(request, {"role": "assistant", "content": ""})
    yield _delta(request, {"content": text})


def fault(fault: Fault) -> bytes:
    """Return the body of an error; a fault's kind is its type and its code."""
    known = KINDS.get(fault.status, ("server_error", None))
    kind, code = (fault.kind, fault.kind) if fault.kind else known
    error = {"message": fault.message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": error}).encode()


def pieces(text: str, count: int) -> Iterable[str]:
    """Return a text in at most so many pieces, none of them empty."""
    size = max(1, -(-len(text) // max(1, count)))
    return [text[start : start + size] for start in range(0, len(text), size)]


def usage(used: Usage) -> dict[str, Any]:
    """Return the tokens as this wire counts them: cached and reasoning ones are part of the
    totals.
    """
    return {
        "prompt_tokens": used.input,
        "completion_tokens": used.output,
        "total_tokens": used.input + used.output,
        "prompt_tokens_details": {"cached_tokens": used.cached},
        "completion_tokens_details": {"reasoning_tokens": used.reasoning},
    }


def _call(number: int, call: Call) -> Iterator[dict[str, Any]]:
    identity = f"call_{number}_{call.tool}"
    function = {"name": call.tool, "arguments": ""}
    yield {"index": number, "id": identity, "type": "function", "function": function}
    yield {"index": number, "function": {"arguments": json.dumps(dict(call.arguments))}}


def _delta(request: dict[str, Any], delta: dict[str, Any], finish: str | None = None) -> bytes:
    return _chunk(request, choices=[{"index": 0, "delta": delta, "finish_reason": finish}])


def _chunk(request: dict[str, Any], **fields: Any) -> bytes:
    document = {
        "id": "chatcmpl-double",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": request.get("model", ""),
        **fields,
    }
    return b"data: " + json.dumps(document).encode() + b"\n\n"
