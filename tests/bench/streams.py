"""A model provider that says when it sent each event, and a client that says when it came.

Both read one clock: what lies between the two moments is the way. Standard library alone, and both
ends as bare as they can be, so that what is measured is what is between them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agentorch.system.descendants import die_with_parent

PIECE_BYTES = 1 << 16
Connect = Callable[[], socket.socket]
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\n\r\n"
)
SENT = re.compile(rb'"sent": (\d+)}')
END = b"0\r\n\r\n"


@dataclass(frozen=True)
class Stream:
    """What is asked for: so many events of this size, with a pause between two."""

    events: int
    size_bytes: int = 64
    gap_s: float = 0

    def request(self, token: str, path: str) -> bytes:
        """A request of a size that Claude Code's have: the provider is told in its body."""
        asked = {
            "model": "claude-sonnet-5",
            "stream": True,
            "bench": vars(self),
            "more": 88_000 * "x",
        }
        body = json.dumps(asked).encode()
        lines = (
            f"POST {path} HTTP/1.1",
            "Host: localhost",
            f"x-api-key: {token}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        return "\r\n".join((*lines, "", "")).encode() + body


@dataclass(frozen=True)
class Heard:
    """How long the first event took from the request on, and each event from its sending on."""

    first_s: float
    events_s: tuple[float, ...]
    count_bytes: int


def ask(connect: Connect, request: bytes, *, pause_s: float = 0) -> Heard:
    """Asks on a new connection, reads nothing for a while, and then the whole answer."""
    began = time.monotonic_ns()
    with connect() as connection:
        connection.sendall(request)
        if pause_s:
            time.sleep(pause_s)
        return _heard(connection, began)


def _heard(connection: socket.socket, began_ns: int) -> Heard:
    took: list[float] = []
    first_s, count, rest = 0.0, 0, b""
    while not rest.endswith(END):
        piece = connection.recv(PIECE_BYTES)
        now = time.monotonic_ns()
        if not piece:
            raise RuntimeError(f"the answer broke off: {rest[-500:]!r}")
        count += len(piece)
        rest = rest[-64:] + piece
        for found in SENT.finditer(rest):
            first_s = first_s or (now - began_ns) / 1e9
            took.append((now - int(found[1])) / 1e9)
            rest = rest[found.end() :] if found.end() == len(rest) else rest
    return Heard(first_s, tuple(took), count)


# ---- the provider -----------------------------------------------------------------------------


@contextmanager
def provider() -> Iterator[tuple[str, int]]:
    """A provider in a process of its own; where it listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        pid = os.fork()
        if not pid:
            die_with_parent()
            _serve(listening)
        try:
            yield listening.getsockname()
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _serve(listening: socket.socket) -> None:
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        asked = _asked(connection)
        stream = Stream(**asked["bench"])
        connection.sendall(HEAD)
        for _ in range(stream.events):
            connection.sendall(_chunk(stream.size_bytes))
            if stream.gap_s:
                time.sleep(stream.gap_s)
        connection.sendall(END)


def _asked(connection: socket.socket) -> dict[str, Any]:
    head, _, body = connection.recv(PIECE_BYTES).partition(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", head)
    if found is None:
        raise RuntimeError(head)
    while len(body) < int(found[1]):
        body += connection.recv(PIECE_BYTES)
    document: dict[str, Any] = json.loads(body)
    return document


def _chunk(size_bytes: int) -> bytes:
    text = size_bytes * "x"
    delta = {"type": "text_delta", "text": text}
    event = {"type": "content_block_delta", "index": 0, "delta": delta}
    event["sent"] = time.monotonic_ns()
    content = f"event: content_block_delta\ndata: {json.dumps(event)}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(content), content)
