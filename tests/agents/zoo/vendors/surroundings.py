"""What a program sees of where it runs."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any


def seen() -> dict[str, Any]:
    """Everything that a test may want to know; the prompt has been read."""
    return {
        "argv": sys.argv,
        "environment": dict(os.environ),
        "home": sorted(str(path) for path in Path.home().rglob("*")),
        "in_home": [text(path) for path in Path.home().rglob("*") if path.is_file()],
        "ttys": [os.isatty(stream) for stream in range(3)],
        "terminal": terminal(),
        "regular": [stat.S_ISREG(os.fstat(stream).st_mode) for stream in range(3)],
        "behind_the_prompt": os.read(0, 100).decode(),
        "descriptors": descriptors(),
    }


def text(path: Path) -> str:
    return path.read_text("utf-8", "replace")


def terminal() -> str:
    """Why there is no controlling terminal; empty where there is one."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError as problem:
        return type(problem).__name__
    return ""


def descriptors() -> list[int]:
    """Those that are open, but for the one that looks."""
    return [number for number in range(3, 256) if _is_open(number)]


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
