"""One attempt of one step, from its claim to its result.

    claim        attempts/N/claim is made; a second start of the same attempt ends here
    prepare      the workspace as it was before the step, earlier patches, the prompt
    run          the agent, in its sandbox, or its simulation
    record       the patch, the report, the logs, all redacted; result.json last

What goes wrong for a reason that has a name becomes an outcome; what has none is our bug, and the
attempt ends without a result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentorch.agents.base import SESSION, Agent, Endpoint, Request
from agentorch.artifacts.directory import read_step_result
from agentorch.attempt import prompt, self_test
from agentorch.attempt.broker_access import BrokerAccess, broker_access, model_of
from agentorch.attempt.execution import Execution, Stops
from agentorch.attempt.log import Logbook
from agentorch.attempt.place import Place, environment_of, policy_of, secret_values
from agentorch.attempt.record import record
from agentorch.broker.client import new_token
from agentorch.config.prompt_files import system_prompt
from agentorch.config.settings import Settings
from agentorch.core import pipeline, roles
from agentorch.core.attempt import Attempt, StepEnded
from agentorch.core.errors import Invalid, Misconfigured
from agentorch.core.job import Outcome
from agentorch.core.policy import model_refusal
from agentorch.core.results import StepResult
from agentorch.core.states import OutcomeClass
from agentorch.core.verdict import apply_verdict
from agentorch.launch.unit_end import usage_of, with_memory
from agentorch.preflight.check import Ground, check
from agentorch.preflight.program_identity import program_of
from agentorch.redaction.redactor import Redactor
from agentorch.sandbox import vacate
from agentorch.storage import atomic, beneath
from agentorch.storage.copy_tree import remove
from agentorch.storage.paths import AttemptPaths
from agentorch.workspace.workspace import Change, PatchRefused, Snapshot, WorkspaceTrouble

MAX_PATCH_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True)
class Unit:
    """The unit that an attempt has to itself: whom to tell that it is claimed, and what it used."""

    claimed: Callable[[], None]
    figures: Callable[[], Mapping[str, float | None]]


NO_UNIT = Unit(lambda: None, dict)


@dataclass(frozen=True)
class Resumed:
    """The attempt to go on with: its session, where there is one, and the notice for its agent."""

    session: str | None
    notice: str


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
        unit: Unit = NO_UNIT,
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
        self.unit = unit
        self.paths: AttemptPaths = place.step.attempt(attempt.number)
        self.token = new_token()
        self.redactor = Redactor(secret_values(settings), worthless=[self.token])
        self.change: Change | None = None
        self.program: Mapping[str, Any] | None = None

    def run(self) -> StepResult | None:
        """Run the attempt; its result, durable. None where this attempt was started before."""
        with atomic.disk_trouble(self.paths.directory):
            if not self._claim():
                return None
            self.unit.claimed()
            started_at, began = datetime.now(UTC), time.monotonic()
            logs = Logbook(
                self.paths.logs, self.redactor, self.settings.max_subprocess_output_chars
            )
            logs.note(f"step {self.step.step_id}, attempt {self.attempt.number}, {self.step.agent}")
            outcome = self._outcome(logs)
            figures = self.unit.figures()
            duration_ms = round((time.monotonic() - began) * 1000)
            metrics = {"duration_ms": duration_ms, **usage_of(figures), **outcome.metrics}
            outcome = replace(with_memory(outcome, figures), metrics=metrics, program=self.program)
            return record(
                self.attempt,
                self.place.step,
                outcome,
                self.change,
                logs=logs,
                redactor=self.redactor,
                started_at=started_at,
            )

    def _claim(self) -> bool:
        self.paths.directory.mkdir(0o750, parents=True, exist_ok=True)
        try:
            self.paths.claim.touch(0o640, exist_ok=False)
        except FileExistsError:
            return False
        for path in (self.paths.raw_stdout, self.paths.raw_stderr):
            path.touch(0o640)
        return True

    def _outcome(self, logs: Logbook) -> Outcome:
        """One `except` for each way in which an attempt can fail before or after its agent."""
        try:
            return self._run(logs)
        except StepEnded as end:
            return end.outcome
        except PatchRefused as refusal:
            return failure(OutcomeClass.PATCH, "patch_apply_failed", str(refusal))
        except WorkspaceTrouble as trouble:
            kind = OutcomeClass.PATCH if trouble.code == "patch_mismatch" else OutcomeClass.INFRA
            return failure(kind, trouble.code, str(trouble))
        except beneath.NotBeneath as path:  # an earlier step left something there
            return failure(OutcomeClass.INFRA, "exception", f"something is in the way at {path}")
        except (Misconfigured, Invalid) as problem:  # a broken agent; a sandbox that can't enforce
            return failure(OutcomeClass.POLICY, "preflight", str(problem))

    def _run(self, logs: Logbook) -> Outcome:
        workspace = self.place.workspace
        self.agent = self.find_agent()
        self._ready()
        resume = self._resumable()
        vacate(workspace.paths.work)
        self._home_before(resume)
        # first: a work tree that is elsewhere begins with nothing beside it
        before = self._workspace_before()
        with self._broker_access() as out:
            self._apply_patches(logs)
            request = self._request(out.endpoint, resume)
            written = self.redactor.redact(request.prompt).encode("utf-8", "replace")
            atomic.replace(self.paths.prompt, written, last=False)
            real = self.settings.real_cli
            outcome = self._execute(request, out, logs) if real else self._simulate(request)
        vacate(workspace.paths.work)
        if outcome.error != "disk_full":
            self.change = workspace.end(self._step_before() or before)
        return apply_verdict(outcome, self.step.role) if real and self.speaks else outcome

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
            policy=policy_of(self.settings, self.job.policy),
            environment=environment_of(self.settings, self.home),
            minimum=self.settings.min_binary_versions,
            source_is_git=self.place.is_git,
            non_git_status=self.settings.non_git_workdir_status,
            versions=self.settings.versions,
        )
        if problems := check(capabilities, ground):
            words = "; ".join(problem.words for problem in problems)
            raise StepEnded(failure(problems[0].kind, problems[0].error, words))
        self.program = program_of(
            capabilities, ground.environment, self.settings.versions, self.settings.programs
        )
        words = model_refusal(self.settings.allowed_models, self.step.model)
        if self.speaks and words:
            raise StepEnded(failure(OutcomeClass.POLICY, "policy", words))
        if self.settings.self_test and self.speaks and capabilities.abilities.tools:
            broken = self_test.works(self.settings, self.agent, self.stops)
            if broken:
                raise StepEnded(failure(OutcomeClass.POLICY, "preflight", "; ".join(broken)))

    def _broker_access(self) -> AbstractContextManager[BrokerAccess]:
        if not self.settings.real_cli:
            return nullcontext(BrokerAccess())
        return broker_access(
            self.settings, self.attempt, self.agent, self.place, self.home, self.token
        )

    @property
    def home(self) -> Path:
        """The agent's HOME: of an agent with a model, which keeps its configuration there, the
        step's alone; a script finds what an earlier one left.
        """
        return self.place.home / self.step.step_id if self.speaks else self.place.home

    @property
    def speaks(self) -> bool:
        """Return whether the agent has a model behind it, which is given its role."""
        return self.agent.capabilities is not None and (
            self.agent.provider(self.step.model) is not None
        )

    def _workspace_before(self) -> Snapshot:
        workspace = self.place.workspace
        self.place.make()
        try:
            return workspace.begin(self.step.step_id, self.attempt.base)
        except WorkspaceTrouble as trouble:
            if trouble.code != "workspace_lost":
                raise
        workspace.discard()
        self.place.make()
        return workspace.begin(self.step.step_id, self.attempt.base)

    def _step_before(self) -> Snapshot | None:
        """Return what the step itself started from, where an attempt of it was parked meanwhile.

        None, too, where the workspace was lost since, and with it what that attempt did.
        """
        first, workspace = self.attempt.first, self.place.workspace
        try:
            there = first > 0 and workspace.exists()
            return workspace.began(self.step.step_id, first) if there else None
        except WorkspaceTrouble:  # it is made anew
            return None

    def _home_before(self, resume: Resumed | None) -> None:
        """Nothing of an earlier attempt is in HOME, but for the session that is to go on."""
        session = None if resume is None else resume.session
        if self.settings.real_cli and self.speaks and session is None:
            remove(self.home)

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
        read = prompt.readable_inputs(inputs, limits)
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

    def _system(self) -> str:
        """Return the system prompt of an agent with a model; nothing for others."""
        if not self.speaks:
            return ""
        return system_prompt(self.settings.prompts_directory, self.step.agent, self.step.role)

    def _request(self, endpoint: Endpoint | None, resume: Resumed | None) -> Request:
        system = self._system()
        notice = "" if resume is None else f"{resume.notice}\n\n"
        text = self._prompt()
        return Request(
            job_id=self.job.job_id,
            step_id=self.step.step_id,
            attempt=self.attempt.number,
            agent=self.step.agent,
            role=self.step.role,
            goal=self.job.goal,
            prompt=notice + prompt.with_system(system, text),
            script=self.step.prompt,
            work=self.place.workspace.paths.work,
            home=self.home,
            artifacts=self.place.artifacts,
            project_id=self.job.project_id,
            tools=self.step.allowed_tools,
            timeout_s=self.step.timeout_s,
            system=system,
            body=notice + text,
            model=model_of(self.settings, self.attempt),
            options=self.step.options,
            confined=policy_of(self.settings, self.job.policy).sandbox,
            reads_only=self.speaks and roles.reads_only(self.step.role),
            resume=None if resume is None else resume.session,
            endpoint=endpoint,
        )

    def _resumable(self) -> Resumed | None:
        """Return the attempt to go on with, None where there is none.

        Only within a visit: what an earlier one left in the workspace stays there. One that was
        parked, or asked, is gone on with wherever the agent can.
        """
        number, last = self.attempt.number, self.attempt.number - 1
        if self.step.options.get("resume") and last >= self.attempt.base:
            session, why = self._session(last)
            if session is not None:
                return Resumed(session, roles.resumed_notice(number, why))
        if not self.attempt.resumes or self._step_before() is None:
            return None
        session, why = self._session(self.attempt.resumes)
        capabilities = self.agent.capabilities
        able = capabilities is not None and "resume" in capabilities.abilities.options
        return Resumed(session if able else None, roles.continued_notice(why))

    def _session(self, number: int) -> tuple[str | None, str]:
        """Return the session of an attempt, None where there is none, and how it ended in words."""
        result = read_step_result(self.place.step.attempt(number).result)
        if result is None:
            return None, ""
        # a session's name becomes an argument: none that would be an option
        session = result.session_id or ""
        return session if SESSION.fullmatch(session) else None, result.summary

    # ---- the agent ----------------------------------------------------------------------------

    def _simulate(self, request: Request) -> Outcome:
        simulation = self.agent.simulate(request)
        for path, content in simulation.files.items():
            beneath.write(self.place.workspace.paths.work, path, content)
        return simulation.outcome

    def _execute(self, request: Request, out: BrokerAccess, logs: Logbook) -> Outcome:
        execution = Execution(
            self.attempt,
            self.agent,
            self.place,
            self.settings,
            stops=self.stops,
            alive_fd=self.alive_fd,
            redactor=self.redactor,
            out=out,
        )
        return execution.run(request, logs)


def failure(kind: OutcomeClass, code: str, words: str) -> Outcome:
    """Return an outcome of ours, not the agent's."""
    return Outcome(kind, words, error=code)
