"""What our layer adds to the time of a vendor's CLI: the sandbox, relay and broker; a whole job.

A run is of three turns with a tool call each, and the model takes its time for each of them. Bare
is the same command line straight at the model. The ratio without a goal is of all that an attempt
takes on a warm slot, its workspace, its patch, its durable records and a broker's start included.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from tests.bench.measure import Figure, Goal, Options, interleaved, median_ratio
from tests.bench.vendors import bench, names, ready

BEFORE_S = 0.3


def figures(options: Options) -> Iterator[Figure]:
    """Both ratios of each CLI, and the three times."""
    rounds = options.size(5, 1)
    with (
        ready(options).scratch() as scratch,
        bench(scratch, 0 if options.quick else BEFORE_S) as here,
        here.site().runner(),
    ):
        for name in names(options):
            sides = {"bare": here.bare(name), "ours": here.ours(name), "job": here.job(name)}
            if not options.quick:
                interleaved(sides, 1)  # the first job tries the agent before
            taken = interleaved(sides, rounds)
            ratio = median_ratio(taken["ours"], taken["bare"])
            yield Figure(f"{name}_ratio", ratio, "ours/bare", Goal(1.05))
            yield Figure(f"{name}_job_ratio", median_ratio(taken["job"], taken["bare"]), "job/bare")
            for side, seconds in taken.items():
                yield Figure(f"{name}_{side}", median(seconds), "s")
