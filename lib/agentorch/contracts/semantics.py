"""The problems of a document beyond its schema's reach. Pure.

Looked for also where the schema found something, so that all is told at once: a value of the
wrong type is the schema's to name, and is passed over here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from agentorch.contracts.problems import short, suggestion
from agentorch.core.abilities import ANYTHING, Abilities
from agentorch.core.hosts import is_host, is_listed

Document = dict[str, Any]

NOT_BELOW = "is not a path below the job's artifacts"


def semantic_problems(
    document: Document, agents: Mapping[str, Abilities], projects: Collection[str]
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
    number: int, step: Any, ids: Mapping[str, int], agents: Mapping[str, Abilities]
) -> Iterator[str]:
    """`ids` says where each first stands."""
    own = _text(step, "step_id")
    if own and ids[own] < number:
        yield f".step_id: {short(own)} is the id of an earlier step too"
    agent = _text(step, "agent")
    if agent and agent not in agents:
        hint = suggestion(agent, agents, "agentorch doctor for those that are there")
        yield f".agent: {short(agent)} is unknown{hint}"
    yield from _asked_problems(step, agent, agents.get(agent, ANYTHING))
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


def _asked_problems(step: Any, agent: str, takes: Abilities) -> Iterator[str]:
    """Yield what the step asks of its agent that this one does not take."""
    model = _text(step, "model")
    if model and not takes.takes_model(model):
        known = ", ".join(takes.models or ())
        yield f".model: {short(model)} is unknown to {agent} (known: {known}; see ALLOWED_MODELS)"
    for place, tool in enumerate(_texts(step, "allowed_tools")):
        if tool and takes.tools is not None and tool not in takes.tools:
            hint = suggestion(tool, takes.tools)
            yield f".allowed_tools[{place}]: {short(tool)} is no tool of {agent}{hint}"
    options = step.get("options") if isinstance(step, dict) else None
    for name, value in (options if isinstance(options, dict) else {}).items():
        if name in takes.options:
            problem = takes.options[name].problem(value)
            if problem is not None:
                yield f".options.{name}: {short(value)}: {problem}"
        elif takes is not ANYTHING:
            hint = suggestion(name, takes.options)
            yield f".options: {short(name)} is no option of {agent}{hint}"


def _patch_problems(place: int, path: str, ids: Collection[str]) -> Iterator[str]:
    where = f".apply_patches_from[{place}]"
    if not artifact_path_is_safe(path):
        yield f"{where}: {short(path)} is no step and {NOT_BELOW}"
    elif "/" not in path:
        yield f"{where}: there is no step {short(path)}{suggestion(path, ids)}"


def host_problems(document: Document, listed: Collection[str]) -> list[str]:
    """Return what of policy.allow_hosts is no host, or none of the server's list."""
    return [
        f".policy.allow_hosts[{place}]: {problem}"
        for place, host in enumerate(_texts(document.get("policy"), "allow_hosts"))
        if host and (problem := _host_problem(host, listed))
    ]


def _host_problem(host: str, listed: Collection[str]) -> str | None:
    if not is_host(host):
        return f"{short(host)}: expected a name like pypi.org, or pypi.org:8443"
    if not is_listed(host, listed):
        return f"{short(host)} is not allowed here{suggestion(host, listed)} (see ALLOWED_HOSTS)"
    return None


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
    """Return whether a relative path names something below the directory it is relative to."""
    parts = path.split("/")
    return path.isprintable() and "" not in parts and ".." not in parts
