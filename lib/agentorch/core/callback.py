"""Callbacks: how one is signed, and what follows from its answer. Pure.

Signed by the Standard Webhooks scheme (https://www.standardwebhooks.com/): HMAC-SHA256 over
`ID.TIMESTAMP.BODY`, a signature a secret. The id is made of the job, the number of its end and the
status, so a second try has the same: a receiver that has seen it answers well and does nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

GIVE_UP_S = 24 * 3600
DELAYS_S = (60, 300, 900, 1800, 3600, 7200, 10800)
MOST_RETRY_AFTER_S = 3600
GONE = 410


def webhook_id(job_id: str, end: int, status: str) -> str:
    """Return the id of a message: the same whenever it is sent again."""
    return f"msg_{hashlib.sha256(f'{job_id}:{end}:{status}'.encode()).hexdigest()[:32]}"


def headers(
    secrets: Iterable[bytes], message_id: str, timestamp_s: int, body: bytes
) -> dict[str, str]:
    """Return the scheme's headers; without a secret there is no signature."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    signatures = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets)
    signature = " ".join(f"v1,{base64.b64encode(one).decode()}" for one in signatures)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        **({"webhook-signature": signature} if signature else {}),
    }


@dataclass(frozen=True)
class Answer:
    """The answer to one try: a status, or None and why there is none."""

    status: int | None
    words: str = ""
    retry_after_s: float = 0


@dataclass(frozen=True)
class Delivered:
    """It was taken."""


@dataclass(frozen=True)
class Again:
    """The decision to try again after so many seconds."""

    after_s: float
    reason: str


@dataclass(frozen=True)
class GivenUp:
    """The decision to try no more, unless a human says so."""

    reason: str


def next_delivery(answer: Answer, tries: int, age_s: float) -> Delivered | Again | GivenUp:
    """Return what follows from the answer to the try of this number (1 is the first)."""
    if answer.status is not None and 200 <= answer.status < 300:
        return Delivered()
    reason = answer.words if answer.status is None else f"answered {answer.status}"
    if answer.status == GONE:
        return GivenUp(f"{reason}: it wants no more")
    delay_s: float = DELAYS_S[min(tries, len(DELAYS_S)) - 1]
    delay_s = max(delay_s, min(answer.retry_after_s, MOST_RETRY_AFTER_S))
    if age_s + delay_s > GIVE_UP_S:
        return GivenUp(f"{reason}, after {tries} tries in {int(age_s)} s")
    return Again(delay_s, reason)
