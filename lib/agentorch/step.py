"""One attempt of one step, from its claim to its result.

    claim        attempts/N/claim is made; a second start of the same attempt ends here
    prepare      the workspace as it was before the step, earlier patches, the prompt
    run          the agent, in its sandbox, or its simulation
    record       the patch, the report, the logs, all redacted; result.json last

What goes wrong for a reason that has a name becomes an outcome; what has none is our bug, and the
attempt ends without a result.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from agentorch import atomic, beneath, output, pipeline, prompt
from agentorch.agents.base import Agent, Ending, Exit, Request
from agentorch.agents.endings import outcome_of_exit
from agentorch.artifacts import Document, step_result
from agentorch.errors import Invalid, Misconfigured, TryAgain
from agentorch.job import Outcome
from agentorch.jobqueue import refuse_below
from agentorch.launch.base import Attempt
from agentorch.logbook import Logbook, redacted
from agentorch.paths import AttemptPaths, StepPaths
from agentorch.policy import Effective, EnvironmentRules, ServerPolicy, effective, environment_for
from agentorch.preflight import Ground, check
from agentorch.process import Launch, Limits, run
from agentorch.redact import Redactor
from agentorch.sandbox import Confinement, Wrapper, confined, vacate
from agentorch.settings import Settings
from agentorch.signals import Signals
from agentorch.states import OutcomeClass
from agentorch.times import rfc3339
from agentorch.workspace import Change, PatchRefused, Snapshot, Workspace, WorkspaceTrouble

MAX_PATCH_BYTES = 512 * 1024 * 1024
# Ends that somebody asked for: what the step left does not change them.
STOPPED = frozenset({"cancelled", "interrupted"})


@dataclass(frozen=True)
class Place:
    """Where an attempt happens.

    `artifacts` is the directory that input artifacts are read from, and that the agent may read.
    `make` makes the workspace where it is not there; `is_git`: what it is made of is a repository.
    """

    step: StepPaths
    artifacts: Path
    workspace: Workspace
    home: Path
    io: Path
    make: Callable[[], None]
    is_git: bool


class StepEnded(Exception):
    """The attempt ended before its agent ran."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.summary)
        self.outcome = outcome


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


