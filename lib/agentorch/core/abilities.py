"""The abilities of an agent: tools, models, options. Adapters declare them, contracts checks
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Choice:
    """An option that is one of these words."""

    words: tuple[str, ...]

    def problem(self, value: object) -> str | None:
        """Return what is wrong with a value, in words; None where nothing is."""
        return None if value in self.words else f"expected one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Number:
    """An option that is a number within bounds, both included."""

    least: float
    most: float
    whole: bool = True

    def problem(self, value: object) -> str | None:
        """Return what is wrong with a value, in words; None where nothing is."""
        kinds = (int,) if self.whole else (int, float)
        # JSON's true is an int to Python
        right = isinstance(value, kinds) and not isinstance(value, bool)
        if right and self.least <= value <= self.most:  # type: ignore[operator]
            return None
        name = "a whole number" if self.whole else "a number"
        return f"expected {name} from {self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class Flag:
    """An option that is true or false."""

    def problem(self, value: object) -> str | None:
        """Return what is wrong with a value, in words; None where nothing is."""
        return None if isinstance(value, bool) else "expected true or false"


Option = Choice | Number | Flag

# The contract's words for tools; each adapter knows what its CLI calls them.
TOOLS = ("Read", "Grep", "Glob", "Edit", "Write", "Bash")
READING = ("Read", "Grep", "Glob")
# Options that are not the CLI's to hold to: the broker's cap, and the step's way with sessions.
COST_CAP: Mapping[str, Option] = {"max_cost_usd": Number(0.01, 1000, whole=False)}
CAP_AND_RESUME: Mapping[str, Option] = {**COST_CAP, "resume": Flag()}


@dataclass(frozen=True)
class Abilities:
    """The abilities of an agent: the tools, models and options that it takes.
    which a model must match; None: any name.
    """

    tools: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    options: Mapping[str, Option] = field(default_factory=dict)

    def takes_model(self, model: str) -> bool:
        """Return whether a model's name is one that this agent knows what to do with."""
        return self.models is None or any(fnmatchcase(model, one) for one in self.models)


# What agents without a table take: third parties read what they like, and ignore the rest.
ANYTHING = Abilities()
