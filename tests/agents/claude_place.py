"""A workspace and a HOME to run the real Claude Code in, in bwrap, against the model double."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from agentorch.agents import failure_rules
from agentorch.agents.base import Command, Endpoint, Request
from agentorch.agents.claude.adapter import AGENT
from agentorch.core.job import Outcome
from agentorch.core.process_end import Ending, Exit
from agentorch.process.output import lines
from agentorch.scripted_model import Answer, Call, ModelRequest, Turn, playing
from tests.support import clis

DONE = Turn("The greeting is there.\n\nNothing else was changed.")
RUN_S = 60


@dataclass(frozen=True)
class Ran:
    """What a run came to, and what the model was asked."""

    code: int
    outcome: Outcome
    asked: Sequence[ModelRequest]

    @property
    def tools(self) -> set[str]:
        """The tools that the model was offered."""
        return {tool["name"] for tool in self.asked[0].document["tools"]}


@dataclass(frozen=True)
class Place:
    """A workspace, a HOME, and the outputs of the latest run; not below /tmp, which is private."""

    top: Path

    @property
    def work(self) -> Path:
        return self.top / "work"

    @property
    def home(self) -> Path:
        return self.top / "home"

    def run(
        self,
        request: Request,
        answers: Sequence[Answer],
        *,
        user: int | None = None,
        proxy: str | None = None,
    ) -> Ran:
        """Runs the agent to its end."""
        with playing(answers) as double:
            endpoint = Endpoint("anthropic", double.url, "job-token", proxy)
            code = self.start(replace(request, endpoint=endpoint), user)
            return Ran(code, self.outcome(code), tuple(double.asked))

    def start(self, request: Request, user: int | None = None) -> int:
        """Runs it with the endpoint that the request has; its exit code."""
        command = AGENT.command(request)
        self.put(command)
        if user is not None:
            owned(self.top, user)
        environment = {
            "PATH": f"/tmp/bin:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "TMPDIR": "/tmp",
            **command.environment,
        }
        with (
            (self.top / "stdin").open() as stdin,
            (self.top / "stdout").open("wb") as stdout,
            (self.top / "stderr").open("wb") as stderr,
        ):
            return subprocess.run(
                (*bwrap_argv(request, user), *command.argv),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                timeout=RUN_S,
                check=False,
            ).returncode

    def put(self, command: Command) -> None:
        """The command's files and its standard input."""
        for path, content in command.files.items():
            (self.home / path).parent.mkdir(parents=True, exist_ok=True)
            (self.home / path).write_bytes(content)
        (self.top / "stdin").write_bytes(command.stdin)

    def outcome(self, code: int) -> Outcome:
        """What the latest run came to."""
        said = (line for name in ("stdout", "stderr") for line in lines(self.top / name, name))
        outcome = AGENT.outcome(Exit(Ending.EXITED, code, None, 1.0), said)
        return failure_rules.classify(outcome, "claude", failure_rules.rules(None))


def bwrap_argv(request: Request, user: int | None) -> tuple[str, ...]:
    """The sandbox; the program is bound below /tmp: its own place may be closed to `user`."""
    program = (clis.programs() / "claude").resolve()
    work, home = str(request.work), str(request.home)
    ids = (f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs")
    return (
        "bwrap",
        *("--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *("--die-with-parent", "--new-session"),
        *("--ro-bind", "/", "/"),
        *("--dev", "/dev"),
        *("--proc", "/proc"),
        *("--perms", "1777", "--tmpfs", "/tmp"),
        *("--ro-bind", str(program), "/tmp/bin/claude"),
        *("--ro-bind" if request.reads_only else "--bind", work, work),
        *("--bind", home, home),
        *("--chdir", work),
        "--",
        *(("setpriv", *ids) if user is not None else ()),
    )


def owned(top: Path, user: int) -> None:
    """Gives everything in here to a user."""
    top.chmod(0o755)
    for path in (top, *top.rglob("*")):
        os.chown(path, user, user)


@contextmanager
def made() -> Iterator[Place]:
    """A place with a file to find, removed afterwards."""
    top = Path(tempfile.mkdtemp(prefix="agentorch-claude-", dir="/var/tmp"))
    place = Place(top)
    place.work.mkdir()
    place.home.mkdir()
    (place.work / "first.txt").write_text("a needle in here\n")
    try:
        yield place
    finally:
        shutil.rmtree(top)


def request_in(place: Place) -> Request:
    """What an implementer is asked there."""
    return Request(
        job_id="0123456789abcdef",
        step_id="02_implement",
        attempt=1,
        agent="claude",
        role="implementer",
        goal="Add a greeting",
        prompt="Add a greeting.",
        script="Add a greeting.",
        work=place.work,
        home=place.home,
        artifacts=place.top / "artifacts",
        model="claude-sonnet-4-5",
        system="SYSTEM-CANARY: be careful.",
        body="Add a greeting.",
    )


def write(path: Path, content: str = "hello\n") -> Call:
    """A call that writes a file."""
    return Call("Write", {"file_path": str(path), "content": content})


def bash(command: str) -> Call:
    """A call that runs a command."""
    return Call("Bash", {"command": command})
