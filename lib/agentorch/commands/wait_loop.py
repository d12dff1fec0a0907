"""Waiting for jobs to end, and the exit code that tells how they did."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Mapping, Sequence

import click

from agentorch.artifacts.directory import JobArtifacts
from agentorch.commands.base import print_line
from agentorch.core.errors import Exit
from agentorch.core.states import ENDED, State, Status
from agentorch.core.text import printable
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import Row, find, rows, status_word
from agentorch.jobqueue.slots import live
from agentorch.system.inotify import Inotify, Mask

CODES: Mapping[str, Exit] = {
    Status.SUCCESS: Exit.DONE,
    Status.NEEDS_HUMAN: Exit.NEEDS_HUMAN,
    State.AWAITING_APPROVAL: Exit.NEEDS_HUMAN,
    Status.TIMEOUT: Exit.TIMED_OUT,
}
# A path unit starts a runner within some tenths of a second.
WAKES_S = 2.0
SETTLED = ENDED | {State.AWAITING_APPROVAL}
# Nobody works on these, and yet they may go on: by a human's word, or by themselves.
RESTING = (State.HELD, State.PARKED)


def wait_for(queue: Queue, ids: Sequence[str], timeout_s: float | None = None) -> Exit:
    """Wait until every job has ended or needs a human; the worst of their exit codes.

    TIMED_OUT after `timeout_s`. On a terminal, a line on stderr shows where each is; anywhere, one
    says that a job is held back or parked, and is waited for all the same.
    """
    until = None if timeout_s is None else time.monotonic() + timeout_s
    said: set[str] = set()
    if ids and _is_left_alone(queue, ids[0], until, said):
        print_line("no runner is alive: start agentorch-runner")
    codes = [_wait_for_one(queue, job_id, until, said) for job_id in ids]
    failures = [code for code in codes if code is not Exit.DONE]
    return failures[0] if failures else Exit.DONE


def _is_left_alone(queue: Queue, word: str, until: float | None, said: set[str]) -> bool:
    """Return whether nobody takes up a job: a slot that sleeps has some time to wake."""
    if live(queue) or find(queue, word).state in (*SETTLED, *RESTING):
        return False
    soon = time.monotonic() + WAKES_S
    _wait_for_one(queue, word, soon if until is None else min(soon, until), said)
    return not live(queue) and find(queue, word).state not in (*SETTLED, *RESTING)


def _wait_for_one(queue: Queue, word: str, until: float | None, said: set[str]) -> Exit:
    """`said` is what was said already of jobs that rest."""
    job_id = find(queue, word).job.job_id
    with Inotify() as events:
        events.watch(queue.roots.artifacts(job_id).directory, Mask.MOVED_TO | Mask.CREATE)
        for state in (*SETTLED, *RESTING):
            events.watch(queue.paths.state(state), Mask.MOVED_TO)
        poll = select.poll()
        poll.register(events, select.POLLIN)
        while True:
            found = find(queue, job_id)
            known = JobArtifacts(queue.roots.artifacts(job_id)).read_state()
            word = status_word(found.state, known) or "submitting"
            _progress(job_id, word, known.progress.current if known is not None else None)
            if found.key is not None and found.state in RESTING:
                _say_once(rest(next(rows(queue, [(found.key, found.state, None)]), None)), said)
            if found.state in SETTLED:
                _progress_ends()
                return CODES.get(word, Exit.NEGATIVE)
            left = None if until is None else max(0.0, until - time.monotonic())
            if not poll.poll(None if left is None else left * 1000) and left is not None:
                _progress_ends()
                return Exit.TIMED_OUT
            list(events.read())


def rest(row: Row | None) -> str:
    """Return that a job rests, why, and what ends that; empty where it does not any more. Pure."""
    if row is None:
        return ""
    why = f": {printable(row.reason)}" if row.reason else ""
    if row.state is State.HELD:
        return f"{row.key.job_id}: held back{why}: agentorch-release lets it go on"
    until = f" until {row.until}" if row.until else ""
    return f"{row.key.job_id}: parked{until}{why}: it goes on by itself"


def _say_once(line: str, said: set[str]) -> None:
    if line and line not in said:
        said.add(line)
        _progress_ends()
        print_line(line)


def _progress(job_id: str, word: str, step: str | None) -> None:
    if sys.stderr.isatty():
        at = f" at {step}" if step and word == Status.RUNNING else ""
        click.echo(f"\r\033[K{job_id}: {word}{at}", nl=False, err=True)


def _progress_ends() -> None:
    if sys.stderr.isatty():
        click.echo(err=True)
