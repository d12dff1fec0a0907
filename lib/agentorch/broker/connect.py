"""CONNECT (RFC 9110, section 9.3.6): the hosts that a step may reach, by name, and nothing else.

A name must stand in the grant, to the letter; where it leads is for `reach` to judge. Every refusal
is answered at once, with its reason also where a status line has its words: that is what most
clients show.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from agentorch.broker.account import Account
from agentorch.broker.grants import Grant, Grants, whose
from agentorch.broker.tunnel import Tunnel
from agentorch.core import hosts
from agentorch.system.public_connect import Refused, connect, lookup
from agentorch.systemd.message_ids import Message

MOST_HEAD_BYTES = 16 << 10
# What a client sends before it was answered: a TLS hello, no more.
MOST_EARLY_BYTES = 64 << 10
# Of one step. A name's own server may be silent on purpose, and must hold up nobody else.
MOST_LOOKUPS = 8
MOST_TUNNELS = 128
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"

_REQUEST = re.compile(rb"CONNECT ([\x21-\x7e]{1,300}) HTTP/1\.[01]")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_CREDENTIALS = re.compile(rb"basic +([A-Za-z0-9+/=]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """Seconds. A lookup and several addresses fit into an opening: opening_s > lookup_s +
    address_s. How long a tunnel may last is the grant's to say.
    """

    head_s: float = 30
    lookup_s: float = 10
    address_s: float = 5
    opening_s: float = 30
    idle_s: float = 600
    look_s: float = 5


@dataclass(frozen=True)
class ConnectRequest:
    """A CONNECT request: `NAME:PORT` as the client wrote it, and its token, None without one."""

    target: str
    token: str | None


# ---- what is asked, and what is answered: pure --------------------------------------------------


def parse_request(head: bytes) -> ConnectRequest:
    """Return the question in a header block, without its last empty line. Raises Refused."""
    first, *lines = head.split(b"\r\n")
    request = _REQUEST.fullmatch(first)
    fields = [_FIELD.fullmatch(line) for line in lines]
    if request is None or None in fields:
        raise Refused(400, "policy", "this is no CONNECT of HTTP/1.1")
    found = [one[2] for one in fields if one and one[1].lower() == b"proxy-authorization"]
    if len(found) > 1:
        raise Refused(400, "policy", "two Proxy-Authorization fields")
    return ConnectRequest(request[1].decode("ascii"), _token(found[0]) if found else None)


def _token(credentials: bytes) -> str | None:
    """Return the password of Basic credentials (RFC 7617); None where there is none."""
    match = _CREDENTIALS.fullmatch(credentials)
    if match is None:
        return None
    try:
        pair = base64.b64decode(match[1], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return pair.partition(":")[2] or None


def target(text: str, grant: Grant) -> tuple[str, int]:
    """Return the name and the port, where the grant has them. Raises Refused. Pure."""
    name, _, port = text.lower().rpartition(":")
    name = name.removesuffix(".")
    host = f"{name}:{port}"
    if not hosts.is_host(host):
        words = f"{text}: a host is asked for by name and port"
        raise Refused(403, "policy", words, note=True)
    place = (name, int(port))
    if place not in {hosts.split_host(one) for one in grant.hosts}:
        words = f"{host} is not among the hosts that this step may reach"
        raise Refused(403, "policy", words, note=True)
    return place


def answer(refused: Refused) -> bytes:
    """Return a refusal as it is sent; the connection ends with it. Pure."""
    words = f"agentorch: {refused.kind}: {refused.words}"
    line = "".join(char if " " <= char <= "~" else "?" for char in words)
    body = f"{line}\n"
    fields = [
        f"HTTP/1.1 {refused.status} {line}",
        "Content-Type: text/plain",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(['Proxy-Authenticate: Basic realm="agentorch"'] if refused.status == 407 else []),
    ]
    return "\r\n".join([*fields, "", body]).encode("ascii")


# ---- all tunnels of a broker --------------------------------------------------------------------


@dataclass
class Use:
    """The open tunnels of a grant."""

    tunnels: int = 0
    lookups: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_LOOKUPS))


@dataclass
class Tunnels:
    """The tunnels that are open, and what they need: a grant's account, and a Journal's `info`."""

    grants: Grants
    account: Callable[[Grant], Account]
    log: Callable[..., None]
    limits: Limits = Limits()
    open: set[Tunnel] = field(default_factory=set)
    _uses: dict[str, Use] = field(default_factory=dict)

    def protocol(self) -> asyncio.Protocol:
        """Return what a connection that starts with CONNECT is handed to."""
        return Connect(self)

    def cut(self, why: str) -> None:
        """End them all at once."""
        for tunnel in tuple(self.open):
            tunnel.cut(why)

    def grant(self, question: ConnectRequest) -> Grant:
        """Return the grant of a token. Raises Refused."""
        if question.token is None:
            raise Refused(407, "policy", "the step's token is missing (Proxy-Authorization: Basic)")
        grant = self.grants.find(question.token)
        if grant is None:
            raise Refused(403, "policy", "this token is of no step that runs")
        return grant

    def take(self, grant: Grant) -> Use:
        """Count one more tunnel of a grant. Raises Refused."""
        use = self._uses.setdefault(grant.digest, Use())
        if use.tunnels >= MOST_TUNNELS:
            raise Refused(503, "policy", f"this step has {MOST_TUNNELS} connections already")
        use.tunnels += 1
        return use

    def give_back(self, grant: Grant) -> None:
        """Count one less."""
        use = self._uses[grant.digest]
        use.tunnels -= 1
        if not use.tunnels:
            del self._uses[grant.digest]

    async def way(self, place: tuple[str, int], use: Use) -> socket.socket:
        """Return a connection to a host that is allowed. Raises Refused."""
        name, port = place
        try:
            async with asyncio.timeout(self.limits.opening_s):
                async with use.lookups, asyncio.timeout(self.limits.lookup_s):
                    found = await lookup(name, port)
                return await connect(name, port, found, self.limits.address_s)
        except TimeoutError:
            raise Refused(504, "infra", f"{name}:{port}: no answer") from None
        except OSError as problem:
            words = f"{name}: its address is not known: {problem.strerror}"
            raise Refused(502, "infra", words) from problem

    def tunnel(self, grant: Grant, token: str, host: str) -> Tunnel:
        """Return a tunnel to be joined; it ends with the grant."""

        def note_end(sent_bytes: int, received_bytes: int, why: str) -> None:
            self.open.discard(tunnel)
            self.give_back(grant)
            counts = f"{sent_bytes} bytes out, {received_bytes} in"
            words = f"CONNECT {host}: {counts}{f': {why}' if why else ''}"
            self.log(words, Message.BROKER_CALLED, **whose(grant))

        limits = self.limits
        may_be = functools.partial(self._may_be, token)
        tunnel = Tunnel(may_be, note_end, limits.idle_s, limits.look_s)
        return tunnel

    def _may_be(self, token: str) -> bool:
        return self.grants.find(token) is not None


class Connect(asyncio.Protocol):
    """One connection from its first byte until it is a tunnel, or refused."""

    def __init__(self, tunnels: Tunnels) -> None:
        self._tunnels = tunnels
        self._received = b""
        self._opening: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(tunnels.limits.head_s, self._too_late)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From now on it can be answered."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Read the header block; what comes after it is the host's."""
        assert self._transport is not None
        self._received += data
        if self._opening is not None:
            if len(self._received) > MOST_EARLY_BYTES:
                self._transport.pause_reading()
            return
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if len(head) > MOST_HEAD_BYTES:
            self._refuse(Refused(431, "policy", "the header block is too long"))
        elif end:
            self._received = rest
            self._deadline.cancel()
            self._opening = asyncio.get_running_loop().create_task(self._open(head))

    def connection_lost(self, exc: Exception | None) -> None:
        """End what was begun for a client that left, or was refused."""
        self._deadline.cancel()
        if self._opening is not None:
            self._opening.cancel()

    def _too_late(self) -> None:
        self._refuse(Refused(408, "policy", "the header block did not come"))

    async def _open(self, head: bytes) -> None:
        """Answers, one way or the other."""
        grant: Grant | None = None
        try:
            question = parse_request(head)
            grant = self._tunnels.grant(question)
            place = target(question.target, grant)
            await self._join(place, grant, question.token or "")
        except Refused as refused:
            self._refuse(refused, grant)
        except BaseException:  # our bug, or the client left: it must not wait for nothing
            assert self._transport is not None
            self._transport.abort()
            raise

    async def _join(self, place: tuple[str, int], grant: Grant, token: str) -> None:
        assert self._transport is not None
        host = f"{place[0]}:{place[1]}"
        tunnel = self._tunnels.tunnel(grant, token, host)
        use = self._tunnels.take(grant)
        try:
            connection = await self._tunnels.way(place, use)
            await asyncio.get_running_loop().create_connection(lambda: tunnel.far, sock=connection)
        except BaseException:
            self._tunnels.give_back(grant)
            raise
        self._tunnels.open.add(tunnel)
        self._tunnels.account(grant).note_connection(host)
        tunnel.join(self._transport, ESTABLISHED, self._received)

    def _refuse(self, refused: Refused, grant: Grant | None = None) -> None:
        assert self._transport is not None
        self._deadline.cancel()
        if grant is not None and refused.note:
            self._tunnels.account(grant).note_refusal("CONNECT", refused.words)
        words = f"CONNECT: {refused.status} {refused.words}"
        self._tunnels.log(words, Message.BROKER_REFUSED, **whose(grant))
        self._transport.write(answer(refused))
        self._transport.close()
