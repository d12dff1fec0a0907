"""Running a program: real ones, most of them badly behaved."""

from __future__ import annotations

import dataclasses
import errno
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentorch.core.process_end import Ending, Exit, Line
from agentorch.process import run
from agentorch.process.output import head_and_tail, lines
from agentorch.process.run import Limits
from agentorch.process.watch import Seen, follow_interval_s, look_interval_s, verdict
from tests.support.cage import Cage

# where programs of a test find the cage
SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture
def cage(tmp_path: Path) -> Iterator[Cage]:
    cage = Cage(tmp_path)
    yield cage
    cage.wish.close()


# ---- decisions --------------------------------------------------------------------------------

LIMITS = Limits(
    timeout_s=60, watched=Path("/"), idle_s=10, min_free_bytes=100, max_stream_bytes=1000
)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Seen(now=59, began=0, lively=58), None),
        (Seen(now=60, began=0, lively=60), Ending.TIMEOUT),
        (Seen(now=10, began=0, lively=0), Ending.STALLED),
        (Seen(now=9.9, began=0, lively=0), None),
        (Seen(now=55, began=0, lively=50, said_done=51), None),
        (Seen(now=56, began=0, lively=50, said_done=51), Ending.LINGERED),
        (Seen(now=60, began=0, lively=59, said_done=59), Ending.LINGERED),
        (Seen(now=1, began=0, lively=0, stream_bytes=1000), None),
        (Seen(now=1, began=0, lively=0, stream_bytes=1001), Ending.OUTPUT_LIMIT),
        (Seen(now=1, began=0, lively=0, free_bytes=100), None),
        (Seen(now=1, began=0, lively=0, free_bytes=99), Ending.DISK_FULL),
    ],
)
def test_verdict(seen: Seen, expected: Ending | None) -> None:
    assert verdict(LIMITS, seen) is expected


def test_who_said_that_it_is_done_has_not_stalled() -> None:
    limits = dataclasses.replace(LIMITS, idle_s=3)
    seen = Seen(now=13, began=0, lively=10, said_done=10)
    assert verdict(limits, seen) is Ending.LINGERED


def test_no_idle_limit_never_stalls() -> None:
    limits = dataclasses.replace(LIMITS, idle_s=0)
    assert verdict(limits, Seen(now=59, began=0, lively=0)) is None


@pytest.mark.parametrize(("idle_s", "expected"), [(0, 30), (600, 30), (120, 30), (2, 0.5)])
def test_looks_are_rare(idle_s: float, expected: float) -> None:
    assert look_interval_s(idle_s) == expected


@pytest.mark.parametrize(("quiet_s", "expected"), [(0, 0.01), (0.1, 0.025), (1, 0.25), (99, 0.25)])
def test_a_quiet_program_is_looked_at_less_often(quiet_s: float, expected: float) -> None:
    assert follow_interval_s(quiet_s) == expected


@pytest.mark.parametrize(
    ("returncode", "as_128", "expected"),
    [
        (0, True, (0, None)),
        (3, False, (3, None)),
        (-9, False, (None, 9)),
        (137, True, (None, 9)),
        (137, False, (137, None)),
        (128, True, (128, None)),
        (255, True, (255, None)),
    ],
)
def test_code_and_signal(
    returncode: int, *, as_128: bool, expected: tuple[int | None, int | None]
) -> None:
    assert run.code_and_signal(returncode, signals_as_128=as_128) == expected


def test_oom_is_believed_only_of_a_kill_that_was_not_ours() -> None:
    assert run.exit_of(Ending.EXITED, None, 9, 1.0, oom=True).oom
    assert not run.exit_of(Ending.EXITED, None, 9, 1.0, oom=False).oom
    assert not run.exit_of(Ending.EXITED, None, 15, 1.0, oom=True).oom
    assert not run.exit_of(Ending.EXITED, 1, None, 1.0, oom=True).oom
    assert not run.exit_of(Ending.TIMEOUT, None, 9, 1.0, oom=True).oom


# ---- what it is born with ---------------------------------------------------------------------


def test_speaks(cage: Cage) -> None:
    exit_ = cage.run(cage.launch("speaks"))
    assert (exit_.ending, exit_.code, exit_.signal) == (Ending.EXITED, 0, None)
    assert set(cage.lines) == {
        Line("stdout", "one"),
        Line("stderr", "two"),
        Line("stdout", "three"),
    }
    assert cage.stdout.read_text() == "one\nthree"
    assert cage.stdout.stat().st_mode & 0o777 == 0o600


