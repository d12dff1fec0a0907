"""The agent that is no agent: the step's prompt is a shell script, its exit code the verdict.

For what needs no model: running the tests, formatting, a check between two agents' steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from agentorch.agents.base import Capabilities, Command, Request, Simulation
from agentorch.agents.exit_outcome import details, outcome_of_exit
from agentorch.agents.simulated import simulate
from agentorch.core.job import Outcome
from agentorch.core.process_end import Ending, Exit, Line
from agentorch.core.states import OutcomeClass
from agentorch.core.text import code_block, one_line

TAIL_LINES = 100
TAIL_LINE_CHARS = 2000


@dataclass(frozen=True)
class ExecAgent:
    """Runs `sh -eu` on the prompt, in the workspace, with nothing on stdin."""

    name: str = "exec"
    capabilities: Capabilities = field(
        default=Capabilities(binary="sh", install="sh is in every system", needs_git=False)
    )

    def command(self, request: Request) -> Command:
        path = f"agentorch-exec/{request.step_id}.sh"
        return Command(
            argv=exec_argv(str(request.home / path)),
            environment=exec_environment(request),
            files={path: f"{request.script}\n".encode("utf-8", "replace")},
        )

    def provider(self, model: str | None) -> str | None:
        return None

    def is_end(self, line: Line) -> bool:
        return False

    def outcome(self, exit_: Exit, lines: Iterable[Line]) -> Outcome:
        tail = deque(lines, maxlen=TAIL_LINES)
        return replace(_verdict(exit_, tail), report=_report(exit_, tail))

    def simulate(self, request: Request) -> Simulation:
        return simulate(request)


AGENT = ExecAgent()


def exec_argv(script: str) -> tuple[str, ...]:
    """Return the command line; a script that fails anywhere or misspells a variable fails."""
    return ("sh", "-eu", script)


def exec_environment(request: Request) -> dict[str, str]:
    """Return what a script may want to know, as variables."""
    return {
        "AGENTORCH_JOB": request.job_id,
        "AGENTORCH_STEP": request.step_id,
        "AGENTORCH_ATTEMPT": str(request.attempt),
        "AGENTORCH_PROJECT": request.project_id or "",
        # execve(2) ends a variable at a zero byte, JSON has them inside strings
        "AGENTORCH_GOAL": request.goal.replace("\0", "").encode("utf-8", "replace").decode(),
        "AGENTORCH_WORK": str(request.work),
        "AGENTORCH_ARTIFACTS": str(request.artifacts),
        "AGENTORCH_HOME": str(request.home),
        **({} if request.endpoint is None else request.endpoint.proxies),
    }


def _verdict(exit_: Exit, tail: Iterable[Line]) -> Outcome:
    # The exit code is the script's own, 126 and 127 too: its last line says more.
    ended = None if exit_.ending is Ending.EXITED else outcome_of_exit(exit_, "the script")
    if ended is not None:
        return ended
    printed = [one_line(line.text) for line in tail if line.text.strip()]
    summary = one_line(f"exit code {exit_.code}" + (f": {printed[-1]}" if printed else ""))
    if exit_.code == 0:
        return Outcome(OutcomeClass.SUCCESS, summary)
    kind = OutcomeClass.AGENT_ERROR
    return Outcome(kind, summary, error="agent_exit_nonzero", details=details(exit_))


def _report(exit_: Exit, tail: Iterable[Line]) -> str:
    ended = f"exit code {exit_.code}" if exit_.ending is Ending.EXITED else exit_.ending.value
    last = "\n".join(line.text[:TAIL_LINE_CHARS] for line in tail)
    head = f"Ended after {exit_.duration_s:.1f} s: {ended}.\n"
    return (
        f"{head}\nThe end of its output:\n\n{code_block(last)}" if last else f"{head}\nNo output.\n"
    )
