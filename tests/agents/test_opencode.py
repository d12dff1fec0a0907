"""OpenCode's command line, and what its recorded output comes to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentorch.agents import ends, opencode
from agentorch.agents.base import Ending, Endpoint, Exit, Line, Request
from agentorch.agents.opencode import AGENT
from agentorch.errors import Refused
from agentorch.job import Outcome
from agentorch.states import OutcomeClass

CORPORA = Path(__file__).parent / "corpora" / "opencode"
ENDPOINT = Endpoint("openai", "http://127.0.0.1:8080/openai", "step-token")
REQUEST = Request(
    job_id="job-12345678",
    step_id="02_implement",
    attempt=1,
    agent="opencode",
    role="implementer",
    goal="Make it add.",
    prompt="You are careful.\n\nMake add.py add.",
    script="Make add.py add.",
    work=Path("/w"),
    home=Path("/h"),
    artifacts=Path("/a"),
    endpoint=ENDPOINT,
)


def asked(**changes: Any) -> Request:
    return replace(REQUEST, **changes)


def configuration(request: Request) -> dict[str, Any]:
    text = AGENT.command(request).environment["OPENCODE_CONFIG_CONTENT"]
    found: dict[str, Any] = json.loads(text)
    return found


# ---- the command line -------------------------------------------------------------------------


def test_the_command_line_has_neither_prompt_nor_token() -> None:
    command = AGENT.command(REQUEST)
    assert command.argv == (
        *("opencode", "run"),
        *("--format", "json"),
        *("--title", "job-12345678 02_implement"),
        *("--agent", "build"),
    )
    assert command.stdin == REQUEST.prompt.encode()
    assert command.files == {}
    assert "step-token" not in command.environment["OPENCODE_CONFIG_CONTENT"]
    assert command.environment[opencode.KEY_VARIABLE] == "step-token"


def test_options_and_a_session_to_go_on_with() -> None:
    argv = AGENT.command(asked(options={"effort": "high"}, resume="ses_1")).argv
    assert argv[-4:] == ("--variant", "high", "--session", "ses_1")


def test_the_system_prompt_is_a_file_of_instructions() -> None:
    request = asked(system="You are careful.", task="Make add.py add.")
    command = AGENT.command(request)
    assert command.files == {opencode.SYSTEM_FILE: b"You are careful."}
    assert command.stdin == b"Make add.py add."
    assert configuration(request)["instructions"] == [f"/h/{opencode.SYSTEM_FILE}"]


def test_without_an_endpoint_it_is_refused() -> None:
    with pytest.raises(Refused, match="endpoint"):
        AGENT.command(asked(endpoint=None))


@pytest.mark.parametrize(
    ("model", "provider", "spelled", "npm"),
    [
        (None, "openai", "openai/gpt-5.5", "@ai-sdk/openai"),
        ("gpt-5.4-mini", "openai", "openai/gpt-5.4-mini", "@ai-sdk/openai"),
        ("openai/o3", "openai", "openai/o3", "@ai-sdk/openai"),
        ("openai/gpt-oss-120b", "openai", "openai/gpt-oss-120b", "@ai-sdk/openai-compatible"),
        ("openai/org/own", "openai", "openai/org/own", "@ai-sdk/openai-compatible"),
        ("anthropic/claude-x", "anthropic", "anthropic/claude-x", "@ai-sdk/anthropic"),
        ("moonshot/kimi-k2.6", "moonshot", "moonshotai/kimi-k2.6", "@ai-sdk/openai-compatible"),
    ],
)
def test_models(model: str | None, provider: str, spelled: str, npm: str) -> None:
    assert AGENT.provider(model) == provider
    found = configuration(asked(model=model))
    name, _, bare = spelled.partition("/")
    assert (found["model"], found["small_model"]) == (spelled, spelled)
    assert found["enabled_providers"] == [name]
    assert found["provider"][name]["npm"] == npm
    assert list(found["provider"][name]["models"]) == [bare]
    assert found["provider"][name]["options"]["baseURL"] == "http://127.0.0.1:8080/openai/v1"


@pytest.mark.parametrize(
    ("model", "taken"),
    [
        ("gpt-5.5", True),
        ("anthropic/claude-sonnet-5", True),
        ("openai/anything", True),
        # of whom? OpenAI has no such model
        ("claude-sonnet-5", False),
        ("gpt-oss-20b", False),
        ("google/gemini", False),
        ("openai/", False),
    ],
)
def test_models_at_the_door(model: str, taken: bool) -> None:  # noqa: FBT001  (a table's column)
    assert AGENT.capabilities.abilities.takes_model(model) is taken


def test_a_login_has_neither_key_nor_address() -> None:
    endpoint = Endpoint("openai", "http://u", "t", "http://x:t@127.0.0.1:8080", login=True)
    command = AGENT.command(asked(endpoint=endpoint))
    found = configuration(asked(endpoint=endpoint))
    assert found["provider"] == {}
    assert opencode.KEY_VARIABLE not in command.environment
    assert command.environment["HTTPS_PROXY"] == command.environment["https_proxy"]
    assert command.environment["NO_PROXY"] == "127.0.0.1,localhost"


@pytest.mark.parametrize(
    ("tools", "reads_only", "allowed"),
    [
        (None, False, {"read", "grep", "glob", "list", "edit", "bash", "todowrite"}),
        (None, True, {"read", "grep", "glob", "list", "todowrite"}),
        (("Edit", "Bash"), True, {"read", "grep", "glob", "list", "todowrite"}),
        (("Read", "Write"), False, {"read", "edit", "todowrite"}),
        ((), False, {"todowrite"}),
        (("Bash",), False, {"bash", "todowrite"}),
    ],
)
def test_tools_become_permissions(
    tools: tuple[str, ...] | None,
    reads_only: bool,  # noqa: FBT001  (a table's column)
    allowed: set[str],
) -> None:
    found = configuration(asked(tools=tools, reads_only=reads_only))["permission"]
    assert next(iter(found.items())) == ("*", "deny")
    assert {name for name, action in found.items() if action == "allow"} == allowed
    assert found["external_directory"]["*"] == "deny"
    assert "ask" not in json.dumps(found)


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
    return ends.classified(AGENT.outcome(exit_, iter(lines)), AGENT.name, ends.rules())


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
