"""Requests' bodies in memory: each bounded, and all together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

MOST_BYTES = 64 << 20
MOST_OF_ALL_BYTES = 256 << 20


class TooLarge(Exception):
    """A body that is not taken. str() is for people."""


class Incomplete(Exception):
    """The client went away, or was wrong about its body's form."""


class Bodies:
    """Counts what is in memory."""

    def __init__(self, most: int = MOST_BYTES, most_of_all: int = MOST_OF_ALL_BYTES) -> None:
        self._most = most
        self._most_of_all = most_of_all
        self._kept = 0

    @asynccontextmanager
    async def read(self, request: web.BaseRequest) -> AsyncIterator[bytes]:
        """Return the body of a request, counted until it is done with. Raises TooLarge,
        Incomplete.
        """
        if (request.content_length or 0) > self._most:
            raise TooLarge(f"the request is larger than {self._most >> 20} MiB")
        body = bytearray()
        try:
            async for chunk in _chunks(request):
                self._kept += len(chunk)
                body += chunk
                self._check(len(body))
            yield bytes(body)
        finally:
            self._kept -= len(body)

    def _check(self, taken: int) -> None:
        if taken > self._most:
            raise TooLarge(f"the request is larger than {self._most >> 20} MiB")
        if self._kept > self._most_of_all:
            raise TooLarge("too many large requests at once")


async def _chunks(request: web.BaseRequest) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except (OSError, web.RequestPayloadError, aiohttp.ClientPayloadError) as problem:
        raise Incomplete from problem
