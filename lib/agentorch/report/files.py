"""The reading of files for a page; a file that is missing, torn or odd counts as empty.

No large file is read whole: of logs the end is read, of reports the beginning.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentorch.artifacts.directory import JobArtifacts, read_step_result
from agentorch.artifacts.state import JobState
from agentorch.core.errors import Damaged
from agentorch.core.results import JobResult, StepResult
from agentorch.report.figures import plain
from agentorch.storage.json_files import Document

MAX_JSON_BYTES = 16 * 1024 * 1024
MAX_REPORT_BYTES = 128 * 1024
MAX_LOG_BYTES = 64 * 1024
MAX_LOG_LINES = 200


@dataclass(frozen=True)
class End:
    """The end of a log; `left_out_bytes` before it are left out."""

    text: str = ""
    left_out_bytes: int = 0


def read_document(path: Path) -> Document:
    """Return a JSON object; {} where it is missing, torn, or too large."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_JSON_BYTES))
        return found if isinstance(found, dict) else {}
    return {}


def state_in(artifacts: JobArtifacts) -> JobState | None:
    """Return a job's state; None where it is missing, torn or odd."""
    with contextlib.suppress(OSError, Damaged):
        return artifacts.read_state()
    return None


def result_in(artifacts: JobArtifacts) -> JobResult | None:
    """Return a job's result; None where it is missing, torn or odd."""
    with contextlib.suppress(OSError, Damaged):
        return artifacts.job_result()
    return None


def attempt_result_in(path: Path) -> StepResult | None:
    """Return an attempt's result; None where it is missing, torn or odd."""
    with contextlib.suppress(OSError, Damaged):
        return read_step_result(path)
    return None


def beginning(path: Path) -> tuple[str, int]:
    """Return the beginning of a text, and the number of bytes that follow it."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(MAX_REPORT_BYTES)
        return content.decode("utf-8", "replace"), max(0, size - len(content))
    return "", 0


def end_of(path: Path) -> End:
    """Return the last lines of a log."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - MAX_LOG_BYTES))
        lines = file.read(MAX_LOG_BYTES).split(b"\n")
        if size > MAX_LOG_BYTES:
            lines = lines[1:] or [b""]  # the first is a piece of one
        kept = b"\n".join(lines[-MAX_LOG_LINES - 1 :]).rstrip(b"\n")
        left_out = size - len(kept) if len(lines) > MAX_LOG_LINES + 1 or size > MAX_LOG_BYTES else 0
        return End(kept.decode("utf-8", "replace"), left_out)
    return End()


def mapping_in(document: Mapping[str, Any], name: str) -> Document | None:
    """Return a field that is an object, None where it is something else."""
    found = document.get(name)
    return found if isinstance(found, dict) else None


def list_in(document: Mapping[str, Any], name: str) -> list[Any]:
    """Return a field that is an array, [] where it is something else."""
    found = document.get(name)
    return found if isinstance(found, list) else []


def string_in(document: Mapping[str, Any], name: str) -> str:
    """Return a field as text, "" where it is missing."""
    found = document.get(name)
    return "" if found is None else plain(found)
