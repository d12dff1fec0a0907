"""Everything that is wrong with a document that its schema accepts. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from agentorch.contracts.words import short, suggestion

Document = dict[str, Any]

NOT_BELOW = "is not a path below the job's artifacts"


def semantic_problems(
    document: Document, agents: Collection[str], projects: Collection[str]
) -> list[str]:
    """What is wrong with a document that its schema accepts. Pure."""
    steps: list[Document] = document["steps"]
    ids = [step["step_id"] for step in steps]
    problems = [
        f".steps[{number}]{problem}"
        for number, step in enumerate(steps)
        for problem in _step_problems(number, step, ids, agents)
    ]
    project = document.get("project_id")
    if project is not None and project not in projects:
        hint = suggestion(project, projects)
        problems.append(f".project_id: {project!r} is not in PROJECT_ALIASES{hint}")
    if "\0" in document["workdir"]:
        problems.append(".workdir: holds a NUL character")
    return problems


def _step_problems(
    number: int, step: Document, ids: list[str], agents: Collection[str]
) -> Iterable[str]:
    if step["step_id"] in ids[:number]:
        yield f".step_id: {step['step_id']!r} is the id of an earlier step too"
    if step["agent"] not in agents:
        hint = suggestion(step["agent"], agents, "agentorch doctor for those that are there")
        yield f".agent: {step['agent']!r} is unknown{hint}"
    target = step.get("on_failure", "stop").removeprefix("goto:")
    if target != step.get("on_failure", "stop") and target not in ids:
        yield f".on_failure: there is no step {target!r}{suggestion(target, ids)}"
    for place, path in enumerate(step.get("input_artifacts", [])):
        if not artifact_path_is_safe(path):
            yield f".input_artifacts[{place}]: {short(path)} {NOT_BELOW}"
    for place, path in enumerate(step.get("apply_patches_from", [])):
        if path not in ids and not artifact_path_is_safe(path):
            yield f".apply_patches_from[{place}]: {short(path)} is no step and {NOT_BELOW}"
        elif path not in ids and "/" not in path:
            yield f".apply_patches_from[{place}]: there is no step {path!r}{suggestion(path, ids)}"
    if "\0" in step["prompt"]:
        yield ".prompt: holds a NUL character"


def artifact_path_is_safe(path: str) -> bool:
    """Whether a relative path names something below the directory it is relative to."""
    parts = path.split("/")
    return bool(path) and path.isprintable() and not path.startswith("/") and ".." not in parts
