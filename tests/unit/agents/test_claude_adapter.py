"""Claude Code's command line."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agentorch.agents.base import Command, Endpoint, Request
from agentorch.agents.claude.adapter import (
    AGENT,
    CAPABILITIES,
    claude_argv,
    offered_tools,
    session_id,
)
from agentorch.core.errors import Refused

ENDPOINT = Endpoint("anthropic", "http://127.0.0.1:8080/anthropic", "job-token")
PROXY = "http://job:job-token@127.0.0.1:8080"
REQUEST = Request(
    job_id="0123456789abcdef",
    step_id="02_implement",
    attempt=1,
    agent="claude",
    role="implementer",
    goal="Add a greeting",
    prompt="You are careful.\n\nAdd a greeting.",
    script="Add a greeting.",
    work=Path("/w/work"),
    home=Path("/w/home"),
    artifacts=Path("/a"),
    endpoint=ENDPOINT,
)


# ---- the command line -------------------------------------------------------------------------


def test_an_implementers_command_line() -> None:
    every = "Read,Grep,Glob,Edit,Write,Bash"
    request = replace(
        REQUEST,
        model="claude-sonnet-4-5",
        system="You are careful.",
        body="Add a greeting.",
        options={"effort": "high", "max_turns": 50, "max_cost_usd": 1.5, "resume": True},
    )
    assert claude_argv(request) == (
        *("claude", "-p"),
        *("--output-format", "stream-json"),
        "--verbose",
        *("--model", "claude-sonnet-4-5"),
        *("--session-id", session_id(request)),
        *("--permission-mode", "dontAsk"),
        *("--tools", every),
        *("--allowedTools", every),
        *("--setting-sources", ""),
        *("--settings", "/w/home/.claude/agentorch-settings.json"),
        "--strict-mcp-config",
        "--disable-slash-commands",
        "--no-chrome",
        *("--effort", "high"),
        *("--max-turns", "50"),
        *("--max-budget-usd", "1.5"),
        *("--append-system-prompt-file", "/w/home/.claude/agentorch-system.md"),
    )


def test_without_options_nothing_is_asked_for() -> None:
    argv = claude_argv(REQUEST)
    for flag in ("--model", "--effort", "--max-turns", "--max-budget-usd", "--resume"):
        assert flag not in argv
    assert "--append-system-prompt-file" not in argv


@pytest.mark.parametrize(
    ("tools", "reads_only", "expected"),
    [
        (None, False, ("Read", "Grep", "Glob", "Edit", "Write", "Bash")),
        (None, True, ("Read", "Grep", "Glob")),
        (("Bash", "Read"), False, ("Read", "Bash")),
        (("Bash", "Read", "Write"), True, ("Read",)),
        (("Read", "Task", "WebFetch"), False, ("Read",)),
        ((), False, ()),
    ],
)
def test_a_role_gets_the_tools_that_it_may_use(
    *, tools: tuple[str, ...] | None, reads_only: bool, expected: tuple[str, ...]
) -> None:
    request = replace(REQUEST, tools=tools, reads_only=reads_only)
    assert offered_tools(request) == expected
    argv = claude_argv(request)
    assert argv[argv.index("--tools") + 1] == ",".join(expected)
    assert ("--allowedTools" in argv) == bool(expected)


def test_the_prompt_goes_by_stdin_and_the_system_prompt_by_a_file() -> None:
    command = AGENT.command(replace(REQUEST, system="You are careful.", body="Add it."))
    assert command.stdin == b"Add it."
    assert command.files[".claude/agentorch-system.md"] == b"You are careful."
    alone = AGENT.command(REQUEST)
    assert alone.stdin == REQUEST.prompt.encode()
    assert ".claude/agentorch-system.md" not in alone.files


def test_a_prompt_is_never_a_command_of_the_program() -> None:
    assert AGENT.command(replace(REQUEST, prompt="/clear it")).stdin == b"\n/clear it"


def test_no_prompt_is_in_argv_or_environment() -> None:
    command = AGENT.command(replace(REQUEST, prompt="PROMPT", system="SYSTEM", body="PROMPT"))
    for word in (*command.argv, *command.environment.values()):
        assert "PROMPT" not in word
        assert "SYSTEM" not in word


def test_a_lone_surrogate_in_a_prompt_is_no_traceback() -> None:
    assert AGENT.command(replace(REQUEST, prompt="a\ud800b")).stdin == b"a?b"


def test_an_attempt_has_one_session_of_its_own() -> None:
    first = session_id(REQUEST)
    assert session_id(REQUEST) == first == str(uuid.UUID(first))
    assert session_id(replace(REQUEST, attempt=2)) != first
    assert session_id(replace(REQUEST, step_id="03_review")) != first


def test_a_session_is_gone_on_with() -> None:
    argv = claude_argv(replace(REQUEST, resume="an-id"))
    assert argv[argv.index("--resume") + 1] == "an-id"
    assert "--session-id" not in argv


def variables(endpoint: Endpoint) -> Mapping[str, str]:
    return AGENT.command(replace(REQUEST, endpoint=endpoint)).environment


def test_the_key_is_the_steps_token_and_the_endpoint_the_broker() -> None:
    environment = variables(ENDPOINT)
    assert environment["ANTHROPIC_BASE_URL"] == ENDPOINT.url
    assert environment["ANTHROPIC_API_KEY"] == "job-token"
    assert "HTTPS_PROXY" not in environment


def test_allowed_hosts_are_reached_by_the_proxy_and_the_model_is_not() -> None:
    environment = variables(replace(ENDPOINT, proxy_url=PROXY))
    assert environment["HTTPS_PROXY"] == environment["https_proxy"] == PROXY
    assert environment["NO_PROXY"] == "127.0.0.1,localhost"
    assert environment["ANTHROPIC_BASE_URL"] == ENDPOINT.url


def test_a_login_is_not_outranked() -> None:
    environment = variables(replace(ENDPOINT, proxy_url=PROXY, login=True))
    assert not {"ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"} & set(environment)
    assert environment["HTTPS_PROXY"] == PROXY


def test_without_an_endpoint_there_is_no_command() -> None:
    with pytest.raises(Refused, match="endpoint"):
        AGENT.command(replace(REQUEST, endpoint=None))


def test_no_variable_of_the_servers_is_passed() -> None:
    command: Command = AGENT.command(REQUEST)
    assert command.passes == ()
    assert command.environment["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == "1"


@pytest.mark.parametrize(
    ("model", "taken"),
    [("claude-sonnet-4-5", True), ("opus", True), ("gpt-5", False), ("", False)],
)
def test_the_models_it_takes(*, model: str, taken: bool) -> None:
    assert CAPABILITIES.abilities.takes_model(model) is taken
    assert AGENT.provider(model) == "anthropic"
