"""The vendors' CLIs with a scripted model: one run each, bare, in our sandbox, and as a job.

All three are the same command line of the adapter's, on a HOME and a workspace of their own.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from pathlib import Path

from agentorch.agents import failure_rules, registry
from agentorch.agents.base import Agent, Command, Endpoint, Request
from agentorch.attempt.broker_access import PORT, BrokerAccess, relay_program
from agentorch.attempt.place import environment_of
from agentorch.broker import client
from agentorch.broker.client import Grant
from agentorch.config.settings import Settings, load
from agentorch.contracts.accept import ServerRules, accept
from agentorch.core.abilities import ANYTHING
from agentorch.core.job import Network
from agentorch.core.process_end import Ending, Exit
from agentorch.core.states import OutcomeClass
from agentorch.process import output
from agentorch.process.run import Launch, Limits, run
from agentorch.sandbox import Confinement, Wrapper, confine
from agentorch.scripted_model import Turn, serving
from agentorch.storage import beneath
from tests.bench.measure import Options, Unmeasured, seconds
from tests.bench.site import Accepted, Site
from tests.bench.three_steps import repository
from tests.support import clis

NAMES = ("claude", "codex", "opencode")
KEY = "sk-ant-" + "9f86d081884c7d659a2feaa0c55ad015"
TURNS = 3
TIMEOUT_S = 120
# Ours has no way to the world, where some of them look around at their start; nor has bare, or the
# world's answers would be measured.
NOWHERE = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
PROMPT = "This is a measurement. Run the commands that you are told, then say that it is done."


def names(options: Options) -> Sequence[str]:
    """Those that are run; the quickest alone where nothing is measured."""
    return ("codex",) if options.quick else NAMES


def script(before_s: float) -> tuple[Turn, ...]:
    """Turns of a model that thinks so long before each, and at once says that it is done."""
    calls = (Turn(command=f"echo {n} >turn-{n}", before_s=before_s) for n in range(TURNS))
    return (*calls, Turn("It is done."))


def ready(options: Options) -> Options:
    """The options, with files where an agent can have its HOME: not below /tmp.

    Raises Unmeasured.
    """
    if why := clis.missing():
        raise Unmeasured(why)
    if options.quick and not (clis.place() / "bin").is_dir():
        raise Unmeasured("the agents are not installed: make test-agents installs them")
    return replace(options, directory=options.directory or Path("/var/tmp"))


@dataclass(frozen=True)
class Bench:
    """A place to run agents, a model's socket, and a broker that runs. `before_s`: script."""

    directory: Path
    listening: socket.socket
    broker: Path
    source: Path
    settings: Settings
    before_s: float
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        """The scripted model's base URL."""
        return url_of(self.listening)

    def bare(self, name: str) -> Callable[[], float]:
        """The agent straight at the model, in a plain environment."""
        return lambda: self._timed(name, self._run_bare)

    def ours(self, name: str) -> Callable[[], float]:
        """The agent in the sandbox, with the relay and the broker."""
        return lambda: self._timed(name, self._run_ours)

    def job(self, name: str) -> Callable[[], float]:
        """A job of one step from its submission to its end, by a runner of the site."""

        def work() -> float:
            with serving(self.listening, script(self.before_s)):
                return seconds(lambda: self.site().worked(*a_job(name, self.source)))

        return work

    def site(self) -> Site:
        """Of a queue whose agents are these."""
        return Site(self.directory / "site", variables(self.url))

    def _timed(self, name: str, way: Callable[[Run], Exit]) -> float:
        agent = registry.load(self.settings).get(name)
        one = Run(self.directory / str(next(self._numbers)), agent, self.settings)
        with serving(self.listening, script(self.before_s)):
            began = time.perf_counter()
            exit_ = way(one)
            took_s = time.perf_counter() - began
        one.check(exit_)
        return took_s

    def _run_bare(self, one: Run) -> Exit:
        command = one.command(Endpoint(one.provider, f"{self.url}/{one.provider}", "bench"))
        with one.stdin.open("rb") as stdin, one.stdout.open("wb") as stdout:
            done = subprocess.run(
                command.argv,
                cwd=one.work,
                env={**one.environment(command), **NOWHERE},
                stdin=stdin,
                stdout=stdout,
                stderr=stdout,
                check=False,
            )
        return Exit(Ending.EXITED, done.returncode, None, 0)

    def _run_ours(self, one: Run) -> Exit:
        with ExitStack() as stack:
            token, url = client.new_token(), f"http://127.0.0.1:{PORT}/{one.provider}"
            written = client.write_grant(self.broker.parent / "grants", one.grant(), token)
            stack.callback(written.unlink)
            command = one.command(Endpoint(one.provider, url, token))
            out = BrokerAccess(path=self.broker)
            confinement = one.confinement(command, self.broker)
            start = stack.enter_context(confine(Wrapper(), confinement, out.around(command.argv)))
            launch = Launch(
                argv=start.argv,
                cwd=one.work,
                environment=start.environment,
                stdin=one.stdin,
                stdout=one.stdout,
                stderr=one.stderr,
                pass_fds=start.pass_fds,
                reports_signals_as_128=True,
            )
            limits = Limits(TIMEOUT_S, one.work, min_free_bytes=self.settings.min_free_disk_bytes)
            return run(
                launch, limits, stack.enter_context(NoStops()), lambda _: None, one.agent.is_end
            )


