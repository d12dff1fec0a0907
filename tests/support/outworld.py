"""A world with public addresses, in a network namespace: the broker's door, and hosts to reach.

    unshare --net --mount -- sh -c WORLD sh HOSTS python outworld.py DIRECTORY LIMITS

`doored` starts it, and `world` any other program in its place. Everything listens at every address,
the private ones too, so that whatever is refused could have been reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from agentorch.broker.account import Account, document
from agentorch.broker.connect import Limits, Tunnels
from agentorch.broker.front_door import FrontDoor
from agentorch.broker.grants import Grant, Grants, digest, write_grant
from agentorch.systemd import journal
from agentorch.systemd.message_ids import Message

PATIENCE_S = 30
TOKEN = "token-of-the-step"
PUBLIC = "93.184.216.34"
SIX = "2606:2800:220:1::34"
DEAD = "93.184.216.99"
ADDRESSES = (PUBLIC, SIX, DEAD, "10.0.0.5", "169.254.169.254", "fd00:ec2::254")
HOSTS = {
    "public.example": (PUBLIC,),
    "six.example": (SIX,),
    "private.example": ("10.0.0.5",),
    "loop.example": ("127.0.0.1",),
    "loop6.example": ("::1",),
    "metadata.example": ("169.254.169.254",),
    "metadata6.example": ("fd00:ec2::254",),
    "mapped.example": ("::ffff:10.0.0.5",),
    "zero.example": ("0.0.0.0",),
    "mixed.example": ("10.0.0.5", PUBLIC),
    "dead.example": (DEAD,),
    "half-dead.example": (DEAD, PUBLIC),
    "unlisted.example": (PUBLIC,),
}
ECHO, COUNTS, FLOODS, SILENT, CLOSED, BREAKS = 443, 8443, 9000, 9001, 9002, 9003
FLOOD_BYTES = 50 << 20
LISTED = tuple(f"{name}:443" for name in HOSTS if name != "unlisted.example") + tuple(
    f"public.example:{port}" for port in (COUNTS, FLOODS, SILENT, CLOSED, BREAKS)
)
WORLD = """set -e
hosts=$1; shift
ip link set lo up
for address in $WORLD_ADDRESSES; do ip address add "$address" dev lo; done
mount --bind "$hosts" /etc/hosts
resolver=$(readlink -f /etc/resolv.conf)
mount -t tmpfs tmpfs /run
mkdir -p "$(dirname "$resolver")"
[ -e "$resolver" ] || : >"$resolver"
echo nameserver 127.0.0.1 >/run/nameserver
mount --bind /run/nameserver "$resolver"
exec "$@"
"""


# ---- outside: for tests -------------------------------------------------------------------------


class Door:
    """The broker's socket, and the grants behind it."""

    def __init__(self, directory: Path, process: subprocess.Popen[str]) -> None:
        self.path = directory / "broker.sock"
        self.grants = directory / "grants"
        self.process = process

    def grant(self, token: str = TOKEN, hosts: tuple[str, ...] = LISTED, **more: Any) -> Path:
        grant = Grant(
            **{
                "job_id": "job",
                "step_id": "step",
                "attempt": 1,
                "agent": "claude",
                "expires_at": 1e11,
                "hosts": hosts,
                **more,
            }
        )
        return write_grant(self.grants, grant, token)

    def connection(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        connection.connect(str(self.path))
        return connection

    def account(self, token: str = TOKEN) -> dict[str, Any]:
        """What the broker has noted, by way of its HTTP server."""
        with self.connection() as asking:
            asking.sendall(f"GET /account/{digest(token)} HTTP/1.0\r\n\r\n".encode())
            answer: dict[str, Any] = json.loads(until_end(asking).partition(b"\r\n\r\n")[2])
        return answer

    def ask(self, target: str, token: str | None = TOKEN, early: bytes = b"") -> socket.socket:
        """A connection on which a CONNECT was sent."""
        connection = self.connection()
        connection.sendall(question(target, token) + early)
        return connection

    def told(self, target: str, token: str | None = TOKEN) -> str:
        """The first line of the answer."""
        with self.ask(target, token) as connection:
            return first_line(connection)

    def refused(self, target: str, token: str | None = TOKEN) -> str:
        """The whole answer to a CONNECT that is refused, to the end of the connection."""
        with self.ask(target, token) as connection:
            return until_end(connection).decode()


def question(target: str, token: str | None = TOKEN) -> bytes:
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if token is not None:
        credentials = b64encode(f"agentorch:{token}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {credentials}")
    return "\r\n".join([*lines, "", ""]).encode()


def first_line(connection: socket.socket) -> str:
    """The status line; the rest of the header block is taken too."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece:
            break
        head += piece
    return head.decode().split("\r\n")[0]


def until_end(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


@contextlib.contextmanager
def doored(directory: Path, **limits: float) -> Iterator[Door]:
    """The world, with the broker's door in `directory`."""
    (directory / "grants").mkdir()
    with world(directory, __file__, str(directory), json.dumps(limits)) as process:
        yield Door(directory, process)


@contextlib.contextmanager
def world(directory: Path, *program: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Runs a Python program in the world, from when it says that it is ready to the end of its
    standard input. It is the process in whose namespaces the world is.
    """
    lines = (f"{address} {name}\n" for name, many in HOSTS.items() for address in many)
    hosts = directory / "hosts"
    hosts.write_text("".join(lines))
    with subprocess.Popen(
        [*unshared(), "sh", "-c", WORLD, "sh", str(hosts), sys.executable, *program],
        env={**os.environ, **more, "WORLD_ADDRESSES": " ".join(ADDRESSES)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


def unshared() -> list[str]:
    """A network and mounts of its own; for an ordinary user in a user namespace."""
    own = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *own, "--net", "--mount", "--"]


# ---- inside: the program ------------------------------------------------------------------------


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while received := await reader.read(1 << 16):
        writer.write(received)
        await writer.drain()
    writer.close()


async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    total = 0
    while received := await reader.read(1 << 16):
        total += len(received)
    writer.write(str(total).encode())
    writer.close()


async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        for _ in range(FLOOD_BYTES >> 16):
            writer.write(bytes(1 << 16))
            await writer.drain()
    writer.close()


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.transport.abort()


def dead() -> list[socket.socket]:
    """Who never answers: its backlog is full, so the kernel drops what comes."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((DEAD, ECHO))
    listener.listen(0)
    return [listener, socket.create_connection((DEAD, ECHO))]


def silent_nameserver() -> socket.socket:
    """What every name that is in no file is asked of."""
    nameserver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    nameserver.bind(("127.0.0.1", 53))
    return nameserver


async def serve(directory: Path, limits: Limits) -> None:
    servers = {ECHO: echo, COUNTS: count, FLOODS: flood, SILENT: silence, BREAKS: break_off}
    for port, server in servers.items():
        await asyncio.start_server(server, None, port, reuse_port=True)
    held = [*dead(), silent_nameserver()]
    accounts: dict[str, Account] = {}

    def account(grant: Grant) -> Account:
        return accounts.setdefault(grant.digest, Account())

    async def tell(request: web.BaseRequest) -> web.StreamResponse:
        found = accounts.get(request.path.rpartition("/")[2], Account())
        said = {"lines": lines, "open": len(tunnels.open)}
        return web.json_response({**document(found), **said})

    lines: list[str] = []

    def log(text: str, _: Message, **fields: object) -> None:
        lines.append(journal.entry_text(text, fields))

    tunnels = Tunnels(Grants(directory / "grants"), account, log, limits)
    requests = web.Server(tell)
    loop = asyncio.get_running_loop()
    await loop.create_unix_server(
        lambda: FrontDoor(requests, tunnels.protocol), str(directory / "broker.sock"), backlog=512
    )
    (directory / "broker.sock").chmod(0o666)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    tunnels.cut("the broker ends")
    for one in held:
        one.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Limits(**json.loads(sys.argv[2]))))
