"""A job's artifact directory: what is written there while it runs, and how it is read again.

state.json is the commit record: a job is ended exactly when its status there is final. Everything
else of the end (result, report, patch, logs) is durable before it, so a final state always has
its result, and an owner that finds a final state only moves the queue file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentorch.artifacts.state import JobState
from agentorch.core.allowance import Allowance
from agentorch.core.job import Job
from agentorch.core.results import JobResult, StepResult
from agentorch.core.states import Status
from agentorch.core.text import demote_headings, one_line, printable
from agentorch.redaction.redactor import Redactor
from agentorch.storage import atomic
from agentorch.storage.json_files import Document, make_from, read_bytes, read_json, read_text
from agentorch.storage.paths import STEP_FILES, ArtifactPaths


def read_step_result(path: Path) -> StepResult | None:
    """Return the result of a step or an attempt, None where there is none. Raises Damaged."""
    document = read_json(path)
    return None if document is None else make_from(path, document, StepResult.from_document)


class JobArtifacts:
    """One job's artifact directory."""

    def __init__(self, paths: ArtifactPaths) -> None:
        self.paths = paths

    def read_state(self) -> JobState | None:
        """Return what state.json says; None where the job was never claimed. Raises Damaged."""
        document = read_json(self.paths.state)
        return (
            None
            if document is None
            else make_from(self.paths.state, document, JobState.from_document)
        )

    def state_document(self) -> Document | None:
        """Return state.json as it is, for whoever shows it; None as in `read_state`."""
        document = read_json(self.paths.state)
        if document is not None:
            make_from(self.paths.state, document, JobState.from_document)
        return document

    def write_state(self, job: Job, state: JobState) -> None:
        """Replace state.json; durable when it returns."""
        atomic.replace_json(self.paths.state, state.to_document(job))

    def read_context(self, job: Job) -> tuple[Mapping[str, Any], ...]:
        """Return the conversation so far: context.json, or the job's own window at the start."""
        document = read_json(self.paths.context)
        return job.context_window if document is None else tuple(document["messages"])

    def read_base(self) -> str | None:
        """Return the commit that the workspace was made from, None before it was made."""
        document = read_json(self.paths.base)
        return None if document is None else str(document["commit"])

    def write_base(self, commit: str, tree: str) -> None:
        """Remember what the workspace was made from, for the case that it is lost; durable."""
        atomic.replace_json(self.paths.base, {"commit": commit, "tree": tree})

    def context_document(self) -> Document | None:
        """context.json as it is, None before the first step ended."""
        return read_json(self.paths.context)

    def write_context(self, document: Document) -> None:
        """Replace context.json; durable when it returns."""
        atomic.replace_json(self.paths.context, document)

    def next_attempt(self, step_id: str, last: int) -> int:
        """Return a number above `last` that no attempt of the step has used."""
        number = last + 1
        while self.paths.step(step_id).attempt(number).directory.exists():
            number += 1
        return number

    def attempt_result(self, step_id: str, attempt: int) -> StepResult | None:
        """Return how an attempt ended, None while it has no result. Raises Damaged."""
        return read_step_result(self.paths.step(step_id).attempt(attempt).result)

    def step_result(self, step_id: str) -> StepResult | None:
        """Return the published result of a step, None where it has none. Raises Damaged."""
        return read_step_result(self.paths.step(step_id).latest.result)

    def job_result(self) -> JobResult | None:
        """Return the job's result, None where it never ended or asked. Raises Damaged."""
        document = read_json(self.paths.result)
        if document is None:
            return None
        return make_from(self.paths.result, document, JobResult.from_document)

    def attempt_end(self, step_id: str, attempt: int) -> Document | None:
        """Return how an attempt's unit ended; None where it had none, or nobody could record it."""
        return read_json(self.paths.step(step_id).attempt(attempt).end)

    def successes(self, job: Job) -> list[StepResult]:
        """Return the results of the steps that succeeded, or that a human took as they are, in the
        order in which they ended.
        """
        state = self.read_state()
        taken = {} if state is None else {n: s.accepted for n, s in state.progress.steps.items()}
        found = [
            result
            for result in self.step_results(job)
            if result.status is Status.SUCCESS or taken.get(result.step_id)
        ]
        return sorted(found, key=lambda result: result.finished_at)

    def write_allowance(self, step_id: str, attempt: int, allowance: Allowance) -> None:
        """Write what an attempt may cost, for the process that runs it; nothing where nothing
        limits it.

        It need not outlive a power cut: the attempt does not.
        """
        if allowance.max_cost_usd is None:
            return
        paths = self.paths.step(step_id).attempt(attempt)
        paths.directory.mkdir(0o750, parents=True, exist_ok=True)
        atomic.replace(paths.allowance, atomic.encode(asdict(allowance)), last=False)

    def read_allowance(self, step_id: str, attempt: int) -> Allowance:
        """Return what an attempt may cost."""
        document = read_json(self.paths.step(step_id).attempt(attempt).allowance)
        return Allowance() if document is None else Allowance(**document)

    def step_results(self, job: Job) -> list[StepResult]:
        """Return the published results of the job's steps, in their order."""
        found = (self.step_result(step.step_id) for step in job.steps)
        return [result for result in found if result is not None]

    def read_patch(self) -> bytes:
        """Return the job's patch as an earlier end left it, empty where there was none."""
        return read_bytes(self.paths.patch)

    def publish_step(self, step_id: str, attempt: int) -> None:
        """Make an attempt's files the step's, result last; durable when it returns."""
        step = self.paths.step(step_id)
        publish(step.attempt(attempt).directory, step.directory)

    def write_end(self, job: Job, result: JobResult, patch: bytes) -> None:
        """Write the job's result, report, patch and logs; the result last."""
        steps = [self.paths.step(step.step_id).latest for step in job.steps]
        texts = [
            (step, paths)
            for step, paths in zip(job.steps, steps, strict=True)
            if paths.result.exists()
        ]
        report = [
            f"# Job {job.job_id}: {result.status}\n\n",
            f"{_quote(job.goal)}\n\n{result.summary}\n",
        ]
        logs = b""
        for step, paths in texts:
            report.append(
                f"\n## {step.step_id} ({step.agent}, {one_line(step.role)})\n\n"
                f"{demote_headings(read_text(paths.report).strip(), 2)}\n"
            )
            logs += read_bytes(paths.logs)
        # the steps' parts are clean; goal and role are what the submitter wrote
        text = Redactor().redact("".join(report))
        # The result last, and its sync makes all four names durable: whoever finds a new
        # result.json finds the others of the same end. A crash before leaves some of them new,
        # beside a state that is not final; the next owner writes them all again.
        atomic.replace(self.paths.report, text.encode("utf-8", "replace"), last=False)
        atomic.replace(self.paths.patch, patch, last=False)
        atomic.replace(self.paths.logs, logs, last=False)
        atomic.replace_json(self.paths.result, result.to_document())


def publish(source: Path, directory: Path) -> None:
    """Make the files of an attempt those of a directory, result last; durable."""
    # Each name is replaced in one rename, the result as the last one: a crash in between leaves an
    # older result beside newer files, and the step still running in state.json, so that the next
    # owner publishes the same attempt again.
    for name in STEP_FILES:
        if (source / name).exists():
            atomic.link(source / name, directory / name)
        else:
            (directory / name).unlink(missing_ok=True)
    atomic.sync_directory(directory)


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in printable(text).splitlines())
