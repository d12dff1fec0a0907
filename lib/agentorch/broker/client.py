"""The broker as a step sees it: its socket, its grant, its account; and a broker of its own.

    DIRECTORY/socket        what is bound into the sandbox, 0600
    DIRECTORY/grants/       the grants that the broker reads

A path of a Unix socket has 107 bytes at most (unix(7)), a job's directory may be longer: it is
reached through its directory's descriptor.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import agentorch
from agentorch.broker import providers
from agentorch.broker.account import Account, account_of
from agentorch.broker.grants import Grant, new_token, write_grant
from agentorch.config.settings import Settings
from agentorch.core.errors import TryAgain

__all__ = [
    "Account",
    "Grant",
    "account",
    "connect",
    "environment_of",
    "get",
    "grants_directory",
    "listen",
    "new_token",
    "running",
    "socket_path",
    "write_grant",
]

_BACKLOG = 128
_PIECE_BYTES = 1 << 16
# The first answer may wait for the broker to start.
_ANSWER_S = 30
_END_S = 5
# Beside the keys and the base URLs, which the table of providers names.
_PASSED = frozenset(
    {
        *("PATH", "HOME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "LOG_LEVEL"),
        *("LOG_JSON", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"),
        *("AGENTORCH_CONFIG_DIR", "AGENTORCH_ENV_FILE", "AGENTORCH_STATE_DIR", "XDG_STATE_HOME"),
    }
)


def socket_path(directory: Path) -> Path:
    """Return the socket of a step's own broker."""
    return directory / "socket"


def grants_directory(directory: Path) -> Path:
    """Return the grants of a step's own broker."""
    return directory / "grants"


# ---- sockets ----------------------------------------------------------------------------------


def listen(path: Path) -> socket.socket:
    """Return a listening Unix socket that nobody but its owner can connect to."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # bind(2) gives the name the mode that the socket has, so there is no moment without it.
        os.fchmod(listening.fileno(), 0o600)
        with _reachable(path) as name:
            listening.bind(name)
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def connect(path: Path, timeout_s: float = _ANSWER_S) -> socket.socket:
    """Return a connection to a Unix socket. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(timeout_s)
        with _reachable(path) as name:
            connection.connect(name)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def account(path: Path, token: str, timeout_s: float = _ANSWER_S) -> Account:
    """Return what a grant was used for, asked of the broker at this socket. Raises TryAgain."""
    try:
        status, body = get(path, "/agentorch/account", token, timeout_s)
        if status != 200:
            raise TryAgain(f"{path}: the broker answered {status} to a question")
        return account_of(json.loads(body))
    except (OSError, ValueError) as problem:
        raise TryAgain(f"{path}: the broker does not answer: {problem}") from problem


def get(path: Path, what: str, token: str, timeout_s: float = _ANSWER_S) -> tuple[int, str]:
    """Return what the broker at this socket answers to a GET: status and body. Raises OSError.

    Spoken by hand: every step asks, and http.client brings TLS and mail with it.
    """
    # HTTP/1.0: the answer comes as it is, and ends with its connection
    lines = (f"GET {what} HTTP/1.0", "Host: localhost", f"Authorization: Bearer {token}", "", "")
    with connect(path, timeout_s) as connection:
        connection.sendall("\r\n".join(lines).encode())
        answer = b"".join(iter(lambda: connection.recv(_PIECE_BYTES), b""))
    return parse_answer(answer)


def parse_answer(answer: bytes) -> tuple[int, str]:
    """Return status and body of an HTTP answer.

    Raises OSError where it is none, or not whole. Pure.
    """
    head, _, body = answer.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3})\b", head)
    length = re.search(rb"(?im)^content-length: *(\d+)\r?$", head)
    if status is None or (length is not None and len(body) != int(length[1])):
        raise ConnectionError("it broke off its answer")
    return int(status[1]), body.decode("utf-8", "replace")


# ---- a broker of one's own --------------------------------------------------------------------


def environment_of(settings: Settings) -> dict[str, str]:
    """Return what of the settings' environment a broker needs: keys, base URLs, where files are.

    Raises Misconfigured where the table of providers is wrong.
    """
    known = providers.load(settings.providers, settings.environment)
    keys = [one.key_variable for one in known.values() if one.key_variable]
    ends = tuple(key + end for key in keys for end in (".", "@"))
    wanted = {*_PASSED, *keys, *providers.url_variables(settings.providers)}
    return {
        name: value
        for name, value in settings.environment.items()
        if name in wanted or name.startswith(ends)
    }


def broker_argv(grants: Path, parent: int, descriptor: int) -> tuple[str, ...]:
    """Return the command line of a broker that listens on an inherited descriptor. Pure."""
    start = "from agentorch.commands.broker import main; main(prog_name='agentorch-broker')"
    return (
        *(sys.executable, "-P", "-c", start),
        *("--grants", str(grants)),
        *("--parent", str(parent)),
        *("--fd", str(descriptor)),
    )


@contextlib.contextmanager
def running(directory: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Return a broker below `directory` while the context lasts; its socket, which listens at once.

    What is asked of it waits until it has started. It dies with this process, however that ends.
    """
    grants = grants_directory(directory)
    grants.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = socket_path(directory)
    path.unlink(missing_ok=True)
    package = str(Path(agentorch.__file__).parents[1])
    with listen(path) as listening:
        child = subprocess.Popen(
            broker_argv(grants, os.getpid(), listening.fileno()),
            pass_fds=(listening.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**environment, "PYTHONPATH": package},
            cwd="/",
            start_new_session=True,
        )
    try:
        yield path
    finally:
        _end(child)
        path.unlink(missing_ok=True)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
