"""The connections of waitress, with what its defaults leave open.

* A request that waitress refuses by itself is answered in JSON as all others are, and logged.
* A request that two servers could read differently (RFC 9112, section 6.3) is refused.
* A request has a deadline that begins with its first byte, however steadily the bytes arrive.
* A client that is refused while it still sends can read the answer: the connection is closed for
  writing first, and what arrives is thrown away for a moment (RFC 9112, section 9.6).
* A file is read and sent in small parts, whatever the buffer of the socket could take.
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
MAX_SENT_BYTES = 64 * 1024


class Refuser(Protocol):
    """An application that answers requests which waitress could not read."""

    def refuse(self, status: HTTPStatus, why: str, peer: str) -> Answer:
        """Return the answer to such a request, and log it."""


class Parser(HTTPRequestParser):
    """A parser of requests that knows when its request began."""

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self.began_s = time.monotonic()

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if self.error is not None:
            # no "100 Continue" for a request that is refused already
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except (
            ValueError
        ) as trouble:  # for example half an IPv6 address, or a length with thousands of digits
            raise ParsingError("the request line or a header is malformed") from trouble
        if not self.command:
            raise ParsingError("the request line is malformed")
        coded = self.chunked or "TRANSFER_ENCODING" in self.headers
        if coded and (self.version != "1.1" or "CONTENT_LENGTH" in self.headers):
            raise ParsingError("the request gives the length of its body in two ways")


class RefusalTask(ErrorTask):
    """The answer to a request that the parser refused, or that met a bug of the application."""

    def execute(self) -> None:
        channel = cast(Channel, self.channel)
        error = cast(Any, self.request).error
        application = cast(Refuser, channel.server.application)
        answer = application.refuse(HTTPStatus(error.code), str(error.body), channel.addr[0])
        self.status = answer.line
        self.response_headers = [*answer.header_list(), ("Connection", "close")]
        self.close_on_finish = True
        channel.unread = True
        self.content_length = answer.length_bytes
        self.write(answer.content)


class Channel(HTTPChannel):
    """A connection with a deadline for its requests, and with a lingering close."""

    parser_class = Parser
    error_task_class = RefusalTask
    # set where the client may still be sending a body that will not be read
    unread = False
    lingers_until_s: float | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # The loopback's buffer is megabytes large: without this limit as much would be read from a
        # file at once, a part of it sent, and the rest read again.
        self.sendbuf_len = min(self.sendbuf_len, MAX_SENT_BYTES)

    def is_idle(self) -> bool:
        """Return whether no request is under way, not even its first byte."""
        return not self.requests and self.request is None and not self.total_outbufs_len

    def is_late(self, now_s: float, patience_s: float) -> bool:
        """Return whether its request is overdue, or it has lingered long enough."""
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
        # Urgent data has no use in HTTP, and poll(2) would report it again and again.
        self.close_now()

    def handle_close(self) -> None:
        if self.unread and self.connected:
            self.unread = False
            self._linger()
        else:
            super().handle_close()

    def _linger(self) -> None:
        try:
            cast(socket.socket, self.socket).shutdown(socket.SHUT_WR)
        except OSError:  # the client has closed it already
            super().handle_close()
        else:
            self.lingers_until_s = time.monotonic() + LINGER_S

    def close_now(self) -> None:
        """Close the connection, whatever is under way on it."""
        self.unread = False
        super().handle_close()
