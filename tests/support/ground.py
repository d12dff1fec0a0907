"""Jobs of an ordinary user in a machine: runners are services, steps are units of that user."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.inside import Inside

ROOT = Path(__file__).parents[2]
INSTALLED = "/opt/agentorch"
BINDS = {ROOT / name: f"{INSTALLED}/{name}" for name in ("bin", "lib", "contracts")}
UID = 1000
STATE = "/srv/state"
SECRET = "a-secret-that-nobody-may-see"
PATTERN = "agentorch-step-*:*:a*.service"


def step(step_id: str, script: str, **fields: Any) -> dict[str, Any]:
    """An exec step."""
    base = {"step_id": step_id, "agent": "exec", "role": "worker", "prompt": script}
    return {**base, "max_retries": 0, "retry_backoff_sec": 0, **fields}


@dataclass
class Ground:
    """A user of the machine with a manager, a state directory and agentorch's programs."""

    machine: Inside
    variables: Mapping[str, str]
    runners: int = 0
    jobs: list[str] = field(default_factory=list)

    @classmethod
    def on(cls, machine: Inside) -> Ground:
        """Makes the user and the place."""
        variables = machine.add_user("agent", UID)
        machine.shell(f"mkdir {STATE} && chown {UID}:{UID} {STATE}")
        own = {
            "PYTHONPATH": f"{INSTALLED}/lib",
            # the tree is bound read-only, and its caches are of another Python
            "PYTHONPYCACHEPREFIX": "/var/tmp/pycache",
            "AGENTORCH_STATE_DIR": STATE,
            "AGENTORCH_LAUNCHER": "systemd",
            "ENABLE_REAL_CLI": "1",
            "ALLOWED_BINARIES": "sh",
            "OPENAI_API_KEY": SECRET,
        }
        return cls(machine, {**variables, **own})

    def program(self, name: str, *arguments: str, given: str = "", check: bool = True) -> str:
        """What a program printed, run by the user."""
        ran = self.machine.run(
            *(f"{INSTALLED}/bin/agentorch-{name}", *arguments),
            uid=UID,
            environment=self.variables,
            stdin=given.encode(),
            check=False,
        )
        assert not check or ran.returncode == 0, ran.stderr.decode()
        return ran.stdout.decode()

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """systemctl --user of that user."""
        argv = ("systemctl", "--user", *arguments)
        ran = self.machine.run(*argv, uid=UID, environment=self.variables, check=check)
        return ran.stdout.decode()

    def submit(self, *steps: Mapping[str, Any], **fields: Any) -> str:
        """Queues a job of these steps in a directory of its own; its id."""
        document = {"goal": "a goal", "workdir": "/opt/agentorch/bin", "steps": steps, **fields}
        self.jobs.append(self.program("submit", "-", given=json.dumps(document)).strip())
        return self.jobs[-1]

    def start_runner(self, *arguments: str, **variables: str) -> str:
        """A runner as a service of the system; returns its unit when it is ready."""
        self.runners += 1
        unit = f"runner-{self.runners}.service"
        given = {**self.variables, **variables}
        self.machine.run(
            *("systemd-run", "--quiet", f"--unit={unit}", f"--uid={UID}", "--service-type=notify"),
            *("--property=WatchdogSec=20", "--property=KillMode=mixed"),
            *(f"--setenv={name}={value}" for name, value in given.items()),
            *("--", f"{INSTALLED}/bin/agentorch-runner", *arguments),
        )
        return unit

    def stop_after_start(self, job_id: str) -> None:
        """A runner is told to leave as soon as the job's step runs."""
        runner = self.start_runner()
        self.wait_for_file(job_id, "started")
        self.wait_until_at(runner, job_id)
        self.stop(runner)

    def wait_until_at(self, unit: str, job_id: str) -> None:
        """Until a runner says that it is at a job."""

        def is_there() -> bool:
            return f"job {job_id}:" in self.told(unit, "StatusText")

        self.machine.wait_for(is_there, why=f"{unit} is at job {job_id}")

    def clear(self) -> None:
        """Ends what a test left running."""
        self.machine.run("systemctl", "stop", "runner-*.service", check=False)
        self.systemctl("stop", PATTERN, check=False)

    def stop(self, unit: str) -> None:
        """SIGTERM, and its end."""
        self.machine.run("systemctl", "stop", unit)

    def kill(self, unit: str) -> None:
        """SIGKILL, and its end."""
        self.machine.run("systemctl", "kill", "--signal=SIGKILL", unit)
        self.machine.wait_for(f"! systemctl is-active --quiet {unit}")
        self.machine.run("systemctl", "reset-failed", unit, check=False)

    def told(self, unit: str, name: str) -> str:
        """A property of a unit of the system."""
        return self.machine.output("systemctl", "show", f"--property={name}", "--value", unit)

    def units(self) -> list[str]:
        """The steps' units that are there."""
        listed = self.systemctl("list-units", "--all", "--plain", "--no-legend", PATTERN)
        return [line.split()[0] for line in listed.splitlines()]

    def wait_for_file(self, job_id: str, name: str) -> None:
        """Until a step has made a file in its work tree."""
        self.machine.wait_for(f"test -e {STATE}/workspaces/{job_id}/work/{name}")

    def let_go(self, job_id: str) -> None:
        """Makes $HOME/go, which a step may wait for."""
        path = f"{STATE}/workspaces/{job_id}/home/exec/go"
        # an attempt is started before it has made its HOME
        self.machine.wait_for(f"test -d {Path(path).parent}", why="the step has a HOME")
        self.machine.run("touch", path, uid=UID)

    def lines(self, job_id: str, name: str) -> int:
        """How many lines steps of a job wrote to a file in HOME."""
        path = f"{STATE}/workspaces/{job_id}/home/exec/{name}"
        return len(self.machine.output("cat", path).splitlines())

    def ended(self, job_id: str, timeout_s: float = 60) -> dict[str, Any]:
        """The job's status once it is done or failed."""
        places = f"{STATE}/queue/done {STATE}/queue/failed {STATE}/queue/awaiting_approval"
        self.machine.wait_for(f"ls {places} | grep -q {job_id}", timeout_s, f"{job_id} ends")
        return self.status(job_id)

    def status(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.program("status", job_id))
        return found

    def left(self, job_id: str, path: str) -> dict[str, Any]:
        """A JSON file of the job's artifacts."""
        document: dict[str, Any] = json.loads(self.left_text(job_id, path))
        return document

    def left_text(self, job_id: str, path: str) -> str:
        """A file of the job's artifacts."""
        return self.machine.output("cat", f"{STATE}/artifacts/{job_id}/{path}")

    def processes_of(self, word: str) -> str:
        """The processes inside whose command line has a word."""
        return self.machine.run("pgrep", "--full", "--list-full", word, check=False).stdout.decode()
