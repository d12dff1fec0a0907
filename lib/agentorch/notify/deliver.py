"""Tells who wants to know about ended jobs: what is due in the outbox goes out, many at once.

A name is looked up here, each of its addresses is checked, and one that was checked is connected
to; redirects are not followed. Addresses that are not public are refused, but of hosts that the
server lists (CALLBACK_ALLOWED_HOSTS).
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from agentorch import __version__
from agentorch.core import callback
from agentorch.core.callback import Again, Answer, Delivered, GivenUp
from agentorch.jobqueue import outbox
from agentorch.jobqueue.outbox import Placed
from agentorch.storage import atomic
from agentorch.storage.paths import QueuePaths
from agentorch.system.public_addresses import refusal
from agentorch.system.public_connect import lookup, public
from agentorch.systemd.journal import Journal
from agentorch.systemd.message_ids import Message

AT_ONCE = 16
# Of these, so many of one host; one that answered none of so many in a row is left for later.
AT_ONE_HOST = 4
MOST_SILENT = 4
# A receiver has CONNECT_S to be there, and ANSWER_S (more) for all of it.
CONNECT_S = 10.0
ANSWER_S = 30.0


@dataclass(frozen=True)
class Rules:
    """The server's rules: secrets to sign with, and hosts that need not be public."""

    secrets: tuple[bytes, ...] = ()
    hosts: tuple[str, ...] = ()


@dataclass
class Host:
    """A host in one run: how many of its receivers are asked at once, and how often it was silent.

    A host that hangs takes no more than its share, and the run ends however much is due there.
    """

    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONE_HOST))
    silent: int = 0

    def hears(self, answer: Answer) -> Answer:
        """Count how often in a row there was none."""
        self.silent = self.silent + 1 if answer.status is None else 0
        return answer


async def tell(paths: QueuePaths, rules: Rules, journal: Journal) -> None:
    """Report all that is due. What fails is put off or given up. Raises TryAgain on disk
    trouble.
    """
    entries = list(outbox.due(paths, datetime.now(UTC)))
    if not entries:
        return
    room = asyncio.Semaphore(AT_ONCE)
    hosts: defaultdict[str, Host] = defaultdict(Host)
    connector = aiohttp.TCPConnector(resolver=Checked(rules.hosts), force_close=True, limit=0)
    timeout = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def one(placed: Placed) -> None:
            host = hosts[place_of(placed.entry.url)]
            async with host.room, room:
                if host.silent < MOST_SILENT:
                    answer = host.hears(await _post(session, rules, placed))
                else:
                    answer = Answer(None, "its host gave no answer to those before")
            with atomic.disk_trouble(placed.path):
                settle(paths, placed, answer, datetime.now(UTC), journal)

        async with asyncio.TaskGroup() as group:
            for placed in entries:
                group.create_task(one(placed))


def settle(
    paths: QueuePaths, placed: Placed, answer: Answer, now: datetime, journal: Journal
) -> None:
    """Move an entry to where its answer sends it, and say so."""
    entry = placed.entry
    fields = {"job": entry.job_id, "project": entry.project_id, "url": place_of(entry.url)}
    match callback.next_delivery(answer, entry.tries + 1, outbox.age_s(entry, now)):
        case Delivered():
            outbox.remove(placed)
            journal.info("callback: delivered", Message.ANNOUNCED, **fields, tries=entry.tries + 1)
        case Again(after_s, reason):
            outbox.postpone(paths, placed, now + timedelta(seconds=after_s), reason)
            words = f"callback: {reason}; again in {after_s:.0f} s"
            journal.warning(words, Message.UNDELIVERED, **fields, tries=entry.tries + 1)
        case GivenUp(reason):
            outbox.give_up(paths, placed, reason)
            words = f"callback given up: {reason}; agentorch-notify --again {entry.job_id}"
            journal.error(words, Message.UNDELIVERED, **fields, tries=entry.tries + 1)


async def _post(session: aiohttp.ClientSession, rules: Rules, placed: Placed) -> Answer:
    """Send one POST. An answer's body is not read."""
    entry = placed.entry
    body = atomic.encode_line(entry.body)
    now_s = int(datetime.now(UTC).timestamp())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"agentorch/{__version__}",
        **callback.headers(rules.secrets, entry.webhook_id, now_s, body),
    }
    problem = literal_refusal(entry.url, rules.hosts)
    if problem is not None:
        return Answer(None, problem)
    try:
        async with session.post(
            entry.url, data=body, headers=headers, allow_redirects=False
        ) as answer:
            return Answer(answer.status, retry_after_s=_retry_after_s(answer.headers))
    except TimeoutError:
        return Answer(None, "no answer in time")
    except (aiohttp.InvalidURL, ValueError):  # its words show all of it
        return Answer(None, "can't be reached: nothing can be at this URL")
    except (aiohttp.ClientError, OSError) as trouble:
        return Answer(None, f"can't be reached: {trouble}")


def _retry_after_s(headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def place_of(url: str) -> str:
    """Return where a URL leads, for people: the path may be a secret, as the query, so both stay
    out.
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()


# ---- where to ---------------------------------------------------------------------------------


def is_allowed(name: str, port: int, hosts: Sequence[str]) -> bool:
    """Return whether the server lists a host, with this port or with any. Pure."""
    shown = f"[{name}]" if ":" in name else name
    return bool({shown.lower(), f"{shown}:{port}".lower()} & {host.lower() for host in hosts})


def literal_refusal(url: str, hosts: Sequence[str]) -> str | None:
    """Why an address that stands in the URL itself is not connected to: nobody looks that up."""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        ipaddress.ip_address(name)
    except ValueError:  # a name, which the resolver judges, or no URL, which the client refuses
        return None
    words = None if is_allowed(name, port, hosts) else refusal(name)
    return None if words is None else f"{name} is no public address ({words})"


class Checked(AbstractResolver):
    """Looks names up, and tells only addresses that may be connected to."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = hosts

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[Any]:
        """Return the addresses of a name, as aiohttp wants them.

        Raises OSError where none may be used.
        """
        found = await lookup(host, port)
        good, why = (found, "") if is_allowed(host, port, self._hosts) else public(found)
        if not good:
            raise OSError(errno.EACCES, f"{host} leads to no public address ({why})")
        return [
            {
                "hostname": host,
                "host": place[0],
                "port": port,
                "family": kind,
                "proto": 0,
                # or it would be looked up again
                "flags": socket.AI_NUMERICHOST,
            }
            for kind, place in good
        ]

    async def close(self) -> None:
        """Nothing is kept."""
