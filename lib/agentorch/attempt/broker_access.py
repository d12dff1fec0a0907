"""A step's access to the broker: its socket, a grant, and what the broker says in the end.

The broker is the server's where AGENTORCH_BROKER_SOCKET names one, else a child of this step that
lives as long as it. An agent of ours never gets a key: it gets a token that is good for this step.
One with a login of its own gets a copy of that, and the vendor's hosts.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path

from agentorch.agents.base import Agent, Endpoint
from agentorch.agents.registry import Registry
from agentorch.artifacts.directory import JobArtifacts
from agentorch.attempt.place import Place, policy_of
from agentorch.broker import client, relay
from agentorch.broker.client import Account, Grant
from agentorch.broker.grants import remove_expired
from agentorch.broker.keys import Keys
from agentorch.broker.prices import load
from agentorch.config.settings import Settings
from agentorch.core.allowance import Allowance
from agentorch.core.attempt import Attempt, StepEnded
from agentorch.core.errors import Invalid, Misconfigured, TryAgain
from agentorch.core.hosts import split_host
from agentorch.core.job import Job, Network, Outcome
from agentorch.core.policy import Effective
from agentorch.core.states import CAP_OF_OTHERS, OutcomeClass
from agentorch.ledger.budgets import OWN_CAPS, STEP
from agentorch.ledger.counts import LOGIN
from agentorch.preflight import logins
from agentorch.preflight.credentials import Credential, credential
from agentorch.sandbox import BROKER
from agentorch.storage import beneath
from agentorch.storage.copy_tree import remove
from agentorch.storage.paths import ArtifactPaths, WorkspacePaths

# In a network namespace of the step's own nobody else listens.
PORT = 8080
# A grant outlives the agent by what the step needs to hear the account.
SPARE_S = 600
_HEAD_BYTES = 16
MAX_LOGIN_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class BrokerAccess:
    """The access of an attempt's agent to the broker; without `path` there is none.

    `listener` is a port of the host's loopback, for an agent that shares the host's network.
    `login` names the agent's own login, None where it does not use one.
    """

    endpoint: Endpoint | None = None
    path: Path | None = None
    token: str = ""
    listener: socket.socket | None = None
    confined: bool = True
    login: str | None = None

    def credential(self, account: Account | None) -> str | None:
        """Return what the agent was let in with at its provider's; None where that is not known."""
        if self.login is not None or account is None or self.endpoint is None:
            return self.login
        return account.providers.get(self.endpoint.provider)

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """Return what the relay inherits."""
        return () if self.listener is None else (self.listener.fileno(),)

    def around(self, argv: Sequence[str]) -> tuple[str, ...]:
        """Return the command line that runs `argv` with the relay beside it."""
        if self.path is None:
            return tuple(argv)
        return relay_argv(BROKER if self.confined else self.path, self.listener, argv)

    def account(self) -> Account | None:
        """Return what the broker counted for this attempt; None where there is none, or it is
        gone.
        """
        if self.path is None:
            return None
        try:
            return client.account(self.path, self.token)
        except TryAgain:  # it died: what it counted is lost with it, the agent's own figures stay
            return None


def relay_argv(path: Path, listener: socket.socket | None, argv: Sequence[str]) -> tuple[str, ...]:
    """Return the relay's command line around another."""
    where = ("--port", str(PORT))
    if listener is not None:
        where = ("--listen-fd", str(listener.fileno()))
    return (
        python(),
        *("-I", "-S"),
        str(relay_program()),
        *("--socket", str(path)),
        *where,
        "--",
        *argv,
    )


@functools.cache  # what is made visible in the sandbox is what is run there
def relay_program() -> Path:
    """Return the relay's file as it is run: compiled, where Python has kept that for this very
    source.

    Else it is compiled at every start, which takes more than all else that it does there.
    """
    source, compiled = Path(relay.__file__), Path(cache_from_source(relay.__file__))
    try:
        with compiled.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:  # nothing was kept
        return source
    seen = source.stat()
    return compiled if head == compiled_head(seen.st_mtime, seen.st_size) else source


