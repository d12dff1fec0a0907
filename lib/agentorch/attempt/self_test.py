"""The self-test of an agent: it really works in this sandbox, with a model that plays a script.

A CLI whose own sandbox, shell or permissions are broken ends well all the same: it says that it
could not do what it was asked, and exits with 0. So before the first real attempt the agent is
run once as it would be for a step, with a model that asks it to write a file by its shell, and the
file must be there. No key, no network, no cost. That it was found to work is remembered for this
very program and this sandbox, below the state directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

from agentorch import __version__
from agentorch.agents import failure_rules
from agentorch.agents.base import Agent, Endpoint, Request
from agentorch.agents.exit_outcome import outcome_of_exit
from agentorch.attempt.broker_access import PORT, BrokerAccess, relay_program
from agentorch.attempt.place import environment_of
from agentorch.broker import client
from agentorch.config.settings import Settings
from agentorch.core.attempt import StepEnded
from agentorch.core.errors import AgentorchError, TryAgain
from agentorch.core.job import Network, Outcome
from agentorch.core.process_end import Ending, Exit
from agentorch.core.states import OutcomeClass
from agentorch.process import output
from agentorch.process.run import Launch, Limits, Stops, run
from agentorch.sandbox import Confinement, Wrapper, confine, vacate
from agentorch.sandbox.programs import absolute_path
from agentorch.storage import beneath
from agentorch.storage.copy_tree import remove
from agentorch.storage.locks import lock

# Some CLIs take ten seconds to start where a machine has much to do.
TIMEOUT_S = 120
PREFIX = ".selftest-"
PROOF = "agentorch-self-test"
WORD = "works"
COMMAND = f"printf {WORD} > {PROOF}"
PROMPT = f"This is a test of the sandbox. Run this command, then say that it is done: {COMMAND}"


class _NoStops:
    """The stops of a self-test: there are none."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def reason(self) -> Ending | None:
        return None


def works(settings: Settings, agent: Agent, stops: Stops) -> tuple[str, ...]:
    """Return what is wrong with the agent in this sandbox, in words; empty where nothing is.

    What was found to work before is not tried again. Raises StepEnded where the test was ended
    before it showed anything.
    """
    mark = _mark(settings, agent)
    if mark is not None and mark.exists():
        return ()
    problems = try_agent(settings, agent, stops)
    if not problems and mark is not None:
        with contextlib.suppress(OSError):  # it is tried again then
            mark.parent.mkdir(0o750, parents=True, exist_ok=True)
            mark.touch(0o640)
    return problems


def try_agent(settings: Settings, agent: Agent, stops: Stops | None = None) -> tuple[str, ...]:
    """Run the agent once with the scripted model; return what is wrong with it, in words.

    Raises StepEnded where it was ended before it showed anything.
    """
    try:
        with _scratch(settings) as top:
            exit_, outcome = _ran(settings, agent, top, stops)
            proof = _proof(top / "work")
    except TryAgain as problem:
        words = f"the self-test of {agent.name}: {problem}"
        raise StepEnded(Outcome(OutcomeClass.INFRA, words, error="preflight")) from problem
    except AgentorchError as problem:
        return problem.problems
    unfinished = cut_short(agent.name, exit_)
    if unfinished is not None:
        raise StepEnded(unfinished)
    return judge(agent.name, outcome, exit_, proof)


def _proof(work: Path) -> bytes | None:
    try:
        return beneath.read(work, PROOF, len(WORD) + 1)
    except beneath.NotBeneath:  # it made something else there
        return None


def cut_short(name: str, exit_: Exit) -> Outcome | None:
    """Return what a run comes to that says nothing of the agent: it was stopped, or the machine was
    too slow or too full, which may be better the next time; None for any other. Pure.
    """
    what = f"the self-test of {name}"
    if exit_.ending in (Ending.CANCELLED, Ending.INTERRUPTED):
        return outcome_of_exit(exit_, what)
    if exit_.ending is Ending.TIMEOUT or exit_.oom:
        how = "ran out of memory" if exit_.oom else f"did not end within {TIMEOUT_S} s"
        words = f"{what} {how}: it hangs in the sandbox, or there is too much else to do"
        return Outcome(OutcomeClass.INFRA, words, error="preflight")
    return None


def judge(name: str, outcome: Outcome, exit_: Exit, proof: bytes | None) -> tuple[str, ...]:
    """Return what a run with the scripted model shows. Pure."""
    if proof == WORD.encode() and outcome.kind is OutcomeClass.SUCCESS:
        return ()
    said = f"it ended as {outcome.kind} ({outcome.summary})"
    if proof == WORD.encode():
        return (f"{name} does not end well in the sandbox: {said}",)
    quietly = " although it exits with 0" if exit_.code == 0 else ""
    return (f"{name} can't run commands in the sandbox{quietly}: {said}",)


