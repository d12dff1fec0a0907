"""Runs a program of the zoo as a step would, and says afterwards what is left of it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agentorch.core.process_end import Ending, Exit, Line
from agentorch.process import run as process
from agentorch.process.run import Launch, Limits

ZOO = Path(__file__).parents[1] / "agents/zoo"
MARK = "AGENTORCH_ZOO"


class Wish:
    """A caller's wish to stop, as a pipe."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        self._reason: Ending | None = None

    def __call__(self, reason: Ending | None) -> None:
        self._reason = reason
        os.write(self._writing, b"!")

    def fileno(self) -> int:
        return self._reading

    def reason(self) -> Ending | None:
        os.read(self._reading, 100)
        return self._reason

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


@dataclass
class Cage:
    """A directory to run a program of the zoo in, once."""

    directory: Path
    wish: Wish = field(default_factory=Wish)
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    lines: list[Line] = field(default_factory=list)

    @property
    def stdout(self) -> Path:
        return self.directory / "stdout"

    @property
    def stderr(self) -> Path:
        return self.directory / "stderr"

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.lines]

    def limits(
        self,
        timeout_s: float = 20,
        idle_s: float = 0,
        grace_s: float = 5,
        min_free_bytes: int = 0,
        max_stream_bytes: int = 1 << 30,
    ) -> Limits:
        return Limits(timeout_s, self.directory, idle_s, grace_s, min_free_bytes, max_stream_bytes)

    def launch(self, *argv: str, stdin: bytes = b"") -> Launch:
        """`argv[0]` is a program of the zoo, or a path."""
        (self.directory / "stdin").write_bytes(stdin)
        work = self.directory / "work"
        work.mkdir(exist_ok=True)
        program = argv[0] if "/" in argv[0] else str(ZOO / argv[0])
        return Launch(
            argv=(program, *argv[1:]),
            cwd=work,
            environment={"PATH": os.environ["PATH"], MARK: self.mark},
            stdin=self.directory / "stdin",
            stdout=self.stdout,
            stderr=self.stderr,
        )

    def run(
        self,
        launch: Launch,
        limits: Limits | None = None,
        on_line: Callable[[Line], None] | None = None,
    ) -> Exit:
        """Runs it, keeps its lines, and proves that nothing of it is left."""

        def keep(line: Line) -> None:
            self.lines.append(line)
            if on_line is not None:
                on_line(line)

        exit_ = process.run(launch, limits or self.limits(), self.wish, keep)
        assert not marked(self.mark)
        return exit_


def marked(mark: str) -> list[int]:
    """The processes whose environment carries this mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (directory / "environ").read_bytes().split(b"\0"):
                found.append(int(directory.name))
        except OSError:  # gone meanwhile
            continue
    return found
