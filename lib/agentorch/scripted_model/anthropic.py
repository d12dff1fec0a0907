"""Anthropic Messages: the events of a streamed answer, and the same answer in one piece.

Thinking is sent as a block before the text where the usage has reasoning; the protocol counts it
among the output tokens only. Its input tokens are without the cached ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from agentorch.scripted_model.script import Fault, Turn, Usage

# The protocol's own word for an error, where the script has none.
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
Block = dict[str, Any]


def events(turn: Turn, request: dict[str, Any]) -> Iterator[bytes]:
    """Yield the stream of an answer."""
    yield _start(turn.usage, request)
    for index, block in enumerate(_blocks(turn, request)):
        yield from _stream(index, block, turn.pieces)
    delta = {"stop_reason": _reason(turn), "stop_sequence": None}
    usage = {"output_tokens": turn.usage.output}
    yield _event("message_delta", delta=delta, usage=usage)
    yield _event("message_stop")


def beginning(text: str, request: dict[str, Any]) -> Iterator[bytes]:
    """Yield the first events of an answer whose text goes on."""
    yield _start(Usage(), request)
    yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def whole(turn: Turn, request: dict[str, Any]) -> bytes:
    """Return the answer to a request that asked for no stream."""
    message = _message(turn.usage, request)
    message["content"] = list(_blocks(turn, request))
    message["stop_reason"] = _reason(turn)
    message["usage"]["output_tokens"] = turn.usage.output
    return json.dumps(message).encode()


def fault(fault: Fault) -> bytes:
    """Return the body of an error."""
    kind = fault.kind or KINDS.get(fault.status, "api_error")
    document = {
        "type": "error",
        "error": {"type": kind, "message": fault.message},
        "request_id": "req_double",
    }
    return json.dumps(document).encode()


def _reason(turn: Turn) -> str:
    return "tool_use" if turn.calls else "end_turn"


def _start(usage: Usage, request: dict[str, Any]) -> bytes:
    return _event("message_start", message=_message(usage, request))


def _message(usage: Usage, request: dict[str, Any]) -> Block:
    return {
        "id": f"msg_double_{_place(request)}",
        "type": "message",
        "role": "assistant",
        "model": request.get("model", ""),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage.input - usage.cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.cached,
            "output_tokens": 1,
        },
    }


def _blocks(turn: Turn, request: dict[str, Any]) -> Iterator[Block]:
    if turn.usage.reasoning:
        yield {"type": "thinking", "thinking": "Let me see.", "signature": "c2lnbmVk"}
    if turn.text:
        yield {"type": "text", "text": turn.text}
    for number, call in enumerate(turn.calls):
        identity = f"toolu_double_{_place(request)}_{number}"
        arguments = dict(call.arguments)
        yield {"type": "tool_use", "id": identity, "name": call.tool, "input": arguments}


def _place(request: dict[str, Any]) -> int:
    """Return where in the conversation an answer stands: its ids differ from those before it."""
    return len(request.get("messages", ()))


def _stream(index: int, block: Block, pieces: int) -> Iterator[bytes]:
    empty, deltas = _taken_apart(block, pieces)
    yield _event("content_block_start", index=index, content_block=empty)
    for delta in deltas:
        yield _event("content_block_delta", index=index, delta=delta)
    yield _event("content_block_stop", index=index)


def _taken_apart(block: Block, pieces: int) -> tuple[Block, Iterable[Block]]:
    """Return a block as it begins, and what is then added to it."""
    match block:
        case {"type": "text", "text": text}:
            deltas = [{"type": "text_delta", "text": part} for part in _parts(text, pieces)]
            return {**block, "text": ""}, deltas
        case {"type": "thinking", "thinking": text, "signature": signature}:
            thought = {"type": "thinking_delta", "thinking": text}
            signed = {"type": "signature_delta", "signature": signature}
            return {**block, "thinking": "", "signature": ""}, [thought, signed]
        case {"type": "tool_use", "input": arguments}:
            partial = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
            return {**block, "input": {}}, [partial]
    raise ValueError(block)


def _parts(text: str, pieces: int) -> Iterator[str]:
    step = -(-len(text) // max(1, pieces))
    for start in range(0, len(text), step):
        yield text[start : start + step]


def _event(kind: str, **content: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **content})}\n\n".encode()
