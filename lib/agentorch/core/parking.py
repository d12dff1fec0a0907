"""Until when a job is parked that has run into a limit of its provider's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from agentorch.core.times import moment_of

# Where nobody said when the limit is over: 5 minutes, doubled each time, 2 hours at most.
FIRST_S, MOST_S = 300.0, 7200.0
# A provider's clock is not ours: a little later is no second refusal.
SPARE_S = 5.0
# No provider's limit lasts longer (the longest known are a month's).
LONGEST_S = 32 * 86400.0


def resume_time(details: Mapping[str, Any], parks: int, now: datetime) -> datetime:
    """Return when to go on, in whole seconds: when the limit is over, as `details` of the error say
    (`resets_at`, RFC 3339 or seconds since 1970; `retry_after_s`), else later with each of the
    `parks` in a row.
    """
    told = (_seconds_until(details.get("resets_at"), now), _number(details.get("retry_after_s")))
    if parks <= 1 and -FIRST_S < told[0] < 0:  # it was over before we heard of it
        return _whole(now + timedelta(seconds=SPARE_S))
    for told_s in told:
        if 0 < told_s <= LONGEST_S:
            return _whole(now + timedelta(seconds=told_s + SPARE_S))
    wait_s = min(FIRST_S * 2.0 ** min(max(parks, 1) - 1, 10), MOST_S)
    return _whole(now + timedelta(seconds=wait_s))


def _seconds_until(told: object, now: datetime) -> float:
    """Return how long until a moment, in seconds; 0 or less where it is none that is to come."""
    if not isinstance(told, str):
        return _number(told) - now.timestamp()
    try:
        return (moment_of(told) - now).total_seconds()
    except (ValueError, OverflowError):  # no time at all, or one beyond the calendar
        return 0.0


def _number(told: object) -> float:
    # JSON's true is an int to Python, and an int may be larger than any float
    if isinstance(told, bool) or not isinstance(told, int | float) or not 0 <= told < 1e12:
        return 0.0
    return float(told)


def _whole(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
