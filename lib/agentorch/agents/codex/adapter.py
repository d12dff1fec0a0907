"""The adapter of Codex, `codex exec --json`.

Its own sandbox needs user namespaces, which ours forbids, and then every one of its commands fails
while it exits with 0. So a step that may write runs without it, inside ours. A step that only reads
gets the CLI's read-only mode, in which patches are refused; the programs of `READING` are let
through by its exec policy, any other command fails for the lack of a sandbox. Some of them can be
made to write (`find -delete`): the wall is the read-only workspace, this is the sign at the door.

Settings go by -c, which no file can override; the system prompt by config.toml, which keeps it off
the command line. Text from the workspace (AGENTS.md, skills) is no configuration and is not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agentorch.agents.base import Capabilities, Command, Endpoint, Request, Simulation
from agentorch.agents.codex import events, outcome
from agentorch.agents.simulated import simulate
from agentorch.core.abilities import CAP_AND_RESUME, TOOLS, Abilities, Choice
from agentorch.core.errors import Refused
from agentorch.core.job import Outcome
from agentorch.core.process_end import Exit, Line

TOKEN = "AGENTORCH_TOKEN"
_CHANGING = frozenset({"Edit", "Write"})
# The words of the service; which of them a model takes is the model's.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

# Programs that look around; several words are a program and its first arguments.
READING: tuple[tuple[str, ...], ...] = (
    *((name,) for name in ("cat", "head", "tail", "nl", "wc", "ls", "pwd", "stat", "file")),
    *((name,) for name in ("rg", "grep", "find", "tree", "cut", "uniq", "diff", "echo", "printf")),
    *((name,) for name in ("test", "true", "basename", "dirname", "realpath", "du", "cmp", "jq")),
    ("sed", "-n"),
    *(
        ("git", name)
        for name in ("status", "diff", "log", "show", "ls-files", "blame", "grep", "rev-parse")
    ),
)
READS_ONLY = (
    "The workspace is read-only. Only these commands run, alone or joined by pipes, && and ;: "
    + ", ".join(" ".join(words) for words in READING)
    + ". Every other command, and every redirection, fails; do not try to work around that."
)

# What reaches out, waits, or is not asked for.
FEATURES_OFF = (
    *("apps", "plugins", "remote_plugin", "tool_suggest", "skill_mcp_dependency_install"),
    *("hooks", "goals", "multi_agent", "image_generation", "unbounded_connection_retries"),
    # runs what a shell reads at its start, in HOME
    "shell_snapshot",
)
TRIES = {"request_max_retries": 2, "stream_max_retries": 2, "stream_idle_timeout_ms": 300_000}
# Below these no home of Codex may lie: our sandbox's own, and /var/tmp, which leads there.
_TEMPORARY = ("/tmp", "/var/tmp")


@dataclass(frozen=True)
class CodexAgent:
    """OpenAI's coding agent, or any model behind an endpoint that speaks the Responses protocol."""

    name: str = "codex"
    capabilities: Capabilities = field(
        default=Capabilities(
            binary="codex",
            version_argv=("codex", "--version"),
            install="npm install --global @openai/codex",
            minimum="0.169.0",
            provider="openai",
            login_hosts=("chatgpt.com", "auth.openai.com", "api.openai.com"),
            login_files=(".codex/auth.json",),
            login_argv=("codex", "login", "--device-auth"),
            first_output_s=60,
            abilities=Abilities(
                tools=TOOLS,
                models=("gpt-*", "codex-*", "o[1-9]*"),
                options={
                    "effort": Choice(EFFORTS),
                    **CAP_AND_RESUME,
                },
            ),
        )
    )

    def command(self, request: Request) -> Command:
        if request.endpoint is None:
            raise Refused("codex: no endpoint: it needs a broker, or a login of its own")
        refuse_tools(request.tools)
        return Command(
            argv=codex_argv(request, request.endpoint),
            stdin=(request.body or request.prompt).encode("utf-8", "replace"),
            environment=environment(request, request.endpoint),
            files=files(request),
        )

    def provider(self, model: str | None) -> str | None:
        return "openai"

    def is_end(self, line: Line) -> bool:
        return events.is_end(line)

    def outcome(self, exit_: Exit, lines: Iterable[Line]) -> Outcome:
        return outcome.outcome(exit_, lines)

    def simulate(self, request: Request) -> Simulation:
        return simulate(request)


AGENT = CodexAgent()


def reads_only(request: Request) -> bool:
    """Return whether the CLI's read-only mode is on: the role only reads, or its tools do. Pure."""
    return request.reads_only or (request.tools is not None and "Bash" not in request.tools)


def refuse_tools(tools: tuple[str, ...] | None) -> None:
    """Raise Refused where Edit and Write are allowed and Bash is not."""
    if tools is not None and "Bash" not in tools and _CHANGING & set(tools):
        raise Refused(
            "codex: allowed_tools: it can't change files without its shell: add 'Bash', or leave "
            "out 'Edit' and 'Write' for a step that only reads"
        )


