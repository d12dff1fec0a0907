"""The folder of schedules: what its files say, and what is wrong with them.

A file is good or it is not there; what is wrong with one is told with its place and harms no other.
The generator reads this at every boot: no payload is judged here, the door does that.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentorch.contracts.parse import MAX_DOCUMENT_BYTES, parse
from agentorch.contracts.validate import is_valid, problems_of
from agentorch.core.errors import Invalid
from agentorch.core.text import one_line
from agentorch.schedules import cron
from agentorch.schedules.timers import Overlap, Schedule, units

Document = dict[str, Any]

UNTOLD = "is no schedule: agentorch-schedule check says why"

# What every run sets itself.
OWN = ("job_id", "created_at", "submitted_at", "source")


@dataclass(frozen=True)
class Folder:
    """The schedules of some files, by their ids in order, and what is wrong, a line a problem."""

    schedules: tuple[Schedule, ...] = ()
    problems: tuple[str, ...] = ()


def files(directory: Path) -> list[Path]:
    """Return the files of a folder that are schedules, sorted; none where there is no folder.

    Raises Invalid where it can't be listed.
    """
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as problem:
        raise Invalid([f"{directory}: {problem.strerror}"]) from problem
    return [directory / name for name in names if name.endswith(".json") and name[0] != "."]


def read(directory: Path, *, briefly: bool = False) -> Folder:
    """Return what is in a folder; `briefly` where the schema's words about a bad file are not
    needed.
    """
    try:
        return read_files(files(directory), briefly=briefly)
    except Invalid as invalid:
        return Folder(problems=invalid.problems)


def read_files(paths: Iterable[Path], *, briefly: bool = False) -> Folder:
    """Return what is in these files. Of several with one id the first is the schedule."""
    found: dict[str, tuple[Schedule, Path]] = {}
    problems: list[str] = []
    for path in paths:
        try:
            schedule = read_file(path, briefly=briefly)
        except Invalid as invalid:
            problems += invalid.problems
            continue
        _, first = found.setdefault(schedule.schedule_id, (schedule, path))
        if first != path:
            words = (
                f".id: {schedule.schedule_id!r} is that of {_display_path(first)} too, which counts"
            )
            problems.append(f"{_display_path(path)}: {words}")
    return Folder(tuple(found[name][0] for name in sorted(found)), tuple(problems))


def read_file(path: Path, *, briefly: bool = False) -> Schedule:
    """Return the schedule in a file. Raises Invalid with every problem, behind the file's name."""
    try:
        return schedule_of(parse(_content(path)), briefly=briefly)
    except OSError as problem:
        raise Invalid([f"{_display_path(path)}: {problem.strerror}"]) from problem
    except Invalid as invalid:
        raise Invalid(
            [f"{_display_path(path)}: {problem}" for problem in invalid.problems]
        ) from invalid


def schedule_of(document: Any, *, briefly: bool = False) -> Schedule:
    """Return the schedule that a document says.

    Raises Invalid with every problem and its place. Pure.
    """
    if briefly:
        problems = [] if is_valid(document, "schedule") else [UNTOLD]
    else:
        problems = problems_of(document, "schedule")
    if isinstance(document, dict):
        problems += _beyond(document)
    if problems:
        raise Invalid(problems)
    expression = document.get("schedule")
    return Schedule(
        document["id"],
        " ".join((expression or document["on_calendar"]).split()),
        cron.parse(expression) if expression else None,
        document["payload"],
        document.get("enabled", True),
        Overlap(document.get("overlap", Overlap.SKIP)),
        document.get("jitter_s", 0),
        document.get("persistent", True),
    )


def _beyond(document: Document) -> Iterator[str]:
    """Yield what is wrong beyond the schema's reach."""
    if ("schedule" in document) is ("on_calendar" in document):
        yield ".: expected one of 'schedule' and 'on_calendar'"
    expression = document.get("schedule")
    if isinstance(expression, str) and 0 < len(expression) <= 512:
        try:
            cron.parse(expression)
        except Invalid as invalid:
            yield from (f".schedule: {problem}" for problem in invalid.problems)
    payload = document.get("payload")
    given = payload if isinstance(payload, dict) else {}
    yield from (f".payload.{name}: is set by each run" for name in OWN if name in given)


def unit_files(directory: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return unit files of the folder by their names, and what is wrong in it."""
    folder = read(directory, briefly=True)
    return units(folder.schedules, folder.problems), folder.problems


def _content(path: Path) -> bytes:
    # a FIFO would be waited for, and all the boot with it
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Invalid(["is not a file"])
        return file.read(MAX_DOCUMENT_BYTES + 1)


def _display_path(path: Path) -> str:
    """Return a path as a line can hold it: it comes into a unit's comment."""
    return one_line(str(path), 400)
