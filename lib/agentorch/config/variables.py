"""The readers of the configuration's variables: each returns its value.

It raises ValueError with what was expected.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from agentorch.core.hosts import is_listed_host
from agentorch.core.job import Expiry

Version = tuple[int, ...]
MOST_NAME_CHARS = 64


def text(text: str) -> str:
    return text


def size_bytes(text: str) -> int:
    """Return a size as systemd spells one: a number with K, M, G or T (powers of 1024), or none."""
    match = re.fullmatch(r"(\d{1,15})([KMGT]?)", text.strip(), re.ASCII)
    if match is None:
        raise ValueError("expected a number of bytes, or one with K, M, G or T")
    return int(match[1]) << 10 * " KMGT".index(match[2] or " ")


def percent(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,5}%", text.strip(), re.ASCII):
        raise ValueError("expected a percentage, like 150%")
    return int(text.strip()[:-1])


def between(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text.strip(), re.ASCII) or not least <= int(text) <= most:
            raise ValueError(f"expected a whole number from {least} to {most}")
        return int(text)

    return read


def boolean(text: str) -> bool:
    match text.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off" | "":
            return False
    raise ValueError("expected 1, true, yes, on, 0, false, no or off")


def whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,18}", text.strip(), re.ASCII) or int(text) < least:
            raise ValueError(f"expected a whole number, {least} or more")
        return int(text)

    return read


def seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text.strip(), re.ASCII) or not float(text):
        raise ValueError("expected a number of seconds above 0")
    return float(text)


def amount(text: str) -> float:
    if not re.fullmatch(r"\d{1,12}(\.\d{1,6})?", text.strip(), re.ASCII):
        raise ValueError("expected an amount of US dollars, 0 or more")
    return float(text)


def one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"expected {' or '.join(words)}")
        return text

    return read


def words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def hosts(text: str) -> tuple[str, ...]:
    hosts = words(text)
    for host in hosts:
        if not is_listed_host(host):
            raise ValueError(f"{host!r}: expected NAME, NAME:PORT or *.NAME")
    return hosts


def arguments(text: str) -> tuple[str, ...]:
    import shlex  # noqa: PLC0415  (only where wrapper arguments are set: commands start faster)

    return tuple(shlex.split(text))


def absolute(text: str) -> Path:
    if not text.startswith("/") or "\0" in text:
        raise ValueError("expected an absolute path")
    return Path(text)


def pairs(text: str) -> list[tuple[str, str]]:
    pairs = []
    for word in words(text):
        name, equals, value = word.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ValueError(f"{word!r}: expected name=value")
        pairs.append((name.strip(), value.strip()))
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError("a name stands there twice")
    return pairs


def aliases(text: str) -> Mapping[str, Path]:
    aliases = {}
    for name, value in pairs(text):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
            raise ValueError(f"{name!r} is not a project id")
        aliases[name] = absolute(value)
    return MappingProxyType(aliases)


def amounts(text: str) -> Mapping[str, float]:
    """Amounts of US dollars by names: of projects, or of agents."""
    found = {}
    for name, value in pairs(text):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
            raise ValueError(f"{name!r} is no name")
        found[name] = amount(value)
    return MappingProxyType(found)


def version(text: str) -> Version:
    """`1.2.3` as (1, 2, 3); ValueError where it is not numbers and dots."""
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9}){0,5}", text, re.ASCII):
        raise ValueError(f"{text!r}: expected a version like 1.2.3")
    return tuple(int(number) for number in text.split("."))


def versions(text: str) -> Mapping[str, Version]:
    return MappingProxyType({name: version(value) for name, value in pairs(text)})


def receivers(text: str) -> tuple[str, ...]:
    """Hosts by name or address, each with a port or without."""
    for word in words(text):
        if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:\d{1,5})?", word):
            raise ValueError(f"{word!r}: expected HOST or HOST:PORT")
    return words(text)


def secrets(text: str) -> tuple[bytes, ...]:
    """Secrets to sign with, the first one the newest."""
    return tuple(secret_of(word) for word in words(text))


def addresses(text: str) -> tuple[str, ...]:
    import ipaddress  # noqa: PLC0415  (only where proxies are named: commands start faster)

    for word in words(text):
        try:
            ipaddress.ip_network(word)
        except ValueError as problem:
            raise ValueError(f"{word!r}: expected an address or a network") from problem
    return words(text)


def tokens(text: str) -> Mapping[str, frozenset[str] | None]:
    """Webhook tokens, each with its projects; None: all of them."""
    tokens: dict[str, frozenset[str] | None] = {}
    try:
        given = pairs(text)
    except ValueError:  # its words show a token
        raise ValueError("expected token=project|project or token=*, each token once") from None
    for token, value in given:
        projects = frozenset(word.strip() for word in value.split("|") if word.strip())
        tokens[token] = None if "*" in projects else projects
    return MappingProxyType(tokens)


@dataclass(frozen=True)
class Decider:
    """A token that may decide by HTTP: its projects, None for all of them; and its name."""

    projects: frozenset[str] | None
    name: str = ""


def deciders(text: str) -> Mapping[str, Decider]:
    """Webhook tokens that decide: as `tokens`, each with a name behind a # or without."""
    names = {}
    plain = []
    for word in words(text):
        given, _, name = word.partition("#")
        if len(name) > MOST_NAME_CHARS or not name.isprintable():
            raise ValueError(f"expected a name of {MOST_NAME_CHARS} printable characters at most")
        names[given.partition("=")[0].strip()] = name.strip()
        plain.append(given)
    found = tokens(",".join(plain))
    return MappingProxyType({it: Decider(found[it], names[it]) for it in found})


def expiry(text: str) -> Expiry:
    return Expiry(one_of(*Expiry)(text))


def log_level(text: str) -> str:
    return one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")(text.upper())


SECRET_PREFIX = "whsec_"


# Fewer bytes than the scheme asks for are none.
LEAST_SECRET_BYTES = 24


def secret_of(text: str) -> bytes:
    """Return the bytes of `whsec_BASE64`. Raises ValueError."""
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError as problem:
        raise ValueError("expected whsec_ and base64") from problem
    if not text.startswith(SECRET_PREFIX) or len(secret) < LEAST_SECRET_BYTES:
        raise ValueError(f"expected whsec_ and {LEAST_SECRET_BYTES} bytes or more as base64")
    return secret
