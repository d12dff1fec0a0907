"""Calls to providers: one client for all, and a limit on every wait that the agents' CLIs lack."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL


@dataclass(frozen=True)
class Patience:
    """The limits of waits, in seconds.

    connect: TCP and TLS; across the world it is one. first_byte: a stream's headers come before
    the model thinks, so minutes mean that nobody is there. whole_answer: one that is no stream
    comes when it is complete, which the vendors' own clients give ten minutes. idle: providers send
    pings every few seconds; Codex and Claude Code use the same five minutes where they look at
    all. total: no step lasts longer than an hour.
    """

    connect_s: float = 15
    first_byte_s: float = 300
    whole_answer_s: float = 900
    idle_s: float = 300
    total_s: float = 3600


class Unanswered(Exception):
    """There is no answer, or no more of it. str() is for people, and has nothing of the request."""


@dataclass(frozen=True)
class Asking:
    """A request to a provider. `deadline` is the loop's time when all has to be over."""

    method: str
    url: str
    host: str
    headers: Mapping[str, str]
    body: bytes | None
    stream: bool
    deadline: float


class Upstream:
    """The client. It follows no redirect, keeps no cookie, and reads no proxy from anywhere."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=patience.connect_s),
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        )

    async def close(self) -> None:
        """Drop all connections."""
        await self._client.close()

    @asynccontextmanager
    async def ask(self, asking: Asking) -> AsyncIterator[aiohttp.ClientResponse]:
        """Return the answer, when its headers are there. Raises Unanswered."""
        first = self._patience.first_byte_s if asking.stream else self._patience.whole_answer_s
        try:
            async with asyncio.timeout(self._time_left(asking, first)):
                answer = await self._client.request(
                    asking.method,
                    URL(asking.url, encoded=True),
                    headers=asking.headers,
                    data=asking.body,
                    allow_redirects=False,
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as problem:
            raise Unanswered(_words(asking.host, problem)) from problem
        try:
            yield answer
        finally:
            answer.close()  # it was read to its end, or nobody wants the rest

    async def chunks(self, asking: Asking, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Return the answer's body as it comes.

        Raises Unanswered where it breaks off or stands still.
        """
        while True:
            try:
                async with asyncio.timeout(self._time_left(asking, self._patience.idle_s)):
                    chunk = await answer.content.readany()
            except TimeoutError as problem:
                raise Unanswered(f"{asking.host} stopped in the middle of its answer") from problem
            except (aiohttp.ClientError, OSError, ValueError) as problem:
                raise Unanswered(f"{asking.host} broke off its answer") from problem
            if not chunk:
                return
            yield chunk

    @staticmethod
    def _time_left(asking: Asking, most_s: float) -> float:
        return min(most_s, max(0.0, asking.deadline - asyncio.get_running_loop().time()))


def _words(host: str, problem: Exception) -> str:
    """Return what went wrong before an answer came, in words of ours."""
    match problem:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return f"{host} is unreachable: its certificate is not trusted, or TLS failed"
        case aiohttp.ClientConnectorError():
            number = problem.os_error.errno
            why = os.strerror(number) if number and number > 0 else "its name has no address"
            return f"{host} is unreachable: {why}"
        case aiohttp.ServerTimeoutError():
            return f"{host} is unreachable: it did not take the connection in time"
        case TimeoutError():
            return f"{host} did not answer in time"
        case aiohttp.ClientResponseError():
            return f"{host} answered with what is not HTTP"
    return f"{host} closed the connection without an answer"
