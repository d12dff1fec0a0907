"""A request on stdin, one question, the lines of `agents.protocol` on stdout.

    program MODULE:WIRE  < request.json

The token is in the environment (TOKEN). Every line is one write(2), so that one which the timer
says can't fall into another. It exits with 0 whenever it printed a result.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from agentorch.agents.api import patch as patches
from agentorch.agents.api import surroundings
from agentorch.agents.api.question import Asker, Limits, Trouble
from agentorch.agents.api.wire_formats import Answer, Question, Wire
from agentorch.core.errors import TryAgain
from agentorch.core.text import one_line

TOKEN = "AGENTORCH_TOKEN"
TEXT_CHARS = 8192
# What stays of the step's time for the patch and for leaving: the step would end us without words.
MARGIN = 0.05
LEAST_MARGIN_S = 2.0

READS = """\
You answer once: you can neither run commands nor open files, and all that you can see of the \
workspace is below. Nothing that you write changes it."""
WRITES = """\
You answer once: you can neither run commands nor open files, and all that you can see of the \
workspace is below. Where the task asks for changes, write all of them as one unified diff in \
git's format, in one block that begins with ```diff, with paths from the top of the workspace \
(diff --git a/PATH b/PATH, --- a/PATH, +++ b/PATH; --- /dev/null for a new file) and three lines \
of context around each change. It is applied with git apply, whole or not at all."""


@dataclass(frozen=True)
class ModelQuestion:
    """The request, as `api.ApiAgent` writes it."""

    system: str
    body: str
    model: str
    options: Mapping[str, Any]
    work: Path
    reads_only: bool
    url: str
    limits: Limits


def main() -> None:
    """Run the program."""
    asked = read(json.load(sys.stdin.buffer))
    wire = wire_format(sys.argv[1])
    asker = Asker(
        wire, asked.url, os.environ[TOKEN], asked.limits, say=say_progress, heard=say_usage
    )
    try:
        answer = asker.ask(question(asked))
    except Trouble as trouble:
        say_text(trouble.answer.text)
        say(
            **failure_line("unclassified", trouble.lines[0], trouble.answer, evidence=trouble.lines)
        )
        return
    say_text(answer.text)
    say(**result_line(asked, answer))


def read(document: Mapping[str, Any]) -> ModelQuestion:
    """Return the request that a document holds. Pure."""
    timeout_s = document["timeout_sec"]
    limits = Limits(
        total_s=max(timeout_s - max(timeout_s * MARGIN, LEAST_MARGIN_S), timeout_s / 2),
        **document["limits"],
    )
    return ModelQuestion(
        system=document["system"],
        body=document["body"],
        model=document["model"],
        options=document["options"],
        work=Path(document["work"]),
        reads_only=document["reads_only"],
        url=document["url"],
        limits=limits,
    )


def question(asked: ModelQuestion) -> Question:
    """Return what the model is asked: the task, the rules of a single answer, the workspace."""
    parts = (
        asked.body.rstrip(),
        "## How you answer",
        READS if asked.reads_only else WRITES,
        surroundings.workspace_text(asked.work, asked.body),
    )
    return Question(asked.system, "\n\n".join(parts), asked.model, asked.options)


def result_line(asked: ModelQuestion, answer: Answer) -> dict[str, Any]:
    """Return the result line of an answer, whose patch is applied."""
    patch = None if asked.reads_only else patches.find_patch(answer.text)
    if patch is None:
        return success_line(answer, ())
    try:
        patches.apply(patch, asked.work)
    except patches.NotApplied as refusal:
        words = f"the answer's patch does not apply: {refusal}"
        return failure_line("patch_apply_failed", words, answer, kind="patch")
    except TryAgain as problem:
        return failure_line("exception", str(problem), answer, kind="infra")
    return success_line(answer, patches.changed_files(patch))


# ---- lines, pure ------------------------------------------------------------------------------


def success_line(answer: Answer, files: tuple[str, ...]) -> dict[str, Any]:
    """Return the result line of an answer that is one."""
    first = next((line for line in answer.text.splitlines() if line.strip()), "")
    return {
        "type": "result",
        "status": "success",
        "summary": one_line(first),
        "model": answer.model,
        "files": list(files),
    }


def failure_line(
    code: str, words: str, answer: Answer, kind: str = "agent_error", evidence: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the result line of a failure."""
    error = {"code": code, "message": one_line(words, 1000), "class": kind}
    if evidence:
        error["evidence"] = list(evidence)  # type: ignore[assignment]
    return {
        "type": "result",
        "status": "failed",
        "summary": one_line(words),
        "model": answer.model,
        "error": error,
    }


def wire_format(place: str) -> Wire:
    """Return the wire that `module:attribute` names."""
    module, _, attribute = place.partition(":")
    return cast(Wire, getattr(importlib.import_module(module), attribute))


# ---- saying -----------------------------------------------------------------------------------


def say(**line: Any) -> None:
    """Print a line."""
    os.write(sys.stdout.fileno(), json.dumps(line).encode() + b"\n")


def say_progress(words: str) -> None:
    """Print a line for people."""
    say(type="progress", text=one_line(words, 1000))


def say_usage(answer: Answer) -> None:
    """Report what a try cost; one that got nothing cost nothing."""
    if answer.usage:
        say(type="usage", turns=1, **answer.usage)


def say_text(text: str) -> None:
    """Put the answer into the report, in lines of a size that is kept."""
    for start in range(0, len(text), TEXT_CHARS):
        say(type="text", text=text[start : start + TEXT_CHARS])
