"""A runner: holds a slot, claims jobs, works on one at a time.

It waits for events and for nothing else: a job that arrives, the death of another slot's owner, a
signal. What makes it wait (a busy slot, a full disk) it waits for inside, and says so once.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from agentorch import atomic
from agentorch.agents.registry import Registry
from agentorch.documents import Document
from agentorch.errors import Exit, Misconfigured, TryAgain
from agentorch.events import Events, SecondLooks
from agentorch.filesystem import power_cut_doubt, refusal
from agentorch.inotify import Inotify, Mask
from agentorch.job import MAX_TAKEN, Job, Key
from agentorch.jobqueue import Queue, lock, read_job, refuse_below
from agentorch.jobrun import JobRun, Left, Means
from agentorch.journal import Journal
from agentorch.launch.base import Attempt
from agentorch.launch.fork import Fork
from agentorch.messages import Message
from agentorch.reclaim import end_as_lost, reclaim
from agentorch.settings import Settings
from agentorch.signals import Signals
from agentorch.slots import Slot
from agentorch.states import State

LEAVE_NOW = (signal.SIGTERM, signal.SIGINT)
LEAVE_AFTER_JOB = (signal.SIGHUP,)


class Until(StrEnum):
    """When a runner leaves by itself."""

    TOLD = "told"
    EMPTY = "empty"
    ONE = "one"


class Runner:
    """One runner process. `run_step` is what a forked attempt does; it returns an exit code."""

    def __init__(
        self,
        settings: Settings,
        agents: Registry,
        journal: Journal,
        until: Until,
        run_step: Callable[[Attempt, int], int],
        job_patch: Callable[[Job], bytes],
        without_secrets: Callable[[Document], Document],
    ) -> None:
        self.settings = settings
        self.agents = agents
        self.journal = journal
        self.until = until
        self.run_step = run_step
        self.job_patch = job_patch
        self.without_secrets = without_secrets
        self.queue = Queue(settings.roots)
        self.jobs = 0
        self.waiting = False

    def run(self, slot_name: str) -> Exit:
        """Works until told to leave, or as `until` says. What the disk can't take it waits for."""
        with Signals((*LEAVE_NOW, *LEAVE_AFTER_JOB)) as signals:
            while not signals.came(*LEAVE_NOW, *LEAVE_AFTER_JOB):
                try:
                    with atomic.disk_trouble(self.queue.paths.root):
                        return self._hold_and_serve(slot_name, signals)
                except TryAgain as problem:
                    self._say_waiting(problem)
                    select.select([signals], [], [], self.settings.runner_poll_interval_s)
                    signals.clear()
        return Exit.DONE

    def _hold_and_serve(self, slot_name: str, signals: Signals) -> Exit:
        self.queue.prepare()
        self._check_disk()
        with self._slot(slot_name, signals) as slot:
            if slot is None:
                return Exit.DONE if signals.came(*LEAVE_NOW) else Exit.TRY_AGAIN
            events = Events(self.queue.paths, signals)
            try:
                self._serve(slot, events)
            finally:
                events.close()
        return Exit.DONE

    def _check_disk(self) -> None:
        """Raises Misconfigured where the roots can't hold a queue."""
        problem = refusal(self.settings.roots)
        if problem is not None:
            raise Misconfigured(problem)
        doubt = power_cut_doubt(self.settings.roots.queue_root)
        if doubt is not None:
            self.journal.warning(doubt)

    # ---- the slot -----------------------------------------------------------------------------

    @contextmanager
    def _slot(self, name: str, signals: Signals) -> Iterator[Slot | None]:
        """Holds the slot; None when told to leave, or when it is busy and we don't stay."""
        directory = self.queue.paths.slot(name)
        atomic.make_directory(directory)
        path = self.queue.paths.slot_lock(name)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            got = lock(descriptor, wait=False) or self._wait_for(descriptor, name, signals)
            yield Slot(self.queue, name, descriptor) if got else None
        finally:
            os.close(descriptor)

    def _wait_for(self, descriptor: int, name: str, signals: Signals) -> bool:
        with Inotify() as closes:
            closes.watch(self.queue.paths.slot(name), Mask.CLOSE_WRITE | Mask.CLOSE_NOWRITE)
            if self.until is not Until.TOLD:
                self.journal.error(f"slot {name!r} has a live owner: choose another --slot")
                return False
            self.journal.warning(
                f"slot {name!r} has a live owner: waiting for its end", Message.WAITING
            )
            poll = select.poll()
            poll.register(closes, select.POLLIN)
            poll.register(signals, select.POLLIN)
            looks = SecondLooks()
            while not lock(descriptor, wait=False):
                limit_s = looks.limit(None)
                poll.poll(None if limit_s is None else limit_s * 1000)
                if list(closes.read()):
                    looks.closed()
                signals.clear()
                if signals.came(*LEAVE_NOW, *LEAVE_AFTER_JOB):
                    return False
        return True

    # ---- the work -----------------------------------------------------------------------------

    def _serve(self, slot: Slot, events: Events) -> None:
        launcher = Fork(self.settings.roots, self.run_step, lambda: _leave(slot, events))
        self.queue.recover_incoming()
        for key in slot.held():
            self._carry_on(slot, key, launcher, events)
        while not self._leaving(events):
            self._reclaim(slot, events)
            coming = events.next_pending()
            if coming is not None:
                self._claim(slot, coming, launcher, events)
            elif self.until is Until.TOLD:
                events.wait(None)
            else:
                return

    def _leaving(self, events: Events) -> bool:
        enough = self.until is Until.ONE and self.jobs > 0
        return enough or events.signals.came(*LEAVE_NOW, *LEAVE_AFTER_JOB)

    def _claim(self, slot: Slot, key: Key, launcher: Fork, events: Events) -> None:
        try:
            with atomic.disk_trouble(slot.directory):
                claimed = slot.take(State.PENDING, key)
        except TryAgain as problem:
            self._wait_for_disk(problem, key, events)
            claimed = slot.path(key).exists()  # moved, and only its sync failed
            if not claimed:
                events.backlog.arrived(str(key))
        if claimed:
            self._work(slot, key, launcher, events)

    def _wait_for_disk(self, problem: TryAgain, key: Key, events: Events) -> None:
        """The whole interval, unless it is told something: our own moves are events, too."""
        self._say_waiting(problem, job=key.job_id)
        select.select([events.signals], [], [], self.settings.runner_poll_interval_s)
        events.signals.clear()

    def _say_waiting(self, problem: TryAgain, **fields: str) -> None:
        if not self.waiting:
            self.journal.error(f"waiting: {problem}", Message.WAITING, **fields)
        self.waiting = True

    def _reclaim(self, slot: Slot, events: Events) -> None:
        if not events.slots_changed:
            return
        events.slots_changed = False
        events.watch_slots(self.queue.slots())
        for job_id in reclaim(self.queue, own=slot.name):
            self.journal.warning("taken back from a dead owner", Message.RECLAIMED, job=job_id)

    def _carry_on(self, slot: Slot, key: Key, launcher: Fork, events: Events) -> None:
        """A job that our predecessor in this slot left behind when it died."""
        if key.taken + 1 >= MAX_TAKEN:
            end_as_lost(slot, key, read_job(slot.path(key)))
            return
        self._work(slot, slot.recount(key), launcher, events)

    def _work(self, slot: Slot, key: Key, launcher: Fork, events: Events) -> None:
        """Works on a job of ours until it left the slot; a full disk is waited out."""
        self.jobs += 1
        while slot.path(key).exists():
            try:
                self._check_room()
                self._run_job(slot, key, launcher, events)
            except TryAgain as problem:
                self._wait_for_disk(problem, key, events)
                if events.signals.came(*LEAVE_NOW):
                    return
            else:
                self.waiting = False

    def _check_room(self) -> None:
        roots = self.settings.roots
        for directory in (roots.queue_root, roots.workspaces_root):
            refuse_below(directory, self.settings.min_free_disk_bytes)

    def _run_job(self, slot: Slot, key: Key, launcher: Fork, events: Events) -> Left:
        with atomic.disk_trouble(slot.directory):
            means = Means(
                launcher=launcher,
                events=events,
                journal=self.journal,
                agents=self.agents.names(),
                stopping=lambda: events.signals.came(*LEAVE_NOW),
                job_patch=self.job_patch,
                max_attempts=self.settings.runner_max_attempts_per_step,
                check_room=self._check_room,
                without_secrets=self.without_secrets,
            )
            return JobRun(slot, key, means).run()


def _leave(slot: Slot, events: Events) -> None:
    """What a forked step must not keep: the proof that its runner lives, and its ears."""
    os.close(slot.descriptor)
    events.close()
    events.signals.close()
