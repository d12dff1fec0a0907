"""Third-party agents in Python: an entry point that loads to an agent, or to what makes one.

Somebody else's code is loaded and called here: whatever it raises is a problem in words, and harms
no other agent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from agentorch.agents.base import Agent, Capabilities, Command, Request, Simulation
from agentorch.core.errors import Misconfigured
from agentorch.core.job import Outcome
from agentorch.core.process_end import Exit, Line
from agentorch.core.states import OutcomeClass
from agentorch.core.text import one_line

_Answer = TypeVar("_Answer")
_METHODS = ("command", "outcome", "simulate")


def declared_entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group, by name; none is loaded. An empty group has none."""
    found = entry_points(group=group) if group else ()
    return tuple(sorted(found, key=lambda one: (one.name, one.value)))


def load(point: EntryPoint) -> Agent:
    """Return the agent behind an entry point. Raises Misconfigured."""
    place = f"entry point {point.name} = {point.value}"
    agent = _call(place, lambda: _make_agent(point.load()))
    problems = problems_of(agent, point.name)
    if problems:
        raise Misconfigured(*(f"{place}: {words}" for words in problems))
    return ForeignAgent(agent, point.name, agent.capabilities)


def _make_agent(found: object) -> Agent:
    ready = not isinstance(found, type) and all(hasattr(found, name) for name in _METHODS)
    if ready or not callable(found):
        return found  # type: ignore[return-value]  # problems_of looks at it next
    made: Agent = found()
    return made


def problems_of(agent: object, name: str) -> list[str]:
    """Return what keeps this object from being the agent of that name. Pure."""
    problems = [
        f"has no {method}()" for method in _METHODS if not callable(getattr(agent, method, None))
    ]
    found = getattr(agent, "name", None)
    if found != name:
        problems.append(f"its name is {found!r}, expected {name!r}")
    capabilities = getattr(agent, "capabilities", "missing")
    if not isinstance(capabilities, Capabilities | None):
        problems.append(f"capabilities is {capabilities!r:.60}, expected Capabilities or None")
    return problems


@dataclass(frozen=True)
class ForeignAgent:
    """Somebody else's agent; what its methods raise becomes words."""

    agent: Agent
    name: str
    capabilities: Capabilities | None

    def command(self, request: Request) -> Command:
        """Raise Misconfigured where the agent's own code fails."""
        return _call(f"agent {self.name}: command()", lambda: self.agent.command(request))

    def provider(self, model: str | None) -> str | None:
        return self.capabilities.provider if self.capabilities is not None else None

    def is_end(self, line: Line) -> bool:
        return False

    def outcome(self, exit_: Exit, lines: Iterable[Line]) -> Outcome:
        try:
            return _call(f"agent {self.name}: outcome()", lambda: self.agent.outcome(exit_, lines))
        except Misconfigured as problem:
            return _failure(problem)

    def simulate(self, request: Request) -> Simulation:
        try:
            return _call(f"agent {self.name}: simulate()", lambda: self.agent.simulate(request))
        except Misconfigured as problem:
            return Simulation({}, _failure(problem))


def _failure(problem: Misconfigured) -> Outcome:
    return Outcome(OutcomeClass.AGENT_ERROR, one_line(str(problem)), error="exception")


def _call(place: str, call: Callable[[], _Answer]) -> _Answer:
    try:
        return call()
    # Foreign code, and so the one place where nothing can be said of what it may raise.
    except (Exception, SystemExit) as problem:
        raise Misconfigured(
            f"{place}: {type(problem).__name__}: {one_line(str(problem))}"
        ) from problem
