"""An agent tried for real, on request: in the sandbox, and its provider with its key.

The sandbox is tried with a model that plays a script, the provider is asked for its list of models
through the broker: neither costs anything, and the key is seen by the broker alone.
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
    """Two lines for each of these agents that asks a model. Raises Invalid for an unknown one.

    Without names, for each that is there and has a key or a login.
    """
    agents = load(settings)
    for name in names or agents.names():
        agent = agents.get(name)
        provider = agent.provider(settings.agent_models.get(name))
        if provider is not None and (names or _is_set_up(settings, agent, provider)):
            yield from _probed(settings, agent, provider)
        elif names:
            raise Invalid([f"agent {name!r} asks no model: there is nothing to probe"])


def _is_set_up(settings: Settings, agent: Agent, provider: str) -> bool:
    capabilities = agent.capabilities
    if capabilities is None:
        return False
    there = find_program(capabilities, settings.environment.get("PATH", DEFAULT_PATH))
    has = credential(settings, agent.name, capabilities, provider)
    return there is not None and not has.is_missing


def _probed(settings: Settings, agent: Agent, provider: str) -> Iterator[Check]:
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
    return Check(f"agent {agent.name} in the sandbox", "ok", "edits a file by its shell")


def _provider(settings: Settings, name: str, provider: str) -> Check:
    what = f"agent {name} and its provider"
    try:
        status, body = _asked(settings, name, provider)
    except (AgentorchError, OSError) as problem:
        return Check(what, "problem", f"the broker does not answer: {problem}")
    if status == 200:
        return Check(what, "ok", f"{provider} takes the key")
    return Check(what, "problem", f"{provider}: HTTP {status}: {one_line(body)}")


def _asked(settings: Settings, name: str, provider: str) -> tuple[int, str]:
    """What the provider answers to the broker when asked for its models: status and body."""
    token = client.new_token()
    grant = Grant("probe", "probe", 1, name, time.time() + ANSWER_S, providers=(provider,))
    with tempfile.TemporaryDirectory(prefix="agentorch-probe-") as scratch:
        environment = client.environment_of(settings) | {"LOG_LEVEL": "WARNING"}
        with client.running(Path(scratch), environment) as path:
            client.write_grant(client.grants_directory(Path(scratch)), grant, token)
            return client.get(path, f"/{provider}/v1/models", token, ANSWER_S)
