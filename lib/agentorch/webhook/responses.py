"""What is said to a client, as values. Pure.

An error is `{"detail": "…"}`, whatever it is about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, BinaryIO

JSON = "application/json"
# Said with every answer: nobody guesses another type, keeps a copy, or runs what he was sent.
ALWAYS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
RETRY_AFTER_S = 30


@dataclass(frozen=True)
class Answer:
    """An answer: its status, what is in it, its headers beside those of every answer.

    `file` is sent instead of `content` where it is set, `size_bytes` of it; whoever sends it
    closes it. `job_id` is the job that it is about, for the log.
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
        """The status line's part: `200 OK`."""
        return f"{self.status.value} {self.status.phrase}"

    def header_list(self) -> list[tuple[str, str]]:
        """All headers, in the order in which they are sent."""
        told = {
            "Content-Type": self.content_type,
            "Content-Length": str(self.length_bytes),
            **ALWAYS,
            **self.headers,
        }
        return list(told.items())


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.line)
        self.answer = answer


def document(content: Any, *, job_id: str | None = None) -> Answer:
    """A JSON document as the answer."""
    return Answer(HTTPStatus.OK, encoded(content), job_id=job_id)


def problem(
    status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None, **known: Any
) -> Answer:
    """An error."""
    return Answer(status, encoded({"detail": detail}), headers=headers or {}, **known)


def try_again(detail: str, after_s: int = RETRY_AFTER_S) -> Answer:
    """What can't be done now: 503."""
    headers = {"Retry-After": str(after_s)}
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers)


def encoded(content: Any) -> bytes:
    """A document as the bytes of a body."""
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
