"""Idempotency keys: the headers by which a repeated request is recognized. Pure.

Only a value that the sender repeats on purpose is a key; equal bodies are not. Idempotency-Key is
the IETF's draft (draft-ietf-httpapi-idempotency-key-header; GitLab sends it), Webhook-Id is that of
the Standard Webhooks; the others are the delivery ids of GitHub, Forgejo, Gitea, Gogs and
Bitbucket. GitLab's X-Gitlab-Event-UUID and X-Gitlab-Webhook-UUID are not used: events that follow
from one another share the first, and all events of a hook share the second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus

from agentorch.webhook.responses import Refusal, problem

# The first that is present counts: Forgejo sends Gitea's and Gogs's headers, too, Gitea Gogs's.
HEADERS = (
    "Idempotency-Key",
    "Webhook-Id",
    "X-GitHub-Delivery",
    "X-Forgejo-Delivery",
    "X-Gitea-Delivery",
    "X-Gogs-Delivery",
    "X-Request-UUID",
)
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


def idempotency_key(headers: Mapping[str, str]) -> str | None:
    """Return the key of a request, None without one; the names of `headers` are in lower case.

    Raises Refusal (400) for a key that is not valid.
    """
    for name in HEADERS:
        found = headers.get(name.lower())
        if found is None:
            continue
        if not _KEY.fullmatch(found):
            detail = f"{name}: expected 1 to 255 printable ASCII characters"
            raise Refusal(problem(HTTPStatus.BAD_REQUEST, detail))
        return found
    return None


def key_digest(token_digest: bytes, project: str | None, given: str) -> str:
    """Return the name of a key in the queue; keys of other tokens and projects never collide."""
    scope = b"\0".join((token_digest, (project or "").encode(), given.encode()))
    return sha256(scope).hexdigest()
