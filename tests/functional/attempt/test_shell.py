"""agentorch-shell: what may be seen and done in it, on a terminal and in a pipe, and what stays."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from agentorch.decisions.hold import hold
from agentorch.jobqueue.jobqueue import Queue
from agentorch.process.terminal import controlling_argv
from agentorch.storage.paths import Roots
from tests.support.installation import TIMEOUT_S, Installation, processes_with, step
from tests.support.polling import eventually

pytestmark = pytest.mark.needs("git", "bwrap")
WRITES = "echo made >new"
SHOWN_S = 20
PAGE_BYTES = 4000


def ended(here: Installation, *steps: dict[str, object], **fields: object) -> str:
    job_id = here.submit(*(steps or (step("one", WRITES),)), **fields)
    here.drain()
    return job_id


def inside(here: Installation, job_id: str, script: str, *options: str, **variables: str) -> str:
    argv = (job_id, *options, "--", "sh", "-euc", script)
    return here.run("shell", *argv, given="", code=0, **variables).stdout


def queue_of(here: Installation) -> Queue:
    state = here.state
    roots = Roots(state / "queue", state / "artifacts", state / "workspaces", state / "state.db")
    return Queue(roots)


# ---- what may be seen and done ----------------------------------------------------------------


def test_it_is_in_the_workspace_confined_as_an_agent_is(here: Installation) -> None:
    job_id = ended(here, step("one", f"{WRITES}; echo kept >$HOME/kept"))
    told = inside(here, job_id, "pwd; cat new; env; ls -A $HOME; cat $AGENTORCH_HOMES/exec/kept")
    assert told.splitlines()[:2] == [str(here.work(job_id)), "made"]
    assert told.splitlines()[-1] == "kept"
    assert f"AGENTORCH_JOB={job_id}" in told
    hidden = inside(
        here,
        job_id,
        f"ls {here.state}/queue 2>&1 || true; ls /sys/class/net /proc/net/dev 2>&1 || true; "
        "touch $AGENTORCH_ARTIFACTS/x 2>&1 || true; touch $AGENTORCH_HOMES/exec/x 2>&1 || true; "
        "tail -n +3 /proc/net/dev | cut -d: -f1; env",
        ENV_ALLOWLIST="PATH,OPENAI_API_KEY",
        OPENAI_API_KEY="sk-secret",
    )
    assert "queue': No such file" in hidden
    assert hidden.count("Read-only file system") == 2
    assert "sk-secret" not in hidden
    assert re.findall(r"^ +(\w+)$", hidden, re.M) == ["lo"]


def test_its_home_is_empty_and_gone_afterwards(here: Installation) -> None:
    job_id = ended(here)
    assert inside(here, job_id, "ls -A $HOME; echo x >$HOME/.history") == ""
    assert inside(here, job_id, "ls -A $HOME") == ""
    assert [p.name for p in (here.state / f"workspaces/{job_id}/home").iterdir()] == ["exec"]


def test_it_passes_streams_and_exit_code_through(here: Installation) -> None:
    job_id = ended(here)
    done = here.run("shell", job_id, "--", "cat", "-", given="typed\n")
    assert (done.stdout, done.stderr) == ("typed\n", "")
    assert here.run("shell", job_id, given="echo $PWD; exit 3\n", code=3, SHELL="/bin/sh").stdout
    here.run("shell", job_id, "--", "sh", "-c", "kill -TERM $$", code=143)
    here.run("shell", job_id, "--", "no-such-program", code=1)


def test_a_step_says_whose_sandbox_it_is(here: Installation) -> None:
    job_id = ended(here, step("one", "true"), step("two", "true"))
    assert inside(here, job_id, "echo $AGENTORCH_STEP") == "two\n"
    assert inside(here, job_id, "echo $AGENTORCH_STEP", "--step", "one") == "one\n"
    done = here.run("shell", job_id, "--step", "three", code=1)
    assert done.stderr == f"agentorch-shell: job {job_id} has no step 'three': it has one, two\n"


# ---- whose it is meanwhile --------------------------------------------------------------------


def test_nobody_takes_the_job_meanwhile_and_it_goes_back(here: Installation) -> None:
    job_id = here.submit(step("one", "true"))
    waits = "until [ -e go ]; do sleep 0.05; done"
    shell = here.start("shell", job_id, "--", "sh", "-c", waits)
    eventually(lambda: here.status(job_id)["queue_state"] == "running")
    here.drain()
    assert here.status(job_id)["queue_state"] == "running"
    refused = here.run("shell", job_id, code=2).stderr
    assert refused == (
        f"agentorch-shell: job {job_id} is running in slot 'shell-1': wait for its owner\n"
    )
    eventually(here.work(job_id).exists)
    (here.work(job_id) / "go").touch()
    assert shell.wait(TIMEOUT_S) == 0
    assert here.status(job_id)["queue_state"] == "pending"
    here.drain()
    assert here.status(job_id)["status"] == "success"


def test_every_state_is_the_one_it_was(here: Installation) -> None:
    failed = ended(here, step("one", "exit 1"))
    asks = ended(here, step("one", "exit 1", on_failure="ask_human"))
    done = ended(here)
    held, parked = (here.submit(step("one", "true")) for _ in range(2))
    queue = queue_of(here)
    hold(queue, held)
    (path,) = (here.state / "queue/pending").iterdir()
    until = datetime.now(UTC).replace(year=2099).strftime("%Y%m%dT%H%M%SZ")
    path.rename(here.state / f"queue/parked/{until}-{path.name}")
    before = sorted((here.state / "queue").glob("*/*.json"))
    for job_id in (failed, asks, done, held, parked):
        inside(here, job_id, "true")
    assert sorted((here.state / "queue").glob("*/*.json")) == before


def test_what_is_decided_meanwhile_holds(here: Installation) -> None:
    cancelled, held, over = (here.submit(step("one", "true")) for _ in range(3))
    for job_id, what in ((cancelled, "cancel"), (held, "hold")):
        shell = here.start(
            "shell", job_id, "--", "sh", "-c", "until [ -e go ]; do sleep 0.05; done"
        )
        eventually(here.work(job_id).exists)
        here.run(what, job_id)
        (here.work(job_id) / "go").touch()
        assert shell.wait(TIMEOUT_S) == 0
    assert here.status(held)["queue_state"] == "held"
    here.drain()
    assert here.status(cancelled)["status"] == "cancelled"
    assert here.status(held)["queue_state"] == "held"
    assert here.status(over)["status"] == "success"


@pytest.mark.parametrize("name", ["TERM", "KILL"])
def test_a_shell_that_is_killed_leaves_nothing_and_nobody(here: Installation, name: str) -> None:
    job_id = ended(here)
    shell = here.start("shell", job_id, "--", "sh", "-c", "echo $$ >here; exec sleep 98765")
    eventually((here.work(job_id) / "here").exists)
    shell.send_signal(signal.Signals[f"SIG{name}"])
    code = shell.wait(TIMEOUT_S)
    assert code == (128 + signal.SIGTERM if name == "TERM" else -signal.SIGKILL)
    eventually(
        lambda: (
            not subprocess.run(
                ["pgrep", "-f", "^sleep 98765"], check=False, capture_output=True
            ).stdout
        )
    )
    if name == "KILL":
        assert here.status(job_id)["queue_state"] == "running"
        here.run("reclaim", "--stale-after-sec", "0")
    assert here.status(job_id)["queue_state"] == "done"


# ---- what becomes of changes ------------------------------------------------------------------


def test_a_step_that_begins_anew_forgets_what_was_changed(here: Installation) -> None:
    job_id = ended(here, step("one", "ls; exit 1"))
    inside(here, job_id, "echo x >mine; echo y >>README")
    assert (here.work(job_id) / "mine").exists()
    here.run("retry", job_id)
    here.drain()
    assert not (here.work(job_id) / "mine").exists()
    assert "mine" not in here.run("diff", job_id).stdout


def test_a_step_that_comes_next_takes_over_what_was_changed(here: Installation) -> None:
    """It is part of the job's patch, and of no step's."""
    job_id = ended(here, step("one", WRITES, approve_after=True), step("two", "cat mine >>new"))
    inside(here, job_id, "echo x >mine")
    here.run("approve", job_id)
    here.drain()
    assert here.status(job_id)["status"] == "success"
    assert "+++ b/mine" in here.run("diff", job_id).stdout
    for name in ("one", "two"):
        assert "mine" not in (here.artifacts(job_id) / f"steps/{name}/patch.diff").read_text()


def test_a_workspace_that_was_collected_is_made_again(here: Installation) -> None:
    job_id = ended(here)
    (here.state / f"workspaces/{job_id}").rename(here.top / "away")
    done = here.run("shell", job_id, "--", "cat", "new")
    assert done.stdout == "made\n"
    assert done.stderr == (
        f"agentorch-shell: {job_id}: its workspace was gone: made again from its base and the "
        "steps' patches\n"
    )
    assert here.run("verify", job_id).stdout == f"{job_id} intact\n"
    (here.work(job_id)).rename(here.top / "gone")
    again = here.run("shell", job_id, "--", "cat", "new")
    assert again.stdout == "made\n"
    assert "its work tree was gone" in again.stderr


def test_a_workspace_whose_source_is_gone_is_refused(here: Installation) -> None:
    away = here.top / "source"
    away.mkdir()
    job_id = here.submit(step("one", "true"), workdir=str(away))
    away.rmdir()
    done = here.run("shell", job_id, code=2)
    assert done.stderr.startswith(f"agentorch-shell: job {job_id}: no workspace: ")
    assert here.status(job_id)["queue_state"] == "pending"


# ---- on a terminal ----------------------------------------------------------------------------


class Terminal:
    """agentorch-shell on a terminal of its own, and what is typed and shown there."""

    def __init__(self, here: Installation, job_id: str, *arguments: str) -> None:
        self.shown = ""
        argv = here.argv("shell", job_id, *arguments)
        environment = {**here.environment, "SHELL": "/bin/bash", "TERM": "dumb"}
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(here.repository)
            os.execve(argv[0], argv, environment)

    def types(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def waits_for(self, pattern: str) -> re.Match[str]:
        until = time.monotonic() + SHOWN_S
        while (match := re.search(pattern, self.shown)) is None:
            assert time.monotonic() < until, self.shown
            if select.select([self.master], [], [], 1)[0]:
                self.shown += os.read(self.master, 65536).decode("utf-8", "replace")
        self.shown = self.shown[match.end() :]
        return match

    def ends(self) -> int:
        while True:
            try:
                self.shown += os.read(self.master, 65536).decode("utf-8", "replace")
            except OSError:
                break
        os.close(self.master)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def terminal(here: Installation) -> Iterator[Terminal]:
    found = Terminal(here, ended(here), "--", "bash", "--norc", "-i")
    yield found
    with contextlib.suppress(OSError):  # it has ended
        os.close(found.master)
    with contextlib.suppress(OSError):
        os.kill(found.pid, signal.SIGKILL)


def test_a_shell_on_a_terminal_has_job_control(terminal: Terminal) -> None:
    terminal.types("PS1='ready> '\n")
    terminal.waits_for("\nready> ")
    assert "no job control" not in terminal.shown
    terminal.types("sleep 98762\n")
    eventually(lambda: processes_with("98762"))  # it is in the foreground
    terminal.types("\x1a")
    terminal.waits_for(r"Stopped +sleep 98762")
    terminal.types("fg\n")
    terminal.waits_for(r"fg\r\nsleep 98762\r\n")
    terminal.types("\x03")
    terminal.waits_for(r"\^C\s+ready> ")
    terminal.types("echo code $?; test -t 0 && echo on a terminal\n")
    terminal.waits_for("\ncode 130\r\non a terminal")
    terminal.types("exit 5\n")
    assert terminal.ends() == 5


def test_its_size_is_the_terminals(terminal: Terminal) -> None:
    terminal.types("PS1='ready> '\n")
    terminal.waits_for("\nready> ")
    fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    terminal.types("stty size\n")
    terminal.waits_for("33 99")
    terminal.types("exit\n")
    assert terminal.ends() == 0


def test_nobody_inside_types_into_our_terminal(terminal: Terminal) -> None:
    """TIOCSTI, on the one terminal there is inside."""
    script = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSTI, b'x')"
    terminal.types(f'python3 -c "{script}" 2>&1 | tail -n 1\n')
    terminal.waits_for("PermissionError|Operation not permitted|command not found")
    terminal.types("exit\n")
    terminal.ends()


def left(terminal: Terminal) -> int:
    """The exit code of a shell that nobody reads from any more."""
    found: list[int] = []

    def is_over() -> bool:
        pid, status = os.waitpid(terminal.pid, os.WNOHANG)
        found.extend([os.waitstatus_to_exitcode(status)] if pid else [])
        return bool(pid)

    eventually(is_over)
    return found[0]


def unread(terminal: Terminal) -> int:
    """How many bytes are shown that nobody has read; the kernel counts no more than it holds."""
    found = fcntl.ioctl(terminal.master, termios.FIONREAD, bytes(4))
    return int(struct.unpack("i", found)[0])


def hangs_up(terminal: Terminal) -> None:
    os.close(terminal.master)


def is_told_to_end(terminal: Terminal) -> None:
    os.kill(terminal.pid, signal.SIGTERM)


@pytest.mark.parametrize(
    ("runs", "ending", "code"),
    [
        ("sleep 98764", hangs_up, 129),
        ("trap '' HUP TERM; setsid nohup sleep 98764 & wait", hangs_up, 129),
        ("sleep 98764 & yes", hangs_up, 129),
        # nobody reads what is printed: a connection that hangs
        ("sleep 98764 & yes", is_told_to_end, 143),
    ],
)
def test_a_terminal_that_goes_away_ends_the_shell_and_all_in_it(
    here: Installation,
    terminal: Terminal,
    runs: str,
    ending: Callable[[Terminal], None],
    code: int,
) -> None:
    terminal.types("PS1='ready> '\n")
    terminal.waits_for("\nready> ")
    terminal.types(f"{runs}\n")
    eventually(lambda: processes_with("98764"))
    if "yes" in runs:  # until no more goes into the terminal
        eventually(lambda: unread(terminal) > PAGE_BYTES)
    ending(terminal)
    assert left(terminal) == code
    eventually(lambda: not processes_with("98764"))
    assert [path.parent.name for path in (here.state / "queue").rglob("*.json")] == ["done"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_shell_that_is_ended_before_it_is_open_puts_the_job_back(
    here: Installation, number: signal.Signals
) -> None:
    job_id = here.submit(step("one", "true"))
    git = here.top / "slow/git"
    git.parent.mkdir()
    git.write_text("#!/bin/sh\nexec sleep 98763\n")
    git.chmod(0o755)
    shell = here.start("shell", job_id, PATH=f"{git.parent}:{here.environment['PATH']}")
    eventually(lambda: processes_with("98763"))
    shell.send_signal(number)
    assert shell.wait(TIMEOUT_S) == 128 + number
    eventually(lambda: not processes_with("98763"))
    assert here.status(job_id)["queue_state"] == "pending"
    assert here.run("shell", job_id, "--", "true", code=0)


def test_the_command_line_that_gives_a_terminal() -> None:
    assert controlling_argv(["sh", "-c", "x"]) == ("setsid", "--ctty", "--wait", "sh", "-c", "x")
