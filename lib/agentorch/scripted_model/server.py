"""The model double: speaks the three streaming protocols well enough for the real CLIs.

A list of answers is played, one a request for a model's answer; when it is used up, the last one
is played again. Every request is kept, for tests that look at what was sent.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, cast

from agentorch.scripted_model.script import Answer, Broken, Fault, Hang, Turn
from agentorch.scripted_model.tools import command_call
from agentorch.system.descendants import die_with_parent


class Wire(Protocol):
    """A protocol's events; a module beside this one for each."""

    def events(self, turn: Turn, request: dict[str, Any]) -> Iterable[bytes]:
        """Return the stream of an answer, an event each; the text's events are `turn.pieces` of
        them.
        """

    def beginning(self, text: str, request: dict[str, Any]) -> Iterable[bytes]:
        """Return the first events of an answer that is never finished."""

    def whole(self, turn: Turn, request: dict[str, Any]) -> bytes:
        """Return the body of an answer to a request that asked for no stream."""

    def fault(self, fault: Fault) -> bytes:
        """Return the body of an error."""


# The end of a path, and the module that speaks what is asked for there.
WIRES = {
    "/v1/messages": "anthropic",
    "/v1/responses": "responses",
    "/v1/chat/completions": "chat",
}


@dataclass(frozen=True)
class ModelRequest:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The body, parsed."""
        return cast(dict[str, Any], json.loads(self.body))


class ModelDouble:
    """The double, listening on loopback. `answers` may be replaced between runs."""

    def __init__(self, answers: Sequence[Answer], listening: socket.socket | None = None) -> None:
        self.answers = list(answers)
        self.asked: list[ModelRequest] = []
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._played = 0
        double = self

        class Bound(_Connection):
            model = double

        self._server = _Server(("127.0.0.1", 0), Bound, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = listening or socket.create_server(("127.0.0.1", 0))

    @property
    def url(self) -> str:
        """Return what a base URL begins with; no path."""
        return f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def play(self, answers: Sequence[Answer]) -> None:
        """Other answers from now on."""
        with self._lock:
            self.answers, self._played = list(answers), 0
            self.asked.clear()

    def next(self, asked: ModelRequest) -> Answer:
        """Return the answer to a request, which is kept."""
        with self._lock:
            self.asked.append(asked)
            answer = self.answers[min(self._played, len(self.answers) - 1)]
            self._played += 1
            return answer

    def serve(self) -> None:
        """Answers until `close`."""
        self._server.serve_forever()

    def close(self) -> None:
        """End everything that hangs, and the double."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


def with_offered_tool(turn: Turn, request: Mapping[str, Any]) -> Turn:
    """Return the turn with its command as a call of a tool that the request offers. Pure."""
    if not turn.command:
        return turn
    call = command_call(request, turn.command)
    if call is None:
        return replace(turn, text=f"{turn.text}There is no tool that runs commands.")
    return replace(turn, calls=(*turn.calls, call))


@contextmanager
def playing(answers: Sequence[Answer]) -> Iterator[ModelDouble]:
    """Return a double that answers so, in a thread of this process."""
    double = ModelDouble(answers)
    thread = threading.Thread(target=double.serve)
    thread.start()
    try:
        yield double
    finally:
        double.close()
        thread.join()


@contextmanager
def serving(listening: socket.socket, answers: Sequence[Answer]) -> Iterator[None]:
    """Return a double on this socket in a process of its own: the caller's has one thread and keeps
    it.
    """
    pid = os.fork()
    if not pid:
        die_with_parent()
        ModelDouble(answers, listening).serve()
        os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Return a connection; of a Unix socket nobody has an address."""
        connection, _ = self.socket.accept()
        return connection, ("local", 0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what went wrong; that a client hangs up is not wrong."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: ModelDouble

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Log nothing."""

    def do_GET(self) -> None:
        self._send(200, b'{"object": "list", "data": []}')

    def do_HEAD(self) -> None:
        self._send(200, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = ModelRequest(self.path, dict(self.headers.items()), body)
        path = self.path.partition("?")[0]
        if path.endswith("/v1/messages/count_tokens"):
            self._send(200, b'{"input_tokens": 100}')
            return
        wire = next((name for end, name in WIRES.items() if path.endswith(end)), None)
        if wire is None:
            self._send(404, b'{"error": {"message": "no such path"}}')
            return
        self._answer(
            self.model.next(asked),
            asked,
            cast(Wire, importlib.import_module(f"agentorch.scripted_model.{wire}")),
        )

    def _answer(self, answer: Answer, asked: ModelRequest, wire: Wire) -> None:
        match answer:
            case Fault():
                after = {"Retry-After": answer.retry_after} if answer.retry_after else {}
                self._send(answer.status, wire.fault(answer), {**after, **answer.headers})
            case Hang():
                self.model.over.wait()
                self.close_connection = True
            case Broken():
                self._break(answer, asked, wire)
            case Turn():
                self._stream(with_offered_tool(answer, asked.document), asked, wire)

    def _stream(self, turn: Turn, asked: ModelRequest, wire: Wire) -> None:
        time.sleep(turn.before_s)
        if not asked.document.get("stream"):
            self._send(200, wire.whole(turn, asked.document))
            return
        self._begin()
        for event in wire.events(turn, asked.document):
            self._chunk(event)
            time.sleep(turn.between_s)
        self._chunk(b"")

    def _break(self, broken: Broken, asked: ModelRequest, wire: Wire) -> None:
        self._begin()
        for event in wire.beginning(broken.text, asked.document):
            self._chunk(event)
        if broken.how == "garbage":
            self._chunk(b"event: \xff\xfe\ndata: {not json\n\n")
            self._chunk(b"")
        elif broken.how == "stall":
            self.model.over.wait()
        self.close_connection = True

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
