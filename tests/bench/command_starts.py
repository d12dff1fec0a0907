"""How long commands take that read no document but our own, against an interpreter's own start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from statistics import median

from tests.bench.measure import Figure, Goal, Options, interleaved, median_ratio, seconds
from tests.bench.site import Site, accepted

MS = 1000


def figures(options: Options) -> Iterator[Figure]:
    """The dearest of three commands, and each of them."""
    with options.scratch() as scratch:
        site = Site(scratch)
        site.queue.prepare()
        job, document = accepted(datetime.now(UTC), {"01": "true"})
        argvs = {
            "pass": [sys.executable, "-c", "pass"],
            # an empty queue: what it costs to list is another row's
            "ls": site.command_argv("ls", "--json"),
            "cancel": site.command_argv("cancel", "nonesuch"),
            "status": site.command_argv("status", job.job_id),
        }
        sides = {name: _start(site, argv) for name, argv in argvs.items()}
        empty = {name: sides[name] for name in ("pass", "ls", "cancel")}
        taken = interleaved(empty, options.size(15, 1))
        site.queue.submit(job, document)
        one = {name: sides[name] for name in ("pass", "status")}
        taken_with_one = interleaved(one, options.size(15, 1))
    ratios = {
        "ls": median_ratio(taken["ls"], taken["pass"]),
        "cancel": median_ratio(taken["cancel"], taken["pass"]),
        "status": median_ratio(taken_with_one["status"], taken_with_one["pass"]),
    }
    for name, ratio in ratios.items():
        yield Figure(f"{name}_start_ratio", ratio, "times pass", Goal(5))
    yield Figure("pass_start", median(taken["pass"]) * MS, "ms")


def _start(site: Site, argv: Sequence[str]) -> Callable[[], float]:
    environment = site.environment()

    def start() -> None:
        subprocess.run(argv, env=environment, capture_output=True, check=False)

    return lambda: seconds(start)
