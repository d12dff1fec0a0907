"""A stand-in for a run: the same request gives the same bytes, no program, nothing invented.

Without ENABLE_REAL_CLI=1 every agent answers like this, so that a pipeline can be tried whole.
"""

from __future__ import annotations

from agentorch.agents.base import Request, Simulation
from agentorch.core.job import Outcome
from agentorch.core.roles import reads_only
from agentorch.core.states import OutcomeClass
from agentorch.core.text import code_block, one_line

DIRECTORY = "agentorch-simulated"


def simulate(request: Request) -> Simulation:
    """Return what the agent of this request would do, as far as that is known without it. Pure.
    Pure.
    """
    path = None if reads_only(request.role) else f"{DIRECTORY}/{request.step_id}.md"
    files = {} if path is None else {path: _note(request).encode("utf-8", "replace")}
    change = "changed nothing" if path is None else f"wrote {path}"
    summary = one_line(f"simulated: {request.agent} as {request.role} {change}")
    return Simulation(
        files, Outcome(OutcomeClass.SUCCESS, summary, report=_report(request, change))
    )


def _note(request: Request) -> str:
    # Not the attempt: it starts from the workspace as it was, and is to give the same patch.
    return (
        f"# Simulated change of step {request.step_id}\n\n"
        f"Goal: {one_line(request.goal, 500)}\n\n"
        f"{request.agent} as {one_line(request.role)} would have worked here.\n"
    )


def _report(request: Request, change: str) -> str:
    return (
        f"# {request.step_id}: {request.agent} as {one_line(request.role)} (simulated)\n\n"
        f"This step was simulated: no program ran, no model was asked, and it {change}.\n\n"
        f"With ENABLE_REAL_CLI=1 the agent would get {len(request.prompt)} characters of prompt "
        f"and {request.timeout_s} s for this:\n\n{code_block(request.script)}"
    )
