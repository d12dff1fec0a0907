"""Claude Code: its command line, and what it can do.

It runs with `-p`, the prompt on stdin, events on stdout; never asks; and reads nothing of the
operator's configuration or the repository's: no settings (a repository's could run hooks and send
the key elsewhere), MCP servers, plugins, commands. CLAUDE.md belongs to the settings and is not
read either. What a role must not do is no tool of it at all: `--tools` is what the model is
offered, `--allowedTools` what it may use without being asked, and both are the same list.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agentorch.agents.base import Capabilities, Command, Endpoint, Request, Simulation
from agentorch.agents.claude import events, outcome
from agentorch.agents.simulated import simulate
from agentorch.core.abilities import CAP_AND_RESUME, READING, TOOLS, Abilities, Choice, Number
from agentorch.core.errors import Refused
from agentorch.core.job import Outcome
from agentorch.core.process_end import Exit, Line

NAME = "claude"
# The contract's words are also the program's own.
SYSTEM_PATH = ".claude/agentorch-system.md"
SETTINGS_PATH = ".claude/agentorch-settings.json"
# Nobody reads the messages of commits that an agent makes: only the tree counts.
SETTINGS = {"attribution": {"commit": "", "pr": ""}}
# A session's id is known before it begins, and is the same for the same attempt.
SESSIONS = uuid.UUID("6f1c6f5e-52c1-5b39-9a0e-3d4d5f0a6b57")

ENVIRONMENT = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_UPDATES": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    # A command moved to the background keeps `-p` from leaving after its result.
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    # Else `@/path` in a prompt reads that file, whatever the tools are.
    "CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1",
    "CLAUDE_CODE_MAX_RETRIES": "2",
    "API_TIMEOUT_MS": "600000",
}

CAPABILITIES = Capabilities(
    binary=NAME,
    version_argv=(NAME, "--version"),
    install="npm install -g @anthropic-ai/claude-code (node 22), or the vendor's installer",
    # 2.1.197, which npm picks for an old node, lets a repository's git configuration run programs
    minimum="2.1.330",
    provider="anthropic",
    login_hosts=("api.anthropic.com", "platform.claude.com"),
    login_files=(".claude/.credentials.json", ".claude.json"),
    login_argv=(NAME, "auth", "login"),
    first_output_s=60,
    abilities=Abilities(
        tools=TOOLS,
        models=("claude-*", "opus", "sonnet", "haiku", "fable"),
        options={
            "effort": Choice(("low", "medium", "high", "xhigh", "max")),
            "max_turns": Number(1, 1000),
            **CAP_AND_RESUME,
        },
    ),
)


@dataclass(frozen=True)
class ClaudeAgent:
    """The vendor's native program, `claude`."""

    name: str = NAME
    capabilities: Capabilities = field(default=CAPABILITIES)

    def command(self, request: Request) -> Command:
        if request.endpoint is None:
            raise Refused("claude: no endpoint to find its model at")
        return Command(
            argv=claude_argv(request),
            stdin=prompt(request).encode("utf-8", "replace"),
            environment=claude_environment(request, request.endpoint),
            files=files(request),
        )

    def provider(self, model: str | None) -> str | None:
        return CAPABILITIES.provider

    def is_end(self, line: Line) -> bool:
        return events.is_end(line)

    def outcome(self, exit_: Exit, lines: Iterable[Line]) -> Outcome:
        return outcome.outcome(NAME, exit_, lines)

    def simulate(self, request: Request) -> Simulation:
        return simulate(request)


AGENT = ClaudeAgent()


def claude_argv(request: Request) -> tuple[str, ...]:
    """Return the command line. `--verbose`: stream-json wants it."""
    tools = ",".join(offered_tools(request))
    return (
        *(NAME, "-p"),
        *("--output-format", "stream-json"),
        "--verbose",
        *(("--model", request.model) if request.model is not None else ()),
        *session_argv(request),
        *("--permission-mode", "dontAsk"),
        *("--tools", tools),
        *(("--allowedTools", tools) if tools else ()),
        *("--setting-sources", ""),
        *("--settings", str(request.home / SETTINGS_PATH)),
        "--strict-mcp-config",
        "--disable-slash-commands",
        "--no-chrome",
        *options_argv(request.options),
        *(system_argv(request) if request.system else ()),
    )


def session_argv(request: Request) -> tuple[str, str]:
    """Return the session to go on with, or the id of a new one."""
    if request.resume is not None:
        return ("--resume", request.resume)
    return ("--session-id", session_id(request))


def session_id(request: Request) -> str:
    """Return the id of a request's new session: an attempt has one of its own."""
    return str(uuid.uuid5(SESSIONS, f"{request.job_id}/{request.step_id}/{request.attempt}"))


def offered_tools(request: Request) -> tuple[str, ...]:
    """Return the tools of a role, those of them that the step allows; unknown names are dropped."""
    known = READING if request.reads_only else TOOLS
    return known if request.tools is None else tuple(one for one in known if one in request.tools)


def options_argv(options: Mapping[str, object]) -> tuple[str, ...]:
    """Return the step's options that the program has a flag for."""
    flags = {"effort": "--effort", "max_turns": "--max-turns", "max_cost_usd": "--max-budget-usd"}
    given = ((flag, str(options[name])) for name, flag in flags.items() if name in options)
    return tuple(word for pair in given for word in pair)


def system_argv(request: Request) -> tuple[str, str]:
    """Return the system prompt, after the program's own."""
    return ("--append-system-prompt-file", str(request.home / SYSTEM_PATH))


def files(request: Request) -> dict[str, bytes]:
    """Return what is placed below HOME."""
    placed = {SETTINGS_PATH: json.dumps(SETTINGS).encode()}
    if request.system:
        placed[SYSTEM_PATH] = request.system.encode("utf-8", "replace")
    return placed


def prompt(request: Request) -> str:
    """Return what goes to stdin. The program takes a first character `/` for a command of its
    own.
    """
    text = request.body if request.system and request.body else request.prompt
    return f"\n{text}" if text.startswith("/") else text


def claude_environment(request: Request, endpoint: Endpoint) -> dict[str, str]:
    """Its variables; with a login of its own, nothing that would outrank that login."""
    private = {"CLAUDE_CODE_TMPDIR": str(request.home / "tmp")}
    return {**ENVIRONMENT, **private, **_key_variables(endpoint), **endpoint.proxies}


def _key_variables(endpoint: Endpoint) -> dict[str, str]:
    if endpoint.login:
        return {}
    return {"ANTHROPIC_BASE_URL": endpoint.url, "ANTHROPIC_API_KEY": endpoint.token}
