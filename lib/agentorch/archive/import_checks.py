"""The checks of an imported job's documents, before anybody works with it.

Behind the door that jobs come through nobody asks again whether a field is there, and what lies in
a job's artifacts was written by ourselves. An archive is a door: whatever of it becomes a path, an
object's name for git or a number is looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from agentorch.archive.layout import Manifest
from agentorch.artifacts.state import FINAL_STATES, JobState
from agentorch.contracts.parse import parse
from agentorch.contracts.to_job import job_of
from agentorch.contracts.validate import problems_of
from agentorch.core.errors import Invalid
from agentorch.core.job import Job, Key
from agentorch.core.states import ENDED
from agentorch.core.times import moment_of
from agentorch.storage.json_files import Document
from agentorch.storage.paths import ArtifactPaths, WorkspacePaths
from agentorch.workspace.record import Record, decode

Problems = Callable[[Document], Sequence[str]]
_OBJECT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?|")
# what a document of another shape than ours makes of the code that reads it
_ODD = (KeyError, TypeError, ValueError, AttributeError)


def check(
    manifest: Manifest, artifacts: ArtifactPaths, workspace: WorkspacePaths, problems: Problems
) -> None:
    """Raise Invalid with everything that is wrong with the documents of a job.

    `problems` are what the server has against a job that may run here; one that has ended is not
    asked for more than to be a job.
    """
    found = [
        problem
        for path in (artifacts.job, artifacts.edited_job)
        for problem in _job_problems(manifest, path, problems)
    ]
    if found:
        raise Invalid(found)
    job = job_of(_read(artifacts.edited_job) or _read(artifacts.job))
    _raise([*_state_problems(manifest, artifacts, job), *_result_problems(artifacts, job)])
    _raise([*_base_problems(artifacts.base), *_record_problems(workspace.record)])


def _raise(problems: Sequence[str]) -> None:
    if problems:
        raise Invalid(problems)


def _read(path: Path) -> Any:
    """Return a document of the archive, None where there is none. Raises Invalid."""
    try:
        document = parse(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError as problem:
        raise Invalid([f"{path.name}: it is a directory"]) from problem
    except Invalid as invalid:
        raise Invalid([f"{path.name}: {problem}" for problem in invalid.problems]) from invalid
    if document is None:
        raise Invalid([f"{path.name}: it is null"])
    return document


def _job_problems(manifest: Manifest, path: Path, problems: Problems) -> Iterator[str]:
    document = _read(path)
    if document is None:
        return
    found = list(problems_of(document, "job"))
    if not found and manifest.state not in ENDED:
        found = list(problems(document))
    if not found:
        found = list(_identity_problems(manifest, document))
    yield from (f"{path.name}: {problem}" for problem in found)


def _identity_problems(manifest: Manifest, document: Document) -> Iterator[str]:
    try:
        job = job_of(document)
    except _ODD as problem:
        yield f"it is not whole: {problem!r}"
        return
    if job.job_id != manifest.job_id:
        yield f"it is job {job.job_id!r}, not {manifest.job_id!r}"
    if Key.parse(str(job.key)) != job.key:
        yield ".submitted_at: no name of a queue file can say it"


def _state_problems(manifest: Manifest, artifacts: ArtifactPaths, job: Job) -> Iterator[str]:
    document = _read(artifacts.state)
    if document is None:
        if manifest.state in ENDED:
            yield f"state.json: it is missing, and the job is {manifest.state}"
        return
    try:
        state = JobState.from_document(document)
        moments = (state.started_at, state.finished_at, state.claimed_at)
        parked = [] if state.parked is None else [state.parked.until]
        for moment in (*filter(None, moments), *parked):
            moment_of(moment)
        problems = list(_progress_problems(state, job, manifest.job_id))
        if manifest.state in ENDED and FINAL_STATES.get(state.status) != manifest.state:
            problems.append(f"the job is {state.status!r}, and lay in {manifest.state}/")
    except _ODD as problem:
        problems = [f"it is not of ours: {problem!r}"]
    yield from (f"state.json: {problem}" for problem in problems)


def _progress_problems(state: JobState, job: Job, job_id: str) -> Iterator[str]:
    known = {step.step_id for step in job.steps}
    named = {state.progress.current, *state.progress.steps}
    if state.job_id != job_id or not named <= known:
        yield f"it is of another job: {sorted(named - known)}"
    for step in state.progress.steps.values():
        counts = (step.attempt, step.tries, step.visits, step.base, step.first, step.resumes)
        if any(type(count) is not int or count < 0 for count in (*counts, step.parks)):
            yield "a count is none"
    if type(state.ends) is not int or state.ends < 0:
        yield "a count is none"


def _result_problems(artifacts: ArtifactPaths, job: Job) -> Iterator[str]:
    steps = [artifacts.step(step.step_id) for step in job.steps]
    attempts = (path / "result.json" for step in steps for path in step.attempts.glob("*"))
    for path in (artifacts.result, *(step.latest.result for step in steps), *attempts):
        document = _read(path)
        if document is not None:
            name = path.relative_to(artifacts.directory)
            yield from (f"{name}: {problem}" for problem in problems_of(document, "result"))


def _base_problems(path: Path) -> Iterator[str]:
    document = _read(path)
    if document is not None and not _are_objects([_commit(document)]):
        yield "base.json: its commit is none"


def _commit(document: Any) -> object:
    return document.get("commit") if isinstance(document, dict) else None


def _record_problems(path: Path) -> Iterator[str]:
    document = _read(path)
    if document is None:
        return
    try:
        record = decode(document)
    except (*_ODD, UnicodeError) as problem:
        yield f"workspace.json: it is not of ours: {problem!r}"
        return
    if not _are_objects(_objects(record)):
        yield "workspace.json: an object of git's is none"


def _objects(record: Record) -> Iterator[object]:
    snapshots = [record.base, record.last, *record.visits.values()]
    yield record.commit
    for one in snapshots:
        yield from (one.full, one.visible)


def _are_objects(names: Any) -> bool:
    """Return whether these could be names of git's objects, and nothing that git takes for an
    option.
    """
    return all(isinstance(name, str) and _OBJECT.fullmatch(name) for name in names)
