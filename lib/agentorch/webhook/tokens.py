"""Who may ask for what: bearer tokens, each with its projects.

A token that submits decides on nothing, or whoever may ask for a job could approve it: those that
decide are tokens of their own. One may be listed as both.

A token is only ever compared as its digest, with every digest that is known, in constant time; the
digest is also all that is kept and said of it.
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
# The projects of a token; None: all of them.
Projects = frozenset[str] | None
NOWHERE: Projects = frozenset()
Table = TypeVar("Table")


@dataclass(frozen=True)
class Tokens:
    """The tokens that submit, and those that decide."""

    submit: Mapping[str, Projects]
    decide: Mapping[str, Decider] = field(default_factory=dict)


@dataclass(frozen=True)
class Caller:
    """Whose token it is: the token's digest, where it submits, where it decides, its name."""

    digest: bytes
    submits: Projects = NOWHERE
    decides: Projects = NOWHERE
    name: str = ""

    def may_submit(self, project: object) -> bool:
        """Whether the token submits jobs of this project; a scoped one never of none."""
        return _holds(self.submits, project)

    def may_decide(self, project: object) -> bool:
        """Whether the token decides on jobs of this project."""
        return _holds(self.decides, project)

    def may_read(self, project: object) -> bool:
        """Whether the token sees jobs of this project."""
        return self.may_submit(project) or self.may_decide(project)

    @property
    def sees_all(self) -> bool:
        return self.submits is None or self.decides is None

    @property
    def fingerprint(self) -> str:
        """What is said of the token."""
        return f"sha256:{self.digest.hex()[:SHOWN_DIGITS]}"

    @property
    def called(self) -> str:
        """What people call who has it."""
        return self.name or self.fingerprint

    @property
    def who(self) -> dict[str, Any]:
        """Who decides, as it is recorded with a decision."""
        return {"token": self.fingerprint} | ({"name": self.name} if self.name else {})


def _holds(projects: Projects, project: object) -> bool:
    return projects is None or (isinstance(project, str) and project in projects)


def callers(tokens: Tokens) -> tuple[Caller, ...]:
    """The callers that these tokens make. Pure."""
    nobody = Decider(NOWHERE)
    found = []
    for token in dict.fromkeys([*tokens.submit, *tokens.decide]):
        decider = tokens.decide.get(token, nobody)
        submits = tokens.submit.get(token, NOWHERE)
        found.append(Caller(digest_of(token), submits, decider.projects, decider.name))
    return tuple(found)


def digest_of(token: str) -> bytes:
    """What a token is known by."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def bearer(header: str | None) -> str | None:
    """The token in an Authorization header (RFC 6750); None: there is none. Pure."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def identify(token: str, known: Iterable[Caller]) -> Caller | None:
    """The caller of this token. It takes as long for each, and for none of them. Pure."""
    digest = digest_of(token)
    found = None
    for caller in known:
        if hmac.compare_digest(caller.digest, digest):
            found = caller
    return found


def required(header: str | None, known: Iterable[Caller]) -> Caller:
    """The caller of a request. Raises Refusal: 401 without a bearer token, 403 for another's."""
    token = bearer(header)
    if token is None:
        challenge = {"WWW-Authenticate": 'Bearer realm="agentorch"'}
        detail = "a token is needed: Authorization: Bearer TOKEN"
        raise Refusal(problem(HTTPStatus.UNAUTHORIZED, detail, challenge))
    caller = identify(token, known)
    if caller is None:
        raise Refusal(problem(HTTPStatus.FORBIDDEN, "the token is unknown"))
    return caller


def refuse_submitting(caller: Caller) -> None:
    """Raises Refusal where a token submits nothing at all."""
    if caller.submits == NOWHERE:
        detail = "the token submits no jobs (WEBHOOK_TOKENS)"
        raise Refusal(problem(HTTPStatus.FORBIDDEN, detail))


def refuse_deciding(caller: Caller) -> None:
    """Raises Refusal where a token decides on nothing at all."""
    if caller.decides == NOWHERE:
        detail = f"the token decides on no jobs ({DECISION_VARIABLE})"
        raise Refusal(problem(HTTPStatus.FORBIDDEN, detail))


def refuse_outside(project: object, *, allowed: bool) -> None:
    """Raises Refusal where a token is not good for a project."""
    if not allowed:
        named = "a job without a project" if project is None else "this project"
        raise Refusal(problem(HTTPStatus.FORBIDDEN, f"the token is not for {named}"))


# ---- where they come from ---------------------------------------------------------------------


def load(settings: Settings) -> Tokens:
    """The tokens: those of the unit's credentials, where it has them, else of the variables.

    Raises Misconfigured; what is in a file stays unsaid.
    """
    submit = _of_credential(settings, CREDENTIAL, variables.tokens)
    decide = _of_credential(settings, DECISION_CREDENTIAL, variables.deciders)
    # an empty credential is no tokens, and not those of the variable
    return Tokens(
        settings.webhook_tokens if submit is None else submit,
        settings.webhook_decision_tokens if decide is None else decide,
    )


def _of_credential(settings: Settings, name: str, read: Callable[[str], Table]) -> Table | None:
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
    """Raises Misconfigured where the token that everybody knows would be good from elsewhere.

    It decides nowhere: an agent with the host's network reaches the loopback, too.
    """
    if DEV_TOKEN in found.submit and not local:
        raise Misconfigured(
            f"WEBHOOK_TOKEN: {DEV_TOKEN!r} is taken on loopback and Unix sockets only:"
            " set a token of your own"
        )
    if DEV_TOKEN in found.decide:
        raise Misconfigured(f"{DECISION_VARIABLE}: {DEV_TOKEN!r} decides on nothing")
