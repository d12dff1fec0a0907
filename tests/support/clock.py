"""A wall clock that tests set: every program that is started with it sees it, and its steps, too.

`clock.c` is preloaded into our programs. (libfaketime is not used: where it leaves the monotonic
clock alone, as anything that waits needs it, clock_nanosleep(2) until a moment fails with EINVAL.)
"""

from __future__ import annotations

import struct
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


@dataclass(frozen=True)
class Clock:
    """A clock, in a directory of its own."""

    directory: Path

    @property
    def _library(self) -> Path:
        return self.directory / "clock.so"

    @property
    def _offset(self) -> Path:
        return self.directory / "offset"

    def make(self) -> Clock:
        """Compiles the library; the clock is right at first."""
        self.directory.mkdir(parents=True, exist_ok=True)
        compile_argv = ["gcc", "-O1", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE)]
        subprocess.run(compile_argv, check=True)
        self.put_off(0)
        return self

    def variables(self) -> dict[str, str]:
        """What a program is started with that is to live by this clock."""
        return {"LD_PRELOAD": str(self._library), "SET_CLOCK": str(self._offset)}

    def put_off(self, seconds: int) -> None:
        """Sets the clock so many seconds after the real one; running programs see it at once."""
        descriptor = self._offset.open("r+b" if self._offset.exists() else "w+b")
        with descriptor as file:
            file.write(struct.pack("=q", seconds))

    def set(self, moment: datetime) -> None:
        """Sets the clock to a moment; it goes on from there."""
        self.put_off(round(moment.timestamp() - time.time()))

    def now(self) -> datetime:
        """What time it is on this clock."""
        (seconds,) = struct.unpack("=q", self._offset.read_bytes())
        return datetime.fromtimestamp(time.time() + seconds, UTC)
