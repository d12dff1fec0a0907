"""The server: the loop of waitress, run turn by turn, so that it can end when it is idle.

One thread accepts, reads and writes; a few others answer. With sockets that systemd keeps open the
server exits by itself when it is idle: between two turns of the accepting thread, while no
connection is open, so that none is lost. A client that connects later waits in the backlog until
systemd has started the server again.
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
from agentorch.webhook.sockets import socket_name

# A request mostly waits for the disk, and one commit of the filesystem serves several requests.
THREADS = 8
# Slow clients cannot use up so many, because REQUEST_S closes their connections first.
CONNECTIONS = 2000
FILES = CONNECTIONS + 200
MAX_HEADER_BYTES = 32 * 1024
# A request must be complete so long after its first byte. A connection without one is kept longer.
REQUEST_S = 10.0
SILENT_S = 30
# Both limits are checked this often.
TURN_S = 1.0
# A request that began before SIGTERM is still answered, so this is longer than REQUEST_S.
DRAIN_S = 15.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Server:
    """A server of an application on listening sockets; it exits after `idle_s` without work.

    Where `idle_s` is None, it serves until SIGTERM or SIGINT.
    """

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
        adjustments = _adjustments(most_body_bytes, raise_connection_limit())
        self._servers = [self._listen(one, adjustments) for one in sockets]
        self._places = ", ".join(socket_name(one) for one in sockets)
        self._busy_s = time.monotonic()

    def _listen(self, listening: socket.socket, adjustments: Adjustments) -> BaseWSGIServer:
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
        """Serve until SIGTERM or SIGINT, or until the server is idle."""
        with Signals(STOP_SIGNALS) as signals:
            self._map[signals.fileno()] = _SignalChannel(signals)
            notify.notify("READY=1", f"STATUS=listening on {self._places}")
            self._journal.info(f"listening on {self._places}", Message.READY)
            while not signals.came(*STOP_SIGNALS) and not self._is_idle():
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
                channel.close_now()

    def _channels(self) -> Iterator[Channel]:
        for server in self._servers:
            channels = cast(dict[int, Channel], server.active_channels)
            yield from list(channels.values())

    def _patience_s(self) -> float | None:
        """Return the seconds that poll(2) may wait; None means until a client connects."""
        if any(self._channels()):
            return TURN_S
        due = [notify.watchdog_s(), self._idle_in_s()]
        return min((it for it in due if it is not None), default=None)

    def _idle_in_s(self) -> float | None:
        if self._idle_s is None:
            return None
        now_s = time.monotonic()
        silent_s = self._busy_s + self._idle_s - now_s
        # A restart would forget the counts of the rate limit.
        return max(0.0, silent_s, self._application.limiter.remaining_s(now_s))

    def _is_idle(self) -> bool:
        return self._idle_in_s() == 0 and not any(self._channels())

    def _drain(self) -> None:
        """Stop accepting, answer the requests that have begun, close idle connections."""
        for server in self._servers:
            server.del_channel()
        until_s = time.monotonic() + DRAIN_S
        self._turn(0)
        while any(self._channels()) and time.monotonic() < until_s:
            for channel in self._channels():
                if channel.is_idle() or channel.lingers_until_s is not None:
                    channel.close_now()
            self._turn(TURN_S / 10 if any(self._channels()) else 0)


class _SignalChannel:
    """The descriptor of the signals among those of waitress: a signal ends the wait of a turn."""

    accepting = False

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        self._signals.clear()


def _adjustments(most_body_bytes: int, most_connections: int) -> Adjustments:
    return Adjustments(
        threads=THREADS,
        connection_limit=most_connections,
        cleanup_interval=TURN_S,
        channel_timeout=SILENT_S,
        recv_bytes=65536,
        max_request_header_size=MAX_HEADER_BYTES,
        # waitress refuses a body of exactly this length as well
        max_request_body_size=most_body_bytes + 1,
        # `clients` decides which proxies are trusted
        clear_untrusted_proxy_headers=False,
        ident=None,
    )


def raise_connection_limit() -> int:
    """Raise the limit of open files as far as possible; return the number of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    room = FILES if soft == resource.RLIM_INFINITY else soft
    return max(10, min(CONNECTIONS, room - (FILES - CONNECTIONS)))


class _Log(logging.Handler):
    """A log handler for the errors of waitress: a bug with its traceback, nothing of a request."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.ERROR)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        """Write one entry to the journal."""
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        self._journal.error(f"{str(record.msg)[:200]}\n{trace}".strip())


def log_through(journal: Journal) -> None:
    """Send whatever a library logs in this process to the journal."""
    logging.basicConfig(handlers=[_Log(journal)], level=logging.ERROR, force=True)
