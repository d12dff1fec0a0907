"""Refuses to write where too little of a disk is free."""

from __future__ import annotations

import os
from pathlib import Path

from agentorch.core.errors import TryAgain


def refuse_below(directory: Path, floor_bytes: int) -> None:
    """Raise TryAgain where less than the floor is free."""
    free = os.statvfs(directory)
    if free.f_bavail * free.f_frsize < floor_bytes:
        raise TryAgain(
            f"{directory}: less than {floor_bytes} bytes are free (AGENTORCH_MIN_FREE_BYTES)"
        )
