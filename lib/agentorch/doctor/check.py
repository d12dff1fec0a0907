"""The result of one check of the installation. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """The result of a check; for a warning or a problem `words` say what to do about it."""

    name: str
    state: State
    words: str
