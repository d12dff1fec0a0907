"""The answers to a client, as values. Pure.

Every error has the form `{"detail": "…"}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, BinaryIO

JSON = "application/json"
# The headers of every answer: no cache keeps it, no browser guesses another type or runs it.
ALWAYS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
RETRY_AFTER_S = 30


@dataclass(frozen=True)
class Answer:
    """An answer: its status, its content, and its headers besides those of every answer.

    Where `file` is set, it is sent instead of `content`, with `size_bytes` as its length; the
    sender closes it. `job_id` is the job in question, for the log.
    """

    status: HTTPStatus
    content: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    file: BinaryIO | None = None
    size_bytes: int | None = None
    job_id: str | None = None

    @property
    def length_bytes(self) -> int:
        return len(self.content) if self.size_bytes is None else self.size_bytes

    @property
    def line(self) -> str:
        """The status as it is in the status line, such as `200 OK`."""
        return f"{self.status.value} {self.status.phrase}"

    def header_list(self) -> list[tuple[str, str]]:
        """Return all headers, in the order in which they are sent."""
        headers = {
            "Content-Type": self.content_type,
            "Content-Length": str(self.length_bytes),
            **ALWAYS,
            **self.headers,
        }
        return list(headers.items())


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.line)
        self.answer = answer


def document(content: Any, *, job_id: str | None = None) -> Answer:
    """Return the answer 200 with a JSON document."""
    return Answer(HTTPStatus.OK, encode_json(content), job_id=job_id)


def problem(
    status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None, **known: Any
) -> Answer:
    """Return the answer of an error."""
    return Answer(status, encode_json({"detail": detail}), headers=headers or {}, **known)


def try_again(detail: str, after_s: int = RETRY_AFTER_S) -> Answer:
    """Return the answer 503: the request can be tried again after a time."""
    headers = {"Retry-After": str(after_s)}
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers)


def encode_json(content: Any) -> bytes:
    """Return a document as the bytes of a body."""
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
