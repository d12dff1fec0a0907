"""From the submission to the agent's process, on a warm slot, and what the launcher takes of that.

The agent is a shell whose first act is to make a file; when that was is the file's mtime, whose
clock ticks every few milliseconds: the same for both sides.
"""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from agentorch.core.job import Network
from agentorch.sandbox import Confinement, Wrapper, confine
from tests.bench.measure import Figure, Goal, Options, interleaved
from tests.bench.site import Site

MS = 1000
STARTED = "started"
SCRIPT = f": > {STARTED}"


def figures(options: Options) -> Iterator[Figure]:
    """The median of what is ours, and of both sides."""
    with options.scratch() as scratch:
        site = Site(scratch / "site")
        site.directory.mkdir()
        with site.runner():
            sides = {"bare": bare_start(scratch / "bare"), "queued": queued_start(site)}
            interleaved(sides, 1)
            taken = interleaved(sides, options.size(15, 1))
    bare, queued = median(taken["bare"]), median(taken["queued"])
    yield Figure("submit_to_start", (queued - bare) * MS, "ms", Goal(15))
    yield Figure("submit_to_start_whole", queued * MS, "ms")
    yield Figure("launcher_start", bare * MS, "ms")


def queued_start(site: Site) -> Callable[[], float]:
    """Submits a job that starts with an empty workspace."""

    def start() -> float:
        submitted = time.time_ns()
        job = site.work({"01": SCRIPT})
        return since(submitted, site.roots.workspace(job.job_id).work)

    return start


def bare_start(directory: Path) -> Callable[[], float]:
    """Starts the same shell in the same sandbox, its command line made before."""
    numbers = itertools.count()

    def start() -> float:
        place = directory / str(next(numbers))
        work, home, artifacts = (place / name for name in ("work", "home", "artifacts"))
        for path in (work, home, artifacts):
            path.mkdir(parents=True)
        confinement = Confinement(
            name="bench",
            work=work,
            home=home,
            artifacts=artifacts,
            network=Network.DENY,
            environment={"PATH": "/usr/bin:/bin"},
        )
        with confine(Wrapper("bwrap"), confinement, ("sh", "-euc", SCRIPT)) as ready:
            began = time.time_ns()
            subprocess.run(
                ready.argv, env=dict(ready.environment), pass_fds=ready.pass_fds, check=True
            )
        return since(began, work)

    return start


def since(began_ns: int, work: Path) -> float:
    """The seconds until the agent's first act."""
    return ((work / STARTED).stat().st_mtime_ns - began_ns) / 1e9
