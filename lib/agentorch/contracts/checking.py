"""Everything that is wrong with a document, each with its place: the schema's part."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agentorch.contracts.words import kind, short, suggestion
from agentorch.times import moment_of

SCHEMAS = Path(__file__).parents[1] / "schemas"


def problems_of(document: Any, contract: str) -> list[str]:
    """Everything that a schema (`job`, `result`) has against a document, in its order."""
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
    strict_validator = extend(Draft202012Validator, {"pattern": pattern})  # type: ignore[no-untyped-call]
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
    if not isinstance(value, str):
        return True
    if not (value.isascii() and value.isprintable() and _URI.fullmatch(value)):
        return False
    try:
        port = urlsplit(value).port
    except ValueError:  # half an IPv6 address, a port beyond 65535
        return False
    return port != 0


def _place(path: Iterable[str | int]) -> str:
    place = ""
    for part in path:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    return place or "."


def _said(error: Any) -> str:
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
