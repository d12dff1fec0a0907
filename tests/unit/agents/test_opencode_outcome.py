"""What OpenCode's recorded output comes to, and single lines of it, whole or damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentorch.agents import failure_rules
from agentorch.agents.opencode.adapter import AGENT
from agentorch.core.job import Outcome
from agentorch.core.process_end import Ending, Exit, Line
from agentorch.core.states import OutcomeClass

CORPORA = Path(__file__).parents[2] / "agents/corpora" / "opencode"

# ---- what the recorded runs come to -----------------------------------------------------------


def lines_of(document: dict[str, Any]) -> list[Line]:
    return [Line(stream, text) for stream in ("stdout", "stderr") for text in document[stream]]


def exit_of(document: dict[str, Any]) -> Exit:
    ended = document["exit"]
    if ended["slow"]:
        return Exit(Ending.TIMEOUT, None, 9, 15)
    signalled = Ending.SIGNALLED if ended["signal"] is not None else Ending.EXITED
    return Exit(signalled, ended["code"], ended["signal"], 3)


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CORPORA / f"{name}.json").read_text())
    return found


def judged(exit_: Exit, lines: list[Line]) -> Outcome:
    return failure_rules.classify(
        AGENT.outcome(exit_, iter(lines)), AGENT.name, failure_rules.rules()
    )


def came_to(name: str) -> Outcome:
    document = recorded(name)
    return judged(exit_of(document), lines_of(document))


ENDS = {
    "answered": ("success", None),
    "auth-anthropic": ("auth", "auth_failed"),
    "auth-moonshot": ("auth", "auth_failed"),
    "auth-openai": ("auth", "auth_failed"),
    "bad-flag": ("agent_error", "agent_exit_nonzero"),
    "bad-request": ("agent_error", "unclassified"),
    "broker-auth": ("auth", "auth_failed"),
    "broker-budget": ("budget", "max_cost"),
    "broker-policy": ("policy", "permission_denied"),
    "broker-quota": ("quota", "rate_limited"),
    "command-fails": ("success", None),
    "context-anthropic": ("agent_error", "context_too_long"),
    "context-chat": ("agent_error", "context_too_long"),
    "context-openai": ("agent_error", "context_too_long"),
    "credit-anthropic": ("auth", "credit_empty"),
    "credit-moonshot": ("auth", "credit_empty"),
    "credit-openai": ("auth", "credit_empty"),
    "denied-edit": ("success", None),
    "denied-file": ("success", None),
    "dropped-once": ("success", None),
    "dropped": ("infra", "network_unreachable"),
    "edited-anthropic": ("success", None),
    "edited": ("success", None),
    "empty-prompt": ("agent_error", "agent_exit_nonzero"),
    "error-500": ("infra", "provider_error"),
    "error-503": ("infra", "overloaded"),
    "forbidden": ("auth", "auth_failed"),
    "garbage": ("parse_error", "malformed_output"),
    "hang-timed": ("infra", "network_unreachable"),
    "hang": ("timeout", "timeout"),
    "huge": ("success", None),
    "interrupted": ("agent_error", "agent_exit_nonzero"),
    "killed": ("agent_error", "agent_exit_nonzero"),
    "limit-after": ("quota", "rate_limited"),
    "limit-chat": ("quota", "rate_limited"),
    "limit-then-answer": ("success", None),
    "limit": ("quota", "rate_limited"),
    "model-anthropic": ("policy", "model_unknown"),
    "model-openai": ("policy", "model_unknown"),
    "overloaded": ("infra", "overloaded"),
    "refused-connection": ("infra", "network_unreachable"),
    "refused-question": ("policy", "permission_denied"),
    "resume-unknown": ("agent_error", "agent_exit_nonzero"),
    "same-again": ("success", None),
    "stalled": ("infra", "network_unreachable"),
    "terminated": ("agent_error", "agent_exit_nonzero"),
    "written-chat": ("success", None),
}


def test_every_recording_has_its_line_in_the_table() -> None:
    assert sorted(path.stem for path in CORPORA.glob("*.json")) == sorted(ENDS)


@pytest.mark.parametrize("name", ENDS)
def test_ends(name: str) -> None:
    outcome = came_to(name)
    assert (outcome.kind.value, outcome.error) == ENDS[name], outcome
    assert outcome.summary


# ---- single lines -----------------------------------------------------------------------------

WELL = Exit(Ending.EXITED, 0, None, 1)


def event(kind: str, **part: Any) -> Line:
    text = json.dumps({"type": kind, "sessionID": "ses_1", "part": part}, separators=(",", ":"))
    return Line("stdout", text)


def finish(reason: str = "stop", **part: Any) -> Line:
    return event("step_finish", reason=reason, **part)


def test_figures_are_summed_and_counted_as_ours() -> None:
    counts = {"input": 60, "output": 15, "reasoning": 5, "cache": {"read": 30, "write": 10}}
    lines = [
        *(event("step_start"), finish("tool-calls", tokens=counts, cost=0.5)),
        *(event("step_start"), event("text", text="ok"), finish(tokens=counts, cost=0.25)),
    ]
    assert judged(WELL, lines).metrics == {
        "turns": 2,
        "tool_calls": 0,
        "tokens_in": 200,
        "tokens_out": 40,
        "tokens_cached": 60,
        "tokens_reasoning": 10,
        "cost_usd": 0.75,
    }


def test_the_report_is_the_last_steps_text() -> None:
    lines = [
        *(event("step_start"), event("text", text="I look."), finish("tool-calls")),
        *(event("step_start"), event("text", text="\n# One\x1b[31m"), event("text", text="two")),
        finish(),
    ]
    outcome = judged(WELL, lines)
    assert (outcome.summary, outcome.report) == ("# One", "# One\n\ntwo")
    assert outcome.session_id == "ses_1"


def test_a_text_too_long_for_a_line_gives_its_beginning() -> None:
    line = event("text", type="text", text='He said "no\n".' * 100).text[:200]
    outcome = judged(WELL, [event("step_start"), Line("stdout", line, cut=True), finish()])
    assert outcome.kind is OutcomeClass.SUCCESS
    assert outcome.report.startswith('He said "no\n".He said')


@pytest.mark.parametrize("damage", ["\x00", "\\q", "\\u12", "\\"])
def test_damage_ends_a_text_that_was_cut(damage: str) -> None:
    line = event("text", type="text", text="He said").text.partition("He said")[0]
    cut = Line("stdout", f"{line}He said{damage}", cut=True)
    outcome = judged(WELL, [event("step_start"), cut, finish()])
    assert (outcome.kind, outcome.report) == (OutcomeClass.SUCCESS, "He said")


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([], "no_result"),
        ([event("step_start")], "no_result"),
        ([event("step_start"), finish("tool-calls")], "no_result"),
        ([event("step_start"), finish()], "no_result"),
        ([event("step_start"), finish("length")], "truncated_output"),
        ([event("step_start"), Line("stdout", '{"type":"te')], "truncated_output"),
        ([Line("stdout", "noise"), event("step_start")], "malformed_output"),
        ([event("step_start"), Line("stdout", '{"type":"te"x'), finish()], "malformed_output"),
        ([event("text", text="x"), finish(), event("step_start")], "no_result"),
    ],
)
def test_exit_0_without_an_answer(lines: list[Line], error: str) -> None:
    outcome = judged(WELL, lines)
    assert (outcome.kind, outcome.error) == (OutcomeClass.PARSE_ERROR, error)


def test_an_end_that_is_not_known_keeps_what_was_said() -> None:
    lines = [
        event("step_start"),
        finish("content-filter"),
        *(Line("stderr", f"line {number}") for number in range(100)),
    ]
    outcome = judged(WELL, lines)
    assert outcome.error == "unclassified"
    evidence = outcome.details["evidence"]
    assert evidence[:3] == ["finish content-filter", "line 0", "line 1"]
    assert len(evidence) == 20


def test_a_good_answer_and_a_bad_exit_code() -> None:
    lines = [event("step_start"), event("text", text="Done."), finish()]
    failed = judged(Exit(Ending.EXITED, 1, None, 1), lines)
    assert (failed.kind, failed.error) == (OutcomeClass.AGENT_ERROR, "agent_exit_nonzero")
    assert failed.report == "Done."
    lingered = judged(Exit(Ending.LINGERED, None, 9, 1), lines)
    assert lingered.kind is OutcomeClass.SUCCESS


def test_when_a_limit_is_there_again() -> None:
    headers = {"retry-after": "3600"}
    data = {"message": "Slow down", "statusCode": 429, "responseHeaders": headers}
    error = json.dumps({"type": "error", "error": {"name": "APIError", "data": data}})
    outcome = judged(Exit(Ending.EXITED, 1, None, 1), [Line("stdout", error)])
    assert (outcome.kind, outcome.details["retry_after_s"]) == (OutcomeClass.QUOTA, 3600)


def test_only_a_last_step_is_the_end() -> None:
    assert AGENT.is_end(finish())
    assert not AGENT.is_end(finish("tool-calls"))
    assert not AGENT.is_end(Line("stderr", finish().text))
    assert not AGENT.is_end(event("text", text='"type":"step_finish" "reason":"stop"'))
    assert not AGENT.is_end(Line("stdout", finish().text[:-2]))


def test_files_are_those_of_finished_calls() -> None:
    def call(tool: str, **state: Any) -> Line:
        return event("tool_use", tool=tool, state={"status": "completed", **state})

    lines = [
        event("step_start"),
        call("edit", input={"filePath": "/w/a.py"}, title="a.py"),
        call("edit", status="error", input={"filePath": "/w/b.py"}, title="b.py", error="no"),
        call("read", input={"filePath": "/w/c.py"}, title="c.py"),
        call("write", input={"filePath": "/w/d e/f"}, title="d e/f"),
        call("edit", input={"filePath": "/w/a.py"}, title="a.py"),
        call("apply_patch", metadata={"files": [{"relativePath": "g"}, {"relativePath": 1}, 2]}),
        call("write", input={"filePath": "/w/x"}, title="another title"),
        finish(),
    ]
    outcome = judged(WELL, lines)
    assert outcome.files == ("a.py", "d e/f", "g")
    assert outcome.metrics["tool_errors"] == 1


# ---- damage -----------------------------------------------------------------------------------

CUT = [Exit(Ending.EXITED, code, None, 1) for code in (0, 1)]
NAMES = sorted(path.stem for path in CORPORA.glob("*.json"))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A recorded stream that was cut, or in which some bytes are others."""
    content = bytearray("\n".join(recorded(draw(st.sampled_from(NAMES)))["stdout"]).encode())
    if content:
        for place, byte in draw(
            st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=8)
        ):
            content[place] = byte
    return bytes(content[: draw(st.integers(0, len(content)))])


def last_reason(texts: list[str]) -> Iterator[str]:
    """The reasons of finished steps, read in another way than the adapter does."""
    for text in texts:
        try:
            event = json.loads(text)
        except ValueError:
            continue
        match event:
            case {"type": "step_start" | "step_finish", "part": {"reason": reason}}:
                yield str(reason)
            case {"type": "step_start"}:
                yield "started"


@settings(max_examples=300, deadline=None)
@given(damaged(), st.sampled_from(CUT), st.booleans())
def test_damage_never_looks_like_success(content: bytes, exit_: Exit, cut: bool) -> None:  # noqa: FBT001
    texts = content.decode(errors="replace").split("\n")
    lines = [Line("stdout", text, cut=cut) for text in texts]
    outcome = judged(exit_, lines)
    if outcome.kind is OutcomeClass.SUCCESS:
        assert exit_.code == 0
        assert list(last_reason(texts))[-1] == "stop"
    for line in lines:
        AGENT.is_end(line)
