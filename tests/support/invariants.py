"""What must be true of a queue that is at rest, whatever happened to it before.

Each function yields a line a violation. A queue is at rest when recovery has run and nothing of
ours runs any more.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentorch.contracts.validate import problems_of
from agentorch.core.job import Key
from agentorch.core.states import ENDED, State
from agentorch.ledger import ledger, metric_families
from agentorch.ledger.budgets import Caps, utc_day
from agentorch.storage.paths import parked_key
from tests.support.crash_programs import Site

AT_REST = (State.DONE, State.FAILED, State.AWAITING_APPROVAL, State.HELD, State.PARKED)
DIRECTORY_OF = {
    "success": State.DONE,
    "failed": State.FAILED,
    "timeout": State.FAILED,
    "cancelled": State.FAILED,
    "needs_human": State.AWAITING_APPROVAL,
    "parked": State.PARKED,
}
# What state.json may say of a job that is held: what it said when it was.
OF_HELD = ("pending", "parked")
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}")


def violations(site: Site, collected: int = 0, *, by_hand: bool = False) -> list[str]:
    """All that is wrong; so many jobs, which ended once after one step, are gone for good.

    `by_hand`: somebody ran a step outside of the pipeline, which counts its own attempts only.
    """
    found = [*_leftovers(site), *_inodes(site), *_counts(site, collected, by_hand=by_hand)]
    found += _reserved(site)
    for job_id, state in places(site).items():
        found += _job(site, job_id, state)
    return found


def places(site: Site) -> dict[str, State]:
    """Where each job's queue file is; the ids of all that has one."""
    paths = site.queue.paths
    return {
        key.job_id: state
        for state in State
        for directory in _directories(paths.state(state))
        for key in map(key_of, os.listdir(directory))
        if key is not None
    }


def key_of(name: str) -> Key | None:
    """The key that the name of a queue file spells, of a parked one too."""
    parked = parked_key(name)
    return Key.parse(name) if parked is None else parked[1]


def _directories(directory: Path) -> list[Path]:
    return [directory, *(p for p in directory.glob("*") if p.is_dir())]


def _leftovers(site: Site) -> Iterator[str]:
    paths = site.queue.paths
    for path in (paths.incoming, paths.state(State.PENDING)):
        yield from (f"left in {path.name}/: {name}" for name in os.listdir(path))
    for path in paths.running.rglob("*"):
        if path.is_file() and path.name != ".lock":
            yield f"left in running/: {path.name}"
    # what a marker or an edit left goes at the job's end
    waiting = {
        site.roots.artifacts(job_id).directory
        for job_id, state in places(site).items()
        if state in (State.HELD, State.PARKED)
    }
    for root in (site.roots.queue_root, site.roots.artifacts_root):
        for path in root.rglob(".*"):
            if path.parent not in waiting and TEMPORARY.fullmatch(path.name):
                yield f"temporary file: {path.relative_to(site.state_directory)}"


def _inodes(site: Site) -> Iterator[str]:
    """Queue files and job.json: as many of one as of the other, each two names of one inode."""
    files: dict[str, list[Path]] = {}
    for state in AT_REST:
        for path in site.queue.paths.state(state).iterdir():
            key = key_of(path.name)
            if key is None:
                yield f"no queue file: {path}"
            else:
                files.setdefault(key.job_id, []).append(path)
    for directory in site.roots.artifacts_root.iterdir():
        if directory.name not in files:
            yield from _without_queue_file(directory)
    for job_id, paths in files.items():
        job = site.roots.artifacts(job_id).job
        if len(paths) != 1:
            yield f"{job_id}: {len(paths)} queue files"
        elif not job.exists() or not job.samefile(paths[0]) or job.stat().st_nlink != 2:
            yield f"{job_id}: queue file and job.json are not two names of one inode"


def _without_queue_file(directory: Path) -> Iterator[str]:
    if not directory.is_dir():
        yield f"{directory.name}: no job's directory"
    elif (directory / "job.json").exists():
        yield f"{directory.name}: lost: job.json has no queue file"
    elif any(directory.iterdir()):
        yield f"{directory.name}: artifacts without job.json"


def _job(site: Site, job_id: str, state: State) -> Iterator[str]:
    paths = site.roots.artifacts(job_id)
    for path in paths.directory.rglob("*.json"):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            yield f"{job_id}: {path.name} is torn"
    if paths.decisions.exists():
        yield from (f"{job_id}: {p}" for p in _lines(paths.decisions))
    known = document(paths.state)
    yield from (f"{job_id}: {problem}" for problem in _state(site, job_id, state, known))
    if state in ENDED:
        yield from (f"{job_id}: {problem}" for problem in _result(site, job_id, known))
    yield from (f"{job_id}: {problem}" for problem in _context(site, job_id))


def _lines(path: Path) -> Iterator[str]:
    *lines, rest = path.read_bytes().split(b"\n")
    if rest:
        yield f"{path.name} ends in a torn line"
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            yield f"{path.name} has a torn line"


