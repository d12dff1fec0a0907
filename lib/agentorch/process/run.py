"""Runs one program to its end: followed, bounded, and nothing of it left behind.

The program has its own session, regular files as stdin, stdout and stderr, and no other descriptor
but those that are passed. It is forked by subprocess with a preexec_fn: the caller has one thread,
and then nothing can happen between fork and exec that the child would have to fear.

This process is a child subreaper meanwhile, so every descendant, daemonised ones included, is found
below it. The run is over when the program itself ends; whoever it left gets SIGTERM, then SIGKILL.
If *this* process is killed, the kernel kills the program; its descendants are then for the
sandbox's pid namespace or the unit's cgroup to end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentorch.core.errors import TryAgain
from agentorch.core.process_end import Ending, Exit, Line
from agentorch.process.output import Followers
from agentorch.process.watch import Limits, Stops, Watch
from agentorch.sandbox import Confined
from agentorch.storage.atomic import DISK_TROUBLE, disk_trouble
from agentorch.system import procfs
from agentorch.system.descendants import Descendants, die_with_parent, subreaper

__all__ = ["Launch", "Limits", "Stops", "code_and_signal", "exit_of", "run"]

# A program that ends the sandbox's way (podman kill) talks to a daemon: not forever.
_STOP_ARGV_S = 30.0
# Above that of a user's services (systemd: 200), below "always first" (1000).
OOM_SCORE = b"500"
# Not the program's fault.
_SHORTAGE = DISK_TROUBLE | {errno.EAGAIN, errno.ENOMEM}


@dataclass(frozen=True)
class Launch:
    """A program to start.

    The stdout and stderr files are made by `run` and must not be there before.

    `stop_argv` is run, with our own environment, when the program is stopped or was killed.
    `reports_signals_as_128`: the program is a wrapper that ends with what it wraps and exits with
    128+N when a signal ended that (bwrap(1)).
    """

    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]
    stdin: Path
    stdout: Path
    stderr: Path
    pass_fds: tuple[int, ...] = ()
    stop_argv: tuple[str, ...] | None = None
    reports_signals_as_128: bool = False

    @classmethod
    def from_start(
        cls,
        start: Confined,
        cwd: Path,
        streams: Path,
        pass_fds: tuple[int, ...] = (),
        *,
        is_wrapped: bool = True,
    ) -> Launch:
        """Return what a sandbox is to start, with its streams in a directory and more
        descriptors.
        """
        return cls(
            argv=start.argv,
            cwd=cwd,
            environment=start.environment,
            stdin=streams / "stdin",
            stdout=streams / "stdout",
            stderr=streams / "stderr",
            pass_fds=(*start.pass_fds, *pass_fds),
            stop_argv=start.stop_argv,
            reports_signals_as_128=is_wrapped,
        )


def run(
    launch: Launch,
    limits: Limits,
    stops: Stops,
    on_line: Callable[[Line], None],
    is_end: Callable[[Line], bool] = lambda _: False,
) -> Exit:
    """Run the program and return when it and all that it started are gone.

    `on_line` gets each complete line soon after it was printed; `is_end` says whether the program
    says with a line that it is done: then it has `limits.linger_s` to leave. A program that can't
    be executed ends with 126 or 127 and says why on stderr, as sh(1) does. Raises TryAgain where
    the system has no process or descriptor to give; nothing was started then.
    """
    began = time.monotonic()
    kills = procfs.oom_kills()
    with _streams(launch) as streams, subreaper():
        family = Descendants()
        try:
            child = _start(launch, streams)
        except _CantRunError as problem:
            os.write(streams.stderr, f"{problem}\n".encode())
            streams.followers.drain(on_line)
            return Exit(Ending.EXITED, problem.code, None, time.monotonic() - began)
        family.expect(child.pid)
        ending = Ending.INTERRUPTED
        try:
            watch = Watch(limits, streams.followers, family, began)
            heard = _line_reader(on_line, is_end, watch.note_done)
            ending = watch.wait_for_end(child.pid, stops, heard)
        finally:
            _end(launch, limits, family, child, ending)
        duration_s = time.monotonic() - began
        streams.followers.drain(on_line)
    oom = kills is not None and (procfs.oom_kills() or 0) > kills
    code, number = code_and_signal(child.returncode, signals_as_128=launch.reports_signals_as_128)
    return exit_of(ending, code, number, duration_s, oom=oom)


def _line_reader(
    on_line: Callable[[Line], None], is_end: Callable[[Line], bool], done: Callable[[], None]
) -> Callable[[Line], None]:
    def hear(line: Line) -> None:
        on_line(line)
        if is_end(line):
            done()

    return hear


def code_and_signal(returncode: int, *, signals_as_128: bool) -> tuple[int | None, int | None]:
    """Popen's return code as exit code or signal, one of the two None. Pure."""
    if returncode < 0:
        return None, -returncode
    if signals_as_128 and 128 < returncode < 128 + signal.NSIG:
        return None, returncode - 128
    return returncode, None


