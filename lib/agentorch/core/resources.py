"""The share of the machine that a step may take, and how a job tightens it. Pure.

The names are systemd's (systemd.resource-control(5)); None sets no limit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Resources:
    """Limits of one step's control group.

    `cpu_quota_percent`: 100 is one processor. `io_weight`: 1 to 10000, 100 is everybody's.
    """

    memory_max_bytes: int | None = None
    memory_high_bytes: int | None = None
    cpu_quota_percent: int | None = None
    tasks_max: int | None = None
    io_weight: int | None = None


UNLIMITED = Resources()


def tighten(server: Resources, job: Resources) -> Resources:
    """Return the lower of the two in every respect: a job takes less than the server gives, never
    more.
    """
    return Resources(
        **{
            one.name: _lower(getattr(server, one.name), getattr(job, one.name))
            for one in fields(job)
        }
    )


def _lower(server: int | None, job: int | None) -> int | None:
    given = [limit for limit in (server, job) if limit is not None]
    return min(given, default=None)
