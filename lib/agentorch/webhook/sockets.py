"""The listening sockets: passed by systemd, or opened here."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentorch.core.errors import Invalid, TryAgain

BACKLOG = 1024


@dataclass(frozen=True)
class Bind:
    """An address to listen on: the `path` of a Unix socket, else a host and a port."""

    host: str = ""
    port: int = 0
    path: Path | None = None


def parse_bind(text: str) -> Bind:
    """Return the address of a `--bind`. Raises Invalid. Pure."""
    if text.startswith("unix:") and text != "unix:" and "\0" not in text:
        return Bind(path=Path(text.removeprefix("unix:")))
    host, _, port = text.rpartition(":")
    if host and port.isascii() and port.isdecimal() and int(port) <= 65535:
        return Bind(host.strip("[]"), int(port))
    raise Invalid([f"--bind: {text!r}: expected HOST:PORT, [ADDRESS]:PORT or unix:PATH"])


@contextlib.contextmanager
def open_sockets(binds: Sequence[Bind]) -> Iterator[list[socket.socket]]:
    """Yield listening sockets; the names of Unix sockets are removed afterwards.

    Raises TryAgain where another process listens there, Invalid for an unknown host.
    """
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(_listening(bind)) for bind in binds]


@contextlib.contextmanager
def _listening(bind: Bind) -> Iterator[socket.socket]:
    if bind.path is None:
        with _internet(bind) as listening:
            yield listening
        return
    with _unix(bind.path) as listening:
        yield listening
        bind.path.unlink(missing_ok=True)


def _internet(bind: Bind) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(
            bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except socket.gaierror as problem:
        raise Invalid([f"--bind: {bind.host}: {problem.strerror}"]) from problem
    except OSError as problem:
        raise TryAgain(f"--bind: {bind.host}:{bind.port}: {problem.strerror}") from problem
    listening.setblocking(False)  # noqa: FBT003  (socket's own)
    return listening


def _unix(path: Path) -> socket.socket:
    if _is_dead(path):
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # only owner and group may connect, from the first moment on
    before = os.umask(0o117)
    try:
        listening.bind(os.fspath(path))
    except OSError as problem:
        listening.close()
        raise TryAgain(f"--bind: unix:{path}: {problem.strerror}") from problem
    finally:
        os.umask(before)
    listening.listen(BACKLOG)
    listening.setblocking(False)  # noqa: FBT003  (socket's own)
    return listening


def _is_dead(path: Path) -> bool:
    """Return whether the path is a socket on which no process listens any more."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return True
        except OSError as problem:
            raise TryAgain(f"--bind: unix:{path}: {problem.strerror}") from problem
    return False


def is_local(listening: socket.socket) -> bool:
    """Return whether only this host can reach a socket."""
    if listening.family == socket.AF_UNIX:
        return True
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def socket_name(listening: socket.socket) -> str:
    """Return the address of a listening socket as people write it."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if listening.family == socket.AF_INET6 else name[0]
    return f"{host}:{name[1]}"
