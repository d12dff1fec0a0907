"""The OpenAI Responses protocol of the model double, as far as Codex and an API client read it.

A tool that the request describes as `custom` is called with its text, `Call.arguments["input"]`;
any other with JSON. A Fault with the status 200 is an error in the middle of a stream, as the real
service tells of what it finds out late (a context that is too long, a used-up quota).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agentorch.scripted_model.script import Call, Fault, Turn, Usage

RESPONSE_ID = "resp_double"
_numbers = itertools.count(1)


def events(turn: Turn, request: dict[str, Any]) -> Iterator[bytes]:
    """Yield an answer: its text as one message, then the calls, then the usage."""
    yield event("response.created", {"response": _response(request, "in_progress")})
    items = [*([] if not turn.text else [_message(turn.text)])]
    items += [_call_item(call, request) for call in turn.calls]
    for index, item in enumerate(items):
        yield event(
            "response.output_item.added", {"output_index": index, "item": _empty_item(item)}
        )
        if item["type"] == "message":
            yield from _deltas(item["id"], index, pieces(turn.text, turn.pieces))
        yield event("response.output_item.done", {"output_index": index, "item": item})
    done = {**_response(request, "completed"), "output": items, "usage": usage_document(turn.usage)}
    yield event("response.completed", {"response": done})


def beginning(text: str, request: dict[str, Any]) -> Iterator[bytes]:
    """Everything up to the text's first part."""
    item = _message(text)
    yield event("response.created", {"response": _response(request, "in_progress")})
    yield event("response.output_item.added", {"output_index": 0, "item": _empty_item(item)})
    yield from _deltas(item["id"], 0, [text])


def fault(fault: Fault) -> bytes:
    """Return the body of an error; with the status 200 a stream that tells of it."""
    error = {"message": fault.message, "type": fault.kind, "code": fault.kind, "param": None}
    if fault.status != 200:
        return json.dumps({"error": {**error, **fault.fields}}).encode()
    response = {**_response({}, "failed"), "error": {**error, **fault.fields}}
    return event("response.created", {"response": _response({}, "in_progress")}) + event(
        "response.failed", {"response": response}
    )


def event(kind: str, content: Mapping[str, Any]) -> bytes:
    """Return a server-sent event."""
    document = json.dumps({"type": kind, **content})
    return f"event: {kind}\ndata: {document}\n\n".encode()


def pieces(text: str, count: int) -> list[str]:
    """`text` in at most so many parts."""
    size = max(1, -(-len(text) // max(1, count)))
    return [text[start : start + size] for start in range(0, len(text), size)]


def usage_document(usage: Usage) -> dict[str, Any]:
    """Return the tokens, in the protocol's words."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def _response(request: Mapping[str, Any], status: str) -> dict[str, Any]:
    return {
        "id": RESPONSE_ID,
        "object": "response",
        "created_at": 0,
        "status": status,
        "model": request.get("model"),
        "output": [],
    }


def _deltas(item_id: str, index: int, parts: Iterable[str]) -> Iterator[bytes]:
    place = {"item_id": item_id, "output_index": index, "content_index": 0}
    for part in parts:
        yield event("response.output_text.delta", {**place, "delta": part})


def _message(text: str) -> dict[str, Any]:
    return {
        "id": f"msg_{next(_numbers)}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }


def _call_item(call: Call, request: Mapping[str, Any]) -> dict[str, Any]:
    number = next(_numbers)
    common = {"status": "completed", "call_id": f"call_{number}", "name": call.tool}
    if call.tool in custom([request.get("tools"), request.get("input")]):
        text = call.arguments["input"]
        return {"id": f"ctc_{number}", "type": "custom_tool_call", **common, "input": text}
    arguments = json.dumps(call.arguments)
    return {"id": f"fc_{number}", "type": "function_call", **common, "arguments": arguments}


def custom(described: object) -> set[str]:
    """Return the names of the tools that take text.

    Some models are told of theirs in the input, and in namespaces.
    """
    match described:
        case list():
            return {name for one in described for name in custom(one)}
        case {"type": "custom", "name": str(name)}:
            return {name}
        case {"tools": list(tools)}:
            return custom(tools)
    return set()


def _empty_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item before it has any content."""
    begun = {**item, "status": "in_progress"}
    return {**begun, "content": []} if item["type"] == "message" else begun
