"""OpenCode, `opencode run`: the command line, the configuration, the table.

The whole configuration goes by OPENCODE_CONFIG_CONTENT, which is merged last; what the project says
is not read. What each tool may do is decided there once: nothing is ever asked, because a question
that nobody answers ends the run with exit code 0.

Names of models are PROVIDER/MODEL; a bare name is OpenAI's. Its own models are asked by the
Responses protocol (tools with reasoning are refused by its Chat Completions), everything else that
a server behind `openai` or `moonshot` has by Chat Completions, `anthropic` by Messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from agentorch.agents.base import Capabilities, Command, Endpoint, Request, Simulation
from agentorch.agents.opencode import events, outcome
from agentorch.agents.simulated import simulate
from agentorch.core.abilities import CAP_AND_RESUME, READING, Abilities, Choice
from agentorch.core.errors import Refused
from agentorch.core.job import Outcome
from agentorch.core.process_end import Exit, Line

NAME = "opencode"
DEFAULT_PROVIDER = "openai"
# What OpenAI recommends for coding, https://developers.openai.com/codex/models
DEFAULT_MODEL = "openai/gpt-5.5"
KEY_VARIABLE = "AGENTORCH_MODEL_TOKEN"
SYSTEM_FILE = ".config/opencode/agentorch.md"
# It fetches the library for plugins from npm at every start, unless it seems to be there.
_LIBRARY = {"packages": {"": {"dependencies": {"@opencode-ai/plugin": "*"}}}}
FILES: Mapping[str, bytes] = {
    ".config/opencode/node_modules/.keep": b"",
    ".config/opencode/package-lock.json": json.dumps(_LIBRARY).encode(),
}
AGENT_NAME = "build"

# Our word for a provider, and OpenCode's.
PROVIDERS: Mapping[str, str] = {
    "anthropic": "anthropic",
    "openai": "openai",
    "moonshot": "moonshotai",
}
OPENAI_MODELS = ("gpt-[0-9]*", "o[0-9]*", "chatgpt-*", "codex-*")

# The contract's tools, and the permissions that each stands for. Edit and Write are one here.
TOOLS: Mapping[str, tuple[str, ...]] = {
    "Read": ("read",),
    "Grep": ("grep",),
    "Glob": ("glob", "list"),
    "Edit": ("edit",),
    "Write": ("edit",),
    "Bash": ("bash",),
}
# A list of its own intentions, which touches nothing.
ALWAYS = ("todowrite",)

# The broker times its own calls out, and stays silent for as long as a model may think.
REQUEST_MS = 3_600_000
SILENCE_MS = 600_000

SWITCHED_OFF = (
    "AUTOUPDATE",
    "MODELS_FETCH",
    "LSP_DOWNLOAD",
    "DEFAULT_PLUGINS",
    "SHARE",
    "PROJECT_CONFIG",
    "EXTERNAL_SKILLS",
    "CLAUDE_CODE",
    "EMBEDDED_WEB_UI",
)

# Read and run in spite of OPENCODE_DISABLE_PROJECT_CONFIG and OPENCODE_PURE: plugins, and those
# that a configuration lists. The directory's own are named for one that links to the top itself.
MASKED = (
    "opencode.json",
    "opencode.jsonc",
    ".opencode",
    *(f".opencode/{name}" for name in ("plugin", "plugins", "tool", "tools")),
)


def provider(model: str | None) -> str:
    """Return the provider that a model's name begins with. Pure."""
    prefix = (model or DEFAULT_MODEL).partition("/")[0]
    return prefix if prefix in PROVIDERS else DEFAULT_PROVIDER


def bare(model: str) -> str:
    """Return a model's name as its provider knows it. Pure."""
    prefix, _, name = model.partition("/")
    return name if name and prefix in PROVIDERS else model


def package(provider_name: str, model: str) -> str:
    """Return the client, one of those that OpenCode holds in itself, by the protocol it speaks.

    Pure.
    """
    if provider_name == "anthropic":
        return "@ai-sdk/anthropic"
    if provider_name == "openai" and any(fnmatchcase(model, one) for one in OPENAI_MODELS):
        return "@ai-sdk/openai"
    return "@ai-sdk/openai-compatible"


# ---- the command ------------------------------------------------------------------------------


def run_argv(request: Request) -> tuple[str, ...]:
    """Return the command line. A title saves a call of a model that nobody would count."""
    effort = request.options.get("effort")
    return (
        *("opencode", "run"),
        *("--format", "json"),
        *("--title", f"{request.job_id} {request.step_id}"),
        *("--agent", AGENT_NAME),
        *(("--variant", str(effort)) if effort else ()),
        *(("--session", request.resume) if request.resume else ()),
    )


def environment(request: Request, endpoint: Endpoint) -> dict[str, str]:
    """Return the variables: the configuration, what is switched off, and how it reaches what it
    may.
    """
    off = [name for name in SWITCHED_OFF if not (endpoint.login and name == "DEFAULT_PLUGINS")]
    return {
        "OPENCODE_CONFIG_CONTENT": json.dumps(configuration(request, endpoint)),
        **{f"OPENCODE_DISABLE_{name}": "1" for name in off},
        **({} if endpoint.login else {KEY_VARIABLE: endpoint.token}),
        **endpoint.proxies,
    }


