"""The quick yes says yes to nothing that jsonschema refuses, and to all that is usual."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentorch.contracts.complete import complete
from agentorch.contracts.fast_validate import compile_schema
from agentorch.contracts.validate import SCHEMAS, _validator
from agentorch.core.job import Handoff

ROOT = Path(__file__).parents[3]
JOBS = sorted((ROOT / "examples/jobs").glob("*.json"))
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SURE = compile_schema(json.loads((SCHEMAS / "job.schema.json").read_text("utf-8")))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 20000),
    st.sampled_from([0.0, 1.0, 2.5, 3600.0]),
    st.sampled_from(
        ["", "1.0", "deny", "webhook", "stop", "goto:x", "a" * 200, "01\n", "http://h"]
    ),
    st.text(max_size=8),
    st.lists(st.one_of(st.integers(), st.text(max_size=4)), max_size=3),
    st.dictionaries(st.sampled_from(["type", "role", "content", "x"]), st.text(max_size=3)),
)


def whole(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text("utf-8"))
    return complete(document, "manual", Handoff.MANUAL, NOW)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document, as the keys that lead there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, below in inner:
        found.append((*path, key))
        if isinstance(below, dict | list):
            found += places(below, (*path, key))
    return found


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_an_example_needs_no_second_look(path: Path) -> None:
    assert SURE(whole(path))


@settings(max_examples=600)
@given(st.data())
def test_what_gets_a_yes_is_valid(data: st.DataObject) -> None:
    document = copy.deepcopy(whole(data.draw(st.sampled_from(JOBS))))
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(places(document)))
        there = document
        for key in way:
            there = there[key]
        change = data.draw(st.sampled_from(["put", "take", "add"]))
        if change == "put":
            there[last] = data.draw(VALUES)
        elif change == "take":
            del there[last]
        elif isinstance(there, dict):
            there[data.draw(st.sampled_from(["zz", "type", "memory_max", "tags"]))] = data.draw(
                VALUES
            )
    if SURE(document):
        assert list(_validator("job").iter_errors(document)) == []


def test_a_schema_may_hold_itself() -> None:
    tree = compile_schema({"type": "object", "properties": {"in": {"$ref": "#"}}})
    assert tree({"in": {"in": {}}})
    assert not tree({"in": {"in": 1}})


def test_a_keyword_that_is_unknown_gets_no_yes() -> None:
    assert not compile_schema({"type": "string", "frobnicate": 1})("x")
    assert compile_schema({"type": "string", "description": "x"})("x")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, True),
        ({"type": ["integer", "null"]}, False),
        ({"enum": ["a", 1]}, True),
        ({"const": 1}, 1.0),
        ({"pattern": "^a$"}, "a\n"),
        ({"required": ["a"]}, {}),
        ({"properties": {"a": {}}, "additionalProperties": False}, {"b": 1}),
        ({"items": {"minimum": 1}}, [1, 0]),
        ({"format": "date-time"}, "2026-02-30T00:00:00Z"),
    ],
)
def test_no_yes(schema: dict[str, Any], value: Any) -> None:
    assert not compile_schema(schema)(value)
