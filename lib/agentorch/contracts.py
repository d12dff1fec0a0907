"""What is accepted at a door: one reader, one validator, for every way in.

A document is completed (the minimal form gets its defaults), checked against its schema and then
for what a schema can't say. All problems are reported at once, each with its place, as
`.steps[2].agent: 'cluade' is unknown (did you mean 'claude'?)`.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from agentorch.errors import Invalid
from agentorch.job import (
    SCHEMA_VERSION,
    ContextStrategy,
    Handoff,
    Job,
    Network,
    Policy,
    Step,
)

SCHEMAS = Path(__file__).with_name("schemas")
MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 64

Document = dict[str, Any]


@dataclass(frozen=True)
class Door:
    """What a door knows: the agents, the projects, and what it puts where a document is silent."""

    agents: Collection[str]
    projects: Collection[str]
    source_type: str = "manual"
    handoff: Handoff = Handoff.MANUAL


def accept(document: Any, door: Door, now: datetime) -> tuple[Job, Document]:
    """The job that a document asks for, and its normalised form for the disk.

    Raises Invalid with every problem. `now` becomes the time of submission.
    """
    if not isinstance(document, dict):
        raise Invalid([f".: expected an object, found {_kind(document)}"])
    complete = completed(document, door, now)
    problems = problems_of(complete, "job") or semantic_problems(complete, door)
    if problems:
        raise Invalid(problems)
    return job_of(complete), complete


# ---- reading ----------------------------------------------------------------------------------


def parse(content: bytes | str) -> Any:
    """A JSON document, strictly: UTF-8, no duplicate keys, no NaN, bounded size and depth.

    Raises Invalid with the line and column of what is wrong.
    """
    if len(content) > MAX_DOCUMENT_BYTES:
        raise Invalid([f"larger than {MAX_DOCUMENT_BYTES} bytes"])
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        raise Invalid([f"not JSON: {place}: {problem.msg}"]) from problem
    except UnicodeDecodeError as problem:
        raise Invalid([f"not UTF-8: byte {problem.start}"]) from problem
    except UnicodeEncodeError as problem:
        raise Invalid(["a string holds half of a surrogate pair"]) from problem
    except RecursionError as problem:
        raise Invalid([f"nested deeper than {MAX_DEPTH} levels"]) from problem
    except ValueError as problem:  # ours, from the two hooks, or a number of thousands of digits
        raise Invalid([f"not JSON: {problem}"]) from problem
    if _depth_exceeds(document, MAX_DEPTH):
        raise Invalid([f"nested deeper than {MAX_DEPTH} levels"])
    return document


def _unique(pairs: list[tuple[str, Any]]) -> Document:
    document = dict(pairs)
    if len(document) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(f"key {twice[0]!r} stands there twice")
    return document


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def _depth_exceeds(document: Any, limit: int) -> bool:
    level = [document]
    for _ in range(limit):
        level = [
            inner for outer in level if isinstance(outer, dict | list) for inner in _inner(outer)
        ]
        if not level:
            return False
    return True


def _inner(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


# ---- completing -------------------------------------------------------------------------------


def completed(document: Document, door: Door, now: datetime) -> Document:
    """The document with what the minimal form leaves out; what is there stays as it is."""
    goal = document.get("goal")
    defaults: Document = {
        "schema_version": SCHEMA_VERSION,
        "job_id": new_id(now),
        "created_at": rfc3339(now),
        "source": {"type": door.source_type, "meta": {}},
        "project_id": None,
        "workdir": ".",
        "callback_url": None,
        "priority": 5,
        "tags": [],
        "metadata": {},
        "context_window": [],
        "context_strategy": ContextStrategy.SLIDING.value,
        "artifact_handoff": door.handoff.value,
    }
    complete = {**defaults, **document, "submitted_at": rfc3339(now)}
    if not complete.get("steps") and complete.get("steps") in (None, []):
        complete["steps"] = default_steps(goal if isinstance(goal, str) else "")
    policy = complete.get("policy")
    if policy is None:
        complete["policy"] = dict(_POLICY)
    elif isinstance(policy, dict):
        complete["policy"] = {**_POLICY, **policy}
    return complete


_POLICY: Document = {
    "sandbox": True,
    "network": "deny",
    "allowed_binaries": [],
    "requires_approval": False,
}

_PLAN, _IMPLEMENT, _REVIEW = "01_plan", "02_implement", "03_review"


def default_steps(goal: str) -> list[Document]:
    """The default pipeline: plan, implement, review."""
    plan = f"steps/{_PLAN}/report.md"
    work = f"steps/{_IMPLEMENT}"
    return [
        {
            "step_id": _PLAN,
            "agent": "opencode",
            "role": "planner",
            "prompt": f"Read the project and plan the change. Do not edit files.\n\nGoal: {goal}",
            "timeout_sec": 120,
            "max_retries": 1,
        },
        {
            "step_id": _IMPLEMENT,
            "agent": "codex",
            "role": "implementer",
            "prompt": f"Follow the plan and make the change in the workspace.\n\nGoal: {goal}",
            "timeout_sec": 300,
            "max_retries": 1,
            "input_artifacts": [plan],
        },
        {
            "step_id": _REVIEW,
            "agent": "claude",
            "role": "reviewer",
            "prompt": f"Review the change against the goal: is it right, safe, whole?\n\nGoal: {goal}",
            "timeout_sec": 180,
            "max_retries": 1,
            "input_artifacts": [plan, f"{work}/report.md", f"{work}/patch.diff"],
        },
    ]


def new_id(now: datetime) -> str:
    """A UUIDv7 (RFC 9562, section 5.7) of this time as 32 hex digits: ids sort by their time."""
    milliseconds = int(now.timestamp() * 1000) & (1 << 48) - 1
    chance = int.from_bytes(os.urandom(10), "big")
    below_version = (now.microsecond % 1000) << 2 | chance >> 78
    variant = 0b10 << 62 | chance & (1 << 62) - 1
    return f"{milliseconds << 80 | 7 << 76 | (below_version & 0xFFF) << 64 | variant:032x}"


def rfc3339(moment: datetime) -> str:
    """A moment as RFC 3339 in UTC, with microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment_of(text: str) -> datetime:
    """The moment that an RFC 3339 text of a checked document names."""
    return datetime.fromisoformat(text.upper().replace("Z", "+00:00")).astimezone(UTC)