def compiled_head(mtime: float, size: int) -> bytes:
    """Return how a compiled file of a source of this time and size begins (PEP 552). Pure."""
    words = (0, int(mtime), size)
    return MAGIC_NUMBER + b"".join((word & 0xFFFFFFFF).to_bytes(4, "little") for word in words)


def python() -> str:
    """Return this Python, by the name under which the sandbox shows it."""
    return os.path.realpath(sys.executable)


@contextmanager
def broker_access(
    settings: Settings, attempt: Attempt, agent: Agent, place: Place, home: Path, token: str
) -> Iterator[BrokerAccess]:
    """Return the access of an attempt, gone with its grant on return; `token` is then worth
    nothing.

    Raises StepEnded without a broker or a credential, and Misconfigured where a file is not as it
    should be.
    """
    policy = policy_of(settings, attempt.job.policy)
    model = model_of(settings, attempt)
    provider = agent.provider(model)
    if provider is None and not policy.hosts:
        yield BrokerAccess(confined=policy.sandbox)
        return
    with contextlib.ExitStack() as stack:
        found = _credential(settings, attempt, agent, provider)
        login = found.is_login
        path, grants = _broker(stack, settings, place)
        hosts = (*policy.hosts, *(_login_hosts(agent) if login else ()))
        artifacts = JobArtifacts(ArtifactPaths(place.artifacts))
        allowance = artifacts.read_allowance(attempt.step.step_id, attempt.number)
        grant = _grant(attempt, provider, hosts, allowance)
        written = _write_grant(settings, grants, grant, token)
        stack.callback(written.unlink, missing_ok=True)
        listener = _listener(stack, policy)
        port = PORT if listener is None else listener.getsockname()[1]
        endpoint = Endpoint(
            provider=provider or "",
            url=f"http://127.0.0.1:{port}/{provider or ''}",
            token=token,
            proxy_url=f"http://job:{token}@127.0.0.1:{port}" if hosts else None,
            login=login,
        )
        if login:
            stack.callback(forget, agent, home)
            _seed(settings, agent, home)
        name = f"{LOGIN}{agent.name}" if login else None
        yield BrokerAccess(endpoint, path, token, listener, policy.sandbox, name)


def model_of(settings: Settings, attempt: Attempt) -> str | None:
    """Return the model that a step asks for, else the server's for its agent, else None."""
    return attempt.step.model or settings.agent_models.get(attempt.step.agent)


def _broker(stack: contextlib.ExitStack, settings: Settings, place: Place) -> tuple[Path, Path]:
    """Return the broker's socket, and the directory of its grants."""
    if settings.broker_socket is not None:
        return _server_broker(settings.broker_socket)
    _check_tables(settings)
    shutil.rmtree(place.broker, ignore_errors=True)
    place.broker.mkdir(0o700, parents=True)
    stack.callback(shutil.rmtree, place.broker, ignore_errors=True)
    environment = client.environment_of(settings)
    path = stack.enter_context(client.running(place.broker, environment))
    return path, client.grants_directory(place.broker)


def _server_broker(path: Path) -> tuple[Path, Path]:
    try:
        is_there = path.is_socket()
    except OSError as problem:
        raise _no_broker(f"{path}: {problem.strerror}") from problem
    if not is_there:
        raise _no_broker(f"no broker at {path}")
    return path, path.parent / "grants"


def _no_broker(words: str) -> StepEnded:
    words = f"AGENTORCH_BROKER_SOCKET: {words}"
    return StepEnded(Outcome(OutcomeClass.INFRA, words, error="broker_unreachable"))


def _check_tables(settings: Settings) -> None:
    """Raise Misconfigured where a broker of one's own would refuse to start with these tables."""
    Keys.load(settings, {}).check()
    if settings.prices.exists():
        load(settings.prices)