def exit_of(
    ending: Ending, code: int | None, number: int | None, duration_s: float, *, oom: bool
) -> Exit:
    """Return how it ended.

    `oom`: the kernel counted one meanwhile; that explains a SIGKILL only. Pure.
    """
    if ending is not Ending.EXITED:
        return Exit(ending, code, number, duration_s)
    if number is None and oom and code == 128 + signal.SIGKILL:  # a shell that tells of its child
        return Exit(Ending.SIGNALLED, None, signal.SIGKILL, duration_s, oom=True)
    if number is None:
        return Exit(Ending.EXITED, code, None, duration_s)
    return Exit(Ending.SIGNALLED, None, number, duration_s, oom and number == signal.SIGKILL)


def _prefer_for_oom() -> None:
    """Let the kernel take the program where memory runs out, and not us who report it (proc(5))."""
    with contextlib.suppress(OSError):  # a /proc that can't be written
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(descriptor, OOM_SCORE)
        os.close(descriptor)


# ---- files ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Streams:
    """The three files, open for the program, and what follows two of them."""

    stdin: int
    stdout: int
    stderr: int
    followers: Followers


@contextlib.contextmanager
def _streams(launch: Launch) -> Iterator[_Streams]:
    # O_APPEND: where the program truncates its output, no hole of zeros comes before the rest.
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    with contextlib.ExitStack() as stack:
        with disk_trouble(launch.stdout):
            stdin = _open(stack, launch.stdin, os.O_RDONLY)
            stdout = _open(stack, launch.stdout, new)
            stderr = _open(stack, launch.stderr, new)
            followers = stack.enter_context(Followers(launch.stdout, launch.stderr))
        yield _Streams(stdin, stdout, stderr, followers)


def _open(stack: contextlib.ExitStack, path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    stack.callback(os.close, descriptor)
    return descriptor


# ---- start and end ----------------------------------------------------------------------------


class _CantRunError(Exception):
    """The system refused to execute the program."""

    def __init__(self, problem: OSError) -> None:
        super().__init__(f"{problem.filename}: {os.strerror(problem.errno or 0)}")
        self.code = 127 if problem.errno in (errno.ENOENT, errno.ENOTDIR) else 126


def _start(launch: Launch, streams: _Streams) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def prepare_child() -> None:
        die_with_parent()
        if os.getppid() != parent:  # it ended before the line above: nobody would tell us
            os.kill(os.getpid(), signal.SIGKILL)
        _prefer_for_oom()
        # What the caller blocks or ignores for itself is not meant for the program.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)

    try:
        return subprocess.Popen(
            launch.argv,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            cwd=launch.cwd,
            env=dict(launch.environment),
            pass_fds=launch.pass_fds,
            start_new_session=True,
            preexec_fn=prepare_child,  # noqa: PLW1509  (one thread; see the module's docstring)
        )
    except OSError as problem:
        if problem.errno in _SHORTAGE:
            raise TryAgain(f"{launch.argv[0]}: {problem.strerror}") from problem
        raise _CantRunError(problem) from problem


def _end(
    launch: Launch,
    limits: Limits,
    family: Descendants,
    child: subprocess.Popen[bytes],
    ending: Ending,
) -> None:
    """Whatever happened, nothing of the step runs when this returns."""
    if ending is Ending.EXITED:
        child.wait()
    if launch.stop_argv is not None and (ending is not Ending.EXITED or child.returncode < 0):
        _stop_by(launch.stop_argv)
    family.end(limits.grace_s, wrapper=child.pid if launch.reports_signals_as_128 else None)
    child.wait()


def _stop_by(argv: tuple[str, ...]) -> None:
    # It only helps: what it can't end, or that it can't run, the signals that follow answer.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_STOP_ARGV_S,
            check=False,
        )
