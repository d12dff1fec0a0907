"""Kimi Code, headless: `kimi -p … --output-format stream-json`.

Measured with 2.1.0. It takes its prompt from its command line only; so that argv holds none of
ours, a hook of its own configuration adds the prompt's file to the conversation, whole and
verbatim, and what `-p` says is only to do that. The configuration is written for the step: one
provider and one model at the endpoint, whose token it reads from a variable, and the step's tools.
It never asks in this mode. It prints neither tokens nor cost (the broker counts them), and its
session's id only at its end. It retries by itself and waits as long as a Retry-After says: the
broker does not let it.

A project's agents may take the main agent's place, so their directories are masked; its MCP servers
and hooks are not run in a directory that nobody trusted. Its login is not offered: it has no
switch for a proxy.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field

from agentorch.agents.base import Capabilities, Command, Endpoint, Request, Simulation
from agentorch.agents.kimi import outcome
from agentorch.agents.kimi.events import END
from agentorch.agents.simulated import simulate
from agentorch.core.abilities import CAP_AND_RESUME, READING, TOOLS, Abilities, Choice, Number
from agentorch.core.errors import Refused
from agentorch.core.job import Outcome
from agentorch.core.process_end import Exit, Line

TOKEN = "AGENTORCH_TOKEN"
HOME = ".kimi-code"
PROMPT = f"{HOME}/agentorch-prompt.md"
DEFAULT_MODEL = "kimi-k3"
CONTEXT_TOKENS = 262_144
ATTEMPTS = 3
HOOK_S = 60
SAY = "Do what the text above asks."

EFFORTS = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True)
class KimiAgent:
    """Kimi Code."""

    name: str = "kimi"
    capabilities: Capabilities = field(
        default=Capabilities(
            binary="kimi",
            version_argv=("kimi", "--version"),
            install="npm install -g @moonshot-ai/kimi-code (needs node 22.19 or newer)",
            minimum="2.1.0",
            provider="moonshot",
            masked=(".kimi-code", ".agents"),
            first_output_s=60,
            abilities=Abilities(
                tools=TOOLS,
                models=("kimi-*", "moonshot-*", "k[0-9]*"),
                options={
                    "effort": Choice(EFFORTS),
                    "max_turns": Number(1, 1000),
                    **CAP_AND_RESUME,
                },
            ),
        )
    )

    def command(self, request: Request) -> Command:
        """Raise Refused where there is no endpoint, or only a login."""
        endpoint = request.endpoint
        if endpoint is None or endpoint.login:
            raise Refused("agent 'kimi' needs a key for 'moonshot': it has no login here")
        return Command(
            argv=kimi_argv(request),
            environment=kimi_environment(request, endpoint),
            files={
                f"{HOME}/config.toml": configuration(request, endpoint).encode(),
                PROMPT: hook_text(request).encode("utf-8", "replace"),
            },
        )

    def provider(self, model: str | None) -> str | None:
        return "moonshot"

    def is_end(self, line: Line) -> bool:
        return line.stream == "stdout" and line.text.startswith(END)

    def outcome(self, exit_: Exit, lines: Iterable[Line]) -> Outcome:
        return outcome.outcome(exit_, lines)

    def simulate(self, request: Request) -> Simulation:
        return simulate(request)


AGENT = KimiAgent()


def kimi_argv(request: Request) -> tuple[str, ...]:
    """Return the command line; it says nothing of the task."""
    resumed = ("--session", request.resume) if request.resume else ()
    return (
        "kimi",
        *("--prompt", SAY),
        *("--output-format", "stream-json"),
        *resumed,
    )


def kimi_environment(request: Request, endpoint: Endpoint) -> dict[str, str]:
    """Its home, the token, and every switch that it has for what it would do besides."""
    return {
        "KIMI_CODE_HOME": str(request.home / HOME),
        TOKEN: endpoint.token,
        "KIMI_DISABLE_TELEMETRY": "1",
        "KIMI_CODE_NO_AUTO_UPDATE": "1",
        "KIMI_DISABLE_CRON": "1",
        "KIMI_CODE_BUILTIN_PRODUCT_SKILLS": "0",
        **endpoint.proxies,
    }


def hook_text(request: Request) -> str:
    """Return what the hook adds.

    The first line is also what tells `outcome` where the workspace is, and keeps a prompt in JSON
    from being taken for the hook's decision.
    """
    return f"The workspace is {request.work}.\n\n{request.prompt}"


def tools(request: Request) -> tuple[str, ...]:
    """Return the tools that it is offered; whoever reads its prompt may keep a list of what is to
    do.
    """
    allowed = TOOLS if request.tools is None else request.tools
    given = [one for one in allowed if not request.reads_only or one in READING]
    return (*given, "TodoList")


def configuration(request: Request, endpoint: Endpoint) -> str:
    """Its config.toml. TOML's basic strings are JSON's, but for what JSON may escape besides."""
    effort = request.options.get("effort")
    turns = request.options.get("max_turns")
    efforts = f"support_efforts = {_toml_string(list(EFFORTS))}\n" if effort else ""
    capabilities = ["tool_use", "thinking"] if effort else ["tool_use"]
    return (
        'default_model = "job"\n'
        'default_permission_mode = "auto"\n'
        "telemetry = false\n"
        "auto_session_title = false\n"
        "builtin_product_skills = false\n"
        "merge_all_available_skills = false\n"
        "[providers.job]\n"
        'type = "kimi"\n'
        f"base_url = {_toml_string(f'{endpoint.url}/v1')}\n"
        f"api_key_env = {_toml_string(TOKEN)}\n"
        "[models.job]\n"
        'provider = "job"\n'
        f"model = {_toml_string(request.model or DEFAULT_MODEL)}\n"
        f"max_context_size = {CONTEXT_TOKENS}\n"
        f"capabilities = {_toml_string(capabilities)}\n"
        f"{efforts}"
        + (f"[thinking]\nenabled = true\neffort = {_toml_string(effort)}\n" if effort else "")
        + "[loop_control]\n"
        f"max_attempts_per_step = {ATTEMPTS}\n"
        + (f"max_steps_per_turn = {turns}\n" if turns else "")
        + "[background]\n"
        'print_background_mode = "exit"\n'
        "bash_auto_background_on_timeout = false\n"
        "[tools]\n"
        f"enabled = {_toml_string(list(tools(request)))}\n"
        "[[hooks]]\n"
        'event = "UserPromptSubmit"\n'
        f"command = {_toml_string(hook(request))}\n"
        f"timeout = {HOOK_S}\n"
    )


def hook(request: Request) -> str:
    """Return what its shell runs for the prompt."""
    return f"cat {shlex.quote(str(request.home / PROMPT))}"


def _toml_string(value: object) -> str:
    # TOML has no escape for a lone surrogate, and takes DEL only escaped
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
    return re.sub("\x7f", r"\\u007f", text)
