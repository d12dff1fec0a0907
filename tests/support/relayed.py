"""The relay as a program, with a broker behind it that does what a test wants."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agentorch.broker import relay

PROGRAM = str(Path(relay.__file__))
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
PATIENCE_S = 30

Serve = Callable[[socket.socket], None]


def echo(connection: socket.socket) -> None:
    """Gives back what comes, and ends when that ends."""
    while received := connection.recv(1 << 16):
        connection.sendall(received)


@contextlib.contextmanager
def broker(path: Path, serve: Serve = echo, backlog: int = 128) -> Iterator[None]:
    """A Unix socket whose connections are each served in a thread."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with standing_in(path.parent):
            listener.bind(path.name)
        path.chmod(0o666)
        listener.listen(backlog)
        threading.Thread(target=_accept, args=(listener, serve), daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def standing_in(directory: Path) -> Iterator[None]:
    """For the time being the current directory: bind(2) takes 108 bytes."""
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def _accept(listener: socket.socket, serve: Serve) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # shut down
            return
        threading.Thread(target=served, args=(connection, serve), daemon=True).start()


def served(connection: socket.socket, serve: Serve) -> None:
    """Serves one connection to its end."""
    with connection, contextlib.suppress(OSError):  # whatever breaks, the test sees its own end
        serve(connection)


class Relayed:
    """A relay that runs, and the port that it listens on."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)

    def status(self, field: str) -> int:
        """A field of /proc/PID/status, in KiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(
            next(line for line in text.splitlines() if line.startswith(f"{field}:")).split()[1]
        )

    def left(self) -> int:
        """The exit code, once it is there."""
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def relayed(path: Path, *command: str, **more: Any) -> Iterator[Relayed]:
    """The relay with a port of its own; by default its command waits until the test is over."""
    waiting = command or ("sh", "-c", "read line")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener_fd = listener.fileno()
        process = subprocess.Popen(
            relay_line(path, "--listen-fd", str(listener_fd), command=waiting),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(listener_fd,),
            **more,
        )
    with process:
        yield Relayed(process, port)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(PATIENCE_S)


def relay_line(path: Path | str, *options: str, command: tuple[str, ...]) -> list[str]:
    return [PYTHON, "-I", "-S", PROGRAM, "--socket", str(path), *options, "--", *command]


def all_of(connection: socket.socket) -> bytes:
    """Everything until the end."""
    pieces = []
    while piece := connection.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes."""
    received = b""
    while len(received) < count:
        piece = connection.recv(count - len(received))
        if not piece:
            break
        received += piece
    return received
