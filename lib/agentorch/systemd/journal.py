"""The journal's entries of our programs: one an event.

Where stderr is the journal, entries go to journald by its native protocol
(https://systemd.io/JOURNAL_NATIVE_PROTOCOL/), with their fields and MESSAGE_ID: by hand, because
sd_journal_send(3) waits where journald does not read, and nothing of ours may wait for that. What
it does not take is dropped and counted; as soon as it takes entries again, one says how many.
Elsewhere an entry is a line on stderr, as text or (LOG_JSON=1) as a JSON object.
Only programs log (runner, step, webhook, commands); the library raises or returns.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from agentorch.config.settings import Settings
from agentorch.core.text import printable
from agentorch.systemd.message_ids import ROUTINE, Message

SOCKET = "/run/systemd/journal/socket"
# The fields that say what an entry is about.
PLACE = ("job", "step", "attempt", "agent", "project")
MOST_MESSAGE_BYTES = 48 * 1024
MOST_FIELD_BYTES = 4 * 1024
# journald refuses an entry with more than 1024 fields, its own included.
MOST_FIELDS = 128
_MOST_NAME_CHARS = 64
_CUT = "…"
_NOTICE = 5
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
_NO_NAME = re.compile(r"[^A-Z0-9_]")
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Journald:
    """The way to journald; it never waits. A child may use it too: the sender of each is seen."""

    def __init__(self, path: str = SOCKET) -> None:
        self.dropped = 0
        self._path = path
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind)

    def close(self) -> None:
        self._socket.close()

    def tell(
        self,
        program: str,
        priority: int,
        text: str,
        message: Message | None,
        fields: Mapping[str, Any],
    ) -> None:
        """Hands an entry over, or drops it; before it goes how many were dropped, if any were."""
        if self.dropped:
            place = {name: fields[name] for name in PLACE if name in fields}
            missing = {**place, "dropped": self.dropped}
            words = f"{self.dropped} entries are missing here: journald did not take them"
            if self._hand_over(entry(program, 4, words, Message.DROPPED, missing)):
                self.dropped = 0
        if self.dropped or not self._hand_over(entry(program, priority, text, message, fields)):
            self.dropped += 1

    def _hand_over(self, content: bytes) -> bool:
        try:
            self._socket.sendto(content, self._path)
        except OSError as problem:  # it is stopped, restarting, overrun, or not there
            return problem.errno == errno.EMSGSIZE and self._hand_over_file(content)
        return True

    def _hand_over_file(self, content: bytes) -> bool:
        """Return an entry that no datagram of this system holds goes as a sealed memory file."""
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        try:
            with open(os.memfd_create("agentorch-entry", flags), "wb", buffering=0) as file:
                file.write(content)
                fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
                passed = array.array("i", [file.fileno()])
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)]
                self._socket.sendmsg([], rights, 0, self._path)
        except OSError:  # as above
            return False
        return True


class Journal:
    """The log of events with their fields: `job`, `step`, `attempt`, `agent`, `project`, and
    others.

    In the journal they are AGENTORCH_JOB= and so on; a field of None is none. `journald` is where
    entries go instead of stderr; None: to journald where stderr is the journal.
    """

    def __init__(self, program: str, settings: Settings, journald: Journald | None = None) -> None:
        self._program = program
        self._least = _PRIORITIES[settings.log_level]
        self._json = settings.log_json
        # its stream is left where the socket can't be reached, from within a chroot
        self._has_levels = journald is None and stderr_is_journal()
        if self._has_levels and os.path.exists(SOCKET):
            journald = Journald()
        self._journald = journald

    @property
    def is_native(self) -> bool:
        """Return whether entries go to journald with their fields."""
        return self._journald is not None

    @property
    def dropped_entries(self) -> int:
        """Return how many entries journald did not take since it last took one."""
        return 0 if self._journald is None else self._journald.dropped

    def close(self) -> None:
        """Nothing is said any more."""
        if self._journald is not None:
            self._journald.close()

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
        if _PRIORITIES[level] > self._least:
            return
        fields = {name: value for name, value in fields.items() if value is not None}
        if self._journald is not None:
            number = priority(level, message)
            self._journald.tell(self._program, number, text, message, fields)
            return
        line = (
            as_json(self._program, level, text, message, fields, datetime.now(UTC))
            if self._json
            else as_text(self._program, text, fields)
        )
        mark = f"<{_PRIORITIES[level]}>" if self._has_levels else ""
        with contextlib.suppress(OSError):  # nobody listens any more: the work goes on
            print(f"{mark}{line}", file=sys.stderr, flush=True)  # noqa: T201  (programs speak here)


def note(program: str, text: str, message: Message, level: str = "INFO", **fields: Any) -> bool:
    """Leave an entry beside what a command tells its user; False where no journald took it."""
    told = {name: value for name, value in fields.items() if value is not None}
    with contextlib.closing(Journald()) as journald:
        journald.tell(program, priority(level, message), text, message, told)
        return not journald.dropped


def stderr_is_journal(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether journald reads our stderr ($JOURNAL_STREAM, systemd.exec(5))."""
    try:
        found = os.fstat(2)
    except OSError:  # it is closed
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