def test_stdin_is_the_file_of_any_length(cage: Cage) -> None:
    assert cage.run(cage.launch("echoes", stdin=b"p" * (5 << 20))).code == 0
    assert cage.stdout.stat().st_size == 5 << 20


def test_nothing_is_inherited(cage: Cage) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)  # noqa: FBT003
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        cage.run(dataclasses.replace(cage.launch("descriptors"), pass_fds=(writing,)))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        signal.signal(signal.SIGTERM, before)
        os.close(reading)
        os.close(writing)
    assert [text.split(" ")[0] for text in cage.texts] == [
        *("0", "1", "2", str(writing)),
        *("session", "blocked", "term"),
    ]
    assert cage.texts[-3:] == ["session True", "blocked set()", "term 0"]


def test_an_output_file_that_is_there_is_never_overwritten(cage: Cage) -> None:
    launch = cage.launch("speaks")
    launch.stdout.symlink_to(cage.directory / "elsewhere")
    with pytest.raises(FileExistsError):
        cage.run(launch)


# ---- ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 75, 255])
def test_silent(cage: Cage, code: int) -> None:
    exit_ = cage.run(cage.launch("silent", str(code)))
    assert (exit_.ending, exit_.code) == (Ending.EXITED, code)
    assert cage.lines == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_dies(cage: Cage, number: signal.Signals) -> None:
    exit_ = cage.run(cage.launch("dies", str(int(number))))
    assert (exit_.ending, exit_.code, exit_.signal) == (Ending.SIGNALLED, None, number)
    assert not exit_.oom


def test_missing_program(cage: Cage) -> None:
    exit_ = cage.run(cage.launch("/nonexistent/agent"))
    assert (exit_.ending, exit_.code) == (Ending.EXITED, 127)
    assert cage.lines == [Line("stderr", "/nonexistent/agent: No such file or directory")]


def test_program_that_is_none(cage: Cage) -> None:
    path = cage.directory / "agent"
    path.write_text("not a program")
    assert cage.run(cage.launch(str(path))).code == 126
    assert cage.texts == [f"{path}: {os.strerror(errno.EACCES)}"]


def test_closed_output_is_no_end(cage: Cage) -> None:
    assert cage.run(cage.launch("closes-output")).code == 0
    assert (cage.directory / "work" / "worked").exists()
    assert cage.texts == ["before"]


# ---- stops ------------------------------------------------------------------------------------


def test_timeout(cage: Cage) -> None:
    exit_ = cage.run(cage.launch("stalls"), cage.limits(timeout_s=0.3))
    assert (exit_.ending, exit_.signal) == (Ending.TIMEOUT, signal.SIGTERM)
    assert 0.3 <= exit_.duration_s < 3


def test_deaf_is_killed_after_the_grace(cage: Cage) -> None:
    exit_ = cage.run(cage.launch("deaf"), cage.limits(timeout_s=0.3, grace_s=0.2))
    assert (exit_.ending, exit_.signal) == (Ending.TIMEOUT, signal.SIGKILL)
    assert not exit_.oom


@pytest.mark.parametrize("reason", [Ending.CANCELLED, Ending.INTERRUPTED])
def test_polite_ends_in_its_own_way(cage: Cage, reason: Ending) -> None:
    exit_ = cage.run(cage.launch("polite"), on_line=lambda line: _at(line, cage, reason))
    assert (exit_.ending, exit_.code) == (reason, 0)
    assert cage.texts == ["ready", "bye"]
    assert exit_.duration_s < 5


def _at(line: Line, cage: Cage, reason: Ending | None) -> None:
    if line.text == "ready":
        cage.wish(reason)


def test_false_alarm_stops_nothing(cage: Cage) -> None:
    exit_ = cage.run(
        cage.launch("deaf"),
        cage.limits(timeout_s=0.5, grace_s=0),
        on_line=lambda line: _at(line, cage, None),
    )
    assert exit_.ending is Ending.TIMEOUT


def test_stop_argv_is_run_on_a_stop_and_not_on_an_end(cage: Cage) -> None:
    stopped = cage.directory / "stopped"
    launch = dataclasses.replace(cage.launch("silent"), stop_argv=("touch", str(stopped)))
    cage.run(launch)
    assert not stopped.exists()
    again = Cage(cage.directory / "again")
    again.directory.mkdir()
    launch = dataclasses.replace(again.launch("stalls"), stop_argv=("touch", str(stopped)))
    again.run(launch, again.limits(timeout_s=0.2))
    again.wish.close()
    assert stopped.exists()


