"""Waiting for jobs to end, and the exit code that tells how they did."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Mapping, Sequence

import click

from agentorch.commands.shape import say
from agentorch.documents import read_json
from agentorch.errors import Exit
from agentorch.inotify import Inotify, Mask
from agentorch.inspect import find, status_word
from agentorch.jobqueue import Queue
from agentorch.slots import live
from agentorch.states import ENDED, State, Status

CODES: Mapping[str, Exit] = {
    Status.SUCCESS: Exit.DONE,
    Status.NEEDS_HUMAN: Exit.NEEDS_HUMAN,
    State.AWAITING_APPROVAL: Exit.NEEDS_HUMAN,
    Status.TIMEOUT: Exit.TIMED_OUT,
}
# A path unit starts a runner within some tenths of a second.
WAKES_S = 2.0
SETTLED = ENDED | {State.AWAITING_APPROVAL}


def wait_for(queue: Queue, ids: Sequence[str], timeout_s: float | None = None) -> Exit:
    """Waits until every job has ended or needs a human; the worst of their exit codes.

    TIMED_OUT after `timeout_s`. On a terminal, a line on stderr shows where each is.
    """
    until = None if timeout_s is None else time.monotonic() + timeout_s
    if ids and _is_left_alone(queue, ids[0], until):
        say("no runner is alive: start agentorch-runner")
    codes = [_wait_for_one(queue, job_id, until) for job_id in ids]
    failures = [code for code in codes if code is not Exit.DONE]
    return failures[0] if failures else Exit.DONE


def _is_left_alone(queue: Queue, word: str, until: float | None) -> bool:
    """Whether nobody takes up a job: a slot that sleeps has some time to wake."""
    if live(queue) or find(queue, word).state in SETTLED:
        return False
    soon = time.monotonic() + WAKES_S
    _wait_for_one(queue, word, soon if until is None else min(soon, until))
    return not live(queue) and find(queue, word).state not in SETTLED


def _wait_for_one(queue: Queue, word: str, until: float | None) -> Exit:
    job_id = find(queue, word).job.job_id
    with Inotify() as events:
        events.watch(queue.roots.artifacts(job_id).directory, Mask.MOVED_TO | Mask.CREATE)
        for state in SETTLED:
            events.watch(queue.paths.state(state), Mask.MOVED_TO)
        poll = select.poll()
        poll.register(events, select.POLLIN)
        while True:
            found = find(queue, job_id)
            document = read_json(queue.roots.artifacts(job_id).state)
            word = status_word(found.state, document) or "submitting"
            _progress(job_id, word, document["current_step"] if document is not None else None)
            if found.state in SETTLED:
                _progress_ends()
                return CODES.get(word, Exit.NEGATIVE)
            left = None if until is None else max(0.0, until - time.monotonic())
            if not poll.poll(None if left is None else left * 1000) and left is not None:
                _progress_ends()
                return Exit.TIMED_OUT
            list(events.read())


def _progress(job_id: str, word: str, step: str | None) -> None:
    if sys.stderr.isatty():
        at = f" at {step}" if step and word == Status.RUNNING else ""
        click.echo(f"\r\033[K{job_id}: {word}{at}", nl=False, err=True)


def _progress_ends() -> None:
    if sys.stderr.isatty():
        click.echo(err=True)
