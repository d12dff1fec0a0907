"""The check of each agent: its program, its version, its key or login, its start in the sandbox.

The program is run twice, only to print its version: directly, and in the sandbox.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from agentorch.agents.base import Capabilities
from agentorch.agents.registry import Registry, load
from agentorch.config.settings import Settings
from agentorch.core.abilities import Abilities, Choice, Flag, Number, Option
from agentorch.core.errors import AgentorchError
from agentorch.core.job import Network
from agentorch.core.policy import DEFAULT_PATH, TEMPORARY, Effective
from agentorch.core.text import one_line
from agentorch.doctor.check import Check, State
from agentorch.preflight.check import Ground, check, find_program, required_version
from agentorch.preflight.credentials import Credential, credential
from agentorch.preflight.versions import first_version, kept_version, version_text
from agentorch.sandbox import Confined, Confinement, Wrapper, confine

SANDBOX_S = 30


def examine_agents(settings: Settings) -> Iterator[Check]:
    """Yield one check for each agent, and one for each manifest that was not accepted."""
    agents = load(settings)
    for problem in agents.problems():
        yield Check("agents", "problem", problem)
    if not settings.real_cli:
        words = "ENABLE_REAL_CLI=0: every agent is simulated; for real runs this would hold:"
        yield Check("agents", "warning", words)
    with tempfile.TemporaryDirectory(prefix="agentorch-doctor-") as scratch:
        ground = _ground(settings, Path(scratch) / "versions.json")
        for name in agents.names():
            try:
                yield _agent_check(settings, agents, name, ground)
            except AgentorchError as problem:
                yield Check(f"agent {name}", "problem", "; ".join(problem.problems))


def _ground(settings: Settings, versions: Path) -> Ground:
    allowed = Effective(settings.sandbox, settings.network, frozenset(settings.allowed_binaries))
    environment = {
        "PATH": settings.environment.get("PATH", DEFAULT_PATH),
        "TMPDIR": TEMPORARY,
    }
    minimum = settings.min_binary_versions
    return Ground(allowed, environment, minimum, source_is_git=True, versions=versions)


def _agent_check(settings: Settings, agents: Registry, name: str, ground: Ground) -> Check:
    agent = agents.get(name)
    if agent.capabilities is None:
        return Check(f"agent {name}", "warning", "can only be simulated here")
    model = settings.agent_models.get(name)
    problems = [problem.words for problem in check(agent.capabilities, ground)]
    access = credential(settings, name, agent.capabilities, agent.provider(model))
    trouble = _trouble_inside(settings, agent.capabilities, ground)
    words = (
        *problems,
        program_text(agent.capabilities, ground),
        access.words,
        sandbox_text(trouble),
        abilities_text(agents.abilities()[name], model),
    )
    return Check(
        f"agent {name}", check_state(problems, access, trouble), "; ".join(filter(None, words))
    )


# ---- words ------------------------------------------------------------------------------------


def check_state(problems: Sequence[str], access: Credential, trouble: str | None) -> State:
    """Return `warning` for an agent that is not set up, `problem` for one that does not start."""
    if problems or access.is_missing:
        return "warning"
    return "problem" if trouble else "ok"


def sandbox_text(trouble: str | None) -> str:
    """Return a sentence about the start in the sandbox; `trouble` None: not tried. Pure."""
    if trouble is None:
        return ""
    return f"does not start in the sandbox: {trouble}" if trouble else "starts in the sandbox"


def program_text(capabilities: Capabilities, ground: Ground) -> str:
    """Return an agent's program, its version and the required one; empty without a program."""
    place = find_program(capabilities, ground.environment["PATH"])
    if place is None or not capabilities.version_argv:
        return place or ""
    output = kept_version(capabilities.version_argv, ground.environment, ground.versions)
    version = first_version(output) if output is not None else None
    if version is None:
        return f"{place}, version unknown"
    minimum = required_version(capabilities, ground.minimum)
    at_least = f" ({version_text(minimum[0])} at least)" if minimum is not None else ""
    return f"{place} {version_text(version)}{at_least}"


def abilities_text(abilities: Abilities, model: str | None) -> str:
    """Return the models, options and tools that a step may name; `model` is the default. Pure."""
    default = f" ({model} by default)" if model else ""
    parts = (
        ("models", abilities.models, default),
        ("options", tuple(f"{name} {option_text(o)}" for name, o in abilities.options.items()), ""),
        ("tools", abilities.tools, ""),
    )
    return "; ".join(f"{what} {_list(words)}{more}" for what, words, more in parts)


def _list(words: Sequence[str] | None) -> str:
    if words is None:
        return "any"
    return ", ".join(word.strip() for word in words) or "none"


def option_text(option: Option) -> str:
    """Return the values of an option, as `low|high` or `1..100`; empty for a flag. Pure."""
    match option:
        case Choice(words):
            return "|".join(words)
        case Number(least, most):
            return f"{_digits(least)}..{_digits(most)}"
        case Flag():
            return ""


def _digits(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


# ---- in the sandbox ---------------------------------------------------------------------------


def _trouble_inside(settings: Settings, capabilities: Capabilities, ground: Ground) -> str | None:
    """Return why the program does not start in the sandbox; empty if it does, None if not tried."""
    is_installed = find_program(capabilities, ground.environment["PATH"]) is not None
    if not is_installed or not capabilities.version_argv or not ground.policy.sandbox:
        return None
    wrapper = Wrapper(settings.sandbox_wrapper, settings.sandbox_wrapper_args)
    with tempfile.TemporaryDirectory(prefix="agentorch-doctor-") as scratch:
        confinement = _confinement(Path(scratch).resolve(), capabilities, ground.environment)
        try:
            with confine(wrapper, confinement, capabilities.version_argv) as start:
                return _trouble(start)
        except AgentorchError as problem:
            return "; ".join(problem.problems)


def _confinement(
    top: Path, capabilities: Capabilities, environment: Mapping[str, str]
) -> Confinement:
    work, home, artifacts = top / "work", top / "home", top / "artifacts"
    for directory in (work, home, artifacts):
        directory.mkdir()
    return Confinement(
        name=top.name,
        work=work,
        home=home,
        artifacts=artifacts,
        network=Network.DENY,
        environment={**environment, "HOME": str(home)},
        read_only=capabilities.read_only,
        programs=capabilities.requires,
    )


def _trouble(start: Confined) -> str:
    try:
        ran = subprocess.run(
            start.argv,
            env=start.environment,
            pass_fds=start.pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SANDBOX_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {SANDBOX_S} s"
    if not ran.returncode:
        return ""
    lines = ran.stdout.decode(errors="replace").strip().splitlines()
    return one_line(lines[-1]) if lines else f"exit code {ran.returncode}"
