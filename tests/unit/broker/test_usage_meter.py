"""The meter: what is counted does not depend on how the bytes come."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.broker.json_fields import ANY, Fields
from agentorch.broker.usage_meter import Meter, Usage
from agentorch.broker.wire_formats import Wire

TEXT = 'He said: "usage": {"input_tokens": 9999} \\ \u2028 {[,]} '


def sse(*documents: Any, end: str = "\n") -> bytes:
    parts = [f"event: x{end}data: {json.dumps(one)}{end}{end}" for one in documents]
    return "".join(parts).encode()


MESSAGES = (
    {
        "type": "message_start",
        "message": {
            "model": "claude-x",
            "usage": {
                "input_tokens": 10,
                "cache_read_input_tokens": 5,
                "cache_creation_input_tokens": 3,
                "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2},
                "output_tokens": 1,
            },
        },
    },
    {"type": "content_block_delta", "delta": {"text": TEXT}},
    {"type": "message_delta", "usage": {"output_tokens": 77}},
)
RESPONSES = (
    {"type": "response.created", "response": {"model": "gpt-x", "usage": None}},
    {"type": "response.output_text.delta", "delta": TEXT},
    {
        "type": "response.completed",
        "response": {
            "output": [{"content": [{"text": TEXT * 3000, "deep": [[[[[[[[{"a": 1}]]]]]]]]}]}],
            "model": "gpt-x",
            "usage": {
                "input_tokens": 10,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens": 20,
                "output_tokens_details": {"reasoning_tokens": 7},
            },
        },
    },
)
CHAT = (
    {"model": "kimi-x", "choices": [{"delta": {"content": TEXT}}], "usage": None},
    {"model": "kimi-x", "choices": [{"usage": {"prompt_tokens": 8, "completion_tokens": 2}}]},
    {
        "model": "kimi-x",
        "choices": [],
        "usage": {
            "prompt_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens": 20,
            "completion_tokens_details": {"reasoning_tokens": 7},
        },
    },
)
OPENAI = Usage("gpt-x", 10, cached=4, tokens_out=20, reasoning=7)
STREAMS = [
    (Wire.MESSAGES, MESSAGES, Usage("claude-x", 18, 5, 3, 2, 77)),
    (Wire.RESPONSES, RESPONSES, OPENAI),
    (Wire.CHAT, CHAT, Usage("kimi-x", 10, cached=4, tokens_out=20, reasoning=7)),
]


def metered(wire: Wire, body: bytes, cuts: list[int], *, events: bool) -> Usage | None:
    meter = Meter(wire, events=events)
    places = [0, *sorted(cut for cut in cuts if 0 < cut < len(body)), len(body)]
    for begin, end in pairwise(places):
        meter.feed(body[begin:end])
    meter.close()
    return meter.usage


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("wire", "documents", "usage"), STREAMS)
@given(cuts=st.lists(st.integers(0, 6000), max_size=40))
def test_a_stream_cut_anywhere_says_the_same(
    wire: Wire, documents: tuple[Any, ...], usage: Usage, end: str, cuts: list[int]
) -> None:
    body = sse(*documents, end=end)
    assert metered(wire, body, cuts, events=True) == usage
    assert metered(wire, body, [len(body) - cut for cut in cuts], events=True) == usage


@pytest.mark.parametrize(("wire", "documents", "usage"), STREAMS[:2])
def test_a_stream_byte_by_byte(wire: Wire, documents: tuple[Any, ...], usage: Usage) -> None:
    body = sse(*documents)
    short = body if len(body) < 5000 else body.replace(json.dumps(TEXT * 3000).encode(), b'"x"')
    assert metered(wire, short, list(range(len(short))), events=True) == usage


@given(cuts=st.lists(st.integers(0, 400), max_size=40), indent=st.sampled_from([None, 2]))
def test_a_whole_answer_cut_anywhere_says_the_same(cuts: list[int], indent: int | None) -> None:
    body = json.dumps(RESPONSES[2]["response"], indent=indent).encode()
    ends = [*cuts, *(len(body) - cut for cut in cuts)]
    assert metered(Wire.RESPONSES, body, ends, events=False) == OPENAI


def test_the_usage_of_an_event_counts_when_the_event_is_complete() -> None:
    meter = Meter(Wire.MESSAGES, events=True)
    meter.feed(sse(MESSAGES[0])[:-1])
    assert meter.usage is None
    meter.feed(b"\n")
    assert meter.usage is not None


def test_data_in_several_lines_is_one_document() -> None:
    body = b'data: {"model": "m",\ndata: "usage": {"prompt_tokens": 3}}\n\n'
    assert metered(Wire.CHAT, body, [], events=True) == Usage("m", 3)


@pytest.mark.parametrize("events", [True, False])
@pytest.mark.parametrize("wire", list(Wire))
@given(body=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_anything_is_read(wire: Wire, events: bool, body: bytes, cuts: list[int]) -> None:  # noqa: FBT001
    metered(wire, body, cuts, events=events)
    metered(wire, b'data: {"usage"' + body + b"\n\n", cuts, events=events)


@pytest.mark.parametrize("odd", ["-5", "1e9", "1.5", '"12"x', "null", "true", "9" * 20])
def test_what_is_no_count_is_none(odd: str) -> None:
    body = f'data: {{"usage": {{"prompt_tokens": {odd}}}}}\n\n'.encode()
    assert metered(Wire.CHAT, body, [], events=True) in (None, Usage("", 12))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=2), inner),
    max_leaves=20,
)


def scalars(found: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every scalar of a document with its path; of several with one path the last."""
    if isinstance(found, dict):
        inside = [(value, (*path, name)) for name, value in found.items()]
    elif isinstance(found, list):
        inside = [(value, (*path, ANY)) for value in found]
    else:
        return {path: found}
    return {where: what for value, place in inside for where, what in scalars(value, place).items()}


@given(document=JSON, cuts=st.lists(st.integers(0, 300), max_size=10))
def test_fields_are_those_that_a_parser_finds(document: Any, cuts: list[int]) -> None:
    expected = {path: one for path, one in scalars([document]).items() if len(path) <= 8}
    body = json.dumps([document], ensure_ascii=False).encode()
    fields = Fields(expected)
    places = [0, *sorted(cut for cut in cuts if 0 < cut < len(body)), len(body)]
    for begin, end in pairwise(places):
        fields.feed(body[begin:end])
    for path, one in expected.items():
        if not isinstance(one, str):
            assert fields.found[path] == json.dumps(one)
        elif "\\" not in json.dumps(one, ensure_ascii=False):
            assert fields.found[path] == one
