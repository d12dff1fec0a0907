"""What a check of the installation found, in one line. Pure words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """What a check found: `words` of anything but ok say what to do about it."""

    name: str
    state: State
    words: str
