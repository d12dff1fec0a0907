"""A confined program on the terminal that we are on, or on our own streams.

On a terminal it gets one of its own: a pty (pty(7)) whose other end is copied from and to ours,
which is raw meanwhile. A sandbox has a session of its own (bwrap --new-session), so that nothing
inside can type into our terminal (TIOCSTI, ioctl_tty(2); the seccomp filter refuses that, too).
`setsid --ctty` makes the pty the controlling terminal of a further session inside, so a shell has
its job control: Ctrl-C, Ctrl-Z, fg and bg act on what runs in there. In a pipe it has our streams.

A terminal that nobody reads (a connection that hangs) must not keep us from a signal: it is opened
anew to be written to, since O_NONBLOCK on our own stdout would be our parent's, too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from pathlib import Path

from agentorch.sandbox import Confined
from agentorch.system.signals import Signals

ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
CONTROLLING = "/dev/tty"
_CHUNK_BYTES = 64 * 1024


def is_ours() -> bool:
    """Return whether we are on a terminal, both ways, and it is the one whose signals we get."""
    if not (os.isatty(sys.stdin.fileno()) and os.isatty(sys.stdout.fileno())):
        return False
    try:
        os.close(_screen())
    except OSError:  # ENXIO: it controls others (tty(4))
        return False
    return True


def _screen() -> int:
    return os.open(CONTROLLING, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def controlling_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the command line that gives `argv` its standard input as controlling terminal
    (setsid(1)).
    """
    return ("setsid", "--ctty", "--wait", *argv)


def run(start: Confined, cwd: Path, *, on_terminal: bool) -> int:
    """Run it to its end; its exit code, 128+N where it or we were ended by signal N."""
    with Signals((*ENDS, signal.SIGWINCH) if on_terminal else ENDS) as signals:
        if not on_terminal:
            with _start(start, cwd, None) as child:
                return _wait(child, signals)
        master, slave = os.openpty()
        screen = _screen()
        try:
            _resize(master)
            with _raw(), _start(start, cwd, slave) as child:
                os.close(slave)
                return Relay(master, screen, child, signals).run()
        finally:
            os.close(screen)
            os.close(master)


@contextlib.contextmanager
def _start(start: Confined, cwd: Path, slave: int | None) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        start.argv,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=cwd,
        env=dict(start.environment),
        pass_fds=start.pass_fds,
    )
    try:
        yield child
    finally:
        child.kill()  # no harm where it has ended
        child.wait()


def _wait(child: subprocess.Popen[bytes], signals: Signals) -> int:
    ended = os.pidfd_open(child.pid)
    try:
        select.select([ended, signals.fileno()], [], [])
    finally:
        os.close(ended)
    return _code(child, signals)


def _code(child: subprocess.Popen[bytes], signals: Signals) -> int:
    """Return what it ended with; where it runs on, the signal that asks us to leave."""
    if child.poll() is None:
        return 128 + next((number for number in ENDS if signals.came(number)), signal.SIGHUP)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


# ---- the terminal -----------------------------------------------------------------------------


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Our terminal passes on every key meanwhile."""
    ours = sys.stdin.fileno()
    before = termios.tcgetattr(ours)
    tty.setraw(ours, termios.TCSADRAIN)  # what was typed ahead is for it
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # it hung up
            termios.tcsetattr(ours, termios.TCSANOW, before)


def _resize(master: int) -> None:
    """Give the pty the size of our terminal; the kernel tells whoever is in its foreground."""
    with contextlib.suppress(OSError):  # our terminal is gone: the next read says so
        size = fcntl.ioctl(sys.stdin.fileno(), termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)


class Relay:
    """Copies between our terminal and a pty until what is on it has ended, or ours is gone.

    Neither direction waits for the other, and what one side does not take keeps us from reading
    more of the other, not from a signal.
    """

    def __init__(
        self, master: int, screen: int, child: subprocess.Popen[bytes], signals: Signals
    ) -> None:
        self.master = master
        self.screen = screen
        self.child = child
        self.signals = signals
        self.typed = b""
        self.printed = b""
        self.is_gone = False
        os.set_blocking(master, False)

    def run(self) -> int:
        """Return the exit code, as `run` has it."""
        ended = os.pidfd_open(self.child.pid)
        try:
            while not self._is_over(ended):
                pass
        finally:
            os.close(ended)
        return _code(self.child, self.signals)

    def _is_over(self, ended: int) -> bool:
        """Wait for what comes next and pass it on; whether that was the end."""
        ours = sys.stdin.fileno()
        readers: list[int | Signals] = [self.signals]
        readers += [] if self.typed else [ours]
        # the end is behind what was printed before it
        readers += [] if self.printed else [self.master, ended]
        writers = [self.master] if self.typed else []
        writers += [self.screen] if self.printed else []
        readable, writable, _ = select.select(readers, writers, [])
        if self.signals in readable:
            self.signals.clear()
            _resize(self.master)
        if ours in readable:
            self.typed = _read(ours)
            self.is_gone = not self.typed  # raw, it has no end of file
        if self.master in writable:
            self.typed = self.typed[_write(self.master, self.typed) :]
        if self.screen in writable:
            self._show()
        if self.master in readable:
            self.printed = _read(self.master)
        is_left = self.is_gone or self.signals.came(*ENDS)
        return is_left or (ended in readable and not self.printed)

    def _show(self) -> None:
        """Show of what was printed as much as our terminal takes now."""
        try:
            self.printed = self.printed[_write(self.screen, self.printed) :]
        except OSError as problem:
            if problem.errno != errno.EIO:
                raise
            self.is_gone = True  # it hung up


def _read(descriptor: int) -> bytes:
    """Return what can be read now; nothing where the other side is closed (EIO, pty(7))."""
    try:
        return os.read(descriptor, _CHUNK_BYTES)
    except OSError as problem:
        if problem.errno in (errno.EIO, errno.EAGAIN):
            return b""
        raise


def _write(descriptor: int, content: bytes) -> int:
    """Return how much of it was taken now."""
    try:
        return os.write(descriptor, content)
    except BlockingIOError:
        return 0