def _state(site: Site, job_id: str, state: State, known: dict[str, Any] | None) -> Iterator[str]:
    if state is State.HELD and not site.roots.artifacts(job_id).hold.exists():
        yield "held, and nobody wants that"
    if known is None:
        if state not in (State.AWAITING_APPROVAL, State.HELD):
            yield "no state.json"
        return
    if (known["parked"] is not None) != (known["status"] == "parked"):
        yield f"state.json says {known['status']}, and parked: {known['parked']}"
    expected = DIRECTORY_OF.get(known["status"])
    if expected is not state and not (state is State.HELD and known["status"] in OF_HELD):
        yield f"state.json says {known['status']}, the queue {state}"
    for name, step in known["steps"].items():
        if step["status"] in ("running", "retrying"):
            yield f"state.json says that {name} is {step['status']}"


def _result(site: Site, job_id: str, known: dict[str, Any] | None) -> Iterator[str]:
    result = document(site.roots.artifacts(job_id).result)
    if result is None:
        yield "no result.json"
        return
    yield from (f"result.json: {problem}" for problem in problems_of(result, "result"))
    if known is not None and result["status"] != known["status"]:
        yield f"result.json says {result['status']}, state.json {known['status']}"
    steps = (known or {"steps": {}})["steps"]
    accepted = {name for name, step in steps.items() if step["accepted"]}
    told = [(step["step_id"], step["status"]) for step in result["steps"]]
    told = [(name, status) for name, status in told if name not in accepted]
    ran = [
        (name, step["status"])
        for name, step in steps.items()
        if step["status"] not in ("pending", "running") and name not in accepted
    ]
    if told != ran:
        yield f"result.json tells {told}, state.json {ran}"


def _context(site: Site, job_id: str) -> Iterator[str]:
    """Each visit of a step stands there once (no scene visits a step twice that ended well)."""
    context = document(site.roots.artifacts(job_id).context)
    said = [] if context is None else [m["content"] for m in context["messages"]]
    for step in steps_of(site, job_id):
        line = f"step {step['step_id']}, agent {step['agent']}, role {step['role']}: success"
        times = sum(message.startswith(line) for message in said)
        if times > 1:
            yield f"context.json has {step['step_id']} {times} times"


def _counts(site: Site, collected: int, *, by_hand: bool) -> Iterator[str]:
    """The ledger has counted each end once: those that state.json tells, and each result."""
    counts = ledger.read_counts(site.roots.state_db)
    found = places(site)
    states = [document(site.roots.artifacts(job_id).state) for job_id in found]
    ends = sum(state["ends"] for state in states if state is not None)
    yield from _differ("ends of jobs", _sum(counts, metric_families.JOBS), ends + collected)
    results = list(site.roots.artifacts_root.glob("*/steps/*/attempts/*/result.json"))
    counted, attempts = _sum(counts, metric_families.STEPS), len(results) + collected
    if not by_hand or counted > attempts:
        yield from _differ("ends of attempts", counted, attempts)
    for state in sorted(ENDED):
        lying = counts.get((metric_families.QUEUE_JOBS.name, (state,)), {}).get("", 0)
        yield from _differ(f"{state} jobs", lying, list(found.values()).count(state))


def _reserved(site: Site) -> Iterator[str]:
    """Every cent is settled: only what runs may have something reserved."""
    now = datetime.now(UTC)
    for one in ledger.read_book(site.roots.state_db, Caps(), utc_day(now), now).reserved:
        yield f"${one.usd} are still reserved for {one.job_id}"


def _sum(counts: ledger.Counts, family: metric_families.Family) -> float:
    return sum(parts[""] for (name, _), parts in counts.items() if name == family.name)


def _differ(what: str, counted: float, there: float) -> Iterator[str]:
    if counted != there:
        yield f"the ledger counts {counted:g} {what}, and there are {there:g}"


def document(path: Path) -> dict[str, Any] | None:
    """A JSON file, None where there is none, or it is torn: that is said elsewhere."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found


def steps_of(site: Site, job_id: str) -> list[dict[str, Any]]:
    """The steps of a job."""
    found = document(site.roots.artifacts(job_id).job)
    return [] if found is None else found["steps"]


# ---- steps are not run twice ------------------------------------------------------------------


def ended_attempts(site: Site) -> dict[tuple[str, str], int]:
    """The attempts that have succeeded, by job and step: these must not be repeated."""
    found = {}
    for path in site.roots.artifacts_root.glob("*/steps/*/attempts/*/result.json"):
        job_id, _, step_id, _, number = path.parts[-6:-1]
        result = document(path)
        if result is not None and result["status"] == "success":
            found[job_id, step_id] = int(number)
    return found


def repeated(site: Site, ended: dict[tuple[str, str], int]) -> list[str]:
    """Which of these were run again."""
    return [
        f"{job_id}: {step_id} was run again after it had succeeded"
        for (job_id, step_id), number in ended.items()
        if (site.roots.artifacts(job_id).step(step_id).attempt(number + 1).directory).exists()
    ]
