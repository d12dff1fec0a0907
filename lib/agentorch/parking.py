"""Until when a job is parked that has run into a limit of its provider's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from agentorch.times import moment_of

# Where nobody said when the limit is over: 5 minutes, doubled each time, 2 hours at most.
FIRST_S, MOST_S = 300.0, 7200.0
# A provider's clock is not ours: a little later is no second refusal.
SPARE_S = 5.0
# No provider's limit lasts longer (the longest known are a month's).
LONGEST_S = 32 * 86400.0


def until(details: Mapping[str, Any], parks: int, now: datetime) -> datetime:
    """When to go on, in whole seconds: when the limit is over, as `details` of the error say
    (`resets_at`, RFC 3339), else later with each of the `parks` in a row.
    """
    told = details.get("resets_at")
    wait_s = min(FIRST_S * 2.0 ** (max(parks, 1) - 1), MOST_S)
    if isinstance(told, str):
        try:
            told_s = (moment_of(told) - now).total_seconds()
        except ValueError:  # no time at all
            told_s = 0.0
        if 0 < told_s <= LONGEST_S:
            wait_s = told_s + SPARE_S
    return (now + timedelta(seconds=wait_s)).replace(microsecond=0)
