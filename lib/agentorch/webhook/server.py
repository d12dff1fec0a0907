"""The sockets' loop: waitress's, turn by turn, so that we can say when it ends.

One thread accepts, reads and writes; a few answer. It leaves by itself when it is idle, which only
sockets that systemd keeps allow: in the thread that accepts, between two turns, no connection is
open, and none is accepted any more. Who connects from then on waits in the backlog, and systemd
starts us again for him.
"""

from __future__ import annotations

import logging
import resource
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import BaseWSGIServer, TcpWSGIServer, UnixWSGIServer
from waitress.task import ThreadedTaskDispatcher

from agentorch.system.signals import Signals
from agentorch.systemd import notify
from agentorch.systemd.journal import Journal
from agentorch.systemd.message_ids import Message
from agentorch.webhook.application import Application
from agentorch.webhook.connection import Channel
from agentorch.webhook.sockets import shown

# Most of a request is waiting for the disk, and commits of a filesystem are shared.
THREADS = 8
# Slow clients that hold one each are cut by REQUEST_S before they are so many.
CONNECTIONS = 2000
FILES = CONNECTIONS + 200
MOST_HEADER_BYTES = 32 * 1024
# A request is here so soon after its first byte, or never; a connection without one is kept longer.
REQUEST_S = 10.0
SILENT_S = 30
# Both are looked at that often.
TURN_S = 1.0
# A request that was begun before the end was asked for is answered: longer than REQUEST_S.
DRAIN_S = 15.0
LEAVE = (signal.SIGTERM, signal.SIGINT)


class Server:
    """Serves an application on listening sockets. `idle_s` None: until it is told to end."""

    def __init__(
        self,
        application: Application,
        sockets: Sequence[socket.socket],
        journal: Journal,
        most_body_bytes: int,
        idle_s: float | None,
    ) -> None:
        self._application = application
        self._journal = journal
        self._idle_s = idle_s
        self._map: dict[int, Any] = {}
        self._dispatcher = ThreadedTaskDispatcher()
        self._dispatcher.set_thread_count(THREADS)
        adjustments = _adjustments(most_body_bytes, connections())
        self._servers = [self._served(one, adjustments) for one in sockets]
        self._places = ", ".join(shown(one) for one in sockets)
        self._busy_s = time.monotonic()

    def _served(self, listening: socket.socket, adjustments: Adjustments) -> BaseWSGIServer:
        kind = UnixWSGIServer if listening.family == socket.AF_UNIX else TcpWSGIServer
        about = (listening.family, listening.type, listening.proto, listening.getsockname())
        server: BaseWSGIServer = kind(
            self._application,
            self._map,
            _sock=listening,
            dispatcher=self._dispatcher,
            adj=adjustments,
            sockinfo=about,
            bind_socket=False,
        )
        server.channel_class = Channel
        return server

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT, or until it is idle."""
        with Signals(LEAVE) as told:
            self._map[told.fileno()] = _Told(told)
            notify.notify("READY=1", f"STATUS=listening on {self._places}")
            self._journal.info(f"listening on {self._places}", Message.READY)
            while not told.came(*LEAVE) and not self._is_idle():
                self._turn(self._patience_s())
            notify.notify("STOPPING=1", "STATUS=ending")
            self._drain()
        self._dispatcher.shutdown()
        self._journal.info("ended", Message.LEFT)

    def _turn(self, patience_s: float | None) -> None:
        wasyncore.poll2(cast(float, patience_s), self._map)  # its stub knows no None
        now_s = time.monotonic()
        for channel in self._channels():
            self._busy_s = now_s
            if channel.is_late(now_s, REQUEST_S):
                channel.cut()

    def _channels(self) -> Iterator[Channel]:
        for server in self._servers:
            channels = cast(dict[int, Channel], server.active_channels)
            yield from list(channels.values())

    def _patience_s(self) -> float | None:
        """How long nothing needs to be looked at; None: until somebody comes."""
        if any(self._channels()):
            return TURN_S
        due = [notify.watchdog_s(), self._idle_in_s()]
        return min((it for it in due if it is not None), default=None)

    def _idle_in_s(self) -> float | None:
        if self._idle_s is None:
            return None
        now_s = time.monotonic()
        silent_s = self._busy_s + self._idle_s - now_s
        # who starts anew has forgotten who asked how often
        return max(0.0, silent_s, self._application.limiter.over_in_s(now_s))

    def _is_idle(self) -> bool:
        return self._idle_in_s() == 0 and not any(self._channels())

    def _drain(self) -> None:
        """Accepts nobody any more, answers what was begun, closes what is silent."""
        for server in self._servers:
            server.del_channel()
        until_s = time.monotonic() + DRAIN_S
        self._turn(0)
        while any(self._channels()) and time.monotonic() < until_s:
            for channel in self._channels():
                if channel.is_idle() or channel.lingers_until_s is not None:
                    channel.cut()
            self._turn(TURN_S / 10 if any(self._channels()) else 0)


class _Told:
    """A signal's descriptor among waitress's: it ends the wait of a turn."""

    accepting = False

    def __init__(self, told: Signals) -> None:
        self._told = told

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        self._told.clear()


def _adjustments(most_body_bytes: int, most_connections: int) -> Adjustments:
    return Adjustments(
        threads=THREADS,
        connection_limit=most_connections,
        cleanup_interval=TURN_S,
        channel_timeout=SILENT_S,
        recv_bytes=65536,
        max_request_header_size=MOST_HEADER_BYTES,
        # it refuses what is as long as this, and keeps no more than that of it
        max_request_body_size=most_body_bytes + 1,
        # ours to judge: see clients
        clear_untrusted_proxy_headers=False,
        ident=None,
    )


def connections() -> int:
    """How many connections we may hold, after as many files as we may open were asked for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    room = FILES if soft == resource.RLIM_INFINITY else soft
    return max(10, min(CONNECTIONS, room - (FILES - CONNECTIONS)))


class _Log(logging.Handler):
    """Says what waitress complains about: a bug of ours with its trace, nothing of a request."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.ERROR)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        """One entry."""
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        self._journal.error(f"{str(record.msg)[:200]}\n{trace}".strip())


def log_through(journal: Journal) -> None:
    """Whatever a library logs in this process goes through the journal."""
    logging.basicConfig(handlers=[_Log(journal)], level=logging.ERROR, force=True)
