"""What programs say while they work: one line an event on stderr, as text or as JSON.

Under systemd a line begins with its level as `<N>` (sd-daemon(3)), so the journal knows it.
Only programs log (runner, step, commands); the library raises or returns.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

from agentorch.settings import Settings

_SYSLOG = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class Journal:
    """Says events with their fields: `job`, `step`, `attempt`, `agent`, `project`."""

    def __init__(self, program: str, settings: Settings) -> None:
        self._program = program
        self._least = logging.getLevelNamesMapping()[settings.log_level]
        self._json = settings.log_json
        self._under_systemd = "JOURNAL_STREAM" in os.environ

    def debug(self, message: str, **fields: Any) -> None:
        self._say("DEBUG", message, fields)

    def info(self, message: str, **fields: Any) -> None:
        self._say("INFO", message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        self._say("WARNING", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        self._say("ERROR", message, fields)

    def _say(self, level: str, message: str, fields: dict[str, Any]) -> None:
        if logging.getLevelNamesMapping()[level] < self._least:
            return
        line = (
            self._as_json(level, message, fields)
            if self._json
            else self._as_text(level, message, fields)
        )
        print(line, file=sys.stderr, flush=True)  # noqa: T201  (this is where programs speak)

    def _as_json(self, level: str, message: str, fields: dict[str, Any]) -> str:
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        said = {
            "time": when,
            "level": level,
            "program": self._program,
            "message": message,
            **fields,
        }
        return json.dumps(said, ensure_ascii=False, default=str)

    def _as_text(self, level: str, message: str, fields: dict[str, Any]) -> str:
        where = "/".join(str(fields[name]) for name in ("job", "step") if name in fields)
        rest = " ".join(
            f"{name}={value}" for name, value in fields.items() if name not in ("job", "step")
        )
        text = ": ".join(part for part in (self._program, where, message) if part)
        mark = f"<{_SYSLOG[level]}>" if self._under_systemd else ""
        return f"{mark}{text} ({rest})" if rest else f"{mark}{text}"
