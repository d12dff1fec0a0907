"""agentorch-answer: answers the question that a job's agent asked."""

from __future__ import annotations

import sys

import click

from agentorch.commands.base import load_settings, program, redact_text
from agentorch.commands.decision import HASH, decide
from agentorch.core.errors import Invalid
from agentorch.decisions.decide import answer
from agentorch.jobqueue.jobqueue import Queue


@program()
@click.argument("job_ref", metavar="ID")
@click.argument("text", metavar="TEXT")
@HASH
def main(job_ref: str, text: str, shown: str | None) -> None:
    """Answer the question that an agent asked, with TEXT (- is standard input).

    Its step goes on from there: the agent finds its work as it left it, and its session where it
    can resume one.
    """
    settings = load_settings()
    queue = Queue(settings.roots)
    said = redact_text(_read() if text == "-" else text, settings)
    decide(queue, "answer", [job_ref], lambda ref: answer(queue, ref, said, shown=shown))


def _read() -> str:
    try:
        return sys.stdin.read().strip("\n")
    except UnicodeDecodeError as problem:
        raise Invalid(["standard input: not UTF-8"]) from problem
