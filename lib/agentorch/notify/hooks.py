"""A directory of the administrator's executables, and the run of one of them.

As run-parts(8) has it: sorted by name, names of letters, digits, `_`, `.` and `-` only. What
somebody else could have written is not run.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
# What dpkg leaves beside a configuration file.
_LEFT = (".dpkg-old", ".dpkg-dist", ".dpkg-new", ".dpkg-tmp")
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Hooks:
    """The executables of a directory; `refused` are names and why they are not run."""

    programs: tuple[Path, ...] = ()
    refused: Mapping[str, str] | None = None


def hooks_in(directory: Path, uid: int) -> Hooks:
    """Return the executables of a directory that a process of this user runs. None is no
    failure.
    """
    try:
        names = sorted(filter(is_name, os.listdir(directory)))
    except (FileNotFoundError, NotADirectoryError):
        return Hooks()
    programs, refused = [], {}
    for name in names:
        try:
            found = os.stat(directory / name)
        except OSError as problem:  # a link to nowhere
            refused[name] = os.strerror(problem.errno or 0)
            continue
        if not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o111:
            continue
        if (words := objection(found.st_mode, found.st_uid, uid)) is not None:
            refused[name] = words
        else:
            programs.append(directory / name)
    return Hooks(tuple(programs), refused)


def is_name(name: str) -> bool:
    """Return whether a file of this name is meant to be run. Pure."""
    return _NAME.fullmatch(name) is not None and not name.endswith(_LEFT)


def objection(mode: int, owner: int, uid: int) -> str | None:
    """Why a process of this user does not run such a file; None: it may. Pure."""
    if owner not in (0, uid):
        return f"it belongs to user {owner}, neither to root nor to who runs it"
    if mode & _OTHERS and not (owner == uid and uid != 0):
        return "others than its owner may write to it"
    return None


async def run(
    program: Path, said: bytes, environment: Mapping[str, str], limit_s: float
) -> str | None:
    """Run a program with this on its stdin; what went wrong, None: nothing.

    Its output goes to our stderr. After `limit_s` it is killed, and its process group with it.
    """
    # a file: whoever does not read it stops nobody
    with open(os.memfd_create("agentorch-hook"), "w+b", buffering=0) as stdin:
        stdin.write(said)
        stdin.seek(0)
        try:
            process = await asyncio.create_subprocess_exec(
                program, stdin=stdin, stdout=2, env=environment, cwd="/", start_new_session=True
            )
        except OSError as problem:
            return os.strerror(problem.errno or 0)
    try:
        async with asyncio.timeout(limit_s):
            code = await process.wait()
    except TimeoutError:
        # it has not been waited for, so the group is still its own
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        return f"it was killed after {limit_s:g} s"
    return end_problem(code)


def end_problem(code: int) -> str | None:
    """Return what is wrong with such an end, as asyncio tells it; None: nothing. Pure."""
    if code == 0:
        return None
    return f"it exited with {code}" if code > 0 else f"it was ended by signal {-code}"
