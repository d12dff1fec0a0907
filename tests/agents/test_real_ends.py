"""The real CLIs, each through a whole job: what happens to them, and what is made of it.

Starts of them cost seconds, of OpenCode twenty. So each end is tried either as root or as an
ordinary user, each role that only reads likewise, and of OpenCode's ends some; TEST_ALL=1 tries
all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from agentorch.scripted_model import Answer, Fault, Hang, ModelDouble, Turn, Usage
from tests.agents.real_site import Site
from tests.support.selection import one_for, selected

CLIS = ("claude", "codex", "opencode")
USERS = ("root", "ordinary")
ROLES = ("planner", "reviewer")
MARK = "31536001"  # seconds that nobody else sleeps
EDIT = Turn(command="echo twice >> README")
DONE = Turn("I did what was asked.")
# What each provider says where a conversation has become too long.
TOO_LONG = {
    "claude": Fault(400, "invalid_request_error", "prompt is too long: 208310 tokens > 200000"),
    "codex": Fault(
        200, "context_length_exceeded", "Your input exceeds the context window of this model."
    ),
    "opencode": Fault(
        400, "context_length_exceeded", "This model's maximum context length is 128000 tokens."
    ),
}


@dataclass(frozen=True)
class Case:
    """What the model does, what the step asks, and what must come out."""

    answers: tuple[Answer, ...]
    outcome: str
    error: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


# A model of each whose price is known.
PRICED = {"claude": "claude-opus-5-5", "codex": "gpt-5.5", "opencode": "openai/gpt-5.5"}

CASES = {
    "key refused": Case((Fault(401, message="invalid api key"),), "auth", "auth_failed"),
    "quota": Case((Fault(429, message="limit", retry_after="3600"),), "quota", "rate_limited"),
    "too many requests": Case(
        (Fault(429, message="slow down", retry_after="1"),), "quota", "rate_limited"
    ),
    "overloaded": Case((Fault(529, "overloaded_error", "Overloaded"),), "infra", "overloaded"),
    "hang": Case((Hang(),), "timeout", "timeout", {"timeout_sec": 6}),
    "huge": Case((Turn("many words " * 250_000, pieces=400),), "success"),
    "daemon": Case(
        (Turn(command=f"setsid sleep {MARK} >/dev/null 2>&1 & echo started"), DONE), "success"
    ),
    "money": Case(
        (Turn(command="true", usage=Usage(input=900_000, output=90_000, cached=0)), DONE),
        "budget",
        "max_cost",
        {"options": {"max_cost_usd": 0.01}, "model": "PRICED"},
    ),
}


def sleeping() -> list[str]:
    """Processes that the daemon case left."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if MARK.encode() in words.split(b"\0"):
            found.append(path.parent.name)
    return found


def each_with(last: Sequence[str], others: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """All others, each with one of the last, today's."""
    return [(*chosen, one) for chosen in others for one in one_for(last, " ".join(chosen))]


def ends() -> Iterator[tuple[str, str]]:
    """Of which CLI which end is tried today."""
    for cli in CLIS:
        for name in selected(list(CASES), 4) if cli == "opencode" else CASES:
            yield cli, name


@pytest.mark.parametrize(("cli", "name", "each"), each_with(USERS, ends()), indirect=["each"])
def test_each_end_has_its_class(each: Site, double: ModelDouble, cli: str, name: str) -> None:
    case = CASES[name]
    double.play(case.answers)
    fields = dict(case.fields)
    if "model" in fields:
        fields["model"] = PRICED[cli]
    result = each.step(cli, **fields)
    error = result["error"] and result["error"]["code"]
    assert (result["outcome"], error) == (case.outcome, case.error), result
    assert sleeping() == []


@pytest.mark.parametrize(("cli", "each"), each_with(USERS, product(CLIS)), indirect=["each"])
def test_an_edit_is_in_the_result(each: Site, double: ModelDouble, cli: str) -> None:
    double.play([EDIT, DONE])
    result = each.step(cli)
    assert result["outcome"] == "success"
    metrics = result["metrics"]
    assert result["change_status"] == "changed"
    assert "I did what was asked." in result["summary"]
    assert (metrics["tokens_in"], metrics["tokens_out"], metrics["tokens_cached"]) == (200, 40, 80)
    assert metrics["model_calls"] == 2
    assert metrics["tool_calls"] == 1
    assert result["session_id"]
    assert result["model"]
    patch = (each.artifacts(result["job_id"]) / "patch.diff").read_text()
    assert "+twice" in patch


@pytest.mark.parametrize("cli", CLIS)
def test_too_long_a_context(site: Site, double: ModelDouble, cli: str) -> None:
    double.play([TOO_LONG[cli]])
    result = site.step(cli)
    assert result["error"]["code"] == "context_too_long", result


def test_too_many_turns(site: Site, double: ModelDouble) -> None:
    double.play([Turn(command="true")])
    result = site.step("claude", options={"max_turns": 2})
    assert (result["outcome"], result["error"]["code"]) == ("budget", "max_turns"), result


@pytest.mark.parametrize(("cli", "role"), each_with(ROLES, product(CLIS)))
def test_who_only_reads_can_not_write(site: Site, double: ModelDouble, cli: str, role: str) -> None:
    double.play([EDIT, Turn("I could not.\n\nVERDICT: approve\nREASONS:\n- it reads well\n")])
    result = site.step(cli, role)
    assert result["change_status"] == "no_changes", result


@pytest.mark.parametrize("cli", CLIS)
def test_a_session_goes_on(site: Site, double: ModelDouble, cli: str) -> None:
    # the end of everything in the step's process namespace
    double.play([EDIT, Turn(command="kill -9 -1"), DONE])
    again: dict[str, Any] = {"max_retries": 1, "retry_backoff_sec": 0, "options": {"resume": True}}
    result = site.step(cli, **again)
    assert result["outcome"] == "success", result
    assert result["attempts"] == 2
    last = double.asked[-1].body.decode()
    assert "twice" in last, "the first attempt's tool call is not in the conversation"
    assert "earlier session" in last