# ---- the command line -------------------------------------------------------------------------


def codex_argv(request: Request, endpoint: Endpoint) -> tuple[str, ...]:
    """Return the command line; the prompt comes by standard input."""
    resumed = ("resume",) if request.resume else ()
    return (
        *("codex", "exec", *resumed),
        "--json",
        "--skip-git-repo-check",
        *_sandbox_argv(request),
        *(("--model", request.model) if request.model else ()),
        *(word for setting in settings(request, endpoint) for word in ("--config", setting)),
        *((request.resume,) if request.resume else ()),
        "-",
    )


def _sandbox_argv(request: Request) -> tuple[str, ...]:
    if not reads_only(request) and not request.confined:
        return ("--config", 'sandbox_mode="workspace-write"', "--config", 'approval_policy="never"')
    if not reads_only(request):
        return ("--dangerously-bypass-approvals-and-sandbox", "--ignore-rules")
    # not --sandbox, which `resume` does not know
    return ("--config", 'sandbox_mode="read-only"', "--config", 'approval_policy="never"')


def settings(request: Request, endpoint: Endpoint) -> tuple[str, ...]:
    """Return the configuration as `key=value` in TOML, an argument each."""
    effort = request.options.get("effort")
    return (
        'model_provider="agentorch"',
        f"model_providers.agentorch={provider(endpoint)}",
        *((f"model_reasoning_effort={toml_string(str(effort))}",) if effort else ()),
        'web_search="disabled"',
        "project_doc_max_bytes=0",
        "skills.include_instructions=false",
        "skills.bundled.enabled=false",
        "analytics.enabled=false",
        "feedback.enabled=false",
        "check_for_update_on_startup=false",
        "allow_login_shell=false",
        'history.persistence="none"',
        'cli_auth_credentials_store="file"',
        f'shell_environment_policy={{inherit="all",exclude=["{TOKEN}"]}}',
        *(f"features.{name}=false" for name in FEATURES_OFF),
        *(("features.shell_tool=false",) if request.tools == () else ()),
    )


def provider(endpoint: Endpoint) -> str:
    """Return the model provider as an inline table.

    With a login Codex knows itself where to turn to; the built-in provider would try WebSockets
    first, which know no proxy.
    """
    own = {"name": "OpenAI", "requires_openai_auth": True, "supports_websockets": False}
    ours = {"name": "agentorch", "base_url": f"{endpoint.url}/v1", "env_key": TOKEN}
    table = {**(own if endpoint.login else ours), "wire_api": "responses", **TRIES}
    # JSON spells strings, whole numbers and booleans as TOML does
    return f"{{{','.join(f'{key}={json.dumps(value)}' for key, value in table.items())}}}"


def environment(request: Request, endpoint: Endpoint) -> dict[str, str]:
    """Variables for Codex and its tools; the tools do not get the token."""
    # in which zone it says when a limit ends
    variables = {"CODEX_HOME": str(request.home / ".codex"), "TZ": "UTC"}
    if any(request.home.is_relative_to(directory) for directory in _TEMPORARY):
        variables["TMPDIR"] = str(request.home / "tmp")
    if not endpoint.login:
        variables |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
        variables[TOKEN] = endpoint.token
    return variables | endpoint.proxies


# ---- files ------------------------------------------------------------------------------------


def files(request: Request) -> Mapping[str, bytes]:
    """Return what is placed below HOME.

    Also what an earlier step could have left there is replaced.
    """
    rules = exec_policy(READING) if reads_only(request) else ""
    return {
        ".codex/config.toml": config(request).encode(),
        ".codex/rules/default.rules": rules.encode(),
        ".codex/AGENTS.md": b"",
        ".codex/AGENTS.override.md": b"",
        ".codex/hooks.json": b"{}\n",
        "tmp/.keep": b"",
    }


def config(request: Request) -> str:
    """config.toml: what adds to the model's own instructions, and trust for nothing."""
    told = (request.system, READS_ONLY if reads_only(request) else "")
    words = "\n\n".join(text for text in told if text.strip())
    instructions = f"developer_instructions = {toml_string(words)}\n" if words else ""
    project = f'[projects.{toml_string(str(request.work))}]\ntrust_level = "untrusted"\n'
    return f"{instructions}\n{project}"


def exec_policy(programs: Iterable[tuple[str, ...]]) -> str:
    """Rules that let these programs run without the CLI's own sandbox."""
    return "".join(
        f'prefix_rule(pattern={json.dumps(list(words))}, decision="allow")\n' for words in programs
    )


def toml_string(text: str) -> str:
    """Return a basic string of TOML 1.0.

    JSON's differs in one character that TOML wants escaped, and in surrogates, which TOML does not
    have.
    """
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return json.dumps(whole, ensure_ascii=False).replace("\x7f", "\\u007f")
