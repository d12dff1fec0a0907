"""agentorch-schedule: submits jobs at times of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Any

import click

from agentorch.agents.registry import load
from agentorch.artifacts.directory import JobArtifacts
from agentorch.commands.base import (
    caller_fields,
    load_settings,
    note,
    print_json,
    print_line,
    program,
)
from agentorch.config.settings import Settings
from agentorch.contracts.accept import ServerRules
from agentorch.core.errors import Invalid
from agentorch.core.times import rfc3339
from agentorch.jobqueue.jobqueue import Queue, read_job
from agentorch.jobqueue.lookup import status_word
from agentorch.schedules import files, fire
from agentorch.schedules.files import Folder
from agentorch.schedules.fire import Fired
from agentorch.schedules.timers import Schedule, crontab
from agentorch.systemd import on_calendar
from agentorch.systemd.message_ids import Message


@dataclass(frozen=True)
class Options:
    """The options of the command, but for the verb."""

    words: tuple[str, ...]
    times: int
    due: bool
    as_json: bool

    def only(self, most: int) -> tuple[str, ...]:
        """Return the words, where there are no more than that. Raises UsageError."""
        if len(self.words) > most:
            raise click.UsageError(f"one word too many: {self.words[most]}")
        return self.words


@program()
@click.argument(
    "verb", metavar="VERB", type=click.Choice(("list", "check", "next", "run", "crontab"))
)
@click.argument("words", metavar="[WORD]...", nargs=-1)
@click.option(
    *("-n", "times"),
    type=click.IntRange(1, 1000),
    default=10,
    metavar="N",
    show_default=True,
    help="next: how many times.",
)
@click.option("--due", is_flag=True, help="run: for the time that it is due, and that once.")
@click.option("--json", "as_json", is_flag=True, help="list, next, run: one object a line.")
def main(verb: str, words: tuple[str, ...], times: int, *, due: bool, as_json: bool) -> None:
    """Submit jobs at times of their own: those of the schedules in schedules/*.json.

    \b
    list             the schedules, when each runs next, and its last job
    check [FILE]...  says what is wrong with all of them, or with FILEs
    next [ID]        the next times, of all or of one
    run ID           submits the job of a schedule now
    crontab          lines for cron(8), where there is no systemd
    """
    VERBS[verb](load_settings(), Options(words, times, due, as_json))


def _read_folder(settings: Settings) -> Folder:
    """Return the schedules; print what is wrong with others."""
    folder = files.read(settings.schedules_directory)
    for problem in folder.problems:
        print_line(problem)
    return folder


def _find_schedule(settings: Settings, name: str) -> Schedule:
    """Return the schedule of an id.

    Raises Invalid, with what is wrong with files where there is none.
    """
    folder = files.read(settings.schedules_directory)
    for one in folder.schedules:
        if one.schedule_id == name:
            return one
    place = settings.schedules_directory
    raise Invalid([*folder.problems, f"{place}: there is no schedule {name!r}"])


# ---- list -------------------------------------------------------------------------------------


def _list(settings: Settings, asked: Options) -> None:
    asked.only(0)
    rows = [_row(settings, one) for one in _read_folder(settings).schedules]
    if asked.as_json:
        for row in rows:
            print_json(row)
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        for row in rows:
            click.echo("\t".join(map(_display, row.values())))


def _row(settings: Settings, schedule: Schedule) -> dict[str, Any]:
    known = fire.read_record(settings.schedules, schedule.schedule_id)
    soon = next(_times(schedule, datetime.now(UTC), 1), None) if schedule.enabled else None
    return {
        "id": schedule.schedule_id,
        "enabled": schedule.enabled,
        "schedule": schedule.expression,
        "next": None if soon is None else rfc3339(soon),
        "last": known.at,
        "job_id": known.job_id,
        "status": None if known.job_id is None else _status(Queue(settings.roots), known.job_id),
    }


def _status(queue: Queue, job_id: str) -> str | None:
    """Return how a job does; None: it was removed since."""
    artifacts = queue.roots.artifacts(job_id)
    try:
        place = queue.find(read_job(artifacts.job))
    except FileNotFoundError:
        return None
    return status_word(place[0] if place else None, JobArtifacts(artifacts).read_state())


def _display(value: object) -> str:
    if isinstance(value, bool):
        return "enabled" if value else "disabled"
    return "-" if value is None else str(value)


def _print_table(rows: Iterable[Mapping[str, Any]]) -> None:
    # imported here: only a terminal needs it
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ID", "", "SCHEDULE", "NEXT", "LAST", "JOB", "STATUS"):
        table.add_column(name, no_wrap=name != "SCHEDULE")
    for row in rows:
        words = {**row, "next": _to_the_second(row["next"]), "last": _to_the_second(row["last"])}
        table.add_row(*map(_display, words.values()), style="" if row["enabled"] else "dim")
    Console().print(table)


def _to_the_second(moment: str | None) -> str | None:
    return None if moment is None else f"{moment[:19]}Z"


# ---- next -------------------------------------------------------------------------------------


def _next(settings: Settings, asked: Options) -> None:
    names = asked.only(1)
    chosen = [_find_schedule(settings, name) for name in names] or [
        one for one in _read_folder(settings).schedules if one.enabled
    ]
    now = datetime.now(UTC)
    every = merge(*(_with_id(one, now, asked.times) for one in chosen))
    for moment, name in islice(every, asked.times):
        if asked.as_json:
            print_json({"time": rfc3339(moment), "id": name})
        else:
            click.echo(f"{_to_the_second(rfc3339(moment))}\t{name}")


def _with_id(schedule: Schedule, now: datetime, most: int) -> Iterator[tuple[datetime, str]]:
    for moment in _times(schedule, now, most):
        yield moment, schedule.schedule_id


def _times(schedule: Schedule, now: datetime, most: int) -> Iterator[datetime]:
    """Yield the next times, no more than that; of a calendar event, as systemd tells them."""
    if schedule.cron is None:
        yield from _events(schedule, most)
        return
    for _ in range(most):
        now = schedule.cron.next_after(now)
        yield now


def _events(schedule: Schedule, most: int) -> list[datetime]:
    try:
        times = on_calendar.next_times(schedule.expression, most)
    except Invalid as invalid:
        print_line(f"{schedule.schedule_id}: {invalid}")
        return []
    if times is None:
        print_line(
            f"{schedule.schedule_id}: {schedule.expression}: only systemd-analyze knows when"
        )
    return times or []


# ---- check ------------------------------------------------------------------------------------


def _check(settings: Settings, asked: Options) -> None:
    named = [Path(word) for word in asked.words]
    folder = files.read_files(named or files.files(settings.schedules_directory))
    door = _door(settings)
    wrong = [problem for one in folder.schedules for problem in _problems(one, door)]
    if folder.problems or wrong:
        raise Invalid([*folder.problems, *wrong])
    for one in folder.schedules:
        click.echo(one.schedule_id)


def _problems(schedule: Schedule, door: ServerRules) -> Iterator[str]:
    """Yield what is wrong beyond the file: with the event as systemd sees it, with the job."""
    try:
        if schedule.cron is None and on_calendar.next_times(schedule.expression) == []:
            yield f"{schedule.schedule_id}: .on_calendar: never runs again"
    except Invalid as invalid:
        yield from (f"{schedule.schedule_id}: .on_calendar: {one}" for one in invalid.problems)
    try:
        fire.submission(schedule, door, datetime.now(UTC), None, None)
    except Invalid as invalid:
        yield from (f"{schedule.schedule_id}: {one}" for one in invalid.problems)


def _door(settings: Settings) -> ServerRules:
    agents = load(settings).abilities()
    return ServerRules(agents, tuple(settings.project_aliases), settings.allowed_hosts, "cron")


# ---- run --------------------------------------------------------------------------------------


def _run(settings: Settings, asked: Options) -> None:
    if not asked.words:
        raise click.UsageError("give the ID of a schedule")
    (name,) = asked.only(1)
    schedule, now = _find_schedule(settings, name), datetime.now(UTC)
    if asked.due and not schedule.enabled:
        print_line(f"{name}: is not enabled")
        return
    queue = Queue(settings.roots)
    queue.prepare()
    elapsed = on_calendar.last_elapsed(schedule.timer, os.environ)
    due = due_time(schedule, now, elapsed) if asked.due else None
    fired = fire.fire(
        queue,
        settings.schedules,
        schedule,
        _door(settings),
        now,
        due=due,
        floor_bytes=settings.min_free_disk_bytes,
    )
    _tell(name, fired, as_json=asked.as_json)


def due_time(schedule: Schedule, now: datetime, elapsed: datetime | None) -> datetime:
    """Return the time that a run at this moment is due for. Pure.

    Of a calendar event it is when its timer elapsed; where nobody knows, the minute.
    """
    if schedule.cron is not None:
        return schedule.cron.last_until(now)
    return elapsed or now.replace(second=0, microsecond=0)


def _tell(name: str, fired: Fired, *, as_json: bool) -> None:
    by, job = caller_fields(), fired.job
    for job_id in fired.replaced:
        text = f"cancelled: a later run of schedule {name} replaces it"
        note(text, Message.DECIDED, job=job_id, schedule=name, **by)
    if job is None:
        print_line(f"{name}: nothing submitted: {fired.why}")
    else:
        text = f"submitted by schedule {name}, {fired.state}"
        place: dict[str, Any] = {"job": job.job_id, "project": job.project_id, "schedule": name}
        note(text, Message.SUBMITTED, **place, **by, state=fired.state, source=job.source_type)
    if as_json:
        new = None if job is None else job.job_id
        print_json({"id": name, "job_id": new, "state": fired.state, "why": fired.why})
    elif job is not None:
        click.echo(job.job_id)


# ---- crontab ----------------------------------------------------------------------------------


def _crontab(settings: Settings, asked: Options) -> None:
    asked.only(0)
    for line in crontab(_read_folder(settings).schedules):
        click.echo(line)


VERBS: Mapping[str, Callable[[Settings, Options], None]] = {
    "list": _list,
    "check": _check,
    "next": _next,
    "run": _run,
    "crontab": _crontab,
}
