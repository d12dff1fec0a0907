"""GET /jobs and GET /jobs/{id}: lists and states of jobs. Nothing is written.

A listing reads every file name of the requested states in one pass, keeps no more of them than fit
a page, and reads a bounded number of documents. Documents that a filter leaves out count, too: so
a page may be shorter than its limit, or empty, and still have a next page.
"""

from __future__ import annotations

import base64
import binascii
import heapq
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from agentorch.core.job import Job, Key
from agentorch.core.states import OutcomeClass, State
from agentorch.jobqueue import lookup
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.selection import Filters, select
from agentorch.storage.json_files import Document
from agentorch.storage.listing import names_in
from agentorch.storage.paths import parked_key_name
from agentorch.webhook.request import Request
from agentorch.webhook.responses import Refusal, problem
from agentorch.webhook.tokens import Caller, refuse_outside

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
# The number of documents that one request may read.
MAX_READ = 500


@dataclass(frozen=True)
class JobQuery:
    """The query of a listing; `after` is the key behind which the page begins, empty for all.

    `project` is None for the jobs of all projects.
    """

    states: tuple[State, ...]
    project: str | None
    filters: Filters
    limit: int
    after: str


@dataclass(frozen=True, order=True)
class Entry:
    """A queue file: its key, its state, and its slot if it is running.

    A parked job's file name begins with a time, which is not part of the key.
    """

    name: str
    state: State
    slot: str | None = None


def job_status(queue: Queue, job: Job) -> Document:
    """Return the document that GET /jobs/{id} answers."""
    found = lookup.status(queue, lookup.find(queue, job.job_id))
    return {name: value for name, value in found.items() if name != "job_dir"}


# ---- listing ----------------------------------------------------------------------------------


def parse_query(request: Request) -> JobQuery:
    """Return the query of a request. Raises Refusal (400). Pure."""
    try:
        return JobQuery(
            states=_states(request.field("state")),
            project=request.field("project"),
            filters=_filters(request),
            limit=_limit(request.field("limit")),
            after=_name(request.field("after")),
        )
    except ValueError as trouble:
        raise Refusal(problem(HTTPStatus.BAD_REQUEST, str(trouble))) from trouble


def _states(word: str | None) -> tuple[State, ...]:
    if word is None:
        return tuple(State)
    if word not in set(State):
        raise ValueError(f"state: expected one of {', '.join(State)}")
    return (State(word),)


def _filters(request: Request) -> Filters:
    given = {name: request.field(name) for name in ("project", "tag", "agent", "outcome")}
    outcome = given["outcome"]
    if outcome is not None and outcome not in set(OutcomeClass):
        raise ValueError(f"outcome: expected one of {', '.join(OutcomeClass)}")
    words = {name: () if word is None else (word,) for name, word in given.items()}
    return Filters(words["project"], words["tag"], words["agent"], words["outcome"])


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not re.fullmatch("[1-9][0-9]{0,3}", text) or int(text) > MAX_LIMIT:
        raise ValueError(f"limit: expected a number from 1 to {MAX_LIMIT}")
    return int(text)


def cursor(name: str) -> str:
    """Return the cursor of the place behind a queue file, which a client sends as `after`. Pure."""
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _name(given: str | None) -> str:
    if given is None:
        return ""
    try:
        name = base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)).decode("ascii")
    except (binascii.Error, UnicodeError):
        name = ""
    if Key.parse(name) is None:
        raise ValueError("after: expected the value of next from the answer of a listing")
    return name


def list_jobs(queue: Queue, caller: Caller, wanted: JobQuery) -> Document:
    """Return a page of jobs in claim order, and the cursor of the next page (None on the last).

    Raises Refusal (403) where the caller may not see the requested project.
    """
    if wanted.project is not None:
        refuse_outside(wanted.project, allowed=caller.may_read(wanted.project))
    scoped = not wanted.filters.read_nothing or not caller.sees_all
    most = MAX_READ if scoped else wanted.limit
    # one more name than may be read shows whether there is a next page
    names = (entry for entry in _entries(queue, wanted.states) if entry.name > wanted.after)
    found = heapq.nsmallest(most + 1, names)
    shown: dict[str, Document] = {}
    read = found[:0]
    for entry in found[:most]:
        if len(shown) == wanted.limit:
            break
        read.append(entry)
        shown |= {row.key.job_id: row.document() for row in _rows(queue, entry, caller, wanted)}
    more = len(read) < len(found)
    return {"jobs": list(shown.values()), "next": cursor(read[-1].name) if more else None}


def _rows(queue: Queue, entry: Entry, caller: Caller, wanted: JobQuery) -> Iterator[lookup.Row]:
    key = Key.parse(entry.name)
    if key is None:
        return
    listed = [(key, entry.state, entry.slot)]
    found = select(queue, listed, wanted.filters, datetime.now(UTC))
    yield from (row for row in lookup.rows(queue, found) if caller.may_read(row.project))


def _entries(queue: Queue, states: Iterable[State]) -> Iterator[Entry]:
    for state in states:
        slots = queue.slots() if state is State.RUNNING else [None]
        for slot in slots:
            directory = queue.paths.state(state) if slot is None else queue.paths.slot(slot)
            try:
                for name in names_in(directory):
                    if name.endswith(".json"):  # leaves out the lock of a slot
                        key = parked_key_name(name) if state is State.PARKED else name
                        yield Entry(key, state, slot)
            except (FileNotFoundError, NotADirectoryError):
                continue
