"""agentorch as its package installs it, and what has to be true of it after any trouble."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.inside import Inside, user_variables

STATE = "/var/lib/agentorch"
CONFIGURATION = "/etc/agentorch/agentorch.env"
UNITS = "/etc/systemd/system"
SOCKET = "/run/agentorch/webhook.sock"
TOKEN = "a-token-of-the-tests"
USUAL = {
    "WEBHOOK_TOKEN": TOKEN,
    "WEBHOOK_RATE_LIMIT_MAX_REQUESTS": "0",
    "ENABLE_REAL_CLI": "1",
    "ALLOWED_BINARIES": "sh",
}
STEP_UNITS = "agentorch-step-*"
# Runners leave after five seconds without work; the webhook after sixty, but for this.
WEBHOOK_IDLE = """[Service]
ExecStart=
ExecStart=/usr/bin/agentorch-webhook --idle-s=3
"""
IDLE_S = 40

# Posts documents by one connection to the Unix socket: ids of those that were acknowledged. With
# `again` a document is posted until it is taken: its idempotency key makes that one job.
POST = """
import http.client, json, socket, sys, time
path, token = sys.argv[1:3]
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(path)
def post(connection, key, document):
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json",
        "Idempotency-Key": key}
    connection.request("POST", "/webhook", json.dumps(document), headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())
connection = Connection("localhost")
for key, document in json.load(sys.stdin):
    status, said = None, "no answer"
    for _ in range(100):
        try:
            status, said = post(connection, key, document)
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()
            connection = Connection("localhost")
            time.sleep(0.1)
            continue
        if status == 503:
            time.sleep(0.2)
            continue
        break
    if status != 200:
        sys.exit(f"{status}: {said}")
    print(said["job_id"], flush=True)
"""

# Where every job is, and how each of its attempts ended: JSON.
AUDIT = """
import json, os, sys
from pathlib import Path
state = Path(sys.argv[1])
places = {}
for path in state.glob("queue/*/**/[0-9]-*.json"):
    job = path.name.split("-", 2)[2].removesuffix(".json").split("~")[0]
    places.setdefault(job, []).append(path.relative_to(state / "queue").parts[0])
def read(path):
    return json.loads(path.read_text()) if path.exists() else None
def attempts(step):
    for path in sorted((step / "attempts").glob("*"), key=lambda path: int(path.name)):
        result = read(path / "result.json")
        yield {
            "claimed": (path / "claim").exists(),
            "outcome": result and result["outcome"],
            "code": result and (result.get("error") or {}).get("code"),
        }
jobs = {}
for directory in state.glob("artifacts/*"):
    steps = {step.name: list(attempts(step)) for step in directory.glob("steps/*")}
    result = read(directory / "result.json")
    jobs[directory.name] = {
        "places": places.pop(directory.name, []),
        "status": result and result["status"],
        "steps": steps,
    }