# ---- the schema -------------------------------------------------------------------------------


def problems_of(document: Any, contract: str) -> list[str]:
    """Everything that a schema (`job`, `result`) has against a document, in the document's order."""
    found = []
    for error in sorted(
        _validator(contract).iter_errors(document), key=lambda e: list(map(str, e.path))
    ):
        found.append(f"{_place(error.absolute_path)}: {_said(error)}")
    return list(dict.fromkeys(found))


@cache
def _validator(contract: str) -> Any:
    # imported here: these cost more than all the rest of a command that reads no foreign document
    from jsonschema import Draft202012Validator, FormatChecker  # noqa: PLC0415
    from jsonschema.exceptions import ValidationError  # noqa: PLC0415
    from jsonschema.validators import extend  # noqa: PLC0415

    def pattern(_: Any, expression: str, instance: Any, __: Any) -> Iterable[Any]:
        # `$` of re also matches before a last newline; a name with one is not that name
        strict = expression.removesuffix("$") + r"\Z" if expression.endswith("$") else expression
        if isinstance(instance, str) and not re.search(strict, instance):
            yield ValidationError(f"does not match {expression}")

    formats = FormatChecker(formats=())
    formats.checks("date-time")(_is_moment)
    formats.checks("uri")(_is_uri)
    schema = json.loads((SCHEMAS / f"{contract}.schema.json").read_text("utf-8"))
    strict_validator = extend(Draft202012Validator, {"pattern": pattern})
    return strict_validator(schema, format_checker=formats)


