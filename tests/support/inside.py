"""What tests do inside of a machine, be it a container or a virtual one."""

from __future__ import annotations

import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

INSIDE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
INSTALL_S = 120
LOOK_AGAIN_S = 0.2
JOURNAL_LINES = 120

Ran = subprocess.CompletedProcess[bytes]


class Inside(ABC):
    """A booted Debian. It can be booted again, and keeps its disk over that."""

    name: str
    # how many times longer than a container it may take for anything
    patience: float = 1

    @abstractmethod
    def run(
        self,
        *argv: str,
        check: bool = True,
        uid: int = 0,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout_s: float = 60,
    ) -> Ran:
        """Runs a command inside, as root or as another user without any group but its own."""

    @abstractmethod
    def reboot(self) -> None:
        """Shuts down in order and boots again; returns when it is up."""

    @abstractmethod
    def power_cut(self) -> None:
        """Kills everything that runs, at once, and boots again; returns when it is up."""

    def output(self, *argv: str, timeout_s: float = 60) -> str:
        """What a command printed inside; it must succeed."""
        return self.run(*argv, timeout_s=timeout_s).stdout.decode().strip()

    def shell(self, script: str, *arguments: str, timeout_s: float = 60) -> str:
        """What a shell script printed inside; each of its commands must succeed."""
        return self.output("sh", "-euc", script, "sh", *arguments, timeout_s=timeout_s)

    def put(self, path: str, content: bytes, mode: str = "0644") -> None:
        """Writes a file inside; its directories are made."""
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
        self.run("sh", "-c", script, "sh", path, mode, stdin=content, timeout_s=INSTALL_S)

    def install(self, *packages: Path, check: bool = True) -> Ran:
        """Installs or upgrades .deb files in one go, as dpkg does: no network, no questions."""
        names = [f"/var/tmp/{package.name}" for package in packages]
        for package, name in zip(packages, names, strict=True):
            self.put(name, package.read_bytes())
        return self.run(
            *("dpkg", "--force-confdef", "--force-confold", "--install", *names),
            check=check,
            environment={"DEBIAN_FRONTEND": "noninteractive"},
            timeout_s=INSTALL_S,
        )

    def add_user(self, name: str, uid: int) -> dict[str, str]:
        """A user with a lingering, running manager; the variables that find it."""
        self.run("useradd", "--create-home", "--uid", str(uid), name)
        self.run("loginctl", "enable-linger", name)
        self.run("systemctl", "start", f"user@{uid}.service")
        return user_variables(uid) | {"HOME": f"/home/{name}"}

    def wait_for(
        self, what: Callable[[], object] | str, timeout_s: float = 60, why: str = ""
    ) -> None:
        """Waits until a shell script succeeds inside, or until a function says something true."""
        end = time.monotonic() + timeout_s * self.patience
        while not self._is(what):
            told = why or (what if isinstance(what, str) else what.__name__)
            assert time.monotonic() < end, f"not within {timeout_s:.0f} s: {told}"
            time.sleep(LOOK_AGAIN_S)

    def _is(self, what: Callable[[], object] | str) -> bool:
        if not isinstance(what, str):
            return bool(what())
        return self.run("sh", "-euc", what, check=False).returncode == 0

    def failed_units(self, uid: int | None = None) -> list[str]:
        """The failed units of the system, or of a user's manager."""
        manager = [] if uid is None else ["--user"]
        listed = self.run(
            *("systemctl", *manager, "list-units", "--failed", "--plain", "--no-legend"),
            uid=uid or 0,
            environment=None if uid is None else user_variables(uid),
        )
        return [line.split()[0] for line in listed.stdout.decode().splitlines()]

    def journal(self, lines: int = JOURNAL_LINES) -> str:
        """The end of the journal."""
        said = self.run(
            *("journalctl", "--no-pager", "--output", "short-precise", "--lines", str(lines)),
            check=False,
        )
        return said.stdout.decode(errors="replace")


def user_variables(uid: int) -> dict[str, str]:
    """The variables by which a program finds its user's manager."""
    return {
        "XDG_RUNTIME_DIR": f"/run/user/{uid}",
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path=/run/user/{uid}/bus",
    }


def as_user_argv(uid: int) -> list[str]:
    """Prefix of a command that is to run as a user, without any group but its own."""
    if not uid:
        return []
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
