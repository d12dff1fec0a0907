"""Agents without a CLI: a provider's API is asked once, the answer is the report.

What runs in the sandbox is a program of ours (`api_call`), with the same policy, network and
endpoint as a CLI. The model sees the step's prompt and as much of the workspace as fits
(`api_call.surroundings`); a unified diff in its answer is applied to the workspace where the step's
role may write. A diff that does not apply is an outcome of the class `patch`, and the report is
kept.

Built in are `anthropic` (Messages) and `openai` (Chat Completions, for compatible servers too:
where the server's OPENAI_BASE_URL leads elsewhere, a step names its model, or AGENT_MODELS does).

A third party's agent is a value of the same class, in the Python entry-point group:

    from agentorch.agents.api.adapter import ApiAgent

    AGENT = ApiAgent(
        name="mistral",
        provider_name="mistral",             # in the server's providers.toml
        default_model="mistral-large-latest",
        wire="agentorch.agents.api.wire_formats:CHAT",
    )

A protocol of its own is a value with the members of `api_call.wires.Wire`, named as
`module:attribute`; `paths` are the directories that its module is imported from, below which it
must find all that it imports. What goes wrong is evidence that begins with `api `, for the rules
in ends/api.toml and an administrator's own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import agentorch
from agentorch.agents import json_lines
from agentorch.agents.base import Capabilities, Command, Endpoint, Request, Simulation
from agentorch.agents.simulated import simulate
from agentorch.core.abilities import COST_CAP, Abilities, Choice, Number, Option
from agentorch.core.errors import Refused
from agentorch.core.job import Outcome
from agentorch.core.process_end import Exit, Line

PACKAGE = Path(agentorch.__file__).parent
TOKEN = "AGENTORCH_TOKEN"
# -I: neither the environment nor the current directory, which an agent could write to, decides
# what is imported.
START = (
    "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); "
    "from agentorch.agents.api.program import main; main()"
)
INSTALL = "Python with httpx is part of agentorch: apt install python3-httpx, or pip install httpx"


@dataclass(frozen=True)
class ApiAgent:
    """An agent that asks an API. `efforts` are the words that its models know, `more` the options
    that its wire knows beside effort and max_tokens; the times are how long nothing may come before
    the answer and in it, `tries` is how often it is asked at most.
    """

    name: str
    provider_name: str
    default_model: str
    wire: str
    models: tuple[str, ...] | None = None
    efforts: tuple[str, ...] = ("low", "medium", "high")
    more: Mapping[str, Option] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()
    first_byte_s: float = 300
    idle_s: float = 120
    tries: int = 4

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            binary="python",
            program=sys.executable,
            version_argv=(sys.executable, "--version"),
            install=INSTALL,
            needs_git=False,
            read_only=(PACKAGE, *self.paths),
            provider=self.provider_name,
            abilities=Abilities(tools=None, models=self.models, options=self._options()),
        )

    def _options(self) -> Mapping[str, Option]:
        return {
            "effort": Choice(self.efforts),
            "max_tokens": Number(1, 1_000_000),
            **COST_CAP,
            **self.more,
        }

    def command(self, request: Request) -> Command:
        """Raise Refused where there is no endpoint, or only a login, which an API has none of."""
        endpoint = request.endpoint
        if endpoint is None or endpoint.login:
            raise Refused(f"agent {self.name!r} needs a key for {self.provider_name!r}")
        return Command(
            argv=program_argv(self.wire, self.paths),
            stdin=json.dumps(self._document(request, endpoint)).encode() + b"\n",
            environment={TOKEN: endpoint.token},
        )

    def _document(self, request: Request, endpoint: Endpoint) -> dict[str, Any]:
        return {
            "system": request.system,
            "body": request.body or request.prompt,
            "model": request.model or self.default_model,
            "options": dict(request.options),
            "work": str(request.work),
            "reads_only": request.reads_only,
            "url": endpoint.url,
            "timeout_sec": request.timeout_s,
            "limits": {
                "first_byte_s": self.first_byte_s,
                "idle_s": self.idle_s,
                "tries": self.tries,
            },
        }

    def provider(self, model: str | None) -> str | None:
        return self.provider_name

    def is_end(self, line: Line) -> bool:
        return line.stream == "stdout" and line.text.startswith('{"type": "result"')

    def outcome(self, exit_: Exit, lines: Iterable[Line]) -> Outcome:
        return json_lines.outcome(self.name, exit_, lines)

    def simulate(self, request: Request) -> Simulation:
        return simulate(request)


def program_argv(wire: str, paths: Iterable[Path]) -> tuple[str, ...]:
    """Return the command line of the program; the step's Python runs it."""
    found = ":".join(map(str, (PACKAGE.parent, *paths)))
    return (
        sys.executable,
        "-I",
        *("-c", START),
        found,
        wire,
    )


ANTHROPIC = ApiAgent(
    name="anthropic",
    provider_name="anthropic",
    default_model="claude-sonnet-5-5",
    wire="agentorch.agents.api.wire_formats:MESSAGES",
    efforts=("low", "medium", "high", "max"),
)
OPENAI = ApiAgent(
    name="openai",
    provider_name="openai",
    default_model="gpt-5.6",
    wire="agentorch.agents.api.wire_formats:CHAT",
    efforts=("minimal", "low", "medium", "high", "xhigh"),
    more={"temperature": Number(0, 2, whole=False)},
)
