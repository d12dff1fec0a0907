"""One connection, as waitress has it, with what its defaults leave open.

* What waitress refuses by itself is answered as everything is, in JSON, and logged.
* A request that two servers could read differently (RFC 9112, section 6.3) is refused.
* A request has a deadline from its first byte, however busily its bytes drip in.
* Who is refused while still sending gets to read the answer: the connection is closed for writing
  first, and what comes is thrown away for a moment (RFC 9112, section 9.6).
* What is sent of a file is read by small parts, whatever the socket's buffer could take.
"""

from __future__ import annotations

import socket
import time
from http import HTTPStatus
from typing import Any, Protocol, cast

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import ErrorTask

from agentorch.webhook.responses import Answer

LINGER_S = 2.0
MOST_SENT_BYTES = 64 * 1024


class Refuses(Protocol):
    """What an application does about requests that never reach it."""

    def refused(self, status: HTTPStatus, why: str, peer: str) -> Answer:
        """The answer to one; logs it."""


class Parser(HTTPRequestParser):
    """Reads a request; knows when it began."""

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self.began_s = time.monotonic()

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if self.error is not None:
            # nobody is asked to go on with what is refused already
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as trouble:  # half an IPv6 address, a length of thousands of digits
            raise ParsingError("the request line or a header is malformed") from trouble
        if not self.command:
            raise ParsingError("the request line is malformed")
        coded = self.chunked or "TRANSFER_ENCODING" in self.headers
        if coded and (self.version != "1.1" or "CONTENT_LENGTH" in self.headers):
            raise ParsingError("the length of the body is told in two ways")


class Refused(ErrorTask):
    """Answers what the parser refused, and what an application's bug left unanswered."""

    def execute(self) -> None:
        channel = cast(Channel, self.channel)
        error = cast(Any, self.request).error
        application = cast(Refuses, channel.server.application)
        answer = application.refused(HTTPStatus(error.code), str(error.body), channel.addr[0])
        self.status = answer.line
        self.response_headers = [*answer.header_list(), ("Connection", "close")]
        self.close_on_finish = True
        channel.unread = True
        self.content_length = answer.length_bytes
        self.write(answer.content)


class Channel(HTTPChannel):
    """A connection."""

    parser_class = Parser
    error_task_class = Refused
    # set where the client may still be sending what nobody will read
    unread = False
    lingers_until_s: float | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # loopback's buffer has megabytes, takes some of it, and the rest is read again
        self.sendbuf_len = min(self.sendbuf_len, MOST_SENT_BYTES)

    def is_idle(self) -> bool:
        """Whether no request is under way, not even its first byte."""
        return not self.requests and self.request is None and not self.total_outbufs_len

    def is_late(self, now_s: float, patience_s: float) -> bool:
        """Whether its request should have been here by now, or it lingered long enough."""
        if self.lingers_until_s is not None:
            return now_s >= self.lingers_until_s
        request = cast(Parser | None, self.request)
        return request is not None and now_s - request.began_s >= patience_s

    def readable(self) -> bool:
        return self.lingers_until_s is not None or bool(super().readable())

    def writable(self) -> bool:
        return self.lingers_until_s is None and bool(super().writable())

    def handle_read(self) -> None:
        if self.lingers_until_s is None:
            super().handle_read()
        else:
            self.recv(self.adj.recv_bytes)

    def handle_expt(self) -> None:
        # urgent data: nobody sends any, and poll(2) would tell of it for ever
        self.cut()

    def handle_close(self) -> None:
        if self.unread and self.connected:
            self.unread = False
            self._linger()
        else:
            super().handle_close()

    def _linger(self) -> None:
        try:
            cast(socket.socket, self.socket).shutdown(socket.SHUT_WR)
        except OSError:  # it is gone by itself
            super().handle_close()
        else:
            self.lingers_until_s = time.monotonic() + LINGER_S

    def cut(self) -> None:
        """Closes the connection, whatever is under way on it."""
        self.unread = False
        super().handle_close()
