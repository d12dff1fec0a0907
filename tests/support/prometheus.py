"""Prometheus's own programs out of Debian's packages, unpacked and not installed.

Installed, the packages start services on whoever's machine this is.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

CACHE = Path.home() / ".cache/agentorch-test/prometheus"


def program(name: str, package: str) -> str | None:
    """A program on PATH, else out of its package; None where apt can't get that."""
    found = shutil.which(name)
    return found if found is not None else _unpacked(name, package)


def _unpacked(name: str, package: str) -> str | None:
    top = CACHE / package
    top.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{package}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = top / "root/usr/bin" / name
        if not path.exists() and not _unpack(top, package):
            return None
    return str(path)


def _unpack(top: Path, package: str) -> bool:
    if shutil.which("apt-get") is None:
        return False
    got = subprocess.run(
        # apt's own user may not write here
        ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package],
        cwd=top,
        capture_output=True,
        check=False,
    )
    archives = list(top.glob("*.deb"))
    if got.returncode != 0 or not archives:
        return False
    subprocess.run(["dpkg-deb", "--extract", str(archives[0]), str(top / "root")], check=True)
    archives[0].unlink()
    return True
