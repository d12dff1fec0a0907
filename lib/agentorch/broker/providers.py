"""The model providers: where they are, where their key goes, what they speak (providers.toml)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agentorch.broker.wire_formats import Wire
from agentorch.config.toml_tables import read, text, unknown_keys, words
from agentorch.core.errors import Misconfigured

BUILT_IN = Path(__file__).with_name("providers.toml")
# The first part of a path that is ours.
OURS = "agentorch"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)?")
_KEYS = frozenset({"base_url", "base_url_variable", "key_variable", "header", "wires"})
_HEADERS = ("bearer", "x-api-key")


@dataclass(frozen=True)
class Provider:
    """A model provider. `key_variable` empty: it wants no key."""

    name: str
    base_url: str
    key_variable: str
    header: str
    wires: tuple[Wire, ...]

    @property
    def host(self) -> str:
        """Its host's name, for people."""
        return urlsplit(self.base_url).hostname or self.base_url

    @property
    def keyless(self) -> str:
        """Return what stands where the name of a key would, of one that wants none."""
        return f"provider:{self.name}"

    def credentials(self, key: str) -> dict[str, str]:
        """Return the header that has the key."""
        if not key:
            return {}
        return (
            {"x-api-key": key} if self.header == "x-api-key" else {"Authorization": f"Bearer {key}"}
        )


def load(own: Path, environment: Mapping[str, str]) -> dict[str, Provider]:
    """Return the providers by name; the administrator's file says more, or otherwise, than ours.

    Raises Misconfigured with a line a problem.
    """
    tables = {**_tables(read(BUILT_IN), BUILT_IN), **_tables(read(own, optional=True), own)}
    found: dict[str, Provider] = {}
    problems: list[str] = []
    for name, (table, path) in tables.items():
        try:
            found[name] = provider_of(name, table, environment)
        except ValueError as problem:
            problems.append(f"{path}: {name}: {problem}")
    if problems:
        raise Misconfigured(*problems)
    return found


def url_variables(own: Path) -> frozenset[str]:
    """Return the names of variables that may name a base URL. Raises Misconfigured."""
    tables = {**_tables(read(BUILT_IN), BUILT_IN), **_tables(read(own, optional=True), own)}
    named = (
        table.get("base_url_variable") for table, _ in tables.values() if isinstance(table, dict)
    )
    return frozenset(name for name in named if isinstance(name, str) and name)


def _tables(document: Mapping[str, Any], path: Path) -> dict[str, tuple[object, Path]]:
    return {name: (table, path) for name, table in document.items()}


def provider_of(name: str, table: object, environment: Mapping[str, str]) -> Provider:
    """Return a provider as a table has it, at the base URL that its variable names.

    Raises ValueError.
    """
    if not _NAME.fullmatch(name) or name == OURS:
        raise ValueError("expected a name in small letters, and not ours")
    if not isinstance(table, dict):
        raise ValueError("expected a table")  # noqa: TRY004  (of a document, not of ours)
    unknown_keys(table, _KEYS)
    header = text(table, "header", "bearer")
    if header not in _HEADERS:
        raise ValueError(f"header: expected {' or '.join(_HEADERS)}")
    key_variable = text(table, "key_variable")
    if not _VARIABLE.fullmatch(key_variable):
        raise ValueError("key_variable: expected the name of a variable")
    return Provider(name, _base_url(table, environment), key_variable, header, _wires(table))


def _base_url(table: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    variable = text(table, "base_url_variable", "")
    named = environment.get(variable, "") if variable else ""
    place, url = (variable, named) if named else ("base_url", text(table, "base_url"))
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        right = False
    if not right or parts.query or parts.fragment or "@" in parts.netloc or not url.isprintable():
        raise ValueError(
            f"{place}: expected a URL with http or https, a host, and no user or query"
        )
    return url.rstrip("/")


def _wires(table: Mapping[str, Any]) -> tuple[Wire, ...]:
    names = words(table, "wires")
    if unknown := [name for name in names if name not in list(Wire)]:
        raise ValueError(f"wires: {unknown[0]!r}: expected {', '.join(Wire)}")
    return tuple(Wire(name) for name in names)
