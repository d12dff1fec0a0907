"""The journal as it is read: the entries of jobs, as they come; sd-journal(3)."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from agentorch.core.errors import Misconfigured
from agentorch.core.text import one_line
from agentorch.systemd.message_ids import Message

Entry = Mapping[str, Any]


class Pollable(Protocol):
    """Something with a descriptor that is readable when an event has come."""

    def fileno(self) -> int: ...


class JournalReader:
    """The entries of some jobs; with a step, those of that step alone.

    Raises Misconfigured where python3-systemd is missing or the journal can't be opened. A user
    who may not read the system's journal finds no entries in it.
    """

    def __init__(self, job_ids: Collection[str], step_id: str | None = None) -> None:
        try:
            from systemd import journal  # noqa: PLC0415  (16 ms)
        except ImportError as problem:
            raise Misconfigured(
                "to read the journal Python's module systemd is needed: install python3-systemd"
            ) from problem
        try:
            self._reader = journal.Reader()
        except OSError as problem:
            raise Misconfigured(f"the journal can't be read: {problem.strerror}") from problem
        # values of one field are alternatives, of two fields both must hold
        for job_id in job_ids:
            self._reader.add_match(f"AGENTORCH_JOB={job_id}")
        if step_id is not None:
            self._reader.add_match(f"AGENTORCH_STEP={step_id}")

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries after those that were read before, as far as there are any now."""
        while entry := self._reader.get_next():
            yield entry

    def last_entries(self, count: int) -> list[Entry]:
        """Return the last entries, the oldest of them first."""
        self._reader.seek_tail()
        found: list[Entry] = []
        while len(found) < count and (entry := self._reader.get_previous()):
            found.append(entry)
        return found[::-1]

    def wait(self, *others: Pollable, timeout_s: float | None = None) -> None:
        """Wait until the journal changed, or one of the others is readable."""
        self._reader.fileno()  # begins the watch
        ends_in_s = self._reader.get_timeout_ms() / 1000
        limits = [limit for limit in (timeout_s, ends_in_s) if limit is not None and limit >= 0]
        readable = select.select([self._reader, *others], [], [], min(limits, default=None))
        if self._reader in readable[0]:
            self._reader.process()

    def close(self) -> None:
        self._reader.close()


def is_end_of_job(entry: Entry) -> bool:
    """Return whether this is the entry that a runner leaves when a job has ended."""
    return entry.get("MESSAGE_ID") == UUID(Message.FINISHED)


def entry_line(entry: Entry) -> str:
    """Return an entry as a line: time, program and text, as journalctl(1) has them. Pure."""
    when = entry["__REALTIME_TIMESTAMP"]
    moment = when.astimezone() if isinstance(when, datetime) else when
    program = _text(entry.get("SYSLOG_IDENTIFIER", "-"))
    return f"{moment:%b %d %H:%M:%S} {program}: {one_line(_text(entry.get('MESSAGE', '')), 4000)}"


def entry_json(entry: Entry) -> str:
    """Return an entry as one JSON object: every field a string, times in microseconds. Pure."""
    values: dict[str, Any] = {}
    for name, value in sorted(entry.items()):
        many = value if isinstance(value, list) else [value]
        texts = [_text(one) for one in many]
        values[name] = texts if isinstance(value, list) else texts[0]
    return json.dumps(values, ensure_ascii=True)


def _text(value: object) -> str:
    match value:
        case bytes():
            return value.decode("utf-8", "replace")
        case UUID():
            return value.hex
        case datetime():
            return str(round(value.timestamp() * 1_000_000))
        case (timestamp, *_) if hasattr(timestamp, "total_seconds"):  # monotonic, and its boot
            return str(round(timestamp.total_seconds() * 1_000_000))
    return str(value)


def follow(
    reader: JournalReader,
    show: Callable[[Entry], None],
    has_ended: Callable[[], bool],
    job_ids: Collection[str],
    events: Pollable,
    grace_s: float = 2.0,
) -> None:
    """Show entries as they come until all jobs have ended and the last entry of each was shown.

    `events` is readable when a job may have ended. A job whose last entry does not come within the
    grace (it ended long ago, or journald dropped it) is not waited for.
    """
    unseen = set(job_ids)
    until: float | None = None
    while True:
        ended = has_ended()  # asked first: what was written before it is among the entries
        for entry in reader:
            show(entry)
            if is_end_of_job(entry):
                unseen.discard(_text(entry.get("AGENTORCH_JOB", "")))
        if not ended:
            reader.wait(events)
            continue
        now = time.monotonic()
        until = until or now + grace_s
        if not unseen or now >= until:
            return
        reader.wait(timeout_s=until - now)
