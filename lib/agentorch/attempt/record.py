"""The files that an attempt leaves: patch, report, logs, all without secrets; the result last."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

from agentorch.attempt.log import Logbook
from agentorch.core.attempt import Attempt
from agentorch.core.job import Outcome
from agentorch.core.results import StepResult
from agentorch.core.states import OutcomeClass
from agentorch.core.times import rfc3339
from agentorch.redaction.redactor import WORTHLESS, Redactor, without_secrets
from agentorch.storage import atomic
from agentorch.storage.json_files import Document
from agentorch.storage.paths import StepPaths
from agentorch.workspace.workspace import Change

# Ends that somebody asked for: what the step left does not change them.
STOPPED = frozenset({"cancelled", "interrupted"})


def record(
    attempt: Attempt,
    step: StepPaths,
    outcome: Outcome,
    change: Change | None,
    *,
    logs: Logbook,
    redactor: Redactor,
    started_at: datetime,
) -> StepResult:
    """Write the end of an attempt; return its result. Durable when it returns.

    A secret anywhere fails the step. One in the patch keeps the patch back: without the secret it
    would not apply, and with it, it may not be written.
    """
    paths = step.attempt(attempt.number)
    patch = change.patch if change is not None else b""
    in_patch = kinds(redactor, patch.decode("utf-8", "replace"))
    said = kinds(redactor, "\n".join((outcome.summary, outcome.report, outcome.question or "")))
    found = logs.settle() + said + in_patch
    del found[WORTHLESS]
    if found and outcome.error not in STOPPED:
        outcome = with_secrets(outcome, found, withheld=bool(in_patch))
    logs.note(f"{outcome.kind}: {outcome.summary}")
    logs.close()
    atomic.replace(paths.patch, b"" if in_patch else patch, last=False)
    text = report(attempt.step.step_id, outcome)
    atomic.replace(paths.report, redactor.redact(text).encode("utf-8", "replace"), last=False)
    result = StepResult.from_outcome(
        attempt.job,
        attempt.step,
        attempt.number,
        outcome,
        started_at=rfc3339(started_at),
        finished_at=rfc3339(datetime.now(UTC)),
        change_status=change_status(change),
        secrets_check="failed" if found else "passed",
    )
    clean: Document = without_secrets(result.to_document(), redactor)
    atomic.replace_json(paths.result, clean)
    atomic.sync_directory(step.attempts)
    atomic.sync_directory(step.directory)
    if attempt.number == 1:
        atomic.sync_directory(step.directory.parent)
    return StepResult.from_document(clean)


def kinds(redactor: Redactor, text: str) -> Counter[str]:
    """Return the kinds of secrets in a text, and how often each."""
    return Counter(f.kind for f in redactor.find(text) if f.kind != WORTHLESS)


def change_status(change: Change | None) -> str | None:
    """Return the word of the contract for what became of the work tree."""
    if change is None:
        return None
    return "changed" if change.changed else "no_changes"


def with_secrets(outcome: Outcome, found: Counter[str], *, withheld: bool) -> Outcome:
    """Return the outcome of a step that left secrets. Pure."""
    listed = ", ".join(f"{kind} ({count})" for kind, count in sorted(found.items()))
    words = f"secrets in what the step left: {listed}"
    return replace(
        outcome,
        kind=OutcomeClass.SECRETS,
        summary=f"{words}; its patch is withheld" if withheld else words,
        error="secrets_check_failed",
        details={"kinds": dict(found), "outcome": outcome.kind, "patch_withheld": withheld},
    )


def report(step_id: str, outcome: Outcome) -> str:
    """Return the step's report. Pure."""
    title = f"# {step_id}: {outcome.kind}\n\n{outcome.summary}\n"
    return f"{title}\n{outcome.report}" if outcome.report else title