_MOMENT = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,6})?\d*([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_URI = re.compile(r"https?://[^\s/?#@\\]+([/?#][^\s\\]*)?", re.ASCII | re.IGNORECASE)


def _is_moment(value: object) -> bool:
    if not isinstance(value, str):
        return True
    if not _MOMENT.fullmatch(value):
        return False
    try:
        moment_of(re.sub(r"(\.\d{6})\d+", r"\1", value))
    except (ValueError, OverflowError):  # 30 February, year 0
        return False
    return True


def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or bool(
        value.isascii() and value.isprintable() and _URI.fullmatch(value)
    )


def _place(path: Iterable[str | int]) -> str:
    place = ""
    for part in path:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    return place or "."


_SAYS: dict[str, Callable[[Any], str]] = {
    "type": lambda e: f"expected {_either(e.validator_value)}, found {_kind(e.instance)}",
    "required": lambda e: f"{_missing(e)!r} is missing",
    "const": lambda e: f"expected {e.validator_value!r}, found {_short(e.instance)}",
    "enum": lambda e: (
        f"{_short(e.instance)} is not one of {', '.join(map(str, e.validator_value))}"
    ),
    "minimum": lambda e: f"{e.instance} is below {e.validator_value}",
    "maximum": lambda e: f"{e.instance} is above {e.validator_value}",
    "minLength": lambda _: "is empty",
    "maxLength": lambda e: f"has {len(e.instance)} characters, {e.validator_value} are allowed",
    "minItems": lambda _: "is empty",
    "pattern": lambda e: f"{_short(e.instance)} does not match {e.validator_value}",
    "format": lambda e: f"{_short(e.instance)} is not a {e.validator_value}",
    "additionalProperties": lambda e: _unknown_keys(e),
}


def _said(error: Any) -> str:
    return _SAYS[error.validator](error) if error.validator in _SAYS else str(error.message)[:200]


def _missing(error: Any) -> str:
    # one error a missing key, and its message is the only place that names it
    return next(key for key in error.validator_value if repr(key) in error.message)


def _unknown_keys(error: Any) -> str:
    known = list(error.schema.get("properties", ()))
    unknown = [key for key in error.instance if key not in known]
    return "; ".join(f"{_short(key)} is unknown{_suggestion(key, known)}" for key in unknown)


def _either(types: str | list[str]) -> str:
    return types if isinstance(types, str) else " or ".join(types)


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _suggestion(word: str, known: Iterable[str], page: str = "") -> str:
    near = difflib.get_close_matches(word, list(known), 1)
    hints = [f"did you mean {near[0]!r}?"] if near else []
    hints += [f"see {page}"] if page else []
    return f" ({' '.join(hints)})" if hints else ""


# ---- what a schema can't say ------------------------------------------------------------------


def semantic_problems(document: Document, door: Door) -> list[str]:
    """What is wrong with a document that its schema accepts. Pure."""
    steps: list[Document] = document["steps"]
    ids = [step["step_id"] for step in steps]
    problems = [
        f".steps[{number}]{problem}"
        for number, step in enumerate(steps)
        for problem in _step_problems(number, step, ids, door)
    ]
    project = document.get("project_id")
    if project is not None and project not in door.projects:
        hint = _suggestion(project, door.projects)
        problems.append(f".project_id: {project!r} is not in PROJECT_ALIASES{hint}")
    if "\0" in document["workdir"]:
        problems.append(".workdir: holds a NUL character")
    return problems


def _step_problems(number: int, step: Document, ids: list[str], door: Door) -> Iterable[str]:
    if step["step_id"] in ids[:number]:
        yield f".step_id: {step['step_id']!r} is the id of an earlier step too"
    if step["agent"] not in door.agents:
        hint = _suggestion(step["agent"], door.agents, "agentorch doctor for those that are there")
        yield f".agent: {step['agent']!r} is unknown{hint}"
    target = step.get("on_failure", "stop").removeprefix("goto:")
    if target != step.get("on_failure", "stop") and target not in ids:
        yield f".on_failure: there is no step {target!r}{_suggestion(target, ids)}"
    for place, path in enumerate(step.get("input_artifacts", [])):
        if not artifact_path_is_safe(path):
            yield f".input_artifacts[{place}]: {_short(path)} is not a path below the job's artifacts"
    for place, path in enumerate(step.get("apply_patches_from", [])):
        if path not in ids and not artifact_path_is_safe(path):
            yield f".apply_patches_from[{place}]: {_short(path)} is neither a step nor a path below the job's artifacts"
        elif path not in ids and "/" not in path:
            yield f".apply_patches_from[{place}]: there is no step {path!r}{_suggestion(path, ids)}"
    if "\0" in step["prompt"]:
        yield ".prompt: holds a NUL character"


def artifact_path_is_safe(path: str) -> bool:
    """Whether a relative path names something below the directory it is relative to."""
    parts = path.split("/")
    return bool(path) and path.isprintable() and not path.startswith("/") and ".." not in parts


# ---- values -----------------------------------------------------------------------------------


def job_of(document: Document) -> Job:
    """The value of a complete, checked document."""
    policy = document["policy"]
    return Job(
        job_id=document["job_id"],
        created_at=document["created_at"],
        submitted_at=moment_of(document["submitted_at"]),
        goal=document["goal"],
        steps=tuple(_step_of(step) for step in document["steps"]),
        source_type=document["source"]["type"],
        project_id=document["project_id"],
        workdir=document["workdir"],
        callback_url=document["callback_url"],
        priority=document["priority"],
        tags=tuple(document["tags"]),
        metadata=document["metadata"],
        context_window=tuple(document["context_window"]),
        context_strategy=ContextStrategy(document["context_strategy"]),
        artifact_handoff=Handoff(document["artifact_handoff"]),
        policy=Policy(
            sandbox=policy["sandbox"],
            network=Network(policy["network"]),
            allowed_binaries=tuple(policy["allowed_binaries"]),
            requires_approval=policy["requires_approval"],
        ),
    )


# A step's optional fields: the name in the document, the field of Step, how its value is made.
_STEP_FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "timeout_sec": ("timeout_s", int),
    "max_retries": ("max_retries", int),
    "retry_backoff_sec": ("retry_backoff_s", float),
    "input_artifacts": ("input_artifacts", tuple),
    "apply_patches_from": ("apply_patches_from", tuple),
    "allowed_tools": ("allowed_tools", lambda tools: None if tools is None else tuple(tools)),
    "on_failure": ("on_failure", str),
}


def _step_of(document: Document) -> Step:
    optional = {
        attribute: make(document[name])
        for name, (attribute, make) in _STEP_FIELDS.items()
        if name in document
    }
    return Step(
        step_id=document["step_id"],
        agent=document["agent"],
        role=document["role"],
        prompt=document["prompt"],
        **optional,
    )
