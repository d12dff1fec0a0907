"""A broker that runs, and what an agent would say to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from agentorch.broker import client
from agentorch.broker.account import Account
from agentorch.broker.grants import Grant, grant_path

KEY = "sk-canary-0123456789abcdefghijklmnopqrstuvwxyz"
ENDLESS = 1e11  # a moment far off, in seconds since 1970: a module may be read long before it runs
GRANT = Grant("job00001", "01_plan", 1, "claude", ENDLESS, providers=("anthropic", "openai"))
PROGRAM = "from agentorch.commands.broker import main; main(prog_name='agentorch-broker')"


class Connection(http.client.HTTPConnection):
    """HTTP over the broker's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = self.opened = client.connect(self.path, 30)


@dataclass
class Site:
    """A broker with one grant."""

    directory: Path
    pid: int
    token: str
    log: Path
    stack: contextlib.ExitStack
    grant: Grant = GRANT
    connections: list[Connection] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return client.socket_path(self.directory)

    @property
    def grants(self) -> Path:
        return client.grants_directory(self.directory)

    def grants_file(self) -> Path:
        return grant_path(self.grants, self.token)

    def change(self, **changes: Any) -> None:
        """Writes the grant anew."""
        self.grant = replace(self.grant, **changes)
        client.write_grant(self.grants, self.grant, self.token)

    def account(self) -> Account:
        return client.account(self.socket, self.token)

    def ask(
        self,
        path: str = "/anthropic/v1/messages",
        body: Any = None,
        method: str = "POST",
        **headers: str,
    ) -> http.client.HTTPResponse:
        """The answer, its headers read."""
        connection = self._connection()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else json.dumps(body or {"stream": True}).encode()
        fields = {"x-api-key": self.token, "Content-Type": "application/json", **named}
        connection.request(method, path, content if method == "POST" else None, fields)
        return self.stack.enter_context(connection.getresponse())

    def send_only(self) -> None:
        """Asks, and does not wait for the answer."""
        connection = self._connection()
        connection.request("POST", "/anthropic/v1/messages", b"{}", {"x-api-key": self.token})

    def hang_up(self) -> None:
        """Closes every connection."""
        for connection in self.connections:
            connection.opened.shutdown(socket.SHUT_RDWR)

    def raw(self, said: bytes) -> bytes:
        """What is answered to these bytes."""
        with contextlib.closing(client.connect(self.socket)) as connection:
            connection.sendall(said)
            return connection.recv(65536)

    def _connection(self) -> Connection:
        connection = self.stack.enter_context(contextlib.closing(Connection(self.socket)))
        self.connections.append(connection)
        return connection

    def said(self) -> str:
        return self.log.read_text("utf-8")


@dataclass
class Start:
    """Starts brokers in a test's directory, and ends them."""

    top: Path
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __call__(self, *options: str, **environment: str) -> Site:
        """One that runs until the test ends."""
        return self._started(options, environment, (0, -signal.SIGTERM))

    def expect(self, code: int, **environment: str) -> Site:
        """One that ends with this code by itself."""
        return self._started((), environment, (code,))

    def _started(
        self, options: tuple[str, ...], environment: dict[str, str], codes: tuple[int, ...]
    ) -> Site:
        directory = self.top / f"broker{len(list(self.top.iterdir()))}"
        grants = client.grants_directory(directory)
        grants.mkdir(parents=True)
        log = directory / "log"
        listening = client.listen(client.socket_path(directory))
        start = 'LISTEN_PID=$$; export LISTEN_PID; exec "$0" "$@" 3<&0 0</dev/null'
        shell = ("/bin/sh", "-c", start, sys.executable, "-P", "-c", PROGRAM)
        settings = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "AGENTORCH_ENV_FILE": "/dev/null",
            "AGENTORCH_CONFIG_DIR": str(directory),
            "LISTEN_FDS": "1",
        }
        with listening, log.open("wb") as err:
            child = subprocess.Popen(
                (*shell, *("--grants", str(grants)), *options),
                stdin=listening.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=err,
                env={**settings, **environment},
            )
        self.stack.callback(self._end, child, codes)
        token = client.new_token()
        client.write_grant(grants, GRANT, token)
        return Site(directory, child.pid, token, log, self.stack)

    @staticmethod
    def _end(child: subprocess.Popen[bytes], codes: tuple[int, ...]) -> None:
        if 0 in codes:
            child.terminate()  # it may not have started yet, so the signal may end it
        assert child.wait(20) in codes


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    starting = Start(tmp_path)
    with starting.stack:
        yield starting


def at(url: str, **environment: str) -> dict[str, str]:
    """The environment of a broker whose providers are all at this URL."""
    return {
        "ANTHROPIC_BASE_URL": url,
        "OPENAI_BASE_URL": url,
        "ANTHROPIC_API_KEY": KEY,
        "OPENAI_API_KEY": KEY,
        **environment,
    }


def text(answer: http.client.HTTPResponse) -> str:
    return answer.read().decode()
