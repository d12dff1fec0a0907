"""The first bytes of a connection: a CONNECT, or a request for the HTTP server.

aiohttp's server answers a CONNECT like any request and can't hand the connection out, so what
listens on the broker's socket is this, which looks at the first word and then steps aside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

METHOD = b"CONNECT "
# A client may open a connection before it has anything to say.
FIRST_WORD_S = 120


class FrontDoor(asyncio.Protocol):
    """The choice for a new connection: `tunnels()` where it starts with CONNECT, else
    `requests()`.
    """

    def __init__(
        self,
        requests: Callable[[], asyncio.BaseProtocol],
        tunnels: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        self._requests = requests
        self._tunnels = tunnels
        self._received = b""
        self._deadline: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first word."""
        self._transport = cast(asyncio.Transport, transport)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(FIRST_WORD_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Step aside as soon as the first bytes show which of the two it is."""
        self._received += data
        if len(self._received) < len(METHOD) and METHOD.startswith(self._received):
            return
        choose = self._tunnels if self._received.startswith(METHOD) else self._requests
        self._hand_over(cast(asyncio.Protocol, choose()))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a client that left without a word."""
        self._no_deadline()

    def _hand_over(self, protocol: asyncio.Protocol) -> None:
        assert self._transport is not None
        self._no_deadline()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._received)

    def _no_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