def test_a_consumer_that_fails_leaves_nothing(cage: Cage) -> None:
    def fail(line: Line) -> None:
        raise LookupError(line.text)

    with pytest.raises(LookupError, match="ready"):
        cage.run(cage.launch("polite"), on_line=fail)
    assert cage.stdout.read_text() == "ready\nbye\n"


# ---- what it leaves behind --------------------------------------------------------------------


def test_child_that_goes_on_is_ended(cage: Cage) -> None:
    exit_ = cage.run(cage.launch("leaves-child"))
    assert (exit_.ending, exit_.code) == (Ending.EXITED, 0)
    assert cage.texts == ["left"]


@pytest.mark.parametrize("name", ["daemon", "respawns", "headless"])
def test_nobody_escapes(cage: Cage, name: str) -> None:
    exit_ = cage.run(cage.launch(name), cage.limits(grace_s=0.2))
    assert (exit_.ending, exit_.code) == (Ending.EXITED, 0)
    assert not _zombies()


def test_more_than_we_have_descriptors(cage: Cage) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    launch = cage.launch("crowd", "300")
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        exit_ = cage.run(launch, cage.limits(grace_s=0.1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert exit_.code == 0


def _zombies() -> list[str]:
    me = str(os.getpid())
    out = subprocess.run(
        ["ps", "--ppid", me, "-o", "stat=,comm="], capture_output=True, text=True, check=False
    )
    return [line for line in out.stdout.splitlines() if line.startswith("Z")]


def test_our_other_children_live_on(cage: Cage) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        cage.run(cage.launch("deaf"), cage.limits(timeout_s=0.2, grace_s=0))
        assert other.poll() is None
        other.kill()


def test_the_program_dies_with_us(cage: Cage) -> None:
    """Killed by SIGKILL there is no chance to end anything; the kernel does it."""
    code = (
        "import sys; from pathlib import Path; from cage import Cage\n"
        "cage = Cage(Path(sys.argv[1]), mark=sys.argv[2])\n"
        "cage.run(cage.launch('stalls'), on_line=lambda line: print(line.text, flush=True))"
    )
    argv = [sys.executable, "-c", code, str(cage.directory), cage.mark]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=SUPPORT) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"working\n"
        agent = _child_of(running.pid)
        descriptor = os.pidfd_open(agent)
        running.kill()
    assert _ends(descriptor)


def _child_of(pid: int) -> int:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True)
    return int(found.stdout)


def _ends(descriptor: int) -> bool:
    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


# ---- life -------------------------------------------------------------------------------------


def test_stalls(cage: Cage) -> None:
    exit_ = cage.run(cage.launch("stalls"), cage.limits(idle_s=0.4))
    assert exit_.ending is Ending.STALLED
    assert exit_.duration_s < 3


@pytest.mark.parametrize("name", ["thinks", "saves"])
def test_silent_work_is_life(cage: Cage, name: str) -> None:
    exit_ = cage.run(cage.launch(name, "1.5"), cage.limits(idle_s=0.5))
    assert (exit_.ending, exit_.code) == (Ending.EXITED, 0)


def test_disk_full(cage: Cage) -> None:
    exit_ = cage.run(cage.launch("stalls"), cage.limits(min_free_bytes=1 << 60))
    assert exit_.ending is Ending.DISK_FULL


def test_too_much_output(cage: Cage) -> None:
    limits = cage.limits(max_stream_bytes=8 << 20)
    exit_ = cage.run(cage.launch("floods", "100000", "200"), limits)
    assert exit_.ending is Ending.OUTPUT_LIMIT
    assert cage.stdout.stat().st_size < 1 << 30


# ---- output -----------------------------------------------------------------------------------


def test_binary(cage: Cage) -> None:
    cage.run(cage.launch("binary"))
    assert len(cage.lines) == 2
    assert cage.lines[0].text.startswith("\0\x01")
    assert cage.lines[0].text.endswith("\N{REPLACEMENT CHARACTER}")


def test_truncated_output_is_followed_from_its_new_beginning(cage: Cage) -> None:
    cage.run(cage.launch("truncates"))
    assert cage.stdout.read_text() == "second\nthird\n"
    assert cage.texts[-2:] == ["second", "third"]


def test_lines_come_while_it_runs(cage: Cage) -> None:
    began = time.monotonic()
    came: list[float] = []
    cage.run(
        cage.launch("stalls"),
        cage.limits(timeout_s=1),
        on_line=lambda _: came.append(time.monotonic() - began),
    )
    assert came[0] < 0.8


