"""The system prompts: files that an administrator can replace, and our own.

For an agent in a role, the first of these that is there:

    /etc/agentorch/prompts/AGENT-ROLE.md    the administrator's (settings.prompts_directory)
    /etc/agentorch/prompts/ROLE.md
    /etc/agentorch/prompts/AGENT.md
    prompts/KIND.md                         ours: planner, implementer, reviewer, or agent

A role stands in a name as `roles.role_file` spells it. Whoever reviews is asked for a verdict,
whichever file it is: the pipeline relies on the form. An empty file is no system prompt.
"""

from __future__ import annotations

from pathlib import Path

from agentorch.core.errors import Misconfigured
from agentorch.core.roles import kind_of, prompt_files, reviews
from agentorch.core.verdict import verdict_request

BUILT_IN = Path(__file__).parent / "prompts"


def system_prompt(directory: Path, agent: str, role: str) -> str:
    """Return the system prompt of an agent in a role; `directory` is the administrator's.

    Raises Misconfigured where a file is there and can't be read.
    """
    paths = [directory / name for name in prompt_files(agent, role)]
    found = next((text for path in paths if (text := _read(path)) is not None), None)
    if found is None:
        found = (BUILT_IN / f"{kind_of(role)}.md").read_text("utf-8")
    asked = verdict_request() if reviews(role) else ""
    parts = [part.strip() for part in (found, asked) if part.strip()]
    return "\n\n".join(parts) + "\n" if parts else ""


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        raise Misconfigured(f"{path}: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise Misconfigured(f"{path}: can't be read as UTF-8 text: {problem}") from problem