# ---- one run ----------------------------------------------------------------------------------


def _ran(settings: Settings, agent: Agent, top: Path, stops: Stops | None) -> tuple[Exit, Outcome]:
    # only where an agent is tried: a server of HTTP is much to import for every step
    from agentorch.scripted_model import Turn, serving  # noqa: PLC0415

    script = (Turn(command=COMMAND), Turn("It is done."))
    request = _request(settings, agent, top)
    command = agent.command(request)
    for path, content in command.files.items():
        beneath.write(request.home, path, content, 0o600)
    (top / "stdin").write_bytes(command.stdin)
    out = BrokerAccess(path=top / "model", confined=settings.sandbox)
    reading, writing = os.pipe()
    with (
        contextlib.closing(client.listen(top / "model")) as listener,
        serving(listener, script),
        os.fdopen(reading, "rb") as quiet,
        os.fdopen(writing, "wb"),
        confine(
            Wrapper(settings.sandbox_wrapper, settings.sandbox_wrapper_args),
            _confinement(settings, agent, request, command.environment, out),
            out.around(command.argv),
        ) as start,
    ):
        launch = Launch.from_start(start, request.work, top)
        limits = Limits(TIMEOUT_S, top)
        nobody = _NoStops(quiet.fileno())
        exit_ = run(launch, limits, stops or nobody, lambda _: None, agent.is_end)
    lines = chain.from_iterable(output.lines(top / name, name) for name in ("stdout", "stderr"))
    rules = failure_rules.rules(settings.ends_directory)
    return exit_, failure_rules.classify(agent.outcome(exit_, lines), agent.name, rules)


def _request(settings: Settings, agent: Agent, top: Path) -> Request:
    for name in ("work", "home", "artifacts"):
        (top / name).mkdir(0o700)
    model = settings.agent_models.get(agent.name)
    provider = agent.provider(model) or ""
    return Request(
        job_id="selftest",
        step_id="selftest",
        attempt=1,
        agent=agent.name,
        role="implementer",
        goal=PROMPT,
        prompt=PROMPT,
        script=PROMPT,
        body=PROMPT,
        work=top / "work",
        home=top / "home",
        artifacts=top / "artifacts",
        timeout_s=TIMEOUT_S,
        model=model,
        endpoint=Endpoint(provider, f"http://127.0.0.1:{PORT}/{provider}", client.new_token()),
    )


def _confinement(
    settings: Settings,
    agent: Agent,
    request: Request,
    given: Mapping[str, str],
    out: BrokerAccess,
) -> Confinement:
    capabilities = agent.capabilities
    assert capabilities is not None
    return Confinement(
        name=f"agentorch-selftest-{os.getpid()}",
        work=request.work,
        home=request.home,
        artifacts=request.artifacts,
        network=Network.DENY,
        environment=environment_of(settings, request.home, (), given),
        read_only=(*capabilities.read_only, relay_program()),
        masked=tuple(request.work / path for path in capabilities.masked),
        programs=(capabilities.program or capabilities.binary, *capabilities.requires),
        broker=out.path,
    )


@contextlib.contextmanager
def _scratch(settings: Settings) -> Iterator[Path]:
    """Return where workspaces are, so that the test is of the filesystem that steps have."""
    root = settings.roots.workspaces_root
    root.mkdir(0o750, parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with contextlib.ExitStack() as alone:
            lock(_descriptor(alone, root), wait=True)
            for path in root.glob(f"{PREFIX}*"):
                _remove_dead(path)
            top = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
            held.callback(remove, top)
            lock(_descriptor(held, top), wait=False)
        yield top.resolve()


def _remove_dead(path: Path) -> None:
    """Remove what a test left that was killed: nobody has its lock any more."""
    with contextlib.ExitStack() as held, contextlib.suppress(OSError, TryAgain):
        if lock(_descriptor(held, path), wait=False):
            vacate(path / "work")
            remove(path)


def _descriptor(stack: contextlib.ExitStack, directory: Path) -> int:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def _mark(settings: Settings, agent: Agent) -> Path | None:
    """Return the file that says that this program works in this sandbox; None where it is not
    found.
    """
    capabilities = agent.capabilities
    if capabilities is None:
        return None
    path = absolute_path(environment_of(settings, Path("/")).get("PATH", os.defpath))
    found = shutil.which(capabilities.program or capabilities.binary, path=path)
    if found is None:
        return None
    seen = os.stat(found)
    facts = [
        *(__version__, agent.name, os.path.realpath(found), seen.st_size, seen.st_mtime_ns),
        *(settings.sandbox_wrapper, settings.sandbox_wrapper_args, os.geteuid()),
    ]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return settings.state_directory / "selftests" / name
