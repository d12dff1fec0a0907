"""An agent run for real: its command, its sandbox, its streams, its end."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

from agentorch.agents import failure_rules
from agentorch.agents.base import Agent, Request
from agentorch.agents.exit_outcome import outcome_of_exit
from agentorch.attempt.broker_access import BrokerAccess, relay_program
from agentorch.attempt.journal_lines import agent_lines
from agentorch.attempt.log import Logbook, redact_ends
from agentorch.attempt.metering import add_account, mark_unmetered
from agentorch.attempt.place import Place, environment_of, policy_of
from agentorch.config.settings import Settings
from agentorch.core.attempt import Attempt
from agentorch.core.errors import TryAgain
from agentorch.core.job import Outcome
from agentorch.core.process_end import Ending, Exit, Line
from agentorch.process import output
from agentorch.process.run import Launch, Limits, run
from agentorch.redaction.redactor import Redactor
from agentorch.sandbox import Confinement, Wrapper, confine
from agentorch.storage import atomic, beneath
from agentorch.storage.copy_tree import remove
from agentorch.storage.free_space import refuse_below
from agentorch.storage.paths import AttemptPaths
from agentorch.system.signals import Signals


class Stops:
    """Why the attempt is to end early: TERM cancels it, INT gives it back."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def fileno(self) -> int:
        return self._signals.fileno()

    def reason(self) -> Ending | None:
        self._signals.clear()
        if self._signals.came(signal.SIGTERM):
            return Ending.CANCELLED
        return Ending.INTERRUPTED if self._signals.came(signal.SIGINT) else None


