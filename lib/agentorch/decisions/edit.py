"""Changing a job that waits: its remaining steps and what it may cost, and its priority.

job.json stays what was submitted (the queue file is its other name); job.edited.json is the job as
it is by now, replaced whole. See decide for what is raised, and for `by` and `shown`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any

from agentorch.artifacts.decision_log import file_hash, unmark
from agentorch.contracts.accept import Document, ServerRules, accept
from agentorch.contracts.problems import kind
from agentorch.contracts.to_job import job_of
from agentorch.core.errors import Invalid, Refused
from agentorch.core.job import Job, Key
from agentorch.core.pipeline import Progress
from agentorch.core.states import State
from agentorch.core.times import moment_of
from agentorch.decisions.case import By, LockedJob, locked_job
from agentorch.jobqueue.jobqueue import Queue
from agentorch.storage import atomic
from agentorch.storage.json_files import read_document
from agentorch.storage.paths import parked_key

EDITABLE = frozenset({State.PENDING, State.AWAITING_APPROVAL, State.HELD, State.PARKED})


def edit(
    queue: Queue,
    job_ref: str,
    document: Any,
    door: ServerRules,
    *,
    shown: str | None = None,
    seen: State | None = None,
    by: By | None = None,
) -> Job:
    """Replace the document of a waiting job by this one, whole; the job as it is then.

    Only its remaining steps and policy.max_cost_usd may differ. Raises Invalid with every problem.
    `seen` is the state in which the editor saw it: what was approved since is not to be changed.
    """
    with locked_job(queue, job_ref, by, shown) as it:
        it.expect("edit", EDITABLE & {seen} or EDITABLE)
        before, known = it.found.document, it.artifacts.read_state()
        after = check_edit(document, before, None if known is None else known.progress, door)
        if after == before:
            return it.job
        assert it.found.state is not None and it.found.key is not None  # noqa: PT018
        source = queue.file_of(it.found.state, it.found.key)
        with it.take() as (slot, key):
            was = file_hash(it.paths.edited_job if it.paths.edited_job.exists() else it.paths.job)
            it.record("edit", before=was, after=sha256(atomic.encode(after)).hexdigest())
            atomic.replace_json(it.paths.edited_job, after)
            queue.move(slot.path(key), source)
        return job_of(after)


def remaining(document: Document, over: int) -> Document:
    """Return what may be edited of a job of which so many steps are over. Pure."""
    cap = {"max_cost_usd": document["policy"].get("max_cost_usd")}
    return {"steps": document["steps"][over:], "policy": cap}


def merge_edit(document: Document, over: int, part: Any) -> Document:
    """Return the job's document with its remaining part replaced. Raises Invalid. Pure."""
    if not isinstance(part, dict):
        raise Invalid([f".: expected an object, found {kind(part)}"])
    policy = part.get("policy", {})
    problems = [f".{name}: can't be edited" for name in sorted(set(part) - {"steps", "policy"})]
    if not isinstance(policy, dict):
        problems.append(f".policy: expected an object, found {kind(policy)}")
    elif set(policy) - {"max_cost_usd"}:
        strange = sorted(set(policy) - {"max_cost_usd"})
        problems += [f".policy.{name}: can't be edited" for name in strange]
    if not isinstance(part.get("steps"), list) or not part["steps"]:
        problems.append(".steps: one step or more is needed")
    if problems:
        raise Invalid(problems)
    steps = [*document["steps"][:over], *part["steps"]]
    return {**document, "steps": steps, "policy": {**document["policy"], **policy}}


def renumber_problems(problems: Iterable[str], over: int) -> list[str]:
    """Return problems with a whole document as those with its remaining part. Pure."""
    return [_STEP.sub(lambda match: f".steps[{int(match[1]) - over}]", line) for line in problems]


_STEP = re.compile(r"^\.steps\[([0-9]+)\]")


def check_edit(
    document: Any, before: Document, progress: Progress | None, door: ServerRules
) -> Document:
    """Return the document as it goes to disk. Raises Invalid. Pure."""
    _, complete = accept(document, door, moment_of(before["submitted_at"]))
    after = {**complete, "submitted_at": before["submitted_at"]}
    problems = list(_changes_of_fixed(before, after))
    if progress is not None:
        problems += _changes_of_ended(before, after, progress.current)
    if problems:
        raise Invalid(problems)
    return after


def place_of(document: Document, step_id: str) -> int:
    """Return the place of a step. Pure."""
    return [step["step_id"] for step in document["steps"]].index(step_id)


def _changes_of_fixed(before: Document, after: Document) -> Iterator[str]:
    """Yield what no edit changes."""
    for name in sorted({*before, *after} - {"steps", "policy"}):
        if before.get(name) != after.get(name):
            hint = ": see agentorch-priority(1)" if name == "priority" else ""
            yield f".{name}: can't be edited{hint}"
    for name in sorted({*before["policy"], *after["policy"]} - {"max_cost_usd"}):
        if before["policy"].get(name) != after["policy"].get(name):
            yield f".policy.{name}: can't be edited"


def _changes_of_ended(before: Document, after: Document, current: str) -> Iterator[str]:
    """Yield the changes to the steps before the current one, and to its place: both have to
    stay.
    """
    old, new, place = before["steps"], after["steps"], place_of(before, current)
    for number, step in enumerate(old[:place]):
        if new[number : number + 1] != [step]:
            yield f".steps[{number}]: step {step['step_id']!r} is over: it may not change"
    if [step["step_id"] for step in new[place : place + 1]] != [current]:
        yield f".steps[{place}]: the job stopped at step {current!r}: its step_id may not change"


def reprioritise(queue: Queue, job_ref: str, priority: int, *, by: By | None = None) -> Job:
    """Give a waiting job another priority (0 is claimed first); the job as it is then.

    The document first, then one rename: who finds the job between the two lists for it.
    """
    with locked_job(queue, job_ref, by) as it:
        it.expect("change the priority of", EDITABLE)
        before = it.found.document
        after = {**before, "priority": priority}
        hash_ = sha256(atomic.encode(after)).hexdigest()
        it.record("priority", before=before["priority"], after=priority, document=hash_)
        atomic.replace_json(it.paths.edited_job, after)
        if not _rename(it, priority):
            _put_back(it, before)
            raise Refused(f"job {it.job.job_id} was claimed meanwhile")
        return job_of(after)


def _rename(it: LockedJob, priority: int) -> bool:
    """Give the queue file its new name where it lies; False: it was claimed."""
    while (place := it.queue.find(it.job)) is not None and place[0] in EDITABLE:
        state, key, _ = place
        source = it.queue.file_of(state, key)
        target = source.with_name(_rename_key(source.name, replace(key, priority=priority)))
        if it.queue.move(source, target):
            return True
    return False


def _rename_key(name: str, key: Key) -> str:
    """Return the name of a queue file with another key: what comes before it, of a parked one,
    stays.
    """
    parked = parked_key(name)
    return str(key) if parked is None else name.removesuffix(str(parked[1])) + str(key)


def _put_back(it: LockedJob, before: Document) -> None:
    if before == read_document(it.paths.job):
        unmark(it.paths.edited_job)
    else:
        atomic.replace_json(it.paths.edited_job, before)
