"""Our commands out of one process that has imported them all, and forks for each that is run.

A month runs some four hundred, and each would take most of its time for its imports. What is run is
the same `main`, in a process of its own, with the environment that the first one was started with.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile

COMMANDS = (
    *("submit", "schedule", "runner", "reclaim", "announce", "notify", "gc", "metrics", "verify"),
    *("approve", "reject", "answer", "hold", "release", "edit", "cancel", "retry"),
)
MOST_BYTES = 1 << 16


class Preloaded:
    """The process, while it lives."""

    def __init__(self, environment: dict[str, str], directory: Path, timeout_s: float) -> None:
        self.asking, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.asking.settimeout(timeout_s)
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            cwd=directory,
        )
        theirs.close()

    def run(self, argv: Sequence[str], given: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; TimeoutError where it takes too long."""
        with TemporaryFile("w+") as stdin, TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            stdin.write(given)
            stdin.seek(0)
            files = [file.fileno() for file in (stdin, out, err)]
            socket.send_fds(self.asking, [json.dumps(argv).encode()], files)
            code = int(self.asking.recv(MOST_BYTES))
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(list(argv), code, out.read(), err.read())

    def close(self) -> None:
        self.asking.close()
        self.process.wait()


def serve(asking: socket.socket) -> None:
    """Runs what is asked for until nobody asks; a child leaves by its command's SystemExit."""
    mains = {name: import_module(f"agentorch.commands.{name}").main for name in COMMANDS}
    while True:
        request, files, _, _ = socket.recv_fds(asking, MOST_BYTES, 3)
        if not request:
            return
        name, *arguments = json.loads(request)
        child = os.fork()
        if child == 0:
            asking.close()
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            sys.argv = [f"agentorch-{name}", *arguments]
            mains[name]()
        for file in files:
            os.close(file)
        _, status = os.waitpid(child, 0)
        asking.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
