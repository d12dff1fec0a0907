"""The relay out of a sandbox without a network: a loopback port in it, the broker's socket behind.

    python3 -I -S relay.py --socket PATH (--port PORT | --listen-fd N) -- COMMAND...

Listens on 127.0.0.1:PORT, or on the listening socket that it inherited as N, and carries the bytes
of each connection to a connection of its own to the Unix socket PATH and back: unread, at once,
with each direction's end. Runs COMMAND as its child with the same standard streams and variables,
passes TERM, INT and HUP on to it, and ends the moment that it ends, as it did (128+N for signal N).
Before that: 125 with a line on stderr where there is no way out, 126 where COMMAND can't be run,
127 where it was not found.

A program of its own, which imports nothing of ours: every agent pays for it, and sees of us only
this file. Of a direction one piece is held at most: what waits stays with its sender.
"""

from __future__ import annotations

# The halves of signal and socket that are written in C: the others make enumerations of every
# constant first, which takes as long as Python's own start
import _signal  # type: ignore[import-not-found]
import _socket
import errno
import fcntl
import os
import select
import sys

HOST = "127.0.0.1"
PIECE_BYTES = 1 << 16
BACKLOG = 512
# While the broker's backlog or our descriptors are full, new connections wait in our own backlog.
FULL = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
FULL_AGAIN_S = 0.02
MAX_PATH_BYTES = 107
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
PASSED_ON = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)
# Python ignores these for itself; a program expects their defaults.
DEFAULTS = (_signal.SIGPIPE, _signal.SIGXFSZ)
TROUBLE, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127


class Trouble(Exception):
    """A failure to reach the broker, in words."""


def relay_argv(
    python: str, relay: str, socket: str, port: int, command: tuple[str, ...]
) -> tuple[str, ...]:
    """Return what to run instead of `command`, with the paths as they are inside."""
    options = ("--socket", socket, "--port", str(port))
    return (python, "-I", "-S", relay, *options, "--", *command)


def main(arguments: list[str]) -> int:
    """Run the command; the exit code to leave with."""
    try:
        options, command = parse_arguments(arguments)
        address = address_of(options["--socket"])
        listener = listening(options)
    except Trouble as problem:
        return complain(str(problem), TROUBLE)
    # a signal that comes before the child can be told waits until then
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, PASSED_ON)
    try:
        child = os.posix_spawnp(
            command[0], command, environment(), setsigmask=mask, setsigdef=DEFAULTS
        )
    except OSError as problem:
        code = NOT_FOUND if isinstance(problem, FileNotFoundError) else NOT_EXECUTABLE
        return complain(f"{command[0]}: {problem.strerror}", code)
    child_fd = os.pidfd_open(child)
    pass_signals_on(child_fd)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    Relay(listener, address).serve(child_fd)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def complain(words: str, code: int) -> int:
    """Print a line on stderr, where there is one."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"agentorch relay: {words}\n")
    except OSError:  # nobody listens any more
        return code
    return code


def parse_arguments(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the options, and the command. Raises Trouble."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    words, command = arguments[:end], arguments[end + 1 :]
    options = dict(zip(words[::2], words[1::2], strict=False))
    ways = {"--port", "--listen-fd"} & set(options)
    known = set(options) <= {"--socket", "--port", "--listen-fd"}
    numbers = all(options[way].isdecimal() for way in ways)
    if len(words) % 2 or not known or len(ways) != 1 or not numbers or "--socket" not in options:
        raise Trouble("usage: relay.py --socket PATH (--port PORT | --listen-fd N) -- COMMAND...")
    if not command:
        raise Trouble("no command after --")
    return options, command


def environment() -> dict[str, str]:
    """Return the variables as we got them: Python adds LC_CTYPE where there is no locale (PEP
    538).
    """
    variables = dict(os.environ)
    try:
        with open("/proc/self/environ", "rb") as given:
            had = b"\0LC_CTYPE=" in b"\0" + given.read()
    except OSError:  # no /proc: one variable too many
        return variables
    if not had:
        variables.pop("LC_CTYPE", None)
    return variables


def pass_signals_on(child_fd: int) -> None:
    """From now on these signals are the child's."""

    def pass_on(number: int, _frame: object) -> None:
        try:
            _signal.pidfd_send_signal(child_fd, number)
        except ProcessLookupError:  # it has just ended, and so will we
            return

    for number in PASSED_ON:
        _signal.signal(number, pass_on)


# ---- the two ends -----------------------------------------------------------------------------


def address_of(path: str) -> str:
    """Return the path of a Unix socket as connect(2) takes it, however long it is. Raises
    Trouble.
    """
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        return path
    directory, name = os.path.split(path)
    try:
        directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as problem:
        raise Trouble(f"{directory}: {problem.strerror}") from problem
    short = f"/proc/self/fd/{directory_fd}/{name}"
    if len(os.fsencode(short)) > MAX_PATH_BYTES:
        raise Trouble(f"{name}: the name of a socket can't be as long")
    return short