# ---- entries: pure ----------------------------------------------------------------------------


def entry(
    program: str, priority: int, text: str, message: Message | None, fields: Mapping[str, Any]
) -> bytes:
    """Return a journal entry in the native protocol. Pure."""
    told = {
        "PRIORITY": priority,
        "SYSLOG_IDENTIFIER": program,
        **({} if message is None else {"MESSAGE_ID": message.value}),
        **{field_name(name): value for name, value in islice(fields.items(), MOST_FIELDS)},
    }
    rest = (field(name, str(value), MOST_FIELD_BYTES) for name, value in told.items())
    return field("MESSAGE", entry_text(text, fields), MOST_MESSAGE_BYTES) + b"".join(rest)


def priority(level: str, message: Message | None) -> int:
    """Return the syslog priority of an entry. Pure.

    The events that make a job's story are notices: they stand out among what its agents printed.
    """
    if level == "INFO" and message is not None and message not in ROUTINE:
        return _NOTICE
    return _PRIORITIES[level]


def field_name(name: str) -> str:
    """Return the name of a field of ours: A to Z, digits, underscores, 64 at most. Pure."""
    return f"AGENTORCH_{_NO_NAME.sub('_', name.upper())}"[:_MOST_NAME_CHARS]


def field(name: str, value: str, most_bytes: int) -> bytes:
    """Return one field: a value with line ends is preceded by its length, so it brings no others.

    Pure.
    """
    content = shorten(printable(value), most_bytes)
    if b"\n" not in content:
        return name.encode() + b"=" + content + b"\n"
    return name.encode() + b"\n" + len(content).to_bytes(8, "little") + content + b"\n"


def shorten(text: str, most_bytes: int) -> bytes:
    """Return text in at most so many bytes of UTF-8; an ellipsis says that it was cut. Pure."""
    content = text.encode("utf-8", "replace")
    if len(content) <= most_bytes:
        return content
    whole = content[: most_bytes - len(_CUT.encode())].decode("utf-8", "ignore")
    return f"{whole}{_CUT}".encode()


def entry_text(text: str, fields: Mapping[str, Any]) -> str:
    """Return the text behind the job and step that it is about. Pure."""
    where = "/".join(str(fields[name]) for name in ("job", "step") if name in fields)
    return f"{where}: {text}" if where else text


def as_text(program: str, text: str, fields: Mapping[str, Any]) -> str:
    """Return an entry as one line for people. Pure."""
    rest = " ".join(f"{n}={value}" for n, value in fields.items() if n not in ("job", "step"))
    line = f"{program}: {entry_text(text, fields)}"
    return printable(f"{line} ({rest})" if rest else line).replace("\n", "; ")


def as_json(
    program: str,
    level: str,
    text: str,
    message: Message | None,
    fields: Mapping[str, Any],
    now: datetime,
) -> str:
    """Return an entry as one JSON object. Pure."""
    told = {
        **fields,
        "time": now.isoformat(timespec="milliseconds"),
        "level": level,
        "program": program,
        "message": text,
        **({} if message is None else {"event": message.name.lower()}),
    }
    return json.dumps(told, ensure_ascii=False, default=str)
