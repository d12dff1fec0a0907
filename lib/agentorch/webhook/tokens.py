"""Bearer tokens and their rights: the projects in which each may submit and decide.

The tokens that submit and those that decide are separate lists, because a caller that submits a job
must not be able to approve it. A token may be in both lists.

A token is only compared by its digest, with every known digest, in constant time. Nothing but the
digest is kept in memory, recorded or logged.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from agentorch.config import variables
from agentorch.config.settings import DEV_TOKEN, Settings
from agentorch.config.variables import Decider
from agentorch.core.errors import Misconfigured
from agentorch.webhook.responses import Refusal, problem

CREDENTIAL = "webhook-tokens"
DECISION_CREDENTIAL = "webhook-decision-tokens"
DECISION_VARIABLE = "WEBHOOK_DECISION_TOKENS"
SHOWN_DIGITS = 8
# The projects of a token; None means all projects.
Projects = frozenset[str] | None
NOWHERE: Projects = frozenset()
Table = TypeVar("Table")


@dataclass(frozen=True)
class Tokens:
    """The tokens that may submit, and those that may decide, each with its projects."""

    submit: Mapping[str, Projects]
    decide: Mapping[str, Decider] = field(default_factory=dict)


@dataclass(frozen=True)
class Caller:
    """The holder of a token: the token's digest, its projects, and its name if it has one."""

    digest: bytes
    submits: Projects = NOWHERE
    decides: Projects = NOWHERE
    name: str = ""

    def may_submit(self, project: object) -> bool:
        """Return whether the token may submit jobs of this project.

        A token with a list of projects may not submit a job without a project.
        """
        return _includes(self.submits, project)

    def may_decide(self, project: object) -> bool:
        """Return whether the token may decide on jobs of this project."""
        return _includes(self.decides, project)

    def may_read(self, project: object) -> bool:
        """Return whether the token may read jobs of this project."""
        return self.may_submit(project) or self.may_decide(project)

    @property
    def sees_all(self) -> bool:
        return self.submits is None or self.decides is None

    @property
    def fingerprint(self) -> str:
        """The beginning of the token's digest, which the logs and records show."""
        return f"sha256:{self.digest.hex()[:SHOWN_DIGITS]}"

    @property
    def display_name(self) -> str:
        """The name of the holder, or the fingerprint where it has none."""
        return self.name or self.fingerprint

    @property
    def identity(self) -> dict[str, Any]:
        """The holder as it is recorded with a decision."""
        return {"token": self.fingerprint} | ({"name": self.name} if self.name else {})


def _includes(projects: Projects, project: object) -> bool:
    return projects is None or (isinstance(project, str) and project in projects)


def list_callers(tokens: Tokens) -> tuple[Caller, ...]:
    """Return the callers of these tokens. Pure."""
    no_decider = Decider(NOWHERE)
    found = []
    for token in dict.fromkeys([*tokens.submit, *tokens.decide]):
        decider = tokens.decide.get(token, no_decider)
        submits = tokens.submit.get(token, NOWHERE)
        found.append(Caller(token_digest(token), submits, decider.projects, decider.name))
    return tuple(found)


def token_digest(token: str) -> bytes:
    """Return the digest that a token is known by. Pure."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def bearer_token(header: str | None) -> str | None:
    """Return the token of an Authorization header (RFC 6750); None without one. Pure."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def identify(token: str, known: Iterable[Caller]) -> Caller | None:
    """Return the caller of a token, None for an unknown one; takes equally long for all. Pure."""
    digest = token_digest(token)
    found = None
    for caller in known:
        if hmac.compare_digest(caller.digest, digest):
            found = caller
    return found


def require_caller(header: str | None, known: Iterable[Caller]) -> Caller:
    """Return the caller of a request. Raises Refusal: 401 without a token, 403 for an unknown."""
    token = bearer_token(header)
    if token is None:
        challenge = {"WWW-Authenticate": 'Bearer realm="agentorch"'}
        detail = "a token is required: Authorization: Bearer TOKEN"
        raise Refusal(problem(HTTPStatus.UNAUTHORIZED, detail, challenge))
    caller = identify(token, known)
    if caller is None:
        raise Refusal(problem(HTTPStatus.FORBIDDEN, "the token is unknown"))
    return caller


def refuse_submitting(caller: Caller) -> None:
    """Raise Refusal (403) where a token may not submit at all."""
    if caller.submits == NOWHERE:
        detail = "the token may not submit jobs (WEBHOOK_TOKENS)"
        raise Refusal(problem(HTTPStatus.FORBIDDEN, detail))


def refuse_deciding(caller: Caller) -> None:
    """Raise Refusal (403) where a token may not decide at all."""
    if caller.decides == NOWHERE:
        detail = f"the token may not decide on jobs ({DECISION_VARIABLE})"
        raise Refusal(problem(HTTPStatus.FORBIDDEN, detail))


def refuse_outside(project: object, *, allowed: bool) -> None:
    """Raise Refusal (403) where a token is not valid for a project."""
    if not allowed:
        scope = "a job without a project" if project is None else "this project"
        raise Refusal(problem(HTTPStatus.FORBIDDEN, f"the token is not valid for {scope}"))


# ---- the configuration --------------------------------------------------------------------


def load_tokens(settings: Settings) -> Tokens:
    """Return the tokens: those of the unit's credentials where it has them, else of the variables.

    Raises Misconfigured; its message never quotes the content of a file.
    """
    submit = _read_credential(settings, CREDENTIAL, variables.tokens)
    decide = _read_credential(settings, DECISION_CREDENTIAL, variables.deciders)
    # an empty credential means no tokens: the variable does not count then
    return Tokens(
        settings.webhook_tokens if submit is None else submit,
        settings.webhook_decision_tokens if decide is None else decide,
    )


def _read_credential(settings: Settings, name: str, read: Callable[[str], Table]) -> Table | None:
    directory = settings.environment.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return None
    path = Path(directory) / name
    try:
        return read(",".join(path.read_text("utf-8").splitlines()))
    except FileNotFoundError:
        return None
    except OSError as trouble:
        raise Misconfigured(f"{path}: {trouble.strerror}") from trouble
    except ValueError as trouble:
        raise Misconfigured(f"{path}: {trouble}") from None


def refuse_dev_token(found: Tokens, *, local: bool) -> None:
    """Raise Misconfigured where the well-known token would be valid beyond this host, or decide.

    It may never decide, because an agent with the host's network reaches the loopback, too.
    """
    if DEV_TOKEN in found.submit and not local:
        raise Misconfigured(
            f"WEBHOOK_TOKEN: {DEV_TOKEN!r} is accepted on loopback and Unix sockets only:"
            " set a token of your own"
        )
    if DEV_TOKEN in found.decide:
        raise Misconfigured(f"{DECISION_VARIABLE}: {DEV_TOKEN!r} must not decide on jobs")
