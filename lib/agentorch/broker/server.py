"""The broker as a process: one listening socket, passed to it, until a signal ends it."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from agentorch.broker import prices, providers
from agentorch.broker.account import Account, Accounts
from agentorch.broker.admission import CallJudge
from agentorch.broker.connect import Tunnels
from agentorch.broker.front_door import FrontDoor
from agentorch.broker.grants import Grant, Grants
from agentorch.broker.keys import Keys
from agentorch.broker.model_call import Calls
from agentorch.broker.providers import Provider
from agentorch.broker.upstream import Patience, Upstream
from agentorch.config.settings import Settings
from agentorch.core.errors import Misconfigured
from agentorch.systemd import notify, sockets
from agentorch.systemd.journal import Journal

_PR_SET_PDEATHSIG = 1
# A CLI keeps its connection between two calls, and a tool may run for minutes.
# asyncio would set what the socket came with back to 100
_BACKLOG = 512
_KEEPALIVE_S = 3600
_SHUTDOWN_S = 1.0


@dataclass(frozen=True)
class Tables:
    """The tables that the broker reads when it starts."""

    providers: dict[str, Provider]
    prices: prices.Prices
    keys: Keys


def tables(settings: Settings) -> Tables:
    """Read and check all files. Raises Misconfigured."""
    environment = settings.environment
    keys = Keys.load(settings, environment)
    keys.check()
    known = providers.load(settings.providers, environment)
    return Tables(known, prices.load(settings.prices), keys)


class Conversation(web.RequestHandler):
    """A client's connection; `gone` is done when there is no client any more."""

    def __init__(self, server: web.Server, logger: logging.Logger) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=_KEEPALIVE_S,
            logger=logger,
            access_log=cast("Any", None),  # None turns it off, whatever its type says
            max_field_size=64 << 10,
            auto_decompress=False,
        )
        self.gone: asyncio.Future[None] = loop.create_future()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wake those who wait for it."""
        if not self.gone.done():
            self.gone.set_result(None)
        super().connection_lost(exc)


class _Log(logging.Handler):
    """aiohttp's complaints without what they are about: that may be a request's headers."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        kind = record.exc_info[0] if record.exc_info else None
        where = _place(record) if kind is not None else ""
        self._journal.error(str(record.msg)[:200], problem=kind.__name__ if kind else "", at=where)


def _place(record: logging.LogRecord) -> str:
    trace = record.exc_info[2] if record.exc_info else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def log_through(journal: Journal) -> None:
    """Whatever a library logs in this process goes through the journal."""
    logging.basicConfig(handlers=[_Log(journal)], level=logging.WARNING, force=True)


async def serve(
    listening: socket.socket,
    grants: Grants,
    found: Tables,
    journal: Journal,
    patience: Patience,
    leave_after_s: float | None = None,
) -> None:
    """Answers on the socket until SIGTERM or SIGINT, or until nobody could ask for `leave_after_s`.

    Who connects afterwards waits in the socket, for whoever is passed it next.
    """
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    upstream = Upstream(patience)
    accounts = Accounts(grants, lambda grant: _new_account(grant, found))
    judge = CallJudge(accounts, found.providers, found.prices)
    calls = Calls(grants, judge, found.keys, upstream, journal, patience.total_s)
    tunnels = Tunnels(grants, accounts.account_of, journal.info)
    server = web.Server(calls.answer)
    logger = logging.getLogger("aiohttp.server")
    door: Callable[[], FrontDoor] = lambda: FrontDoor(  # noqa: E731  (a factory, named for its type)
        lambda: Conversation(server, logger), tunnels.protocol
    )
    listener = await loop.create_server(door, sock=listening, backlog=_BACKLOG)
    notify.notify("READY=1")
    while not await _happens_in_time(leave_after_s, told):
        # what is counted of a grant is in memory only
        if not grants.living():
            break
    listener.close()
    notify.notify("STOPPING=1")
    tunnels.cut("the broker ends")
    await server.shutdown(_SHUTDOWN_S)
    await upstream.close()


async def _happens_in_time(limit_s: float | None, told: asyncio.Event) -> bool:
    """Return whether it happened before the time was over; None waits as long as it takes."""
    try:
        await asyncio.wait_for(told.wait(), limit_s)
    except TimeoutError:
        return False
    return True


def _new_account(grant: Grant, found: Tables) -> Account:
    known = {name: found.providers[name] for name in grant.providers if name in found.providers}
    return Account(providers={name: _credential(one, grant, found) for name, one in known.items()})


def _credential(provider: Provider, grant: Grant, found: Tables) -> str | None:
    if not provider.key_variable:
        return provider.keyless
    try:
        key = found.keys.find_named(provider.key_variable, grant.agent, grant.project_id)
    except Misconfigured:  # each call says it
        return None
    return None if key is None else key[0]


# ---- the process ------------------------------------------------------------------------------


def listening_socket(descriptor: int | None) -> socket.socket:
    """Return the socket that we were started with: of a descriptor, else systemd's one.

    Raises Misconfigured.
    """
    try:
        if descriptor is not None:
            return sockets.taken_socket(descriptor)
        (listening,) = sockets.passed_sockets()
    except ValueError as problem:
        raise Misconfigured(
            "not one socket was passed (LISTEN_PID, LISTEN_FDS): start agentorch-broker.socket"
        ) from problem
    except OSError as problem:
        raise Misconfigured(
            f"what was passed is no listening socket: {problem.strerror}"
        ) from problem
    return listening


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends; end at once where it ended already."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
