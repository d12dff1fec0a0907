"""The protocols of parking a job and waking it, as `scenes` has the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agentorch.artifacts.directory import JobArtifacts
from agentorch.artifacts.state import Parked
from agentorch.core.states import State
from agentorch.core.times import rfc3339
from agentorch.jobqueue.jobqueue import current_job
from tests.crash.scenes import ID, REAL, Scene
from tests.support.crash_programs import Site, job
from tests.support.invariants import document, places

WALL = """
name = "wall"
needs_git = false
command = ["sh", "-c", '''
echo run >>story
if [ -e over ]; then echo '{"type": "result", "status": "success"}'; exit; fi
touch over
echo '{"type": "result", "status": "failed", "error": {"code": "limit", "message": "no more",\
 "class": "quota", "resets_at": "RESETS_AT"}}'
''']
"""


def behind_a_wall(site: Site) -> None:
    """A job whose agent runs into its provider's limit once; it is over in a week."""
    resets_at = rfc3339(datetime.now(UTC) + timedelta(days=7))
    agents = site.top / "agents.d"
    agents.mkdir(exist_ok=True)
    (agents / "wall.toml").write_text(WALL.replace("RESETS_AT", resets_at))
    one = job(ID, "go on", "true")
    one["steps"][0]["agent"] = "wall"
    site.submit(one)


def due(site: Site) -> None:
    """A parked job whose time has come."""
    behind_a_wall(site)
    assert site.recover() == []
    assert places(site) == {ID: State.PARKED}
    past = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    ((until, key),) = site.queue.list_parked()
    paths = site.queue.paths
    paths.parked_file(key, until).rename(paths.parked_file(key, past))
    artifacts = JobArtifacts(site.roots.artifacts(ID))
    state = artifacts.read_state()
    assert state is not None
    again = replace(state, parked=Parked(rfc3339(past), "quota", "no more"))
    artifacts.write_state(current_job(artifacts.paths), again)


def _parked(site: Site, _: list[str]) -> Iterator[str]:
    """It is parked, no try is burnt, and nobody ran into the wall twice."""
    if places(site) != {ID: State.PARKED}:
        yield f"{places(site)}, not parked"
        return
    step = (document(site.roots.artifacts(ID).state) or {})["steps"]["step1"]
    if (step["tries"], step["parks"]) != (0, 1):
        yield f"{step['tries']} tries, parked {step['parks']} times"
    yield from _ended(site, ["quota"])
    released = site.run("release", ID)
    yield from site.recover()
    if released.code != 0 or places(site) != {ID: State.DONE}:
        yield f"released: {released}, and the job is {places(site)}"
    yield from _gone_on(site)


def _woken(site: Site, _: list[str]) -> Iterator[str]:
    if places(site) != {ID: State.DONE}:
        yield f"{places(site)}, not done"
    yield from _gone_on(site)


def _gone_on(site: Site) -> Iterator[str]:
    """The attempt behind the wall went on with the work of the one before it."""
    yield from _ended(site, ["quota", "success"])
    story = site.roots.workspace(ID).work / "story"
    if story.read_text() != "run\nrun\n":
        yield f"the story is {story.read_text()!r}"
    patch = (site.roots.artifacts(ID).step("step1").latest.patch).read_text()
    if patch.count("\n+run") != 2:
        yield f"the step's patch is {patch!r}"


def _ended(site: Site, expected: list[str]) -> Iterator[str]:
    attempts = site.roots.artifacts(ID).step("step1").attempts.glob("*/result.json")
    results = [document(path) or {} for path in sorted(attempts)]
    # what a killed runner interrupted is neither
    told = [one["outcome"] for one in results if one["outcome"] != "infra"]
    if told != expected:
        yield f"its attempts ended as {told}"


SCENES = (
    Scene("park", ("runner", "--drain"), behind_a_wall, _parked, variables=REAL),
    Scene("wake", ("reclaim", "--stale-after-sec", "0"), due, _woken, variables=REAL),
    Scene("wake-and-run", ("runner", "--drain"), due, _woken, variables=REAL),
)
