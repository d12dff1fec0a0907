"""Everything that is wrong with a document, each with its place: the schema's part."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from agentorch.contracts.fast_validate import Check, compile_schema
from agentorch.contracts.formats import FORMATS
from agentorch.contracts.formats import pattern as strict_pattern
from agentorch.contracts.problems import kind, short, suggestion

SCHEMAS = Path(__file__).parent / "schemas"


def problems_of(document: Any, contract: str) -> list[str]:
    """Everything that a schema (`job`, `result`) has against a document, in its order."""
    if _surely_valid(contract)(document):
        return []
    found = []
    for error in sorted(
        _validator(contract).iter_errors(document), key=lambda e: list(map(str, e.path))
    ):
        found.append(f"{_place(error.absolute_path)}: {_problem_text(error)}")
    return list(dict.fromkeys(found))


def is_valid(document: Any, contract: str) -> bool:
    """Return whether nothing is wrong, without a word about what is: that needs much of the
    outside.

    For contracts all of whose keywords `quick` knows.
    """
    return _surely_valid(contract)(document)


@cache
def _schema(contract: str) -> Any:
    return json.loads((SCHEMAS / f"{contract}.schema.json").read_text("utf-8"))


@cache
def _surely_valid(contract: str) -> Check:
    return compile_schema(_schema(contract))


@cache
def _validator(contract: str) -> Any:
    # imported here: these cost more than all the rest of a command that reads no foreign document
    from jsonschema import Draft202012Validator, FormatChecker  # noqa: PLC0415
    from jsonschema.exceptions import ValidationError  # noqa: PLC0415
    from jsonschema.validators import extend  # noqa: PLC0415

    def pattern(_: Any, expression: str, instance: Any, __: Any) -> Iterable[Any]:
        if isinstance(instance, str) and not strict_pattern(expression).search(instance):
            yield ValidationError(f"does not match {expression}")

    formats = FormatChecker(formats=())
    for name, holds in FORMATS.items():
        formats.checks(name)(holds)
    strict_validator = extend(Draft202012Validator, {"pattern": pattern})  # type: ignore[no-untyped-call]
    return strict_validator(_schema(contract), format_checker=formats)


def _place(path: Iterable[str | int]) -> str:
    place = ""
    for part in path:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    return place or "."


def _problem_text(error: Any) -> str:
    return _SAYS[error.validator](error) if error.validator in _SAYS else str(error.message)[:200]


def _missing(error: Any) -> str:
    # one error a missing key, and its message is the only place that names it
    return str(next(key for key in error.validator_value if repr(key) in error.message))


def _unknown_keys(error: Any) -> str:
    known = list(error.schema.get("properties", ()))
    unknown = [key for key in error.instance if key not in known]
    return "; ".join(f"{short(key)} is unknown{suggestion(key, known)}" for key in unknown)


def _either(types: str | list[str]) -> str:
    return types if isinstance(types, str) else " or ".join(types)


_SAYS: dict[str, Callable[[Any], str]] = {
    "type": lambda e: f"expected {_either(e.validator_value)}, found {kind(e.instance)}",
    "required": lambda e: f"{_missing(e)!r} is missing",
    "const": lambda e: f"expected {e.validator_value!r}, found {short(e.instance)}",
    "enum": lambda e: f"{short(e.instance)} is not one of {', '.join(map(str, e.validator_value))}",
    "minimum": lambda e: f"{e.instance} is below {e.validator_value}",
    "maximum": lambda e: f"{e.instance} is above {e.validator_value}",
    "minLength": lambda _: "is empty",
    "maxLength": lambda e: f"has {len(e.instance)} characters, {e.validator_value} are allowed",
    "minItems": lambda _: "is empty",
    "pattern": lambda e: f"{short(e.instance)} does not match {e.validator_value}",
    "format": lambda e: f"{short(e.instance)} is not a {e.validator_value}",
    "additionalProperties": _unknown_keys,
}