class StepRun:
    """An attempt, and what it needs. `alive_fd` is the step's lock, for the sandbox to hold."""

    def __init__(
        self,
        attempt: Attempt,
        place: Place,
        settings: Settings,
        find_agent: Callable[[], Agent],
        *,
        messages: Sequence[Mapping[str, Any]],
        latest_success: str | None,
        stops: Stops,
        alive_fd: int | None,
    ) -> None:
        self.attempt = attempt
        self.job = attempt.job
        self.step = attempt.step
        self.place = place
        self.settings = settings
        self.find_agent = find_agent
        self.messages = messages
        self.latest_success = latest_success
        self.stops = stops
        self.alive_fd = alive_fd
        self.paths: AttemptPaths = place.step.attempt(attempt.number)
        self.redactor = Redactor(secret_values(settings))
        self.policy: Effective = effective(
            ServerPolicy(settings.sandbox, settings.network, settings.allowed_binaries),
            self.job.policy,
        )
        self.change: Change | None = None

    def run(self) -> Document | None:
        """Runs the attempt; its result, durable. None where this attempt was started before."""
        with atomic.disk_trouble(self.paths.directory):
            if not self._claimed():
                return None
            started_at, began = datetime.now(UTC), time.monotonic()
            logs = Logbook(
                self.paths.logs, self.redactor, self.settings.max_subprocess_output_chars
            )
            logs.note(f"step {self.step.step_id}, attempt {self.attempt.number}, {self.step.agent}")
            outcome = self._outcome(logs)
            metrics = {"duration_ms": round((time.monotonic() - began) * 1000)}
            outcome = replace(outcome, metrics={**metrics, **outcome.metrics})
            return self._record(outcome, logs, started_at)

    def _claimed(self) -> bool:
        self.paths.directory.mkdir(0o750, parents=True, exist_ok=True)
        try:
            self.paths.claim.touch(0o640, exist_ok=False)
        except FileExistsError:
            return False
        for path in (self.paths.raw_stdout, self.paths.raw_stderr):
            path.touch(0o640)
        return True

    def _outcome(self, logs: Logbook) -> Outcome:
        try:
            self.agent = self.find_agent()
            self._ready()
            before = self._workspace_before()
            self._apply_patches(logs)
            text = self._prompt()
            atomic.replace(self.paths.prompt, self.redactor.redact(text).encode())
            outcome = (
                self._executed(text, logs) if self.settings.real_cli else self._simulated(text)
            )
            vacate(self.place.workspace.paths.work)
            if outcome.error == "disk_full":
                # what filled the disk goes: nobody could work, not even the next attempt
                self.place.workspace.drop()
                return outcome
            self.change = self.place.workspace.end(before)
        except StepEnded as end:
            return end.outcome
        except PatchRefused as refusal:
            return failure(OutcomeClass.PATCH, "patch_apply_failed", str(refusal))
        except WorkspaceTrouble as trouble:
            kind = OutcomeClass.PATCH if trouble.code == "patch_mismatch" else OutcomeClass.INFRA
            return failure(kind, trouble.code, str(trouble))
        except (Misconfigured, Invalid) as problem:  # a broken agent; a sandbox that can't enforce
            return failure(OutcomeClass.POLICY, "preflight", str(problem))
        return outcome

    # ---- before -------------------------------------------------------------------------------

    def _ready(self) -> None:
        """Refuses what can't be run here. Raises StepEnded."""
        if not self.settings.real_cli:
            return
        capabilities = self.agent.capabilities
        if capabilities is None:
            words = f"agent {self.agent.name!r} can only be simulated here: set ENABLE_REAL_CLI=0"
            raise StepEnded(failure(OutcomeClass.POLICY, "preflight", words))
        ground = Ground(
            policy=self.policy,
            environment=self._environment(),
            minimum=self.settings.min_binary_versions,
            source_is_git=self.place.is_git,
            non_git_status=self.settings.non_git_workdir_status,
        )
        problems = check(capabilities, ground)
        if problems:
            words = "; ".join(problem.words for problem in problems)
            raise StepEnded(failure(problems[0].kind, problems[0].error, words))

    def _workspace_before(self) -> Snapshot:
        workspace = self.place.workspace
        vacate(workspace.paths.work)
        self.place.make()
        try:
            return workspace.begin(self.step.step_id, self.attempt.base)
        except WorkspaceTrouble as trouble:
            if trouble.code != "workspace_lost":
                raise
        workspace.discard()
        self.place.make()
        return workspace.begin(self.step.step_id, self.attempt.base)

    def _apply_patches(self, logs: Logbook) -> None:
        _, patches = pipeline.handoff(self.job, self.step, self.latest_success)
        for path in patches:
            try:
                patch = beneath.read(self.place.artifacts, path, MAX_PATCH_BYTES)
            except beneath.NotBeneath:
                words = f"{path!r} is not a file of this job"
                raise StepEnded(failure(OutcomeClass.PATCH, "invalid_patch_path", words)) from None
            if patch is None:
                words = f"there is no patch {path!r}"
                raise StepEnded(failure(OutcomeClass.PATCH, "missing_patch", words))
            applied = bool(patch) and self.place.workspace.apply(patch)
            logs.note(f"{path}: {'applied' if applied else 'empty or applied already'}")

    def _prompt(self) -> str:
        inputs, _ = pipeline.handoff(self.job, self.step, self.latest_success)
        limits = prompt.Limits(
            self.settings.max_input_artifacts_files,
            self.settings.max_input_artifact_chars,
            self.settings.max_input_artifacts_chars,
        )
        read = prompt.wanted(inputs, limits)
        return prompt.compose(
            prompt.Parts(
                task=self.step.prompt,
                strategy=self.job.context_strategy,
                messages=self.messages,
                artifacts=(self._artifact(path, limits.file_chars) for path in read),
                left_out=len(inputs) - len(read),
                limits=limits,
            )
        )

    def _artifact(self, path: str, limit_chars: int) -> prompt.Artifact:
        try:
            content = beneath.read(self.place.artifacts, path, 4 * (limit_chars + 1))
        except beneath.NotBeneath:
            return prompt.Artifact(path, None, "invalid_path")
        if content is None:
            return prompt.Artifact(path, None, "missing")
        return prompt.Artifact(path, content.decode("utf-8", "replace"))

    def _request(self, text: str) -> Request:
        return Request(
            job_id=self.job.job_id,
            step_id=self.step.step_id,
            attempt=self.attempt.number,
            agent=self.step.agent,
            role=self.step.role,
            goal=self.job.goal,
            prompt=text,
            script=self.step.prompt,
            work=self.place.workspace.paths.work,
            home=self.place.home,
            artifacts=self.place.artifacts,
            project_id=self.job.project_id,
            tools=self.step.allowed_tools,
            timeout_s=self.step.timeout_s,
        )

    # ---- the agent ----------------------------------------------------------------------------

    def _simulated(self, text: str) -> Outcome:
        simulation = self.agent.simulate(self._request(text))
        for path, content in simulation.files.items():
            beneath.write(self.place.workspace.paths.work, path, content)
        return simulation.outcome

    def _executed(self, text: str, logs: Logbook) -> Outcome:
        request = self._request(text)
        command = self.agent.command(request)
        capabilities = self.agent.capabilities
        assert capabilities is not None
        environment = self._environment(command.passes, command.environment)
        self.place.home.mkdir(0o700, parents=True, exist_ok=True)
        for path, content in command.files.items():
            beneath.write(self.place.home, path, content, 0o600)
        confinement = Confinement(
            name=self.attempt.name.replace(":", "-"),
            work=request.work,
            home=request.home,
            artifacts=request.artifacts,
            network=self.policy.network,
            environment=environment,
            read_only=capabilities.read_only,
        )
        wrapper = Wrapper(self.settings.sandbox_wrapper, self.settings.sandbox_wrapper_args)
        with (
            self._streams(command.stdin) as streams,
            confined(
                wrapper if self.policy.sandbox else None,
                confinement,
                command.argv,
                alive_fd=self.alive_fd,
            ) as start,
        ):
            launch = Launch(
                argv=start.argv,
                cwd=request.work,
                environment=start.environment,
                stdin=streams / "stdin",
                stdout=streams / "stdout",
                stderr=streams / "stderr",
                pass_fds=start.pass_fds,
                stop_argv=start.stop_argv,
                reports_signals_as_128=self.policy.sandbox,
            )
            ended = self._unless_full(run(launch, self._limits(), self.stops, logs.line))
            lines = chain.from_iterable(
                output.lines(streams / name, name) for name in ("stdout", "stderr")
            )
            outcome = settled(ended, command.argv[0], self.agent.outcome(ended, lines))
            self._keep_raw(streams)
        return outcome

    def _unless_full(self, ended: Exit) -> Exit:
        """An agent may fill the disk faster than it is looked at, and end by itself then."""
        if ended.ending not in (Ending.EXITED, Ending.SIGNALLED):
            return ended
        try:
            refuse_below(self.place.workspace.paths.work, self.settings.min_free_disk_bytes)
        except TryAgain:
            return replace(ended, ending=Ending.DISK_FULL)
        return ended

    def _limits(self) -> Limits:
        return Limits(
            timeout_s=self.step.timeout_s,
            idle_s=self.settings.runner_max_idle_s,
            min_free_bytes=self.settings.min_free_disk_bytes,
            watched=self.place.workspace.paths.work,
        )

    def _environment(
        self, passes: Sequence[str] = (), given: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        rules = EnvironmentRules(
            self.settings.env_allowlist,
            self.settings.sensitive_env_vars,
            self.settings.sandbox_clear_env,
        )
        return environment_for(
            rules,
            self.settings.environment,
            home=str(self.place.home),
            passes=passes,
            given=given,
        )

    @contextmanager
    def _streams(self, stdin: bytes) -> Iterator[Path]:
        """The directory of the attempt's live streams: what is in them is not redacted yet."""
        shutil.rmtree(self.place.io, ignore_errors=True)
        self.place.io.mkdir(0o700, parents=True)
        try:
            (self.place.io / "stdin").write_bytes(stdin)
            yield self.place.io
        finally:
            shutil.rmtree(self.place.io, ignore_errors=True)

    def _keep_raw(self, streams: Path) -> None:
        kept = {"stdout": self.paths.raw_stdout, "stderr": self.paths.raw_stderr}
        for name, path in kept.items():
            ends = output.head_and_tail(streams / name, self.settings.max_subprocess_output_chars)
            atomic.replace(path, redacted(ends, self.redactor).encode("utf-8", "replace"))

    # ---- after --------------------------------------------------------------------------------

    def _record(self, outcome: Outcome, logs: Logbook, started_at: datetime) -> Document:
        patch = self.change.patch if self.change is not None else b""
        in_patch = Counter(f.kind for f in self.redactor.find(patch.decode("utf-8", "replace")))
        said = "\n".join((outcome.summary, outcome.report, outcome.question or ""))
        in_report = Counter(finding.kind for finding in self.redactor.find(said))
        found = logs.settle() + in_report + in_patch
        if found and outcome.error not in STOPPED:
            outcome = self._with_secrets(outcome, found, withheld=bool(in_patch))
        logs.note(f"{outcome.kind}: {outcome.summary}")
        logs.close()
        atomic.replace(self.paths.patch, b"" if in_patch else patch)
        atomic.replace(self.paths.report, self.redactor.redact(self._report(outcome)).encode())
        result = step_result(
            self.job,
            self.step,
            self.attempt.number,
            outcome,
            started_at=rfc3339(started_at),
            finished_at=rfc3339(datetime.now(UTC)),
            change_status=self._change_status(),
            secrets_check="failed" if found else "passed",
        )
        clean: Document = without_secrets(result, self.redactor)
        atomic.replace_json(self.paths.result, clean)
        atomic.sync_directory(self.place.step.attempts)
        atomic.sync_directory(self.place.step.directory)
        return clean

    def _change_status(self) -> str | None:
        if self.change is None:
            return None
        return "changed" if self.change.changed else "no_changes"

    def _with_secrets(self, outcome: Outcome, found: Counter[str], *, withheld: bool) -> Outcome:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(found.items()))
        words = f"secrets in what the step left: {kinds}"
        return replace(
            outcome,
            kind=OutcomeClass.SECRETS,
            summary=f"{words}; its patch is withheld" if withheld else words,
            error="secrets_check_failed",
            details={"kinds": dict(found), "outcome": outcome.kind, "patch_withheld": withheld},
        )

    def _report(self, outcome: Outcome) -> str:
        title = f"# {self.step.step_id}: {outcome.kind}\n\n{outcome.summary}\n"
        return f"{title}\n{outcome.report}" if outcome.report else title


def failure(kind: OutcomeClass, code: str, words: str) -> Outcome:
    """An outcome of ours, not the agent's."""
    return Outcome(kind, words, error=code)


def settled(ended: Exit, program: str, said: Outcome) -> Outcome:
    """What an adapter made of a run; that it was stopped or killed is not for it to overrule."""
    forced = outcome_of_exit(ended, program)
    if forced is None or said.kind is forced.kind:
        return said
    return replace(forced, report=said.report, metrics=said.metrics, session_id=said.session_id)


def without_secrets(value: Any, redactor: Redactor) -> Any:
    """A JSON value with every string in it redacted."""
    if isinstance(value, str):
        return redactor.redact(value)
    if isinstance(value, dict):
        return {key: without_secrets(inner, redactor) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_secrets(inner, redactor) for inner in value]
    return value


def secret_values(settings: Settings) -> list[str]:
    """The values that must never appear in what a step leaves."""
    return [
        settings.environment[name]
        for name in settings.sensitive_env_vars
        if settings.environment.get(name)
    ]
