"""What programs say while they work: one entry an event.

Where stderr is the journal, entries go to journald by its native protocol
(https://systemd.io/JOURNAL_NATIVE_PROTOCOL/), with their fields and MESSAGE_ID: by hand, because
sd_journal_send(3) waits where journald does not read, and nothing of ours may wait for that. What
it does not take is dropped and counted; the next entry that it takes says how much was.
Elsewhere it is a line on stderr, as text with its level as `<N>` (sd-daemon(3)), or as JSON.
Only programs log (runner, step, webhook, commands); the library raises or returns.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agentorch.messages import Message
from agentorch.settings import Settings

SOCKET = "/run/systemd/journal/socket"
_SYSLOG = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
# A datagram larger than the socket's buffer would need a memory file; no entry of ours is.
_MOST_BYTES = 48 * 1024


class Journal:
    """Says events with their fields: `job`, `step`, `attempt`, `agent`, `project`, and others.

    In the journal they are AGENTORCH_JOB= and so on.
    """

    def __init__(self, program: str, settings: Settings) -> None:
        self._program = program
        self._least = logging.getLevelNamesMapping()[settings.log_level]
        self._json = settings.log_json
        self._native = _Native() if not settings.log_json and stderr_is_journal() else None
        self._has_levels = "JOURNAL_STREAM" in os.environ

    @property
    def dropped(self) -> int:
        """How many entries journald did not take since the last that it took."""
        return 0 if self._native is None else self._native.dropped

    def debug(self, text: str, message: Message | None = None, **fields: Any) -> None:
        self._say("DEBUG", text, message, fields)

    def info(self, text: str, message: Message | None = None, **fields: Any) -> None:
        self._say("INFO", text, message, fields)

    def warning(self, text: str, message: Message | None = None, **fields: Any) -> None:
        self._say("WARNING", text, message, fields)

    def error(self, text: str, message: Message | None = None, **fields: Any) -> None:
        self._say("ERROR", text, message, fields)

    def _say(
        self, level: str, text: str, message: Message | None, fields: Mapping[str, Any]
    ) -> None:
        if logging.getLevelNamesMapping()[level] < self._least:
            return
        fields = {name: value for name, value in fields.items() if value is not None}
        if self._native is not None:
            self._native.send(entry(self._program, _SYSLOG[level], text, message, fields))
            return
        line = (
            as_json(self._program, level, text, message, fields, datetime.now(UTC))
            if self._json
            else as_text(self._program, text, fields)
        )
        mark = f"<{_SYSLOG[level]}>" if self._has_levels and not self._json else ""
        print(f"{mark}{line}", file=sys.stderr, flush=True)  # noqa: T201  (where programs speak)


def stderr_is_journal(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether journald reads our stderr ($JOURNAL_STREAM, systemd.exec(5))."""
    try:
        found = os.fstat(2)
    except OSError:  # it is closed
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


# ---- entries ----------------------------------------------------------------------------------


def entry(
    program: str, priority: int, text: str, message: Message | None, fields: Mapping[str, Any]
) -> bytes:
    """A journal entry in the native protocol. Pure."""
    told = {
        "MESSAGE": said(text, fields),
        "PRIORITY": priority,
        "SYSLOG_IDENTIFIER": program,
        **({} if message is None else {"MESSAGE_ID": message.value}),
        **{f"AGENTORCH_{name.upper()}": value for name, value in fields.items()},
    }
    return b"".join(field(name, str(value)) for name, value in told.items())


def field(name: str, value: str) -> bytes:
    """One field: a value with line ends is told by its length, it brings no others. Pure."""
    content = value.encode("utf-8", "replace")[:_MOST_BYTES]
    if b"\n" not in content:
        return name.encode() + b"=" + content + b"\n"
    return name.encode() + b"\n" + len(content).to_bytes(8, "little") + content + b"\n"


def said(text: str, fields: Mapping[str, Any]) -> str:
    """The text behind the job and step that it is about. Pure."""
    where = "/".join(str(fields[name]) for name in ("job", "step") if name in fields)
    return f"{where}: {text}" if where else text


def as_text(program: str, text: str, fields: Mapping[str, Any]) -> str:
    """An entry as a line for people. Pure."""
    rest = " ".join(f"{n}={value}" for n, value in fields.items() if n not in ("job", "step"))
    line = f"{program}: {said(text, fields)}"
    return f"{line} ({rest})" if rest else line


def as_json(
    program: str,
    level: str,
    text: str,
    message: Message | None,
    fields: Mapping[str, Any],
    now: datetime,
) -> str:
    """An entry as one JSON object. Pure."""
    told = {
        "time": now.isoformat(timespec="milliseconds"),
        "level": level,
        "program": program,
        "message": text,
        **({} if message is None else {"event": message.name.lower()}),
        **fields,
    }
    return json.dumps(told, ensure_ascii=False, default=str)


class _Native:
    """The way to journald. A child may use it too: journald takes the sender from each datagram."""

    def __init__(self) -> None:
        self.dropped = 0
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind)

    def send(self, content: bytes) -> None:
        """Hands an entry over, or drops it."""
        if self.dropped:
            content += field("AGENTORCH_DROPPED", str(self.dropped))
        try:
            self._socket.sendto(content, SOCKET)
        except OSError:  # it is stopped, restarting, or overrun
            self.dropped += 1
        else:
            self.dropped = 0
