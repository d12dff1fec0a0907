"""The trial of an agent, made on request: in the sandbox, and at its provider with its key.

The trial in the sandbox uses a scripted model; the provider is asked for its list of models through
the broker. Neither costs anything, and only the broker sees the key.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from agentorch.agents.base import Agent
from agentorch.agents.registry import load
from agentorch.attempt import self_test
from agentorch.broker import client
from agentorch.broker.client import Grant
from agentorch.config.settings import Settings
from agentorch.core.attempt import StepEnded
from agentorch.core.errors import AgentorchError, Invalid
from agentorch.core.policy import DEFAULT_PATH
from agentorch.core.text import one_line
from agentorch.doctor.check import Check
from agentorch.preflight.check import find_program
from agentorch.preflight.credentials import credential

ANSWER_S = 60


def probe_agents(settings: Settings, names: tuple[str, ...] = ()) -> Iterator[Check]:
    """Yield two checks for each of these agents that calls a model.

    Without names, check each agent that is installed and has a key or a login. Raises Invalid for
    an unknown agent, and for one that calls no model.
    """
    agents = load(settings)
    for name in names or agents.names():
        agent = agents.get(name)
        provider = agent.provider(settings.agent_models.get(name))
        if provider is not None and (names or _is_set_up(settings, agent, provider)):
            yield from _probe(settings, agent, provider)
        elif names:
            raise Invalid([f"agent {name!r} calls no model: there is nothing to probe"])


def _is_set_up(settings: Settings, agent: Agent, provider: str) -> bool:
    capabilities = agent.capabilities
    if capabilities is None:
        return False
    program = find_program(capabilities, settings.environment.get("PATH", DEFAULT_PATH))
    has = credential(settings, agent.name, capabilities, provider)
    return program is not None and not has.is_missing


def _probe(settings: Settings, agent: Agent, provider: str) -> Iterator[Check]:
    if agent.capabilities is not None and agent.capabilities.abilities.tools:
        yield _sandbox(settings, agent)
    yield _provider(settings, agent.name, provider)


def _sandbox(settings: Settings, agent: Agent) -> Check:
    try:
        problems = self_test.try_agent(settings, agent)
    except StepEnded as end:
        problems = (str(end),)
    if problems:
        return Check(f"agent {agent.name} in the sandbox", "problem", "; ".join(problems))
    return Check(f"agent {agent.name} in the sandbox", "ok", "edits a file with its shell")


def _provider(settings: Settings, name: str, provider: str) -> Check:
    what = f"agent {name} and its provider"
    try:
        status, body = _list_models(settings, name, provider)
    except (AgentorchError, OSError) as problem:
        return Check(what, "problem", f"the broker does not answer: {problem}")
    if status == 200:
        return Check(what, "ok", f"{provider} accepts the key")
    return Check(what, "problem", f"{provider}: HTTP {status}: {one_line(body)}")


def _list_models(settings: Settings, name: str, provider: str) -> tuple[int, str]:
    """Return the status and the body of the provider's list of models, read through the broker."""
    token = client.new_token()
    grant = Grant("probe", "probe", 1, name, time.time() + ANSWER_S, providers=(provider,))
    with tempfile.TemporaryDirectory(prefix="agentorch-probe-") as scratch:
        environment = client.environment_of(settings) | {"LOG_LEVEL": "WARNING"}
        with client.running(Path(scratch), environment) as path:
            client.write_grant(client.grants_directory(Path(scratch)), grant, token)
            return client.get(path, f"/{provider}/v1/models", token, ANSWER_S)