def _write_grant(settings: Settings, grants: Path, grant: Grant, token: str) -> Path:
    """Write the grant; with the server's broker, those that killed steps left go."""
    if settings.broker_socket is None:
        return client.write_grant(grants, grant, token)
    try:
        remove_expired(grants, time.time())
        return client.write_grant(grants, grant, token)
    except OSError as problem:
        raise _no_broker(f"{grants}: {problem.strerror}") from problem
    except TryAgain as problem:
        raise _no_broker(str(problem)) from problem


def _listener(stack: contextlib.ExitStack, policy: Effective) -> socket.socket | None:
    if policy.sandbox and policy.network is Network.DENY:
        return None
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    listener.set_inheritable(True)
    return listener


def _grant(
    attempt: Attempt, provider: str | None, hosts: Sequence[tuple[str, int]], allowance: Allowance
) -> Grant:
    """Return the grant; what limits it is the allowance, which knows the step's own cap as well.

    An attempt that nobody admitted (a step that is run by hand) has that cap alone.
    """
    cost = attempt.step.options.get("max_cost_usd")
    if allowance.max_cost_usd is None and cost is not None:
        allowance = Allowance(float(cost), STEP)
    return Grant(
        job_id=attempt.job.job_id,
        step_id=attempt.step.step_id,
        attempt=attempt.number,
        agent=attempt.step.agent,
        project_id=attempt.job.project_id,
        providers=() if provider is None else (provider,),
        hosts=tuple(f"{name}:{port}" for name, port in hosts),
        max_cost_usd=allowance.max_cost_usd,
        cap="max_cost" if allowance.cap in OWN_CAPS else CAP_OF_OTHERS,
        expires_at=time.time() + attempt.step.timeout_s + SPARE_S,
    )


# ---- logins -----------------------------------------------------------------------------------


def _credential(
    settings: Settings, attempt: Attempt, agent: Agent, provider: str | None
) -> Credential:
    """Return what the agent has; one with a key that is hidden is let go on, the broker says the
    rest.
    """
    capabilities = agent.capabilities
    assert capabilities is not None
    found = credential(settings, agent.name, capabilities, provider, attempt.job.project_id)
    if found.is_missing:
        words = f"agent {agent.name!r} {found.words}"
        raise StepEnded(Outcome(OutcomeClass.AUTH, words, error="preflight"))
    return found


def _login_hosts(agent: Agent) -> tuple[tuple[str, int], ...]:
    capabilities = agent.capabilities
    return () if capabilities is None else tuple(map(split_host, capabilities.login_hosts))


def _seed(settings: Settings, agent: Agent, home: Path) -> None:
    capabilities = agent.capabilities
    assert capabilities is not None
    home.mkdir(0o700, parents=True, exist_ok=True)
    for name, path in logins.files(settings, agent.name, capabilities).items():
        beneath.write(home, name, path.read_bytes()[:MAX_LOGIN_BYTES], 0o600)


def forget(agent: Agent, home: Path) -> None:
    """Take the login out of HOME again: what is kept of a job holds no credential."""
    capabilities = agent.capabilities
    for name in () if capabilities is None else capabilities.login_files:
        try:
            # where the agent made its way lead elsewhere, there is nothing of ours
            with contextlib.suppress(beneath.NotBeneath, NotADirectoryError, IsADirectoryError):
                beneath.remove(home, name)
        except PermissionError:  # the agent closed the way
            remove(home)


def forget_all(agents: Registry, job: Job, paths: WorkspacePaths) -> None:
    """Remove what attempts that were killed left of their access: sockets, grants, logins."""
    remove(paths.brokers)
    for step in job.steps:
        home = paths.home(step.agent) / step.step_id
        if home.is_dir():
            with contextlib.suppress(Invalid, Misconfigured):  # an agent that is no more
                forget(agents.get(step.agent), home)
