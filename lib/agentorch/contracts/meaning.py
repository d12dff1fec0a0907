"""What is wrong with a document beyond its schema's reach. Pure.

Looked for also where the schema found something, so that all is told at once: a value of the
wrong type is the schema's to name, and is passed over here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from agentorch.contracts.words import short, suggestion

Document = dict[str, Any]

NOT_BELOW = "is not a path below the job's artifacts"


def semantic_problems(
    document: Document, agents: Collection[str], projects: Collection[str]
) -> list[str]:
    """Every problem, with its place."""
    given = document.get("steps")
    steps = given if isinstance(given, list) else []
    ids: dict[str, int] = {}
    for number, step in enumerate(steps):
        ids.setdefault(_text(step, "step_id"), number)
    problems = [
        f".steps[{number}]{problem}"
        for number, step in enumerate(steps)
        for problem in _step_problems(number, step, ids, agents)
    ]
    project = _text(document, "project_id")
    if project and project not in projects:
        hint = suggestion(project, projects)
        problems.append(f".project_id: {short(project)} is not in PROJECT_ALIASES{hint}")
    if "\0" in _text(document, "workdir"):
        problems.append(".workdir: holds a NUL character")
    for name, value in document.items():
        if isinstance(value, str) and not _is_utf8(value):
            problems.append(f".{name}: {short(value)} is not UTF-8")
    return problems


def _step_problems(
    number: int, step: Any, ids: Mapping[str, int], agents: Collection[str]
) -> Iterator[str]:
    """`ids` says where each first stands."""
    own = _text(step, "step_id")
    if own and ids[own] < number:
        yield f".step_id: {short(own)} is the id of an earlier step too"
    agent = _text(step, "agent")
    if agent and agent not in agents:
        hint = suggestion(agent, agents, "agentorch doctor for those that are there")
        yield f".agent: {short(agent)} is unknown{hint}"
    failure = _text(step, "on_failure")
    target = failure.removeprefix("goto:")
    if target != failure and target not in ids:
        yield f".on_failure: there is no step {short(target)}{suggestion(target, ids)}"
    if "\0" in _text(step, "prompt"):
        yield ".prompt: holds a NUL character"
    for place, path in enumerate(_texts(step, "input_artifacts")):
        if path and not artifact_path_is_safe(path):
            yield f".input_artifacts[{place}]: {short(path)} {NOT_BELOW}"
    for place, path in enumerate(_texts(step, "apply_patches_from")):
        if path and path not in ids:
            yield from _patch_problems(place, path, ids)


def _patch_problems(place: int, path: str, ids: Collection[str]) -> Iterator[str]:
    where = f".apply_patches_from[{place}]"
    if not artifact_path_is_safe(path):
        yield f"{where}: {short(path)} is no step and {NOT_BELOW}"
    elif "/" not in path:
        yield f"{where}: there is no step {short(path)}{suggestion(path, ids)}"


def _text(container: Any, name: str) -> str:
    value = container.get(name) if isinstance(container, dict) else None
    return value if isinstance(value, str) else ""


def _is_utf8(text: str) -> bool:
    """Not so where bytes of a command line or a directory's name could not be decoded."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _texts(container: Any, name: str) -> list[str]:
    value = container.get(name) if isinstance(container, dict) else None
    items = value if isinstance(value, list) else []
    return [item if isinstance(item, str) else "" for item in items]


def artifact_path_is_safe(path: str) -> bool:
    """Whether a relative path names something below the directory it is relative to."""
    parts = path.split("/")
    return path.isprintable() and "" not in parts and ".." not in parts
