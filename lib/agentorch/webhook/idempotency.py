"""Idempotency keys: which header says that a request is one that came before. Pure.

Only what its sender repeats on purpose is a key, and never a body. The Idempotency-Key header is
the IETF's draft (draft-ietf-httpapi-idempotency-key-header; GitLab sends it), Webhook-Id that of
the Standard Webhooks; the others are the delivery ids of GitHub, Forgejo, Gitea, Gogs and
Bitbucket. Not GitLab's X-Gitlab-Event-UUID and X-Gitlab-Webhook-UUID: events that follow from one
another share the first, all events of a hook the second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus

from agentorch.webhook.responses import Refusal, problem

# The first that is there counts: Gitea and Forgejo send their elders' headers, too.
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


def key(headers: Mapping[str, str]) -> str | None:
    """The key of a request, None where it has none; `headers` by their names in lower case.

    Raises Refusal (400) for one that is no key.
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


def digest(token_digest: bytes, project: str | None, given: str) -> str:
    """The name of a key in the queue: nobody meets a key of another token or project."""
    scope = b"\0".join((token_digest, (project or "").encode(), given.encode()))
    return sha256(scope).hexdigest()
