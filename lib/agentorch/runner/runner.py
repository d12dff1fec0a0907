"""A runner: holds a slot, claims jobs, works on one at a time.

It waits for events and for nothing else: a job that arrives, the death of another slot's owner, a
signal. What makes it wait (a busy slot, a full disk) it waits for inside, and says so once.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path

from agentorch.agents.registry import Registry
from agentorch.archive import import_
from agentorch.artifacts.directory import JobArtifacts
from agentorch.attempt import start
from agentorch.attempt.place import policy_of
from agentorch.config.settings import Settings
from agentorch.core.errors import Damaged, Exit, Misconfigured, TryAgain
from agentorch.core.job import MAX_TAKEN, Key
from agentorch.core.states import State
from agentorch.jobqueue.finish import set_aside
from agentorch.jobqueue.jobqueue import Queue, current_job
from agentorch.jobqueue.reclaim import end_as_lost, reclaim, wake, with_dead_owner
from agentorch.jobqueue.slots import Slot
from agentorch.launch.base import Launcher
from agentorch.launch.fork import Fork
from agentorch.launch.systemd import Systemd
from agentorch.runner.advance import ClaimedJob, advance
from agentorch.runner.events import Events, Pulse, SecondLooks
from agentorch.runner.owner import LEAVE_AFTER_JOB, LEAVE_NOW, Owner
from agentorch.runner.waits import Left, Rest, WaitsForAttempt, WaitsForTime
from agentorch.storage import atomic
from agentorch.storage.filesystem_check import power_cut_doubt, refusal
from agentorch.storage.locks import lock
from agentorch.system.inotify import Inotify, Mask
from agentorch.system.signals import Signals
from agentorch.systemd import notify
from agentorch.systemd.journal import Journal
from agentorch.systemd.message_ids import Message

# The close of a step's lock may have come before it was watched for, and the lock dropped after it
# was tried (events.SecondLooks): nothing else would wake us.
LOOK_AGAIN_S = 2.0


class Until(StrEnum):
    """The moment when a runner leaves by itself."""

    TOLD = "told"
    EMPTY = "empty"
    ONE = "one"


class Runner:
    """One runner process. `program` is the agentorch-step that units run.

    With `idle_s` it leaves when it had nothing to do for so long.
    """

    def __init__(
        self,
        settings: Settings,
        agents: Registry,
        journal: Journal,
        until: Until,
        program: Sequence[str],
        idle_s: float | None = None,
    ) -> None:
        self.settings = settings
        self.agents = agents
        self.journal = journal
        self.until = until
        self.program = program
        self.idle_s = idle_s
        self.queue = Queue(settings.roots)
        self.pulse = Pulse()
        self.jobs = 0
        self.waiting = False

    def run(self, slot_name: str) -> Exit:
        """Work until asked to leave, or as `until` says. What the disk can't take it waits for.

        The service manager hears that we are ready before anything else: what makes a runner wait
        is told in its status, and is no failed start.
        """
        with Signals((*LEAVE_NOW, *LEAVE_AFTER_JOB)) as signals:
            notify.notify("READY=1", f"STATUS=looking for work in slot {slot_name}")
            code = self._run(slot_name, signals)
        notify.notify("STOPPING=1")
        return code

    def _run(self, slot_name: str, signals: Signals) -> Exit:
        while not signals.came(*LEAVE_NOW, *LEAVE_AFTER_JOB):
            try:
                with atomic.disk_trouble(self.queue.paths.root):
                    return self._hold_and_serve(slot_name, signals)
            except TryAgain as problem:
                self._wait_out(problem, signals)
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
        """Raise Misconfigured where the roots can't hold a queue."""
        problem = refusal(self.settings.roots)
        if problem is not None:
            raise Misconfigured(problem)
        doubt = power_cut_doubt(self.settings.roots.queue_root)
        if doubt is not None:
            self.journal.warning(doubt)

    # ---- the slot -----------------------------------------------------------------------------

    @contextmanager
    def _slot(self, name: str, signals: Signals) -> Iterator[Slot | None]:
        """Hold the slot; yield None when asked to leave, or when it is busy and we don't stay."""
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
            words = f"slot {name!r} has a live owner: waiting for its end"
            notify.notify(f"STATUS={words}")
            self.journal.warning(words, Message.WAITING)
            poll = select.poll()
            poll.register(closes, select.POLLIN)
            poll.register(signals, select.POLLIN)
            looks = SecondLooks()
            while not lock(descriptor, wait=False):
                limit_s = self.pulse.limit(looks.limit(None))
                poll.poll(None if limit_s is None else limit_s * 1000)
                if list(closes.read()):
                    looks.note_close()
                signals.clear()
                if signals.came(*LEAVE_NOW, *LEAVE_AFTER_JOB):
                    return False
        return True

    # ---- the work -----------------------------------------------------------------------------

    def _serve(self, slot: Slot, events: Events) -> None:
        launcher = self._launcher(slot, events)
        owner = Owner(self.settings, self.agents, slot, launcher, events, self.journal)
        idle = Idle(self.idle_s)
        self.queue.recover_incoming()
        import_.recover(self.queue)
        for key in slot.held_keys():
            self._carry_on(owner, key)
        while not self._leaving(events):
            self._reclaim(slot, events)
            due_s = self._wake()
            coming = events.next_pending()
            if coming is not None:
                self._claim(owner, coming)
                idle = Idle(self.idle_s)
            elif self.until is not Until.TOLD or (idle.is_over() and events.nothing_pending()):
                return
            else:
                notify.notify("STATUS=nothing to do")
                events.wait(sooner(idle.left_s(), due_s))

    def _launcher(self, slot: Slot, events: Events) -> Launcher:
        roots = self.settings.roots
        if self.settings.launcher == "fork":
            run_step = partial(start.run_forked, self.settings, self.agents)
            return Fork(roots, run_step, partial(_leave, slot, events))
        return Systemd(
            roots,
            self.settings.environment,
            self.program,
            lambda attempt: policy_of(self.settings, attempt.job.policy).resources,
        )

    def _leaving(self, events: Events) -> bool:
        enough = self.until is Until.ONE and self.jobs > 0
        return enough or events.signals.came(*LEAVE_NOW, *LEAVE_AFTER_JOB)

    def _claim(self, owner: Owner, key: Key) -> None:
        slot, events = owner.slot, owner.events
        try:
            with atomic.disk_trouble(slot.directory):
                claimed = slot.take(State.PENDING, key)
        except TryAgain as problem:
            self._wait_out(problem, events.signals, job=key.job_id)
            claimed = slot.path(key).exists()  # moved, and only its sync failed
            if not claimed:
                events.backlog.add(str(key))
        if claimed:
            self._work(owner, key)

    def _wait_out(self, problem: TryAgain, signals: Signals, **fields: str) -> None:
        """Wait the whole interval, unless a signal comes: our own moves are events, too."""
        self._say_waiting(problem, **fields)
        limit_s = self.pulse.limit(self.settings.runner_poll_interval_s)
        select.select([signals], [], [], limit_s)
        signals.clear()

    def _say_waiting(self, problem: TryAgain, **fields: str) -> None:
        notify.notify(f"STATUS=waiting: {' '.join(problem.problems)}")
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

    def _wake(self) -> float | None:
        """Brings back the parked jobs whose time has come; how long until the next one's, if any.

        Those that others park meanwhile are theirs to bring back, or the timer's.
        """
        now = datetime.now(UTC)
        for job_id in wake(self.queue, now):
            self.journal.info("its time has come: it goes on", Message.WOKEN, job=job_id)
        for until, _ in self.queue.each_parked():
            return max(0.0, (until - now).total_seconds())
        return None

    def _carry_on(self, owner: Owner, key: Key) -> None:
        """Carry on with a job that our predecessor in this slot left behind."""
        try:
            self._resume(owner, key)
        except Damaged as problem:
            self._set_aside(owner.slot, key, problem)

    def _set_aside(self, slot: Slot, key: Key, problem: Damaged) -> None:
        """Fail a job that can't be read: it is no reason to stop, and the next one has its turn."""
        set_aside(slot, key)
        self.journal.error(f"failed: {problem}", Message.FINISHED, job=key.job_id)

    def _resume(self, owner: Owner, key: Key) -> None:
        roots = self.settings.roots
        state = JobArtifacts(roots.artifacts(key.job_id)).read_state()
        counted = with_dead_owner(roots, key, state)
        if counted.taken >= MAX_TAKEN:
            end_as_lost(owner.slot, key, current_job(roots.artifacts(key.job_id)))
            return
        if counted != key:
            owner.slot.recount(key, counted)
        self._work(owner, counted)

    def _work(self, owner: Owner, key: Key) -> None:
        """Work on a job of ours until it left the slot; a full disk is waited out."""
        self.jobs += 1
        while owner.slot.path(key).exists():
            try:
                owner.check_room()
                rest = self._drive(owner, key)
                if isinstance(rest, Left) and rest.stays:
                    return
            except TryAgain as problem:
                self._wait_out(problem, owner.events.signals, job=key.job_id)
                if owner.is_leaving():
                    return
            except Damaged as problem:
                self._set_aside(owner.slot, key, problem)
            else:
                self.waiting = False

    def _drive(self, owner: Owner, key: Key) -> Rest:
        """Advance a job of ours until it rests, waiting in between for what it waits for."""
        events = owner.events
        with atomic.disk_trouble(owner.slot.directory), ExitStack() as watches:
            job = ClaimedJob(owner, key)
            watched: set[Path] = set()

            def watch(directory: Path) -> None:
                watches.callback(events.forget, events.watch(directory))
                watched.add(directory)

            watch(job.artifacts.paths.directory)
            while True:
                match advance(job):
                    case WaitsForAttempt(attempt):
                        step = job.artifacts.paths.step(attempt.step.step_id).directory
                        if step in watched:
                            events.wait(LOOK_AGAIN_S)
                        else:  # what came before the watch is looked for once more
                            watch(step)
                    case WaitsForTime(left_s):
                        events.wait(left_s)
                    case rest:
                        return rest


def sooner(one_s: float | None, other_s: float | None) -> float | None:
    """Return the shorter of two times; None is for ever."""
    known = [left for left in (one_s, other_s) if left is not None]
    return min(known) if known else None


class Idle:
    """The time without anything to do; with a limit of None it is never too long."""

    def __init__(self, limit_s: float | None) -> None:
        self._until = None if limit_s is None else time.monotonic() + limit_s

    def left_s(self) -> float | None:
        """Return how long it may go on; None: for ever."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def is_over(self) -> bool:
        """Return whether there was nothing to do for long enough."""
        return self._until is not None and time.monotonic() >= self._until


def _leave(slot: Slot, events: Events) -> None:
    """Close what a forked step must not keep: the proof that its runner lives, its events, its
    socket.
    """
    notify.leave()
    os.close(slot.descriptor)
    events.close()
    events.signals.close()
