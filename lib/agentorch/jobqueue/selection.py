"""Which jobs a listing is about: filters that combine, and what each of them has to read.

A state and an age are in the name of the queue file. A job's own file is read only where a filter
asks for what is in it, its state and results only where one asks for these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agentorch.artifacts.directory import JobArtifacts
from agentorch.core.errors import Damaged
from agentorch.core.job import Key
from agentorch.core.states import State
from agentorch.jobqueue.age_table import submission_time
from agentorch.jobqueue.jobqueue import Queue, current_document
from agentorch.jobqueue.lookup import DAMAGED, Listed, age_s, status_word
from agentorch.storage.json_files import Document
from agentorch.storage.listing import names_in
from agentorch.storage.paths import ArtifactPaths, parked_key_name

NONE = "-"


class By(StrEnum):
    """The rows of a table of ages."""

    STATE = "state"
    PROJECT = "project"
    AGENT = "agent"


@dataclass(frozen=True)
class Filters:
    """The filters of a listing; empty: anything.

    Of several words of one kind, one must be true of it.

    `older_s`, `newer_s`: since it was submitted, in seconds.
    """

    projects: Collection[str] = ()
    tags: Collection[str] = ()
    agents: Collection[str] = ()
    outcomes: Collection[str] = ()
    statuses: Collection[str] = ()
    older_s: float | None = None
    newer_s: float | None = None

    @property
    def read_nothing(self) -> bool:
        """Return whether names alone tell."""
        return not (self.projects or self.tags or self.agents or self.outcomes or self.statuses)


def select(
    queue: Queue, listed: Iterable[Listed], filters: Filters, now: datetime
) -> Iterator[Listed]:
    """Yield the jobs that the filters let through, in their order; who vanished meanwhile is left
    out.
    """
    for one in listed:
        if _has_age(one[0], filters, now) and (filters.read_nothing or _is(queue, one, filters)):
            yield one


def _has_age(key: Key, filters: Filters, now: datetime) -> bool:
    age = age_s(key, now)
    if filters.older_s is not None and age <= filters.older_s:
        return False
    return filters.newer_s is None or age < filters.newer_s


def _is(queue: Queue, one: Listed, filters: Filters) -> bool:
    key, state, _ = one
    paths = queue.roots.artifacts(key.job_id)
    try:
        return _was_asked(paths, filters) and _stands(paths, state, filters)
    except FileNotFoundError:  # it was collected meanwhile
        return False
    except Damaged:
        return DAMAGED in filters.statuses


def _was_asked(paths: ArtifactPaths, filters: Filters) -> bool:
    if not (filters.projects or filters.tags or filters.agents):
        return True
    document = current_document(paths)
    return (
        _meet(filters.projects, {document["project_id"] or NONE})
        and _meet(filters.tags, set(document["tags"]))
        and _meet(filters.agents, agents_of(document))
    )


def _stands(paths: ArtifactPaths, state: State, filters: Filters) -> bool:
    known = JobArtifacts(paths).read_state() if filters.statuses else None
    if filters.statuses and status_word(state, known) not in filters.statuses:
        return False
    return not filters.outcomes or last_outcome(paths) in filters.outcomes


def _meet(wanted: Collection[str], found: set[str]) -> bool:
    return not wanted or not found.isdisjoint(wanted)


def agents_of(document: Document) -> set[str]:
    """Return the agents of a job's steps."""
    return {step["agent"] for step in document["steps"]}


def last_outcome(paths: ArtifactPaths) -> str | None:
    """Return the class of the latest attempt of the step where the job is, or failed.

    None where that step has none that ended.
    """
    artifacts = JobArtifacts(paths)
    state = artifacts.read_state()
    if state is None:
        return None
    step_id = state.progress.current
    result = artifacts.attempt_result(step_id, state.progress.step(step_id).attempt)
    return None if result is None else result.outcome


# ---- by age -----------------------------------------------------------------------------------


def rows_by_state(queue: Queue, states: Iterable[State]) -> Iterator[tuple[str, str]]:
    """Yield state and time of submission of every job, from names alone: there may be a million."""
    for state in states:
        for name in queue_names(queue, state):
            yield state.value, submission_time(name)


def rows_by_content(queue: Queue, listed: Iterable[Listed], by: By) -> Iterator[tuple[str, str]]:
    """Yield the same for rows that need the job's file; a job of two agents counts for each."""
    for key, state, _ in listed:
        for row in _rows_of(queue, key, state, by):
            yield row, submission_time(str(key))


def _rows_of(queue: Queue, key: Key, state: State, by: By) -> Collection[str]:
    if by is By.STATE:
        return (state.value,)
    try:
        document = current_document(queue.roots.artifacts(key.job_id))
    except FileNotFoundError:  # it was collected meanwhile
        return ()
    except Damaged:
        return (NONE,)
    return sorted(agents_of(document)) if by is By.AGENT else (document["project_id"] or NONE,)


def queue_names(queue: Queue, state: State) -> Iterator[str]:
    """Yield the names of the queue files in a state, one by one; of a parked one, its key's."""
    slots = queue.slots() if state is State.RUNNING else [None]
    for slot in slots:
        directory = queue.paths.state(state) if slot is None else queue.paths.slot(slot)
        try:
            for name in names_in(directory):
                if name.endswith(".json"):
                    yield parked_key_name(name) if state is State.PARKED else name
        except (FileNotFoundError, NotADirectoryError):  # nothing was ever queued
            continue
