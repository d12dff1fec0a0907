"""A machine with everything installed from this tree, by what the package's scripts do, too."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import agentorch
from tests.support.machine import Machine, booted

TOP = Path(agentorch.__file__).parent.parent.parent
LAYOUT = {
    "PREFIX": "/usr",
    "PYTHONDIR": "/usr/lib/python3/dist-packages",
    "UNITDIR": "/usr/lib/systemd/system",
}
# Users before the reload, for the generator; that before the user's manager starts, for Delegate=.
SET_UP = """
tar -C / --no-same-owner --no-overwrite-dir --keep-directory-symlink -x
python3 -m compileall -q /usr/lib/python3/dist-packages/agentorch
mkdir -p /etc/agentorch
systemd-sysusers
systemctl daemon-reload
systemd-tmpfiles --create agentorch.conf
loginctl enable-linger agentorch
"""


@contextlib.contextmanager
def installed(suite: str, configuration: str = "") -> Iterator[Machine]:
    """A booted machine with agentorch, nothing of it enabled. `configuration`: agentorch.env."""
    with tempfile.TemporaryDirectory() as scratch, booted({}, suite) as machine:
        environment = {**os.environ, **LAYOUT, "DESTDIR": scratch}
        subprocess.run(["packaging/install"], cwd=TOP, env=environment, check=True)
        machine.put("/etc/agentorch/agentorch.env", configuration.encode())
        tree = subprocess.run(
            ["tar", "-C", scratch, "-c", "."], stdout=subprocess.PIPE, check=True
        ).stdout
        machine.run("sh", "-euc", SET_UP, stdin=tree)
        yield machine


def started(machine: Machine) -> None:
    """Everything enabled and started, as the manual has it."""
    machine.run("systemctl", "enable", "--now", "agentorch.target")


def processes(machine: Machine) -> list[str]:
    """The command lines of every process of our users, but those of the user's manager itself."""
    users = ("--user", "agentorch,agentorch-broker")
    listed = machine.run("ps", *users, "-o", "args=", check=False).stdout.decode().splitlines()
    manager = ("/lib/systemd/systemd --user", "(sd-pam)", "/usr/bin/dbus-daemon")
    return [line for line in listed if not line.removeprefix("/usr").startswith(manager)]


def starts(machine: Machine, unit: str) -> int:
    """How often a unit was started since the machine was booted."""
    said = machine.output(
        *("journalctl", "--boot", "--no-pager", "--output", "cat", "_PID=1", f"UNIT={unit}"),
        *("JOB_TYPE=start", "CODE_FUNC=job_emit_start_message"),
    )
    return len([line for line in said.splitlines() if line.startswith("Starting ")])
