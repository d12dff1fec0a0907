"""The launcher's protocol: four verbs, and the name by which it knows an attempt.

The name is the identity; a launcher's own numbers are not trusted. Whether an attempt still runs
is told by the flock on steps/STEP/.lock, which its process and its sandbox hold; how it ended is
told by its result.json, which outranks whatever the launcher says.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from agentorch.core.attempt import Attempt


class Busy(Exception):
    """The step's lock is taken: an earlier attempt still runs."""


class Stop(StrEnum):
    """Why an attempt is to end before its time."""

    CANCEL = "cancel"
    GIVE_BACK = "give back"


class Launcher(Protocol):
    """A place where attempts are started. `outlives`: they go on when their runner leaves or
    dies.
    """

    @property
    def outlives(self) -> bool: ...

    def submit(self, attempt: Attempt) -> str:
        """Start an attempt and return its name; the same attempt again starts nothing.

        The step's lock is taken when it returns. Raises Busy while an earlier attempt has it, and
        TryAgain where nothing can be started now, and nothing was.
        """

    def list(self) -> Mapping[str, str]:
        """Return the attempts it knows: name to `running`, or in words how the process ended."""

    def cancel(self, name: str, why: Stop) -> None:
        """Ask an attempt to end; it records why. No harm where it has ended."""

    def usage(self, name: str) -> Mapping[str, float]:
        """Return what an attempt used whose lock is free: cpu_s, and what else this launcher can
        say.

        Nothing of the attempt runs any more when it returns.
        """