class NoStops:
    """Nobody stops a measurement."""

    def __enter__(self) -> NoStops:
        self._reading, self._writing = os.pipe()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._reading)
        os.close(self._writing)

    def fileno(self) -> int:
        return self._reading

    def reason(self) -> Ending | None:
        return None


@dataclass(frozen=True)
class Run:
    """A place of one run of an agent."""

    directory: Path
    agent: Agent
    settings: Settings

    def __post_init__(self) -> None:
        for path in (self.work, self.home, self.directory / "artifacts"):
            path.mkdir(parents=True)

    @property
    def work(self) -> Path:
        return self.directory / "work"

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def stdin(self) -> Path:
        return self.directory / "stdin"

    @property
    def stdout(self) -> Path:
        return self.directory / "stdout"

    @property
    def stderr(self) -> Path:
        return self.directory / "stderr"

    @cached_property
    def provider(self) -> str:
        return self.agent.provider(None) or ""

    def command(self, endpoint: Endpoint) -> Command:
        """The adapter's command, with its files placed."""
        request = Request(
            job_id="bench",
            step_id="01",
            attempt=1,
            agent=self.agent.name,
            role="implementer",
            goal=PROMPT,
            prompt=PROMPT,
            script=PROMPT,
            body=PROMPT,
            work=self.work,
            home=self.home,
            artifacts=self.directory / "artifacts",
            endpoint=endpoint,
        )
        command = self.agent.command(request)
        for path, content in command.files.items():
            beneath.write(self.home, path, content, 0o600)
        self.stdin.write_bytes(command.stdin)
        return command

    def environment(self, command: Command) -> dict[str, str]:
        return environment_of(self.settings, self.home, (), command.environment)

    def grant(self) -> Grant:
        expires_at = time.time() + TIMEOUT_S
        return Grant("bench", "01", 1, self.agent.name, expires_at, providers=(self.provider,))

    def confinement(self, command: Command, broker: Path) -> Confinement:
        """What Execution makes of a step."""
        capabilities = self.agent.capabilities
        assert capabilities is not None
        return Confinement(
            name="agentorch-bench",
            work=self.work,
            home=self.home,
            artifacts=self.directory / "artifacts",
            network=Network.DENY,
            environment=self.environment(command),
            read_only=(*capabilities.read_only, relay_program()),
            masked=tuple(self.work / path for path in capabilities.masked),
            programs=(command.argv[0],),
            broker=broker,
        )

    def check(self, exit_: Exit) -> None:
        """Raises RuntimeError where the agent did not do what it was told."""
        paths = [path for path in (self.stdout, self.stderr) if path.exists()]
        lines = list(chain.from_iterable(output.lines(path, path.name) for path in paths))
        rules = failure_rules.rules(self.settings.ends_directory)
        outcome = failure_rules.classify(
            self.agent.outcome(exit_, iter(lines)), self.agent.name, rules
        )
        made = {path.name for path in self.work.glob("turn-*")}
        if outcome.kind is not OutcomeClass.SUCCESS or len(made) != TURNS:
            said = "\n".join(line.text[:500] for line in lines[-20:])
            raise RuntimeError(
                f"{self.agent.name}: {outcome.kind}, {outcome.summary}, {made}\n{said}"
            )


@contextmanager
def bench(directory: Path, before_s: float) -> Iterator[Bench]:
    """A bench below this directory while the context lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ExitStack() as stack:
        given = Site(directory / "site", variables(url_of(listening))).environment()
        settings = load(given)
        broker = directory / "broker"
        path = stack.enter_context(client.running(broker, client.environment_of(settings)))
        source = repository(directory / "source")
        yield Bench(directory, listening, path, source, settings, before_s)


def variables(url: str) -> dict[str, str]:
    """What our programs have to know to run the CLIs with a model at this URL."""
    return {
        "PATH": f"{clis.programs()}:{os.environ['PATH']}",
        "ALLOWED_BINARIES": f"sh,{','.join(NAMES)}",
        "ANTHROPIC_API_KEY": KEY,
        "OPENAI_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": url,
        "OPENAI_BASE_URL": f"{url}/v1",
    }


def url_of(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def a_job(name: str, source: Path) -> Accepted:
    """A job of one step in a repository."""
    step = {"step_id": "01", "agent": name, "role": "implementer", "prompt": PROMPT}
    document = {
        "goal": "measure",
        "source": {"type": "manual", "meta": {}},
        "workdir": str(source),
        "steps": [step],
    }
    return accept(document, ServerRules({name: ANYTHING}, ()), datetime.now(UTC))
