"""The script of the model: a list of turns, played one a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Usage:
    """Tokens of a turn. `input` counts the cached ones too, `output` those of reasoning."""

    input: int = 100
    output: int = 20
    cached: int = 40
    reasoning: int = 0


@dataclass(frozen=True)
class Call:
    """A tool call, with the tool's name and arguments as the CLI in question wants them."""

    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Turn:
    """An answer: text, then tool calls; `pieces` is in how many events the text is streamed.

    `command` is run by whatever tool of the request runs commands; where there is none, the answer
    says so.

    `before_s` is waited for before the first byte, `between_s` between two events of the text.
    """

    text: str = ""
    calls: tuple[Call, ...] = ()
    usage: Usage = field(default_factory=Usage)
    pieces: int = 2
    before_s: float = 0
    between_s: float = 0
    command: str = ""


@dataclass(frozen=True)
class Fault:
    """An error of the provider. `kind` is the protocol's own word, `retry_after` a header,
    `fields` more of the error's own.
    """

    status: int
    kind: str = ""
    message: str = "the model double was told to fail"
    retry_after: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Hang:
    """A request that is taken and never answered: the connection stays open until the double
    ends.
    """


@dataclass(frozen=True)
class Broken:
    """An answer that breaks off: `how` is `stall` (and never goes on), `drop` (the connection ends)
    or `garbage` (what follows is no event).
    """

    how: str
    text: str = "half an ans"


Answer = Turn | Fault | Hang | Broken
