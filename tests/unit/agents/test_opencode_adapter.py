"""OpenCode's command line, its configuration, and what it takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentorch.agents.base import Endpoint, Request
from agentorch.agents.opencode import adapter
from agentorch.agents.opencode.adapter import AGENT
from agentorch.core.errors import Refused

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
    assert command.files == adapter.FILES
    assert "step-token" not in command.environment["OPENCODE_CONFIG_CONTENT"]
    assert command.environment[adapter.KEY_VARIABLE] == "step-token"


def test_options_and_a_session_to_go_on_with() -> None:
    argv = AGENT.command(asked(options={"effort": "high"}, resume="ses_1")).argv
    assert argv[-4:] == ("--variant", "high", "--session", "ses_1")


def test_the_system_prompt_is_a_file_of_instructions() -> None:
    request = asked(system="You are careful.", body="Make add.py add.")
    command = AGENT.command(request)
    assert command.files[adapter.SYSTEM_FILE] == b"You are careful."
    assert command.stdin == b"Make add.py add."
    assert configuration(request)["instructions"] == [f"/h/{adapter.SYSTEM_FILE}"]


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
    ("model", "effort", "variants"),
    [
        ("gpt-5.5", None, {}),
        ("gpt-5.5", "high", {"high": {"reasoningEffort": "high"}}),
        ("moonshot/kimi-k2.6", "low", {"low": {"reasoningEffort": "low"}}),
        ("anthropic/claude-sonnet-5", "low", {"low": {"effort": "low"}}),
        ("anthropic/claude-sonnet-5", "max", {}),
    ],
)
def test_efforts(model: str, effort: str | None, variants: dict[str, Any]) -> None:
    options = {} if effort is None else {"effort": effort}
    found = configuration(asked(model=model, options=options))["provider"].popitem()[1]
    assert found["models"].popitem()[1] == {"variants": variants}


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
    assert adapter.KEY_VARIABLE not in command.environment
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