print(json.dumps({"jobs": jobs, "strays": places}))
"""


def step(script: str, step_id: str = "01_only", **fields: Any) -> dict[str, Any]:
    """A step that runs a script."""
    base = {"step_id": step_id, "agent": "exec", "role": "tester", "prompt": script}
    return {**base, "max_retries": 0, **fields}


def document(*scripts: str, **fields: Any) -> dict[str, Any]:
    """A job of a step a script."""
    steps = [step(script, f"{place:02}_step") for place, script in enumerate(scripts, 1)]
    return {"goal": "a goal", "steps": steps, **fields}


@dataclass
class Service:
    """An installed agentorch. `jobs` were acknowledged; those of them in `doomed` are to fail."""

    machine: Inside
    jobs: list[str] = field(default_factory=list)
    doomed: set[str] = field(default_factory=set)
    posts: int = 0

    @classmethod
    def installed(cls, machine: Inside, deb: Path, **variables: str) -> Service:
        """Installs the package, configures it, and starts all of it."""
        machine.wait_for("systemctl is-system-running --wait", 120)
        machine.install(deb)
        service = cls(machine)
        service.configure(**USUAL | variables)
        machine.put(f"{UNITS}/agentorch-webhook.service.d/idle.conf", WEBHOOK_IDLE.encode())
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "enable", "--now", "agentorch.target")
        return service

    def configure(self, **variables: str) -> None:
        """Writes the environment file."""
        lines = [f"{name}={value}\n" for name, value in variables.items()]
        self.machine.put(CONFIGURATION, "".join(lines).encode(), "0640")
        self.machine.run("chgrp", "agentorch", CONFIGURATION)

    @property
    def uid(self) -> int:
        return int(self.machine.output("id", "--user", "agentorch"))

    # ---- jobs ---------------------------------------------------------------------------------

    def post(self, *documents: Mapping[str, Any], timeout_s: float = 120) -> list[str]:
        """Jobs by the webhook's Unix socket; their ids, each acknowledged."""
        keyed = [(f"delivery-{self.posts + n}", each) for n, each in enumerate(documents)]
        self.posts += len(documents)
        ran = self.machine.run(
            *("python3", "-c", POST, SOCKET, TOKEN),
            stdin=json.dumps(keyed).encode(),
            timeout_s=timeout_s,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr.decode()
        ids = ran.stdout.decode().split()
        self.jobs += ids
        return ids

    def result(self, job_id: str) -> dict[str, Any]:
        """The result of a job that ended."""
        path = f"{STATE}/artifacts/{job_id}/result.json"
        told: dict[str, Any] = json.loads(self.machine.output("cat", path))
        return told

    def wait(self, *job_ids: str, timeout_s: float = 120) -> None:
        """Waits until jobs ended."""
        script = f'cd {STATE}/queue; for id; do ls done failed | grep -q -- "$id"; done'
        argv = ("sh", "-euc", script, "sh", *job_ids)

        def they_ended() -> bool:
            return self.machine.run(*argv, check=False).returncode == 0

        self.machine.wait_for(they_ended, timeout_s, "the jobs end")

    def begun(self, job_id: str, name: str = "began") -> str:
        """The workspace of a job, when its step has made a file there."""
        work = f"{STATE}/workspaces/{job_id}/work"
        self.machine.wait_for(f"test -e {work}/{name}")
        return work

    def audit(self) -> dict[str, Any]:
        """Where every job is, and how its attempts ended."""
        told = self.machine.output("python3", "-c", AUDIT, STATE)
        audited: dict[str, Any] = json.loads(told)
        return audited

    # ---- what has to be true ------------------------------------------------------------------

    def assert_sound(self, timeout_s: float = 300) -> dict[str, Any]:
        """Every acknowledged job ended well, once; nothing of ours runs or failed. The audit."""
        self.machine.wait_for(
            f'cd {STATE}/queue; [ -z "$(find pending running incoming -type f ! -name .lock)" ]',
            timeout_s,
            "the queue is empty",
        )
        audited = self.audit()
        assert problems(audited, self.jobs, self.doomed) == []
        self.assert_quiet()
        return audited

    def assert_quiet(self) -> None:
        """No process, no step unit, no failed unit."""
        uid = self.uid
        self.machine.wait_for(lambda: not self.processes(), IDLE_S, "nothing of ours runs")
        units = self.systemctl("list-units", "--all", "--plain", "--no-legend", STEP_UNITS, uid=uid)
        assert units == ""
        assert self.machine.failed_units() == []
        assert self.machine.failed_units(uid) == []

    def processes(self) -> list[str]:
        """Those of our users, but for the user's manager itself, and those of our units."""
        listed = self.machine.output("ps", "-eo", "user:20,args", "--no-headers").splitlines()
        known = ("/lib/systemd/systemd --user", "(sd-pam)", "/usr/bin/dbus-daemon --session")
        ours = [line for line in listed if line.startswith("agentorch") or "/agentorch" in line]
        return [line for line in ours if not any(name in line for name in known)]

    def systemctl(self, *arguments: str, uid: int | None = None) -> str:
        """systemctl --user of the service's user."""
        uid = self.uid if uid is None else uid
        ran = self.machine.run(
            *("systemctl", "--user", *arguments), uid=uid, environment=user_variables(uid)
        )
        return ran.stdout.decode().strip()


def problems(
    audited: Mapping[str, Any], jobs: Collection[str], doomed: Collection[str] = ()
) -> list[str]:
    """What is wrong with the jobs that were acknowledged. Pure."""
    found = audited["jobs"]
    lost = [f"{job}: lost" for job in jobs if job not in found]
    strays = [f"{job}: a queue file without artifacts" for job in audited["strays"]]
    wrong = [f"{job}: {say}" for job, one in found.items() for say in _wrong(one, job in doomed)]
    return lost + strays + wrong


def _wrong(job: Mapping[str, Any], doomed: bool) -> list[str]:  # noqa: FBT001  (one or the other)
    said = []
    if (job["places"], job["status"]) != (
        (["failed"], "failed") if doomed else (["done"], "success")
    ):
        said.append(f"{job['status']} in {job['places']}: {job['steps']}")
    for step_id, attempts in job["steps"].items():
        ends = [each["outcome"] == "success" for each in attempts]
        if True in ends and any(each["claimed"] for each in attempts[ends.index(True) + 1 :]):
            said.append(f"{step_id}: run again after its end was recorded")
    return said