MEASURE = """
import sys, time
from pathlib import Path
from agentorch.process.run import run
from cage import Cage
cage = Cage(Path(sys.argv[1]))
def memory():
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0])
count = longest = 0
def on_line(line):
    global count, longest
    count += 1
    longest = max(longest, len(line.text))
before, began = memory(), time.monotonic()
exit_ = run(cage.launch(*sys.argv[2:]), cage.limits(timeout_s=60), cage.wish, on_line)
print(exit_.code, count, longest, memory() - before, round(time.monotonic() - began, 2))
"""


def _measured(directory: Path, *argv: str) -> list[str]:
    found = subprocess.run(
        [sys.executable, "-c", MEASURE, str(directory), *argv],
        capture_output=True,
        text=True,
        check=True,
        cwd=SUPPORT,
    )
    return found.stdout.split()


def test_flood_in_flat_memory(tmp_path: Path) -> None:
    code, count, longest, grown_kib, _ = _measured(tmp_path, "floods", "200", "128")
    assert (code, longest) == ("0", "127")
    assert int(count) > 30_000  # all, or those that could be followed and the last 4 MiB
    assert int(grown_kib) < 24 << 10


def test_endless_line_in_flat_memory(tmp_path: Path) -> None:
    code, count, longest, grown_kib, _ = _measured(tmp_path, "one-line", "50")
    assert code == "0"
    assert int(longest) <= 1 << 20
    assert count in ("1", "2", "3")  # cut, or a jump, or both, and the short one
    assert int(grown_kib) < 24 << 10
    last = list(lines(tmp_path / "stdout", "stdout"))
    assert [(len(line.text), line.cut) for line in last] == [(4 << 20, True), (5, False)]
    shown = head_and_tail(tmp_path / "stdout", 1000)
    assert shown.missing == (50 << 20) + 7 - len(shown.head) - len(shown.tail)


# ---- the kernel's kill ------------------------------------------------------------------------

CGROUP_V1 = Path("/sys/fs/cgroup/memory")

OOM = """
import sys
from pathlib import Path
from cage import Cage
Path(sys.argv[2], "cgroup.procs").write_text("0")
cage = Cage(Path(sys.argv[1]))
exit_ = cage.run(cage.launch("eats"))
print(exit_.ending.value, exit_.signal, exit_.oom)
"""


@pytest.fixture
def small_cgroup(tmp_path: Path) -> Iterator[Path]:
    own = next(
        line.split(":")[2].lstrip("/")
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if "memory" in line.split(":")[1].split(",")
    )
    path = CGROUP_V1 / own / f"agentorch-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as problem:
        pytest.skip(f"not proved here: no memory cgroup of our own: {problem}")
    (path / "memory.limit_in_bytes").write_text(str(200 << 20))
    yield path
    path.rmdir()


def test_oom_says_so(tmp_path: Path, small_cgroup: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", OOM, str(tmp_path), str(small_cgroup)],
        capture_output=True,
        text=True,
        check=True,
        cwd=SUPPORT,
    )
    assert found.stdout.split() == ["signalled", "9", "True"]


# ---- bubblewrap -------------------------------------------------------------------------------

BWRAP = ("bwrap", "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-pid")


def _wrapped(cage: Cage, *argv: str) -> run.Launch:
    launch = cage.launch(*argv)
    wrapped = (*BWRAP, "--new-session", "--die-with-parent", "--", *launch.argv)
    return dataclasses.replace(launch, argv=wrapped, reports_signals_as_128=True)


def test_a_signal_inside_the_sandbox_is_a_signal(cage: Cage) -> None:
    exit_ = cage.run(_wrapped(cage, "dies", "9"))
    assert (exit_.ending, exit_.code, exit_.signal) == (Ending.SIGNALLED, None, 9)


def test_the_sandbox_does_not_take_the_grace_away(cage: Cage) -> None:
    exit_ = cage.run(
        _wrapped(cage, "polite"), on_line=lambda line: _at(line, cage, Ending.CANCELLED)
    )
    assert (exit_.ending, exit_.code) == (Ending.CANCELLED, 0)
    assert cage.texts == ["ready", "bye"]


@pytest.mark.parametrize("name", ["deaf", "daemon", "respawns"])
def test_nothing_is_left_of_a_sandbox(cage: Cage, name: str) -> None:
    cage.run(_wrapped(cage, name), cage.limits(timeout_s=0.5, grace_s=0.2))


def test_work_inside_the_sandbox_is_life(cage: Cage) -> None:
    exit_ = cage.run(_wrapped(cage, "saves", "1.5"), cage.limits(idle_s=0.5))
    assert exit_ == Exit(Ending.EXITED, 0, None, exit_.duration_s)
