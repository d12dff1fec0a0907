"""Which class an agent's failure has: patterns over what it said, in files.

    [[end]]
    agents = ["claude"]         default: every agent
    pattern = "credit balance"  a regular expression, searched for in each line of evidence
    class = "auth"              an outcome class
    error = "credit_empty"      the code in the result
    words = "…"                 what people read; default: the line itself

The groups `retry_after` (seconds) and `resets_at` (seconds since 1970) of a pattern say when a
quota is there again. The administrator's files come before ours, in the order of their names; the
first rule that fits any line decides, and where none does the failure stays `unclassified`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from agentorch.config import toml_tables
from agentorch.core.errors import Misconfigured
from agentorch.core.job import Outcome
from agentorch.core.states import OutcomeClass
from agentorch.core.text import one_line

UNCLASSIFIED = "unclassified"
BUILT_IN = Path(__file__).parent / "ends"
_KEYS = {"agents", "pattern", "class", "error", "words"}
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class Rule:
    """A pattern and what it means. `agents` empty: every one."""

    agents: frozenset[str]
    pattern: re.Pattern[str]
    kind: OutcomeClass
    error: str
    words: str


def classify(outcome: Outcome, agent: str, rules: Iterable[Rule]) -> Outcome:
    """Return an unclassified outcome with the class that its evidence has; any other as it is.

    Pure.
    """
    if outcome.error != UNCLASSIFIED:
        return outcome
    evidence = [str(line) for line in outcome.details.get("evidence", ())]
    for rule in rules:
        if rule.agents and agent not in rule.agents:
            continue
        for line in evidence:
            match = rule.pattern.search(line)
            if match is not None:
                return _apply_rule(rule, outcome, match)
    return outcome


def _apply_rule(rule: Rule, outcome: Outcome, match: re.Match[str]) -> Outcome:
    words = rule.words or one_line(match.string)
    when = {
        f"{name}_s" if name == "retry_after" else name: int(value)
        for name, value in match.groupdict().items()
        if name in ("retry_after", "resets_at") and value and value.isdecimal()
    }
    details = {**outcome.details, **when}
    return replace(outcome, kind=rule.kind, error=rule.error, summary=words, details=details)


@cache
def rules(directory: Path | None = None) -> tuple[Rule, ...]:
    """Return the rules of a directory of the administrator's, and ours. Raises Misconfigured."""
    own = sorted(directory.glob("*.toml")) if directory is not None else []
    found: list[Rule] = []
    problems: list[str] = []
    for path in (*own, *sorted(BUILT_IN.glob("*.toml"))):
        try:
            found += rules_of(toml_tables.read(path), str(path))
        except Misconfigured as problem:
            problems += problem.problems
    if problems:
        raise Misconfigured(*problems)
    return tuple(found)


def rules_of(document: Mapping[str, Any], name: str) -> Sequence[Rule]:
    """Return the rules that a document holds. Raises Misconfigured with a line a problem. Pure."""
    found: list[Rule] = []
    problems = [f"{name}: {key}: unknown key" for key in document if key != "end"]
    ends = document.get("end", [])
    for number, end in enumerate(ends if isinstance(ends, list) else [ends], 1):
        try:
            found.append(_rule(end))
        except (ValueError, OverflowError, re.error) as problem:
            problems.append(f"{name}: end {number}: {problem}")
    if problems:
        raise Misconfigured(*problems)
    return found


def _rule(end: object) -> Rule:
    if not isinstance(end, dict) or set(end) - _KEYS:
        raise ValueError(f"expected a table with the keys {', '.join(sorted(_KEYS))}")
    agents = end.get("agents", [])
    if not isinstance(agents, list) or not all(isinstance(name, str) for name in agents):
        raise ValueError("agents: expected a list of names")
    if not _CODE.fullmatch(toml_tables.text(end, "error")):
        raise ValueError("error: expected a word in small letters")
    return Rule(
        agents=frozenset(agents),
        pattern=re.compile(toml_tables.text(end, "pattern")),
        kind=_class(toml_tables.text(end, "class")),
        error=toml_tables.text(end, "error"),
        words=toml_tables.text(end, "words", ""),
    )


def _class(word: str) -> OutcomeClass:
    if word not in list(OutcomeClass) or word == OutcomeClass.SUCCESS:
        known = ", ".join(kind for kind in OutcomeClass if kind is not OutcomeClass.SUCCESS)
        raise ValueError(f"class: {word!r}: expected one of {known}")
    return OutcomeClass(word)