def configuration(request: Request, endpoint: Endpoint) -> dict[str, Any]:
    """Return the configuration of one run."""
    chosen = request.model or DEFAULT_MODEL
    name, model = PROVIDERS[provider(chosen)], bare(chosen)
    effort = request.options.get("effort")
    entry = provider_entry(provider(chosen), model, endpoint, effort)
    return {
        "autoupdate": False,
        "share": "disabled",
        "snapshot": False,
        "formatter": False,
        "lsp": False,
        "enabled_providers": [name],
        "model": f"{name}/{model}",
        "small_model": f"{name}/{model}",
        "instructions": [str(request.home / SYSTEM_FILE)] if request.system else [],
        "permission": permissions(request),
        "provider": {} if endpoint.login else {name: entry},
    }


def provider_entry(
    provider_name: str, model: str, endpoint: Endpoint, effort: str | None = None
) -> dict[str, Any]:
    """One provider with one model; what OpenCode knows of the model by its name is kept."""
    npm = package(provider_name, model)
    return {
        "npm": npm,
        "options": {
            "baseURL": f"{endpoint.url}/v1",
            "apiKey": f"{{env:{KEY_VARIABLE}}}",
            "timeout": REQUEST_MS,
            "headerTimeout": SILENCE_MS,
            "chunkTimeout": SILENCE_MS,
        },
        "models": {model: {"variants": variants(npm, effort)}},
    }


def variants(npm: str, effort: str | None) -> dict[str, Any]:
    """Return what an effort means to the provider: one that OpenCode does not know of a model, it
    would leave out without a word. What `high` and `max` are, it knows of every Claude that thinks.
    """
    if effort is None or (npm == "@ai-sdk/anthropic" and effort in ("high", "max")):
        return {}
    return {effort: {"effort" if npm == "@ai-sdk/anthropic" else "reasoningEffort": effort}}


def permissions(request: Request) -> dict[str, Any]:
    """Return what its tools may do: a tool that is denied outright is not offered to the model.

    The last rule that fits decides, so everything is denied first: subagents (`task`) too, whose
    tokens are in no event, and what the same call three times over would ask (`doom_loop`).
    """
    return {
        "*": "deny",
        **dict.fromkeys(allowed_permissions(request), "allow"),
        "external_directory": {"*": "deny", "/tmp/*": "allow"},
    }


def allowed_permissions(request: Request) -> tuple[str, ...]:
    """Return the permissions that a step's tools stand for, each once; only those to read where it
    only reads.
    """
    words = tuple(TOOLS) if request.tools is None else request.tools
    wanted = READING if request.reads_only else words
    named = [permission for word in wanted for permission in TOOLS.get(word, ())]
    return tuple(dict.fromkeys((*named, *ALWAYS)))


# ---- the agent --------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenCodeAgent:
    """Runs `opencode run` with the prompt on standard input."""

    name: str = NAME
    capabilities: Capabilities = field(
        default=Capabilities(
            binary="opencode",
            version_argv=("opencode", "--version"),
            install="npm install -g opencode-ai, and the package ripgrep: it searches with rg",
            minimum="1.18.0",
            provider=DEFAULT_PROVIDER,
            login_hosts=(
                "api.anthropic.com",
                "api.openai.com",
                "auth.openai.com",
                "chatgpt.com",
                "api.moonshot.ai",
            ),
            login_files=(".local/share/opencode/auth.json",),
            login_argv=("opencode", "auth", "login"),
            masked=MASKED,
            # without it and without network its grep and glob fail, and the run goes on
            requires=("rg",),
            abilities=Abilities(
                tools=tuple(TOOLS),
                models=(*(f"{name}/?*" for name in PROVIDERS), *OPENAI_MODELS),
                options={
                    "effort": Choice(("low", "medium", "high", "xhigh", "max")),
                    **CAP_AND_RESUME,
                },
            ),
        )
    )

    def command(self, request: Request) -> Command:
        if request.endpoint is None:
            raise Refused("agent 'opencode' needs a model endpoint, and there is none")
        body = request.body if request.system else request.prompt
        system = {SYSTEM_FILE: request.system.encode("utf-8", "replace")} if request.system else {}
        return Command(
            argv=run_argv(request),
            stdin=body.encode("utf-8", "replace"),
            environment=environment(request, request.endpoint),
            files={**FILES, **system},
        )

    def provider(self, model: str | None) -> str | None:
        return provider(model)

    def is_end(self, line: Line) -> bool:
        return events.is_end(line)

    def outcome(self, exit_: Exit, lines: Iterable[Line]) -> Outcome:
        return outcome.outcome(exit_, lines)

    def simulate(self, request: Request) -> Simulation:
        return simulate(request)


AGENT = OpenCodeAgent()
