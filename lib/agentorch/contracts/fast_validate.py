"""A quick yes: a schema as nested functions that say whether a document is surely valid. Pure.

A door sees valid documents nearly always, and jsonschema takes a millisecond for each. What gets
no yes here, for whatever reason, is left to it: it decides, and it names the problems. So a keyword
that is not known here costs time and nothing else; a yes to what jsonschema refuses would be a
bug, and a test with generated documents looks for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentorch.contracts.formats import FORMATS, pattern

Check = Callable[[Any], bool]
Schema = Mapping[str, Any]

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
# These say nothing about a document.
_SILENT = frozenset({"$schema", "$id", "$defs", "title", "description", "default"})


def compile_schema(schema: Schema) -> Check:
    """Return a function that says whether a document is surely valid under this schema."""
    return _Compiler(schema).check(schema)


class _Compiler:
    def __init__(self, root: Schema) -> None:
        self._root = root
        self._made: dict[str, Check] = {}

    def check(self, schema: Schema) -> Check:
        checks = [self._keyword(name, schema) for name in schema if name not in _SILENT]
        if len(checks) == 1:
            return checks[0]
        return lambda value: all(check(value) for check in checks)

    def _keyword(self, name: str, schema: Schema) -> Check:
        asked = schema[name]
        match name:
            case "$ref":
                return self._reference(asked)
            case "properties":
                return _properties({key: self.check(inner) for key, inner in asked.items()})
            case "items":
                return _items(self.check(asked))
            case "additionalProperties" if asked is False:
                return _only(frozenset(schema.get("properties", ())))
        return _PLAIN[name](asked) if name in _PLAIN else _never

    def _reference(self, reference: str) -> Check:
        """Return the check of another place in the schema; made when it is needed: it may hold
        itself.
        """

        def check(value: Any) -> bool:
            if reference not in self._made:
                self._made[reference] = self.check(self._place(reference))
            return self._made[reference](value)

        return check

    def _place(self, reference: str) -> Schema:
        place = self._root
        for name in reference.split("/")[1:]:
            place = place[name]
        return place


def _never(_: Any) -> bool:
    return False


def _types(asked: str | Sequence[str]) -> Check:
    names = [asked] if isinstance(asked, str) else asked
    kinds = [_TYPES[name] for name in names]
    flat = tuple(one for kind in kinds for one in (kind if isinstance(kind, tuple) else (kind,)))
    # True is an int to Python, and none to JSON
    if "boolean" in names:
        return lambda value: isinstance(value, flat)
    return lambda value: isinstance(value, flat) and value is not True and value is not False


def _properties(known: Mapping[str, Check]) -> Check:
    def check(value: Any) -> bool:
        if not isinstance(value, dict):
            return True
        return all(key not in known or known[key](inner) for key, inner in value.items())

    return check


def _only(names: frozenset[str]) -> Check:
    return lambda value: not isinstance(value, dict) or names >= value.keys()


def _required_keys(names: Sequence[str]) -> Check:
    wanted = frozenset(names)
    return lambda value: not isinstance(value, dict) or wanted <= value.keys()


def _items(check: Check) -> Check:
    return lambda value: not isinstance(value, list) or all(map(check, value))


def _one_of(values: Sequence[Any]) -> Check:
    # only text is compared: 1, 1.0 and True are another matter in JSON
    texts = frozenset(value for value in values if isinstance(value, str))
    return lambda value: isinstance(value, str) and value in texts


def _pattern(expression: str) -> Check:
    search = pattern(expression).search
    return lambda value: not isinstance(value, str) or search(value) is not None


def _kind_check(kinds: type | tuple[type, ...], holds: Check) -> Check:
    return lambda value: not isinstance(value, kinds) or holds(value)


_NUMBERS = (int, float)
_PLAIN: Mapping[str, Callable[[Any], Check]] = {
    "type": _types,
    "required": _required_keys,
    "const": lambda value: _one_of([value]),
    "enum": _one_of,
    "pattern": _pattern,
    "format": lambda name: FORMATS.get(name, _never),
    "minLength": lambda bound: _kind_check(str, lambda value: len(value) >= bound),
    "maxLength": lambda bound: _kind_check(str, lambda value: len(value) <= bound),
    "minItems": lambda bound: _kind_check(list, lambda value: len(value) >= bound),
    "maxItems": lambda bound: _kind_check(list, lambda value: len(value) <= bound),
    "minimum": lambda bound: _kind_check(_NUMBERS, lambda value: value >= bound),
    "maximum": lambda bound: _kind_check(_NUMBERS, lambda value: value <= bound),
}
