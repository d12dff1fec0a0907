"""A client that leaves at any moment of an answer is nobody's error."""

from __future__ import annotations

import contextlib
import socket

from tests.support.broker import Start, at
from tests.support.provider import Asked, head, message, provider

TIMES = 20


def test_a_client_that_goes_away_while_it_is_written_to(start: Start) -> None:
    def floods(_: Asked, connection: socket.socket) -> None:
        connection.sendall(head(Content_Type="text/event-stream"))
        with contextlib.suppress(OSError):  # the broker left, too
            while True:
                connection.sendall(message())

    with provider(floods) as one:
        site = start(**at(one.url))
        for _ in range(TIMES):
            with site.ask() as answer:
                answer.read1(65536)
                site.hang_up()
            site.connections.clear()
        assert site.account().calls == TIMES
    assert "rror" not in site.said()
