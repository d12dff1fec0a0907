"""The policy of an attempt: the server's, tightened by the job's, never loosened. Pure.

Also which variables an agent gets: the server's, only those that are allowed, and of the
sensitive ones only this agent's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agentorch.core.abilities import Abilities
from agentorch.core.hosts import is_listed, split_host
from agentorch.core.job import Network, Policy
from agentorch.core.resources import UNLIMITED, Resources, tighten

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
DEFAULT_LANG = "C.UTF-8"
TEMPORARY = "/tmp"


@dataclass(frozen=True)
class ServerPolicy:
    """The server's side: SANDBOX, NETWORK_POLICY, ALLOWED_BINARIES, ALLOWED_HOSTS, and
    AGENTORCH_STEP_*.
    """

    sandbox: bool
    network: Network
    binaries: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    resources: Resources = UNLIMITED


@dataclass(frozen=True)
class Effective:
    """The policy that holds for an attempt.
    reached by name and port where the network is denied.
    """

    sandbox: bool
    network: Network
    binaries: frozenset[str]
    hosts: tuple[tuple[str, int], ...] = ()
    resources: Resources = UNLIMITED


def effective(server: ServerPolicy, job: Policy) -> Effective:
    """Return the stricter of the two in every respect; a job's empty list of binaries asks for
    nothing.
    """
    return Effective(
        sandbox=server.sandbox or job.sandbox,
        network=_stricter(server.network, job.network),
        binaries=_common(frozenset(server.binaries), frozenset(job.allowed_binaries)),
        hosts=tuple(split_host(host) for host in job.allow_hosts if is_listed(host, server.hosts)),
        resources=tighten(server.resources, job.resources),
    )


def _stricter(server: Network, job: Network) -> Network:
    return Network.ALLOW if server is job is Network.ALLOW else Network.DENY


def _common(server: frozenset[str], job: frozenset[str]) -> frozenset[str]:
    return server & job if job else server


def model_refusal(allowed: tuple[str, ...], model: str | None) -> str:
    """Why a step may not have the model that it names; empty where it may, or names none.

    The door says so too; this is for jobs that came in when the list was another.
    """
    if not allowed or not model or Abilities(models=allowed).takes_model(model):
        return ""
    return f"the policy does not allow the model {model!r} (see ALLOWED_MODELS)"


@dataclass(frozen=True)
class EnvironmentRules:
    """ENV_ALLOWLIST, SENSITIVE_ENV_VARS, SANDBOX_CLEAR_ENV."""

    allowlist: tuple[str, ...]
    sensitive: tuple[str, ...]
    clear: bool = False


def environment_for(
    rules: EnvironmentRules,
    server: Mapping[str, str],
    *,
    home: str,
    passes: Iterable[str] = (),
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return an agent's whole environment.

    `passes` are the sensitive names that this agent may have, where the allowlist has them too;
    `given` is set as it is, over everything. HOME is always the private one.
    """
    own = frozenset(passes)
    allowed = {name: server[name] for name in rules.allowlist if name in server}
    inherited = {name: value for name, value in allowed.items() if _inherits(name, rules, own)}
    return _basis(server) | inherited | {"HOME": home} | dict(given or {})


def _inherits(name: str, rules: EnvironmentRules, own: frozenset[str]) -> bool:
    if rules.clear:
        return name == "PATH"
    return name not in rules.sensitive or name in own


def _basis(server: Mapping[str, str]) -> dict[str, str]:
    basis = {
        "PATH": DEFAULT_PATH,
        "LANG": server.get("LANG") or DEFAULT_LANG,
        "TERM": "dumb",
        "TMPDIR": TEMPORARY,
    }
    return basis | ({"TZ": server["TZ"]} if server.get("TZ") else {})
