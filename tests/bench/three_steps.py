"""A job of three trivial steps on a small repository, against a shell script of the same commands.

tests/bench/three_steps.sh runs git as `history` does and bwrap with the options of `bubblewrap`.
What a job has besides (its queue, its durable state, its logs, who is still inside) is the rest.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from agentorch.core.job import Network
from agentorch.sandbox import Confinement, bubblewrap, seccomp
from agentorch.sandbox.host import host
from agentorch.workspace import git
from tests.bench.measure import Figure, Goal, Options, interleaved, median_ratio, seconds
from tests.bench.site import ROOT, Site

MS = 1000
STEPS = {"1": "test -f file-1", "2": "echo changed >>file-2", "3": "grep -q changed file-2"}
# The descriptors that the script opens.
FILTER = 8


def figures(options: Options) -> Iterator[Figure]:
    """The ratio of the two, and both."""
    with options.scratch() as scratch:
        source = repository(scratch / "source")
        site = Site(scratch / "site")
        site.directory.mkdir()
        with site.runner():
            sides = {"shell": shell(source, scratch / "shell"), "job": job(site, source)}
            interleaved(sides, 1)
            taken = interleaved(sides, options.size(9, 1))
    ratio = median_ratio(taken["job"], taken["shell"])
    yield Figure("three_step_ratio", ratio, "job/shell", Goal(1.5))
    yield Figure("three_steps", median(taken["job"]) * MS, "ms")
    yield Figure("three_steps_shell", median(taken["shell"]) * MS, "ms")


def repository(directory: Path) -> Path:
    """A repository of twenty files and one commit."""
    directory.mkdir()
    for number in range(20):
        (directory / f"file-{number}").write_text(f"{number}\n" * 50)
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "base")):
        subprocess.run(["git", *words], cwd=directory, env=git.environment(None), check=True)
    return directory


def job(site: Site, source: Path) -> Callable[[], float]:
    """From the submission to the end of a job on a warm slot."""
    return lambda: seconds(lambda: site.work(STEPS, source))


def shell(source: Path, directory: Path) -> Callable[[], float]:
    """The script, in a place of its own each time; what it is given is made before."""
    numbers = itertools.count()

    def run() -> float:
        place = directory / str(next(numbers))
        prepare(place)
        argv = [str(ROOT / "tests/bench/three_steps.sh"), str(source), str(place)]
        return seconds(lambda: subprocess.run(argv, env=git.environment(None), check=True))

    return run


def prepare(place: Path) -> None:
    """The directories, the three scripts, and the sandbox's options and filter."""
    work, home, artifacts = (place / name for name in ("work", "home", "artifacts"))
    for path in (work, home, artifacts):
        path.mkdir(parents=True)
    for name, script in STEPS.items():
        (home / f"{name}.sh").write_text(f"{script}\n")
    confinement = Confinement(
        name="bench",
        work=work,
        home=home,
        artifacts=artifacts,
        network=Network.DENY,
        environment={"PATH": "/usr/bin:/bin"},
    )
    words = bubblewrap.options_argv(
        confinement, host(confinement, {}), bubblewrap.Descriptors(FILTER)
    )
    (place / "options").write_bytes(bubblewrap.encode(words))
    (place / "filter").write_bytes(seccomp.program())
