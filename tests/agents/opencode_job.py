"""A job's place for the real OpenCode: a repository, a HOME, the sandbox, the model double."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentorch.agents import failure_rules
from agentorch.agents.base import Command, Endpoint, Request
from agentorch.agents.opencode.adapter import AGENT
from agentorch.core.job import Network, Outcome
from agentorch.core.process_end import Ending, Exit, Line
from agentorch.sandbox import Confinement, confine
from agentorch.scripted_model import Answer, ModelDouble, playing
from tests.support import clis
from tests.support.confined import BWRAP, Inside, as_user, place
from tests.support.polling import eventually

SYSTEM = "/usr/bin:/bin"
RUN_S = 120


@dataclass
class Job:
    """A repository and a HOME, and runs of the agent in them."""

    inside: Inside
    double: ModelDouble
    programs: Path

    def request(self, **changes: Any) -> Request:
        provider = AGENT.provider(changes.get("model"))
        base = Request(
            job_id="job-12345678",
            step_id="02_implement",
            attempt=1,
            agent="opencode",
            role="implementer",
            goal="Make it add.",
            prompt="Make add.py add.",
            script="Make add.py add.",
            work=self.inside.work,
            home=self.inside.home,
            artifacts=self.inside.artifacts,
            endpoint=Endpoint(provider or "", self.double.url, "step-token"),
        )
        return replace(base, **changes)

    def confinement(self, request: Request, command: Command, path: str) -> Confinement:
        """As a step's, but for the network: the double is on the host's loopback."""
        masked = (request.work / name for name in AGENT.capabilities.masked)
        return Confinement(
            name=f"agentorch-test-{self.inside.top.name}",
            work=request.work,
            home=request.home,
            artifacts=request.artifacts,
            network=Network.ALLOW,
            environment={
                "PATH": f"{self.programs}:{path}",
                "HOME": str(request.home),
                "TMPDIR": "/tmp",
                **command.environment,
            },
            work_read_only=request.reads_only,
            masked=tuple(one for one in masked if one.exists()),
        )

    def run(
        self,
        request: Request,
        *,
        path: str = SYSTEM,
        unmasked: bool = False,
        kill: bool = False,
    ) -> Ran:
        command = AGENT.command(request)
        for name, content in command.files.items():
            self.own(request.home / name, content)
        confinement = self.confinement(request, command, path)
        if unmasked:
            confinement = replace(confinement, masked=())
        streams = [self.inside.top / name for name in ("stdin", "stdout", "stderr")]
        streams[0].write_bytes(command.stdin)
        with (
            confine(BWRAP, confinement, command.argv) as start,
            streams[0].open("rb") as stdin,
            streams[1].open("wb") as stdout,
            streams[2].open("wb") as stderr,
        ):
            process = subprocess.Popen(
                start.argv,
                env=start.environment,
                pass_fds=start.pass_fds,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                **as_user(self.inside.uid),
            )
            if kill:
                until_asked(self.double)
                process.send_signal(signal.SIGKILL)
            process.wait(RUN_S)
        lines = [
            Line(path.name, text)
            for path in streams[1:]
            for text in path.read_text(errors="replace").splitlines()
        ]
        return Ran(exit_of(process.returncode), lines)

    def own(self, path: Path, content: str | bytes) -> None:
        """A file of the user's, with its directories."""
        for parent in reversed(path.parents):
            if not parent.exists():
                parent.mkdir()
                os.chown(parent, self.inside.uid, self.inside.uid)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.chown(path, self.inside.uid, self.inside.uid)


@dataclass(frozen=True)
class Ran:
    exit: Exit
    lines: Sequence[Line]

    @property
    def outcome(self) -> Outcome:
        return failure_rules.classify(
            AGENT.outcome(self.exit, iter(self.lines)), AGENT.name, failure_rules.rules()
        )

    def outputs(self, tool: str) -> list[Any]:
        """What a tool's calls ended with."""
        events = [json.loads(line.text) for line in self.lines if line.stream == "stdout"]
        parts = [event["part"] for event in events if event["type"] == "tool_use"]
        return [part["state"] for part in parts if part["tool"] == tool]


def exit_of(code: int) -> Exit:
    if code < 0:
        return Exit(Ending.SIGNALLED, None, -code, 1)
    return Exit(Ending.EXITED, code, None, 1)


def until_asked(double: ModelDouble) -> None:
    eventually(lambda: double.asked, RUN_S)


@contextmanager
def job(uid: int, answers: Sequence[Answer]) -> Iterator[Job]:
    with place(uid) as inside, playing(answers) as double:
        made = Job(inside, double, programs_for(inside))
        made.own(inside.work / "add.py", "def add(a, b):\n    return a - b\n")
        subprocess.run(["git", "init", "-q"], cwd=inside.work, check=True, **as_user(uid))
        yield made


def programs_for(inside: Inside) -> Path:
    """A directory with the program, that this user can reach."""
    if inside.uid == os.geteuid():
        return clis.programs()
    directory = inside.top / "bin"
    directory.mkdir()
    shutil.copy(clis.programs() / "opencode", directory / "opencode")
    return directory
