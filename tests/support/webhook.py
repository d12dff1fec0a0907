"""The webhook as a program on a socket that the test holds, as systemd would, and its clients."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

from agentorch.jobqueue.jobqueue import Queue
from agentorch.storage.paths import Roots

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 30
TOKEN = "token-of-the-tests"
SCOPED = "token-of-one-project"
DECIDER = "token-that-decides"
ALICE = "token-of-alice"
BOTH = "token-that-does-both"
TOKENS = f"{TOKEN}=*,{SCOPED}=one|two,{BOTH}=*"
DECIDERS = f"{DECIDER}=*,{ALICE}=one|two # alice,{BOTH}=*"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Message
    content: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.content)


@dataclass
class Site:
    """A state directory, and what the webhook on it knows.

    `prefix` stands before the webhook's command line: a program that becomes it.
    """

    top: Path
    variables: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    @property
    def state(self) -> Path:
        return self.top / "state"

    @property
    def queue(self) -> Queue:
        state = self.state
        return Queue(
            Roots(state / "queue", state / "artifacts", state / "workspaces", state / "state.db")
        )

    def environment(self) -> dict[str, str]:
        project = self.top / "project"
        project.mkdir(exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.top),
            "PYTHONPATH": str(ROOT / "lib"),
            "AGENTORCH_STATE_DIR": str(self.state),
            "AGENTORCH_CONFIG_DIR": str(self.top),
            "AGENTORCH_ENV_FILE": "/dev/null",
            "AGENTORCH_MIN_FREE_BYTES": "0",
            "WORKER_ENTRYPOINT_GROUP": "",
            "WEBHOOK_TOKENS": TOKENS,
            "WEBHOOK_DECISION_TOKENS": DECIDERS,
            "WEBHOOK_RATE_LIMIT_MAX_REQUESTS": "0",
            "PROJECT_ALIASES": f"one={project},two={project},three={project}",
            **self.variables,
        }


def argv(*options: str) -> list[str]:
    return [sys.executable, str(ROOT / "bin/agentorch-webhook"), *options]


def listening() -> socket.socket:
    """A socket on loopback, as a .socket unit makes one."""
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


def activated(
    site: Site, held: socket.socket, *options: str, log: Path | None = None
) -> subprocess.Popen[bytes]:
    """The webhook on a socket that it is passed (sd_listen_fds(3))."""
    script = f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&{held.fileno()}'
    with (log or Path(os.devnull)).open("ab") as stderr:
        return subprocess.Popen(
            [*site.prefix, "bash", "-c", script, "bash", *argv(*options)],
            env=site.environment(),
            pass_fds=(held.fileno(),),
            stderr=stderr,
        )


@dataclass
class Door:
    """A webhook that runs, and where."""

    site: Site
    held: socket.socket
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        port: int = self.held.getsockname()[1]
        return port

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        token: str | None = TOKEN,
        **headers: str,
    ) -> Answer:
        """One request on a connection of its own; `_` in a header's name is a dash."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body, sent)
            return answer_of(connection.getresponse())
        finally:
            connection.close()

    def post(self, document: Any, token: str | None = TOKEN, **headers: str) -> Answer:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.ask("POST", "/webhook", body, token, **headers)

    def queued(self, **fields: Any) -> str:
        """Queues a job; its id."""
        answer = self.post({"goal": "a goal", **fields})
        assert answer.status == 200, answer
        job_id: str = answer.document["job_id"]
        return job_id

    def raw(self, content: bytes, *, end: bool = True) -> bytes:
        """Sends bytes as they are; all that comes back until the other side closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S) as client:
            try:
                client.sendall(content)
                if end:
                    client.shutdown(socket.SHUT_WR)
                return received(client)
            except (ConnectionResetError, BrokenPipeError):
                return b""

    def rss_kib(self) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0])

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")


def answer_of(response: http.client.HTTPResponse) -> Answer:
    return Answer(response.status, response.headers, response.read())


def received(client: socket.socket) -> bytes:
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@contextmanager
def opened(site: Site, *options: str) -> Iterator[Door]:
    """A webhook that answers until the end of the block."""
    log = site.top / "log"
    with listening() as held:
        process = activated(site, held, *options, log=log)
        door = Door(site, held, process, log)
        try:
            assert door.ask("GET", "/nothing").status == 404, door.said()
            yield door
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
        assert code in (0, -signal.SIGKILL), door.said()


class Activator:
    """What systemd does: holds the socket, starts the webhook whenever somebody has connected."""

    def __init__(self, site: Site, *options: str) -> None:
        self.site = site
        self.options = options
        self.held = listening()
        self.starts = 0
        self.codes: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Activator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with socket.create_connection(self.held.getsockname()):
            pass
        self._thread.join(TIMEOUT_S)
        self.held.close()

    def _run(self) -> None:
        import select  # noqa: PLC0415

        while not self._ended.is_set():
            select.select([self.held], [], [])
            if self._ended.is_set():
                return
            process = activated(self.site, self.held, *self.options, log=self.site.top / "log")
            self.starts += 1
            self.codes.append(process.wait(TIMEOUT_S))
