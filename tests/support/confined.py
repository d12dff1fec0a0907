"""A place on disk like a job's, and programs that are run confined in it, as root or as nobody."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentorch.core.job import Network
from agentorch.sandbox import Confinement, Wrapper, confine

BWRAP = Wrapper("bwrap")
NOBODY = 65534
PATH = "/usr/bin:/bin"
USERS = [0, NOBODY] if os.geteuid() == 0 else [os.geteuid()]
NAMES = {0: "root", NOBODY: "nobody"}


@dataclass(frozen=True)
class Inside:
    """`top` holds the job's directories, and `neighbour`, which nobody inside may see."""

    top: Path
    uid: int
    wrapper: Wrapper = BWRAP

    @property
    def work(self) -> Path:
        return self.top / "work"

    @property
    def home(self) -> Path:
        return self.top / "home"

    @property
    def artifacts(self) -> Path:
        return self.top / "artifacts"

    @property
    def neighbour(self) -> Path:
        """Another job's file, readable for the user by its mode."""
        return self.top / "neighbour" / "secret"

    def confinement(self, environment: Mapping[str, str] | None = None) -> Confinement:
        return Confinement(
            name=f"agentorch-test-{self.top.name}",
            work=self.work,
            home=self.home,
            artifacts=self.artifacts,
            network=Network.DENY,
            environment={"PATH": PATH, "HOME": str(self.home), **(environment or {})},
        )

    def run(
        self,
        argv: Sequence[str],
        confinement: Confinement | None = None,
        *,
        wrapper: Wrapper | None = None,
        alive_fd: int | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command confined, to its end."""
        chosen = wrapper or self.wrapper
        wanted = confinement or self.confinement()
        with confine(chosen, wanted, argv, alive_fd=alive_fd) as start:
            return subprocess.run(
                start.argv,
                env=start.environment,
                pass_fds=start.pass_fds,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                **as_user(self.uid),
            )

    @contextmanager
    def started(
        self, argv: Sequence[str], confinement: Confinement, wrapper: Wrapper | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A confined command that has printed `started`; its client is reaped afterwards."""
        with confine(wrapper or self.wrapper, confinement, argv) as start:
            client = subprocess.Popen(
                start.argv,
                env=start.environment,
                pass_fds=start.pass_fds,
                stdout=subprocess.PIPE,
                **as_user(self.uid),
            )
            assert client.stdout is not None
            assert client.stdout.readline() == b"started\n"
            yield client
        client.wait()
        client.stdout.close()

    def python(self, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs a Python program confined."""
        return self.run(["/usr/bin/python3", "-c", script, *map(str, arguments)])

    def allowing(self, **changes: object) -> Confinement:
        """The usual confinement, changed."""
        return replace(self.confinement(), **changes)  # type: ignore[arg-type]


def as_user(uid: int) -> dict[str, Any]:
    """Arguments for subprocess: another user, in no group but its own."""
    return {} if uid == os.geteuid() else {"user": uid, "group": uid, "extra_groups": []}


@contextmanager
def place(uid: int, parent: Path | None = None) -> Iterator[Inside]:
    """Directories that belong to the user, reachable by everybody, removed afterwards."""
    top = Path(tempfile.mkdtemp(prefix="agentorch-inside-", dir=parent)).resolve()
    top.chmod(0o755)
    try:
        inside = Inside(top, uid)
        for directory in (inside.work, inside.home, inside.artifacts, inside.neighbour.parent):
            directory.mkdir()
        inside.neighbour.write_text("secret of another job")
        (inside.artifacts / "report.md").write_text("report")
        for path in (top, *top.rglob("*")):
            os.chown(path, uid, uid if uid else 0)
        yield inside
    finally:
        shutil.rmtree(top)


# Prints the name of the error that a call ends with, or "done".
TRY = """
import ctypes, errno, os, socket, sys
def attempt(call, *arguments):
    try:
        call(*arguments)
    except OSError as problem:
        return errno.errorcode[problem.errno]
    return "done"
seccomp = ctypes.CDLL("libseccomp.so.2")
libc = ctypes.CDLL(None, use_errno=True)
def kernel(name, *arguments):
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    if libc.syscall(ctypes.c_long(number), *words) == -1:
        return errno.errorcode[ctypes.get_errno()]
    return "done"
"""


def said(inside: Inside, script: str, *arguments: object) -> str:
    ran = inside.python(TRY + script, *arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def outside(inside: Inside, script: str, *arguments: object) -> str:
    """The same program without a sandbox: it must be able to do what is refused inside."""
    ran: subprocess.CompletedProcess[str] = subprocess.run(
        ["/usr/bin/python3", "-c", TRY + script, *map(str, arguments)],
        cwd=inside.work,
        capture_output=True,
        text=True,
        check=True,
        **as_user(inside.uid),
    )
    return ran.stdout.strip()
