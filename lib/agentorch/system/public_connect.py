"""The way to a host by its name: looked up here, every address checked, a checked one connected to.

The name is never given to the system again after its addresses were checked, so a second, other
answer of the DNS changes nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Sequence
from typing import cast

from agentorch.system.public_addresses import refusal

Place = tuple[str, int] | tuple[str, int, int, int]
Found = tuple[socket.AddressFamily, Place]


class Refused(Exception):
    """The refusal of a tunnel. `note` stands in the account too."""

    def __init__(self, status: int, kind: str, words: str, *, note: bool = False) -> None:
        super().__init__(words)
        self.status = status
        self.kind = kind
        self.words = words
        self.note = note


async def lookup(name: str, port: int) -> list[Found]:
    """Return the addresses of a name, in the order to try them. Raises OSError.

    Each in a thread that nothing waits for: a DNS server that is silent holds up nobody else, and
    not the end of the broker either.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[list[Found]] = loop.create_future()

    def settle(found: list[Found], problem: OSError | None) -> None:
        if answered.done():
            return
        if problem is None:
            answered.set_result(found)
        else:
            answered.set_exception(problem)

    def look() -> None:
        found: list[Found] = []
        problem: OSError | None = None
        try:
            all_of_it = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            found = [(family, cast(Place, place)) for family, _, _, _, place in all_of_it]
        except OSError as trouble:
            problem = trouble
        except UnicodeError:  # an empty label, or one of more than 63 characters
            problem = OSError(errno.EINVAL, f"{name!r} can be no name")
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, found, problem)

    threading.Thread(target=look, name="lookup", daemon=True).start()
    return await answered


def public(found: Sequence[Found]) -> tuple[list[Found], str]:
    """Those that may be connected to, and in words what the others are. Pure."""
    refusals = {place[0]: refusal(place[0]) for _, place in found}
    why = ", ".join(dict.fromkeys(words for words in refusals.values() if words is not None))
    return [one for one in found if refusals[one[1][0]] is None], why


async def connect(name: str, port: int, found: list[Found], address_s: float) -> socket.socket:
    """Return a connection to the first of the public addresses that takes it. Raises Refused."""
    allowed, why = public(found)
    if not allowed:
        words = f"{name} leads to no public address ({why})"
        raise Refused(403, "policy", words, note=True)
    problem = ""
    for family, place in allowed:
        try:
            return await _connect(family, place, address_s)
        except TimeoutError:
            problem = "no answer"
        except OSError as trouble:
            problem = os.strerror(trouble.errno or errno.EIO)
    raise Refused(502, "infra", f"{name}:{port} can't be reached: {problem}")


async def _connect(family: socket.AddressFamily, place: Place, limit_s: float) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(0)
        async with asyncio.timeout(limit_s):
            await asyncio.get_running_loop().sock_connect(connection, place)
    except BaseException:
        connection.close()
        raise
    return connection
