"""What the doors accept and refuse: every example, and every bad document with its place."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.contracts import complete, parse, to_job
from agentorch.contracts.accept import ServerRules, accept
from agentorch.contracts.semantics import semantic_problems
from agentorch.core.abilities import ANYTHING
from agentorch.core.errors import Invalid
from agentorch.core.job import Handoff, Key

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 3, 4, 5, 6, 7, 8, tzinfo=UTC)
DOOR = ServerRules(
    dict.fromkeys(("opencode", "codex", "claude", "kimi", "exec"), ANYTHING), ("shop", "blog")
)


def full() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "examples/jobs/pipeline.json").read_text("utf-8"))
    return document


def problems(document: Any) -> list[str]:
    with pytest.raises(Invalid) as caught:
        accept(document, DOOR, NOW)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples/jobs").glob("*.json")), ids=lambda p: p.name
)
def test_every_example_is_accepted(path: Path) -> None:
    job, document = accept(parse.parse(path.read_bytes()), DOOR, NOW)
    assert to_job.job_of(document) == job
    again, _ = accept(document, DOOR, NOW)
    assert again == job


def test_the_minimal_form_gets_the_default_pipeline() -> None:
    job, document = accept({"goal": "mend it"}, DOOR, NOW)
    assert [(s.step_id, s.agent, s.role, s.timeout_s) for s in job.steps] == [
        ("01_plan", "opencode", "planner", 120),
        ("02_implement", "codex", "implementer", 300),
        ("03_review", "claude", "reviewer", 180),
    ]
    assert all(step.max_retries == 1 for step in job.steps)
    assert job.steps[1].input_artifacts == ("steps/01_plan/report.md",)
    assert len(job.job_id) == 32
    assert document["policy"]["sandbox"] is True
    assert document["policy"]["network"] == "deny"


def test_empty_steps_are_the_default_pipeline_too() -> None:
    job, _ = accept({"goal": "x", "steps": []}, DOOR, NOW)
    assert len(job.steps) == 3


def test_a_doors_handoff_holds_where_the_document_has_none() -> None:
    door = ServerRules(DOOR.agents, (), (), "webhook", Handoff.PATCH_FIRST)
    assert accept({"goal": "x"}, door, NOW)[0].artifact_handoff is Handoff.PATCH_FIRST


BAD: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("goal",), "", ".goal: is empty"),
    (("goal",), "x" * 5001, ".goal: has 5001 characters, 5000 are allowed"),
    (("goal",), 5, ".goal: expected string, found a number"),
    (("colour",), "red", ".: 'colour' is unknown"),
    (("gaol",), "x", ".: 'gaol' is unknown (did you mean 'goal'?)"),
    (("schema_version",), "2.0", ".schema_version: expected '1.0', found '2.0'"),
    (("job_id",), "short", ".job_id: 'short' does not match"),
    (("job_id",), "..abcdefgh", ".job_id: '..abcdefgh' does not match"),
    (("job_id",), "-abcdefgh", ".job_id: '-abcdefgh' does not match"),
    (("job_id",), "abcdefgh\n", ".job_id: 'abcdefgh\\n' does not match"),
    (("job_id",), "abc/defgh", ".job_id: 'abc/defgh' does not match"),
    (("job_id",), "abcdefgh\N{CYRILLIC SMALL LETTER A}", ".job_id:"),
    (("job_id",), "x" * 65, ".job_id:"),
    (("created_at",), "yesterday", ".created_at: 'yesterday' is not a date-time"),
    (("created_at",), "2026-02-30T00:00:00Z", ".created_at:"),
    (("created_at",), "2026-02-20", ".created_at:"),
    (("priority",), 10, ".priority: 10 is above 9"),
    (("priority",), True, ".priority:"),
    (("source",), {"type": "mail"}, ".source.type: 'mail' is not one of"),
    (
        ("project_id",),
        "shpo",
        ".project_id: 'shpo' is not in PROJECT_ALIASES (did you mean 'shop'?)",
    ),
    (("project_id",), "../x", ".project_id:"),
    (("workdir",), "", ".workdir: is empty"),
    (("workdir",), "a\0b", ".workdir: holds a NUL character"),
    (("callback_url",), "ftp://host/x", ".callback_url:"),
    (("callback_url",), "http://user@host/", ".callback_url:"),
    (("callback_url",), "http://[::1", ".callback_url:"),
    (("callback_url",), "http://host:99999/", ".callback_url:"),
    (("callback_url",), "http://host/\nx", ".callback_url:"),
    (("tags",), ["a", 1], ".tags[1]: expected string, found a number"),
    (("context_window",), [{"role": 1}], ".context_window[0].role:"),
    (("context_strategy",), "none", ".context_strategy: 'none' is not one of"),
    (("artifact_handoff",), "mail", ".artifact_handoff:"),
    (("steps",), "none", ".steps: expected array, found a string"),
    (("policy",), {"network": "open"}, ".policy.network: 'open' is not one of deny, allow"),
    (("policy",), {"sandbox": "no"}, ".policy.sandbox: expected boolean, found a string"),
    (("policy",), [], ".policy: expected object, found an array"),
    (
        ("steps", 0, "agent"),
        "cluade",
        ".steps[0].agent: 'cluade' is unknown (did you mean 'claude'?",
    ),
    (
        ("steps", 1, "step_id"),
        "01_plan",
        ".steps[1].step_id: '01_plan' is the id of an earlier step",
    ),
    (("steps", 1, "step_id"), "../x", ".steps[1].step_id:"),
    (("steps", 0, "role"), "", ".steps[0].role: is empty"),
    (("steps", 0, "prompt"), "x" * 20001, ".steps[0].prompt:"),
    (("steps", 0, "prompt"), "a\0b", ".steps[0].prompt: holds a NUL character"),
    (("steps", 1, "timeout_sec"), 0, ".steps[1].timeout_sec: 0 is below 1"),
    (("steps", 1, "timeout_sec"), 3601, ".steps[1].timeout_sec: 3601 is above 3600"),
    (("steps", 1, "max_retries"), 11, ".steps[1].max_retries:"),
    (("steps", 1, "retry_backoff_sec"), 61, ".steps[1].retry_backoff_sec:"),
    (("steps", 2, "on_failure"), "give_up", ".steps[2].on_failure:"),
    (
        ("steps", 2, "on_failure"),
        "goto:nowhere",
        ".steps[2].on_failure: there is no step 'nowhere'",
    ),
    (("steps", 1, "input_artifacts"), ["../../etc/passwd"], ".steps[1].input_artifacts[0]:"),
    (("steps", 1, "input_artifacts"), ["/etc/passwd"], ".steps[1].input_artifacts[0]:"),
    (("steps", 1, "input_artifacts"), ["a//b"], ".steps[1].input_artifacts[0]:"),
    (("steps", 1, "input_artifacts"), ["a\nb"], ".steps[1].input_artifacts[0]:"),
    (
        ("steps", 1, "apply_patches_from"),
        ["03"],
        ".steps[1].apply_patches_from[0]: there is no step",
    ),
    (("steps", 1, "apply_patches_from"), ["../x"], ".steps[1].apply_patches_from[0]:"),
    (("steps", 1, "allowed_tools"), "Bash", ".steps[1].allowed_tools:"),
]


@pytest.mark.parametrize(
    ("path", "value", "said"), BAD, ids=[f"{b[0]}-{n}" for n, b in enumerate(BAD)]
)
def test_every_bad_document_is_refused_with_its_place(
    path: tuple[str | int, ...], value: Any, said: str
) -> None:
    document: Any = full()
    inner = document
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    found = problems(document)
    assert any(problem.startswith(said) for problem in found), found


def test_all_problems_are_told_at_once() -> None:
    document = full()
    del document["steps"][0]["agent"]
    document["steps"][1]["timeout_sec"] = "soon"
    document["goal"] = ""
    document["steps"][2]["agent"] = "nobody"
    document["steps"][3]["on_failure"] = "goto:nowhere"
    assert len(problems(document)) == 5


@pytest.mark.parametrize("document", [None, [], "goal", 1, True])
def test_what_is_no_object_is_refused(document: Any) -> None:
    assert problems(document)[0].startswith(".: expected an object")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"goal": "a", "goal": "b"}',
        '{"goal": NaN}',
        '{"goal": 1e999}',
        '{"goal": "\\ud800"}',
        "[" * 100_000,
        '{"a":' * 65 + "1" + "}" * 65,
        "9" * 5000,
        " " * (parse.MAX_DOCUMENT_BYTES + 1),
    ],
)
def test_what_is_no_json_of_ours_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse.parse(text.encode())


def test_invalid_utf8_is_refused() -> None:
    with pytest.raises(Invalid, match="not UTF-8: byte 2"):
        parse.parse(b'{"\xff": 1}')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.sampled_from(sorted(full())), JSON)
def test_no_value_of_any_field_gets_anything_but_a_job_or_problems(field: str, value: Any) -> None:
    document = deepcopy(full())
    document[field] = value
    said: tuple[str, ...] = ()
    try:
        job, _ = accept(document, DOOR, NOW)
        assert Key.parse(str(job.key)) == job.key
    except Invalid as invalid:
        said = invalid.problems
    assert all(": " in problem for problem in said)


def test_ids_are_uuid_version_7_and_sort_by_time() -> None:
    ids = [
        complete.new_id(datetime(2026, 1, 1, 0, 0, 0, microsecond, tzinfo=UTC))
        for microsecond in range(0, 900_000, 1000)
    ]
    assert ids == sorted(ids)
    assert all(i[12] == "7" and i[16] in "89ab" for i in ids)


@pytest.mark.parametrize(
    "name",
    ["x", "5-20260101T000000.000000Z-.json", "5-20261301T000000.000000Z-abcdefgh.json", ".lock"],
)
def test_what_is_no_key_is_none(name: str) -> None:
    assert Key.parse(name) is None


def test_a_large_bad_document_costs_no_more_than_a_large_good_one() -> None:
    keys = ",".join(f'"k{number}": 0' for number in range(100_000))
    with pytest.raises(Invalid, match="'k0' stands there twice"):
        parse.parse(f'{{{keys}, "k0": 0}}')
    steps = [
        {"step_id": f"s{number}", "agent": "claude", "role": "r", "prompt": "p"}
        for number in range(20_000)
    ]
    assert not semantic_problems({"steps": steps}, {"claude": ANYTHING}, [])
