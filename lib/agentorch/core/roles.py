"""Roles: what one may do, which file has its system prompt, what its agent reads.

A role is a word of whoever wrote the job, and says little by itself. Two kinds are known by their
names: who plans and who reviews looks at the workspace and leaves it as it is.
"""

from __future__ import annotations

import re

from agentorch.core.text import one_line

PLANNER, IMPLEMENTER, REVIEWER, OTHER = "planner", "implementer", "reviewer", "agent"
MAX_FILE_CHARS = 64
MAX_WHY_CHARS = 500

_NOT_ROLE = re.compile(r"[^a-z0-9]+")
_NOT_AGENT = re.compile(r"[^A-Za-z0-9._-]+")


def reads_only(role: str) -> bool:
    """Return whether this role only looks at the workspace: planners and reviewers do."""
    return kind_of(role) in (PLANNER, REVIEWER)


def reviews(role: str) -> bool:
    """Return whether this role is asked for a verdict."""
    return kind_of(role) == REVIEWER


def kind_of(role: str) -> str:
    """Which of the four built-in system prompts is this role's; the name of its file, too."""
    word = role.lower()
    for part, kind in (("review", REVIEWER), ("plan", PLANNER), ("implement", IMPLEMENTER)):
        if part in word:
            return kind
    return OTHER


def role_file(role: str) -> str:
    """Return a role as part of a file's name: `Senior Reviewer` is `senior-reviewer`; may be
    empty.
    """
    return _NOT_ROLE.sub("-", role.lower())[:MAX_FILE_CHARS].strip("-")


def agent_file(agent: str) -> str:
    """Return an agent's name as part of a file's name; the same but for what no file should be
    called.
    """
    return _NOT_AGENT.sub("-", agent)[:MAX_FILE_CHARS].lstrip(".-")


def prompt_files(agent: str, role: str) -> tuple[str, ...]:
    """Return the files that may have the system prompt of an agent in a role, the most special
    first.
    """
    by_agent, by_role = agent_file(agent), role_file(role)
    both = f"{by_agent}-{by_role}" if by_agent and by_role else ""
    return tuple(f"{stem}.md" for stem in (both, by_role, by_agent) if stem)


def continued_notice(why: str) -> str:
    """Return the notice for an agent whose last attempt was stopped in the middle and is to be gone
    on with. on with.

    `why` says in words what stopped it.
    """
    ended = one_line(why, MAX_WHY_CHARS) or "it is not known how"
    return (
        "An earlier attempt of this step was stopped before its end. The workspace is as it was "
        "left then: look at what is there already, and go on from it.\n\n"
        f"The last attempt ended like this: {ended}\n"
    )


def resumed_notice(attempt: int, why: str) -> str:
    """Return the notice for an agent that goes on with its session of an earlier attempt.

    `attempt` is the one that begins now, `why` says in words how the last one ended.
    """
    ended = one_line(why, MAX_WHY_CHARS) or "it is not known how"
    return (
        f"This is attempt {attempt} of the same step. It continues your earlier session, so what "
        "was said there still holds. The workspace does not: it was put back to its state before "
        "the step, so every change that you made earlier is gone and has to be made again where "
        "it is still wanted. Look at the files before you rely on what you remember of them.\n\n"
        f"The last attempt ended like this: {ended}\n"
    )