class Execution:
    """One run of one agent. `alive_fd` is the step's lock, for the sandbox to hold."""

    def __init__(
        self,
        attempt: Attempt,
        agent: Agent,
        place: Place,
        settings: Settings,
        *,
        stops: Stops,
        alive_fd: int | None,
        redactor: Redactor,
        out: BrokerAccess,
    ) -> None:
        self.attempt = attempt
        self.agent = agent
        self.place = place
        self.settings = settings
        self.stops = stops
        self.alive_fd = alive_fd
        self.redactor = redactor
        self.out = out
        assert agent.capabilities is not None
        self.capabilities = agent.capabilities
        self.policy = policy_of(settings, attempt.job.policy)
        self.paths: AttemptPaths = place.step.attempt(attempt.number)

    def run(self, request: Request, logs: Logbook) -> Outcome:
        """Run the agent to its end and let its adapter read it."""
        # first: nobody pays for an attempt whose end can't be told
        rules = failure_rules.rules(self.settings.ends_directory)
        command = self.agent.command(request)
        capabilities = self.capabilities
        environment = environment_of(
            self.settings, request.home, command.passes, command.environment
        )
        request.home.mkdir(0o700, parents=True, exist_ok=True)
        for path, content in command.files.items():
            beneath.write(request.home, path, content, 0o600)
        confinement = Confinement(
            name=self.attempt.name.replace(":", "-"),
            work=request.work,
            home=request.home,
            artifacts=request.artifacts,
            network=self.policy.network,
            environment=environment,
            read_only=(*capabilities.read_only, *self._relay()),
            work_read_only=request.reads_only,
            masked=tuple(request.work / path for path in capabilities.masked),
            programs=(command.argv[0], *self.capabilities.requires),
            broker=self.out.path,
        )
        wrapper = Wrapper(self.settings.sandbox_wrapper, self.settings.sandbox_wrapper_args)
        with (
            self._streams(command.stdin) as streams,
            confine(
                wrapper if self.policy.sandbox else None,
                confinement,
                self.out.around(command.argv),
                alive_fd=self.alive_fd,
            ) as start,
        ):
            launch = Launch.from_start(
                start, request.work, streams, self.out.pass_fds, is_wrapped=self.policy.sandbox
            )
            with agent_lines(self.settings, self.attempt, self.redactor) as told:
                ended = self._ran(launch, both(logs.line, told.line))
            lines = chain.from_iterable(
                output.lines(streams / name, name) for name in ("stdout", "stderr")
            )
            outcome = settle(ended, command.argv[0], self.agent.outcome(ended, lines))
            self._keep_raw(streams)
        outcome = replace(outcome, files=paths_below(outcome.files, request.work))
        if told.missing:
            logs.note(f"{told.missing} lines are not in the journal")
            missing = {"journal_missing_lines": told.missing}
            outcome = replace(outcome, metrics={**outcome.metrics, **missing})
        account = self.out.account()
        if account is None and self.out.path is not None:
            logs.note("the broker is gone, and with it what it counted")
            outcome = mark_unmetered(outcome)
        outcome = failure_rules.classify(outcome, self.agent.name, rules)
        return add_account(outcome, account, self.out.credential(account))

    def _relay(self) -> tuple[Path, ...]:
        return () if self.out.path is None else (relay_program(),)

    def _ran(self, launch: Launch, on_line: Callable[[Line], None]) -> Exit:
        """Return an agent may fill the disk faster than it is looked at, and end by itself then.

        What filled it goes, or nobody could work, not even the next attempt.
        """
        began = time.monotonic()
        try:
            ended = run(launch, self._limits(), self.stops, on_line, self.agent.is_end)
        except OSError as problem:  # of the logs: nothing of the agent runs any more
            if problem.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._is_full():
                raise
            ended = Exit(Ending.DISK_FULL, None, None, time.monotonic() - began)
        if ended.ending in (Ending.EXITED, Ending.SIGNALLED) and self._is_full():
            ended = replace(ended, ending=Ending.DISK_FULL)
        if ended.ending is Ending.DISK_FULL:
            self.place.workspace.drop()
            remove(self.place.home)
        return ended

    def _is_full(self) -> bool:
        try:
            refuse_below(self.place.workspace.paths.work, self.settings.min_free_disk_bytes)
        except TryAgain:
            return True
        return False

    def _limits(self) -> Limits:
        return Limits(
            timeout_s=self.attempt.step.timeout_s,
            idle_s=self.settings.runner_max_idle_s,
            min_free_bytes=self.settings.min_free_disk_bytes,
            watched=self.place.workspace.paths.work,
            first_output_s=self.capabilities.first_output_s,
            linger_s=self.capabilities.linger_s,
        )

    @contextmanager
    def _streams(self, stdin: bytes) -> Iterator[Path]:
        """Return the directory of the attempt's live streams: what is in them is not redacted
        yet.
        """
        shutil.rmtree(self.place.io, ignore_errors=True)
        self.place.io.mkdir(0o700, parents=True)
        try:
            (self.place.io / "stdin").write_bytes(stdin)
            yield self.place.io
        finally:
            shutil.rmtree(self.place.io, ignore_errors=True)

    def _keep_raw(self, streams: Path) -> None:
        kept = {
            path: output.head_and_tail(streams / name, self.settings.max_subprocess_output_chars)
            for name, path in (("stdout", self.paths.raw_stdout), ("stderr", self.paths.raw_stderr))
        }
        # first: they may be what fills the disk
        shutil.rmtree(streams)
        for path, both in kept.items():
            text = redact_ends(both, self.redactor)
            atomic.replace(path, text.encode("utf-8", "replace"), last=False)


def both(first: Callable[[Line], None], second: Callable[[Line], None]) -> Callable[[Line], None]:
    """Call one after the other."""

    def hear(line: Line) -> None:
        first(line)
        second(line)

    return hear


def paths_below(paths: Iterable[str], top: Path) -> tuple[str, ...]:
    """Return those of the paths that lie below a directory, relative to it. Pure."""
    full = (os.path.normpath(top / path) for path in paths)
    return tuple(os.path.relpath(path, top) for path in full if path.startswith(f"{top}/"))


def settle(ended: Exit, program: str, said: Outcome) -> Outcome:
    """Return what an adapter made of a run; that it was stopped or killed is not for it to
    overrule.
    """
    forced = outcome_of_exit(ended, program)
    if forced is None or said.kind is forced.kind:
        return said
    return replace(forced, report=said.report, metrics=said.metrics, session_id=said.session_id)
