"""Schedules as values, and what others make of them: systemd's timers, lines for cron. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agentorch.schedules.cron import Cron

# agentorch-reconfigure looks for lines that begin so
WRONG = "# wrong schedule: "
NEEDS_UTC = "# for a cron that knows CRON_TZ (not Debian's), or a machine whose time zone is UTC"
TARGET_DROP_IN = "agentorch.target.d/50-agentorch-schedules.conf"


class Overlap(StrEnum):
    """The rule for a run while an earlier job of its schedule has not ended."""

    SKIP = "skip"
    QUEUE = "queue"
    REPLACE = "replace"


@dataclass(frozen=True)
class Schedule:
    """A schedule: when a job is submitted, and which. `cron` None: `expression` is systemd's."""

    schedule_id: str
    expression: str
    cron: Cron | None
    payload: Mapping[str, Any]
    enabled: bool = True
    overlap: Overlap = Overlap.SKIP
    jitter_s: int = 0
    persistent: bool = True

    @property
    def timer(self) -> str:
        """The name of its timer."""
        return f"agentorch-schedule@{self.schedule_id}.timer"


def units(schedules: Iterable[Schedule], problems: Iterable[str] = ()) -> dict[str, str]:
    """Return unit files of the enabled ones, by their names; what was wrong is a comment."""
    enabled = [one for one in schedules if one.enabled]
    said = [f"{WRONG}{problem}" for problem in problems]
    lines = ["[Unit]", *said, *(f"Wants={one.timer}" for one in enabled)]
    return {TARGET_DROP_IN: _text(*lines), **{one.timer: timer_text(one) for one in enabled}}


def timer_text(schedule: Schedule) -> str:
    """Return the timer of a schedule (systemd.timer(5))."""
    events = schedule.cron.on_calendar() if schedule.cron else (schedule.expression,)
    return _text(
        "[Unit]",
        f"Description=Schedule {schedule.schedule_id} of the mail queue of coding agents",
        "Documentation=man:agentorch-schedule(5) man:agentorch-schedule(8)",
        "PartOf=agentorch.target",
        "",
        "[Timer]",
        *(f"OnCalendar={event}" for event in events),
        f"Persistent={'yes' if schedule.persistent else 'no'}",
        f"RandomizedDelaySec={schedule.jitter_s}s",
        # the default is a minute
        "AccuracySec=1s",
    )


def crontab(schedules: Iterable[Schedule]) -> list[str]:
    """Lines of a crontab for the enabled ones; in words where cron can't say it."""
    lines = [NEEDS_UTC, "CRON_TZ=UTC"]
    for one in schedules:
        if not one.enabled:
            continue
        if one.cron is None:
            lines.append(f"# {one.schedule_id}: cron knows no on_calendar ({one.expression})")
            continue
        if one.jitter_s:
            lines.append(f"# {one.schedule_id}: cron knows no jitter_s ({one.jitter_s})")
        lines.append(f"{one.expression} agentorch-schedule run --due {one.schedule_id}")
    return lines


def _text(*lines: str) -> str:
    return "\n".join((*lines, ""))
