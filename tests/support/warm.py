"""Programs without Python's start: a process that has read the package, and forks for every run.

For what is run around a crash: recovery, submitting again. What is killed, or traced, or refused a
call, is the executable itself, started anew.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

COMMANDS = (
    *(
        "submit",
        "runner",
        "reclaim",
        "announce",
        "approve",
        "cancel",
        *("retry", "reject", "answer", "hold", "release", "edit", "priority", "status"),
        "unlock",
        "step",
        "gc",
        "delete",
        "export",
    ),
    "import",
    "schedule",
)


class Warm:
    """Some such processes; a run waits until one of them is free."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._free: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        for process in processes:
            self._free.put(process)

    def run(self, wish: dict[str, Any], timeout_s: float) -> int:
        """Runs a program (see `_become`) to its end; its exit code."""
        process = self._free.get()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(wish) + "\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], timeout_s)
            if not ready:
                os.killpg(process.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(wish["name"], timeout_s)
            return int(process.stdout.readline())
        finally:
            self._free.put(process)


@contextmanager
def warmed(lib: Path, how_many: int) -> Iterator[Warm]:
    """Processes that have read the package in `lib`."""
    argv = [sys.executable, str(Path(__file__)), *COMMANDS]
    environment = {**os.environ, "PYTHONPATH": str(lib), "PYTHONDONTWRITEBYTECODE": "1"}
    processes = [
        subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        for _ in range(how_many)
    ]
    try:
        yield Warm(processes)
    finally:
        for process in processes:
            process.communicate()


@functools.cache
def shared(lib: Path, how_many: int) -> Warm:
    """The same for all of a process's tests, until its end."""
    processes = warmed(lib, how_many)
    atexit.register(processes.__exit__, None, None, None)
    return processes.__enter__()


def main(commands: list[str]) -> None:
    """Forks for every line on stdin; answers with the exit code."""
    package = importlib.import_module("agentorch.commands")
    modules = {
        name: importlib.import_module(f"agentorch.commands.{package.module_of(name)}")
        for name in commands
    }
    for line in sys.stdin:
        wish = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(modules[wish["name"]], wish)
        _, status = os.waitpid(child, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))


def _become(module: Any, wish: dict[str, Any]) -> NoReturn:
    """Is the program from here on, with its own descriptors, environment and directory."""
    code = 70
    try:
        for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
            flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
            opened = os.open(wish[name], flags)
            os.dup2(opened, descriptor)
            os.close(opened)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(wish["environment"])
        os.chdir(wish["cwd"])
        name = f"agentorch-{wish['name']}"
        sys.argv = [name, *wish["arguments"]]
        module.main(args=wish["arguments"], prog_name=name)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:  # noqa: BLE001  (a child must not return into the loop)
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