def listening(options: dict[str, str]) -> _socket.socket:
    """Return the socket that agents connect to. Raises Trouble."""
    try:
        if "--listen-fd" in options:
            listener = _socket.socket(fileno=int(options["--listen-fd"]))
            fcntl.fcntl(listener.fileno(), fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        else:
            listener = bind_port(int(options["--port"]))
        listener.listen(BACKLOG)
        listener.settimeout(0)
    except (OSError, OverflowError) as problem:
        place = options.get("--listen-fd") or f"{HOST}:{options['--port']}"
        words = problem.strerror if isinstance(problem, OSError) else "no such number"
        raise Trouble(f"{place}: can't listen there: {words}") from problem
    return listener


def bind_port(port: int) -> _socket.socket:
    """Return a socket on the loopback port, whose interface is up. Raises OSError and Trouble."""
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    raise_loopback(listener.fileno())
    return listener


def raise_loopback(socket_fd: int) -> None:
    """Brings lo up where it is down: a new namespace lets one listen there and nobody connect."""
    name = b"lo".ljust(16, b"\0")  # struct ifreq of netdevice(7)
    try:
        answer = fcntl.ioctl(socket_fd, SIOCGIFFLAGS, name + bytes(24))
        flags = int.from_bytes(answer[16:18], sys.byteorder)
        if not flags & IFF_UP:
            up = (flags | IFF_UP).to_bytes(2, sys.byteorder)
            fcntl.ioctl(socket_fd, SIOCSIFFLAGS, name + up.ljust(24, b"\0"))
    except OSError as problem:
        raise Trouble(f"lo is down and can't be brought up: {problem.strerror}") from problem


def connect(address: str) -> _socket.socket:
    """Return a connection to the broker. Raises OSError."""
    kind = _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    broker = _socket.socket(_socket.AF_UNIX, kind)
    try:
        broker.connect(address)
    except OSError:
        broker.close()
        raise
    return broker


# ---- what is between them ---------------------------------------------------------------------


class Side:
    """One end of a connection: its socket, what waits to be written to it, whether it has ended."""

    __slots__ = ("armed", "ended", "other", "socket", "waiting")
    other: Side

    def __init__(self, socket: _socket.socket) -> None:
        self.socket = socket
        self.waiting: bytes | memoryview = b""
        self.ended = False
        self.armed = 0

    def wants(self) -> int:
        """Return what to wait for here. Nothing more is read before the other side took what
        was.
        """
        reads = not self.ended and not self.other.waiting
        return (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if self.waiting else 0)

    def read(self) -> None:
        """Take a piece from here to the other side, or the end. Raises OSError: it is broken."""
        try:
            piece = self.socket.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        if piece:
            self.other.waiting = piece
            self.other.write()
        else:
            self.ended = True
            self.other.socket.shutdown(_socket.SHUT_WR)

    def write(self) -> None:
        """Write what can be written now. Raises OSError: it is broken."""
        try:
            sent = self.socket.send(self.waiting)
        except BlockingIOError:
            return
        self.waiting = memoryview(self.waiting)[sent:]


class Relay:
    """All connections, in one thread."""

    def __init__(self, listener: _socket.socket, address: str) -> None:
        self._listener = listener
        self._address = address
        self._sides: dict[int, Side] = {}
        self._poller = select.epoll()
        self._full = False
        self._complained = False

    def serve(self, until_fd: int) -> None:
        """Carry bytes until this descriptor is readable."""
        listener_fd = self._listener.fileno()
        self._poller.register(until_fd, select.EPOLLIN)
        self._poller.register(listener_fd, select.EPOLLIN)
        while True:
            happened = self._poller.poll(FULL_AGAIN_S if self._full else None)
            if self._full:
                self._full = False
                self._poller.modify(listener_fd, select.EPOLLIN)
            for descriptor, events in happened:
                if descriptor == until_fd:
                    return
                if descriptor == listener_fd:
                    self._meet()
                elif (side := self._sides.get(descriptor)) is not None:
                    self._carry(side, events)

    def _meet(self) -> None:
        """Let a client in, once the broker has let us in for it."""
        try:
            broker = connect(self._address)
        except OSError as problem:
            if problem.errno in FULL:
                self._pause()
            else:
                self._turn_away(problem)
            return
        try:
            self._join(self._accept(), broker)
        except OSError:  # the client left again, or there is no descriptor for it: then it waits
            broker.close()
            self._pause()

    def _pause(self) -> None:
        self._full = True
        self._poller.modify(self._listener.fileno(), 0)

    def _accept(self) -> _socket.socket:
        descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]
        client = _socket.socket(fileno=descriptor)
        client.settimeout(0)
        # an event of a stream is small, and must not wait for the next
        client.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        return client

    def _turn_away(self, problem: OSError) -> None:
        """Turn a client away: the broker can't be reached, and no connection is better than a
        silent one.
        """
        if not self._complained:
            self._complained = True
            complain(f"{self._address}: {problem.strerror}", TROUBLE)
        try:
            self._accept().close()
        except OSError:  # nobody waits there any more
            return

    def _join(self, client: _socket.socket, broker: _socket.socket) -> None:
        sides = Side(client), Side(broker)
        sides[0].other, sides[1].other = sides[1], sides[0]
        for side in sides:
            self._sides[side.socket.fileno()] = side
            self._arm(side)

    def _carry(self, side: Side, events: int) -> None:
        try:
            if side.waiting and events & ~select.EPOLLIN:
                side.write()
            if side.wants() & select.EPOLLIN and events & ~select.EPOLLOUT:
                side.read()
        except OSError:  # one side broke the connection off: so do we
            self._part(side)
            return
        if side.ended and side.other.ended:
            self._part(side)
        else:
            self._arm(side)
            self._arm(side.other)

    def _arm(self, side: Side) -> None:
        """Watch a side for what is wanted of it; for nothing at all where nothing is, or a hangup
        would spin.
        """
        wanted, descriptor = side.wants(), side.socket.fileno()
        if wanted == side.armed:
            return
        if not side.armed:
            self._poller.register(descriptor, wanted)
        elif wanted:
            self._poller.modify(descriptor, wanted)
        else:
            self._poller.unregister(descriptor)
        side.armed = wanted

    def _part(self, side: Side) -> None:
        for one in (side, side.other):
            del self._sides[one.socket.fileno()]
            one.socket.close()


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
