"""What a scrape costs behind a million ended jobs, beside one behind ten: HTTP's text, in process,
and agentorch-metrics as the timer starts it.

Each ended job has its queue file in done/, its row and an attempt's in the ledger.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from agentorch.config.settings import load
from agentorch.core.states import State
from agentorch.ledger import ledger
from agentorch.ledger.counts import JobEnd
from agentorch.metrics import exposition
from agentorch.storage import sqlite
from tests.bench.claims import NO_ID, fill
from tests.bench.measure import Figure, Goal, Options, interleaved, median_ratio, seconds
from tests.bench.site import Site

MS = 1000
TOLD = 20
SIZES = {"10": 10, "1m": 1_000_000}
QUICK_SIZES = {"10": 10, "1m": 40}


def figures(options: Options) -> Iterator[Figure]:
    """The text and the file behind both numbers of ended jobs, and the ratios."""
    sizes = QUICK_SIZES if options.quick else SIZES
    with options.scratch() as scratch:
        sites = {name: ended(scratch / name, count) for name, count in sizes.items()}
        yield from _compared("metrics_text", {n: text(s) for n, s in sites.items()}, options)
        yield from _compared("metrics_file", {n: file(s) for n, s in sites.items()}, options)


def _compared(
    row: str, sides: Mapping[str, Callable[[], float]], options: Options
) -> Iterator[Figure]:
    interleaved(sides, 1)
    taken = interleaved(sides, options.size(30, 2))
    for name, times in taken.items():
        yield Figure(f"{row}_{name}", median(times) * MS, "ms")
    yield Figure(f"{row}_ratio_1m_10", median_ratio(taken["1m"], taken["10"]), "1m/10", Goal(1.2))


def ended(directory: Path, count: int) -> Site:
    """A state directory in which so many jobs have ended."""
    directory.mkdir()
    site = Site(directory, {"AGENTORCH_METRICS_FILE": str(directory / "agentorch.prom")})
    site.queue.prepare()
    fill(site.queue.paths.state(State.DONE), directory, count)
    # its tables are made, and what lies in done/ is noted
    end = JobEnd(NO_ID, 1, "success", State.DONE, datetime.now(UTC), duration_s=1.0, waited_s=1.0)
    if (problem := ledger.count_job(site.roots, end)) is not None:
        raise RuntimeError(problem)
    sqlite.KEPT.close()
    attempts = ((f"{n:032x}", "step1", 1) for n in range(count))
    with closing(sqlite3.connect(site.roots.state_db)) as db, db:
        query = "INSERT INTO attempts (job_id, step_id, attempt) VALUES (?, ?, ?)"
        db.executemany(query, attempts)
    return site


def text(site: Site) -> Callable[[], float]:
    """GET /metrics without HTTP, some at a time: Python's garbage is collected now and then."""
    settings = load(site.environment())

    def tell() -> None:
        for _ in range(TOLD):
            exposition.metrics_text(settings)

    return lambda: seconds(tell) / TOLD


def file(site: Site) -> Callable[[], float]:
    """The timer's program, from its start to its end."""
    argv = site.command_argv("metrics")
    environment = {**os.environ, **site.environment()}
    return lambda: seconds(lambda: subprocess.run(argv, env=environment, check=True))
