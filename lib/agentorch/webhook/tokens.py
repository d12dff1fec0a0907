"""Who may ask for what: bearer tokens, each with its projects.

A token is only ever compared as its digest, with every digest that is known, in constant time; the
digest is also all that is kept and said of it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path

from agentorch import variables
from agentorch.errors import Misconfigured
from agentorch.settings import DEV_TOKEN, Settings
from agentorch.webhook.answers import Refusal, problem

CREDENTIAL = "webhook-tokens"
Scopes = Mapping[str, frozenset[str] | None]


@dataclass(frozen=True)
class Caller:
    """Whose token it is: the token's digest, and its projects; None: all of them."""

    digest: bytes
    projects: frozenset[str] | None

    def may(self, project: object) -> bool:
        """Whether the token is good for this project; a scoped one never for no project."""
        return self.projects is None or (isinstance(project, str) and project in self.projects)


def callers(scopes: Scopes) -> tuple[Caller, ...]:
    """The callers that these tokens make. Pure."""
    return tuple(Caller(sha256(token.encode()).digest(), it) for token, it in scopes.items())


def bearer(header: str | None) -> str | None:
    """The token in an Authorization header (RFC 6750); None: there is none. Pure."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def identify(token: str, known: Iterable[Caller]) -> Caller | None:
    """The caller of this token. It takes as long for each, and for none of them. Pure."""
    digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
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


def refuse_outside(caller: Caller, project: object) -> None:
    """Raises Refusal where a token is not good for a project."""
    if not caller.may(project):
        named = "a job without a project" if project is None else "this project"
        raise Refusal(problem(HTTPStatus.FORBIDDEN, f"the token is not for {named}"))


def scopes(settings: Settings) -> Scopes:
    """The tokens: those of the unit's credential, where it has one, else of the variables.

    Raises Misconfigured; what is in the file stays unsaid.
    """
    directory = settings.environment.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return settings.webhook_tokens
    path = Path(directory) / CREDENTIAL
    try:
        return variables.tokens(",".join(path.read_text("utf-8").splitlines()))
    except FileNotFoundError:
        return settings.webhook_tokens
    except OSError as trouble:
        raise Misconfigured(f"{path}: {trouble.strerror}") from trouble
    except ValueError as trouble:
        raise Misconfigured(f"{path}: {trouble}") from None


def refuse_dev_token(found: Scopes, *, local: bool) -> None:
    """Raises Misconfigured where the token that everybody knows would be good from elsewhere."""
    if DEV_TOKEN in found and not local:
        raise Misconfigured(
            f"WEBHOOK_TOKEN: {DEV_TOKEN!r} is taken on loopback and Unix sockets only:"
            " set a token of your own"
        )
