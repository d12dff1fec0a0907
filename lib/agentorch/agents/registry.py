"""The agents by name: built in, from manifests, from entry points; each is loaded when asked for.

A name has one owner: built in before manifest before entry point, and of two the first by file
name. The loser, and whatever is broken, is a problem in words and harms nobody else.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from agentorch.agents.base import NAME, Agent
from agentorch.config.settings import Settings
from agentorch.core.abilities import ANYTHING, Abilities
from agentorch.core.errors import Invalid, Misconfigured

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

# Name, and where its adapter is: `module:attribute`.
BUILT_IN: Mapping[str, str] = {
    "opencode": "agentorch.agents.opencode.adapter:AGENT",
    "codex": "agentorch.agents.codex.adapter:AGENT",
    "claude": "agentorch.agents.claude.adapter:AGENT",
    "kimi": "agentorch.agents.kimi.adapter:AGENT",
    "anthropic": "agentorch.agents.api.adapter:ANTHROPIC",
    "openai": "agentorch.agents.api.adapter:OPENAI",
    "exec": "agentorch.agents.exec_:AGENT",
}


class Registry:
    """The agents of these settings, as they are at the first question."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def names(self) -> tuple[str, ...]:
        """All names that a job may use. No entry point's code is loaded for that."""
        return tuple(sorted({*BUILT_IN, *self._manifests[0], *self._points[0]}))

    def abilities(self) -> Mapping[str, Abilities]:
        """Return what each agent takes, by name; ALLOWED_MODELS instead of the adapter's own
        models.
        """
        return {name: self._abilities(name) for name in self.names()}

    def _abilities(self, name: str) -> Abilities:
        if name not in BUILT_IN:
            return ANYTHING
        capabilities = _load_built_in(BUILT_IN[name]).capabilities
        known = ANYTHING if capabilities is None else capabilities.abilities
        listed = self._settings.allowed_models
        return replace(known, models=listed) if listed and known is not ANYTHING else known

    def get(self, name: str) -> Agent:
        """Return the agent of this name. Raises Invalid: unknown, or Misconfigured: broken."""
        if name in BUILT_IN:
            return _load_built_in(BUILT_IN[name])
        agents, problems = self._manifests
        if name in agents:
            return agents[name]
        if name in self._points[0]:
            return self._entry_point(name)
        raise Invalid([_unknown(name, self.names()), *(one for one in problems if name in one)])

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with manifests and entry points; loads them all."""
        points, clashes = self._points
        broken: list[str] = []
        for name in points:
            try:
                self._entry_point(name)
            except Misconfigured as problem:
                broken += problem.problems
        return (*self._manifests[1], *clashes, *broken)

    @cached_property
    def _manifests(self) -> tuple[Mapping[str, Agent], tuple[str, ...]]:
        from agentorch.agents import manifest  # noqa: PLC0415  (only where a name isn't built in)

        agents: dict[str, Agent] = {}
        problems: list[str] = []
        for path in _list_manifests(self._settings.agents_directory):
            try:
                agent = manifest.read(path)
            except Misconfigured as problem:
                problems += problem.problems
                continue
            if agent.name in BUILT_IN or agent.name in agents:
                problems.append(f"{path}: name: {agent.name!r} is taken by another agent")
            else:
                agents[agent.name] = agent
        return agents, tuple(problems)

    @cached_property
    def _points(self) -> tuple[Mapping[str, EntryPoint], tuple[str, ...]]:
        # importlib.metadata reads every installed package's list: not for built-in names
        from agentorch.agents import entry_points  # noqa: PLC0415

        points: dict[str, EntryPoint] = {}
        problems: list[str] = []
        for point in entry_points.declared_entry_points(self._settings.worker_entrypoint_group):
            if not NAME.fullmatch(point.name):
                words = "is no name for an agent: letters, digits and . _ -, 128 at most"
                problems.append(f"entry point {point.name} = {point.value}: {words}")
            elif point.name in BUILT_IN or point.name in self._manifests[0] or point.name in points:
                words = f"{point.name!r} is taken by another agent"
                problems.append(f"entry point {point.name} = {point.value}: {words}")
            else:
                points[point.name] = point
        return points, tuple(problems)

    def _entry_point(self, name: str) -> Agent:
        from agentorch.agents import entry_points  # noqa: PLC0415

        return entry_points.load(self._points[0][name])


def load(settings: Settings) -> Registry:
    """Return the registry; nothing is read yet."""
    return Registry(settings)


def _load_built_in(place: str) -> Agent:
    module, attribute = place.split(":")
    return cast(Agent, getattr(importlib.import_module(module), attribute))


def _unknown(name: str, names: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"agent {name!r} is unknown ({guess}see agentorch-agent(5))"


def _list_manifests(directory: Path) -> list[Path]:
    try:
        return sorted(directory.glob("*.toml"))
    except PermissionError:  # the service's; this user's own jobs don't have its agents
        return []
