"""Which version a program is: what it says itself, compared as numbers.

Some programs take seconds to say it, so what one said is kept for an hour, in a file that only we
write: {argv: {"program": its file's identity, "when": seconds since 1970, "said": …}}. Another file
in the program's place is asked anew at once; the hour is for scripts that start something else.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import IO

from agentorch.storage import atomic
from agentorch.storage.json_files import read_cache

TIMEOUT_S = 10
MAX_BYTES = 64 * 1024
MAX_KEPT_CHARS = 1000
KEPT_S = 3600
DOTTED = re.compile(r"\d{1,9}(?:\.\d{1,9}){1,5}", re.ASCII)
WHOLE = re.compile(r"\d{1,9}", re.ASCII)

Version = tuple[int, ...]


# ---- words ------------------------------------------------------------------------------------


def first_version(text: str) -> Version | None:
    """Return the first version-looking number: one with dots, else any.

    None where there is none. Pure.
    """
    match = DOTTED.search(text) or WHOLE.search(text)
    return tuple(int(number) for number in match[0].split(".")) if match else None


def is_at_least(found: Version, least: Version) -> bool:
    """Return compared as numbers; what a version doesn't say is 0. Pure."""
    pairs = list(zip_longest(found, least, fillvalue=0))
    return [here for here, _ in pairs] >= [there for _, there in pairs]


def version_text(version: Version) -> str:
    """Return `1.2.3` for (1, 2, 3). Pure."""
    return ".".join(map(str, version))


# ---- asking -----------------------------------------------------------------------------------


def kept_version(
    argv: Sequence[str], environment: Mapping[str, str], kept: Path | None
) -> str | None:
    """Return what `printed` gives, or gave within the hour; `kept` is the file, None keeps
    nothing.
    """
    program = _identity(argv[0], environment.get("PATH", os.defpath))
    if kept is None or program is None:
        return print_version(argv, environment)
    name, known = shlex.join(argv), read_cache(kept)
    if (text := _fresh(known.get(name), program)) is not None:
        return text
    text = print_version(argv, environment)
    if text is not None:
        entry = {"program": program, "when": time.time(), "said": text[:MAX_KEPT_CHARS]}
        with contextlib.suppress(OSError):  # where it can't be kept, it is asked again
            atomic.replace_json(kept, {**known, name: entry})
    return text


def _fresh(entry: object, program: list[int]) -> str | None:
    match entry:
        case {"program": list(same), "when": float(when), "said": str(text)} if same == program:
            return text if 0 <= time.time() - when < KEPT_S else None
    return None


def _identity(program: str, path: str) -> list[int] | None:
    """Return what is another when the program's file is replaced or written to; None: not there.

    The time of change, too: what npm unpacks has the same time of modification in every version.
    """
    found = shutil.which(program, path=path)
    if found is None:
        return None
    status = os.stat(found)
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def print_version(
    argv: Sequence[str], environment: Mapping[str, str], timeout_s: float = TIMEOUT_S
) -> str | None:
    """Return what a command prints on either stream; None where it fails, or is not done in time.

    Into a file: a pipe could be held open by what the command leaves behind. Its HOME is one of
    its own, and goes with what it wrote there.
    """
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home,
        tempfile.TemporaryFile() as output,
    ):
        try:
            process = _start(argv, {**environment, "HOME": home}, output)
        except OSError:  # not a program, or none for this machine
            return None
        in_time = _ends_in_time(process, timeout_s)
        code = _end(process)
        text = os.pread(output.fileno(), MAX_BYTES, 0).decode(errors="replace")
    return text if in_time and code == 0 else None


def _start(
    argv: Sequence[str], environment: Mapping[str, str], output: IO[bytes]
) -> subprocess.Popen[bytes]:
    path = environment.get("PATH", os.defpath)
    return subprocess.Popen(
        [shutil.which(argv[0], path=path) or argv[0], *argv[1:]],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        cwd="/",
    )


def _ends_in_time(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Return whether the command ended in time. It is not reaped: until then its group is its
    own.
    """
    handle = os.pidfd_open(process.pid)
    try:
        return bool(select.select([handle], [], [], timeout_s)[0])
    finally:
        os.close(handle)


def _end(process: subprocess.Popen[bytes]) -> int:
    """End what is left of the command's group, and return its exit code."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
