"""A model provider that says what a test tells it to, on loopback: HTTP/1.1 by hand.

A test's answer is a function that is given the request and its socket, so it decides about every
byte and every moment.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Asked:
    """What arrived."""

    line: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Asked, socket.socket], None]


@dataclass
class Provider:
    """Answers each connection's one request. `asked` are all that came."""

    answer: Answer
    listening: socket.socket
    tls: ssl.SSLContext | None = None
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:  # closed: the test is over
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError), self._wrapped(accepted) as connection:
            asked = read(connection)
            if asked is not None:
                self.asked.append(asked)
                self.answer(asked, connection)

    def _wrapped(self, connection: socket.socket) -> socket.socket:
        return (
            connection if self.tls is None else self.tls.wrap_socket(connection, server_side=True)
        )


def read(connection: socket.socket) -> Asked | None:
    """A request with a Content-Length or none."""
    received = b""
    while b"\r\n\r\n" not in received:
        if not (more := connection.recv(65536)):
            return None
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in rest)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return Asked(line, headers, body)


@contextlib.contextmanager
def provider(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[Provider]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = Provider(answer, listening, tls)
        threading.Thread(target=one.serve, daemon=True).start()
        yield one
        listening.shutdown(socket.SHUT_RDWR)


# ---- answers ----------------------------------------------------------------------------------


def head(status: str = "200 OK", **headers: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


def whole(body: bytes, status: str = "200 OK", **headers: str) -> Answer:
    """An answer in one piece, JSON unless said otherwise."""
    fields = {"Content_Type": "application/json", **headers, "Content_Length": str(len(body))}

    def answer(_: Asked, connection: socket.socket) -> None:
        connection.sendall(head(status, **fields) + body)

    return answer


def events(*parts: bytes, **headers: str) -> Answer:
    """A stream that ends with its connection."""

    def answer(_: Asked, connection: socket.socket) -> None:
        connection.sendall(head(Content_Type="text/event-stream; charset=utf-8", **headers))
        for part in parts:
            connection.sendall(part)

    return answer


def event(document: Any, name: str = "") -> bytes:
    first = f"event: {name}\n" if name else ""
    return f"{first}data: {json.dumps(document)}\n\n".encode()


def message(tokens_in: int = 1000, tokens_out: int = 100, model: str = "claude-sonnet-5") -> bytes:
    """A short answer of the Messages protocol."""
    started = {"model": model, "usage": {"input_tokens": tokens_in, "output_tokens": 1}}
    return (
        event({"type": "message_start", "message": started}, "message_start")
        + event({"type": "content_block_delta", "delta": {"text": "hello"}}, "content_block_delta")
        + event({"type": "message_delta", "usage": {"output_tokens": tokens_out}}, "message_delta")
        + event({"type": "message_stop"}, "message_stop")
    )
