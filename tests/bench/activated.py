"""A slot that path units wake, on a booted machine: from the submission to the agent's process.

The launcher's own cost is that of a transient unit with nothing but `true` in it, started by the
service user's manager from a command of the machine, as the runner does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from tests.bench.measure import Figure, Goal, Options, Unmeasured
from tests.support.inside import user_variables
from tests.support.machine import booted, missing
from tests.support.package import packaged, unbuildable
from tests.support.service import STATE, Service

MS = 1000
# Runs inside: nobody else's clock, and no start of a client. A line of milliseconds a turn.
SUBMITTED = """
import os, sys, time
from datetime import UTC, datetime
from agentorch.contracts.accept import ServerRules, accept
from agentorch.agents.registry import load as agents
from agentorch.jobqueue.jobqueue import Queue
from agentorch.config.settings import load
settings, turns = load(), int(sys.argv[1])
queue = Queue(settings.roots)
queue.prepare()
step = {"step_id": "one", "agent": "exec", "role": "tester", "prompt": ": >started"}
for _ in range(turns):
    document = {"goal": "bench", "steps": [step]}
    rules = ServerRules(agents(settings).abilities(), ())
    job, complete = accept(document, rules, datetime.now(UTC))
    work = settings.roots.workspace(job.job_id).work
    began = time.time_ns()
    queue.submit(job, complete)
    while not (work / "started").exists():
        time.sleep(0.002)
    print(((work / "started").stat().st_mtime_ns - began) / 1e6, flush=True)
    while os.listdir(settings.roots.queue.root / "running/1") != [".lock"]:
        time.sleep(0.1)
    time.sleep(7)  # its runner leaves after five seconds
"""
LAUNCHED = """
import subprocess, sys, time
for _ in range(int(sys.argv[1])):
    began = time.monotonic()
    subprocess.run(["systemd-run", "--user", "--quiet", "--collect", "--service-type=exec",
        "true"], check=True)
    print((time.monotonic() - began) * 1000)
    time.sleep(0.5)
"""


def figures(options: Options) -> Iterator[Figure]:
    """The median of both; the processes and the memory that are left when nothing is queued."""
    if why := missing() or unbuildable():
        raise Unmeasured(why)
    with options.scratch() as scratch, booted() as machine:
        service = Service.installed(machine, packaged(scratch))
        turns = str(options.size(9, 1))
        whole = printed(service, SUBMITTED, turns)
        bare = printed(service, LAUNCHED, turns)
        yield Figure("path_submit_to_start", median(whole) - median(bare), "ms", Goal(150))
        yield Figure("path_submit_to_start_whole", median(whole), "ms")
        yield Figure("systemd_run", median(bare), "ms")
        machine.wait_for(lambda: not running(service), 120, "our services leave")
        yield Figure("idle_processes", running(service), "processes", Goal(0))


def printed(service: Service, program: str, *arguments: str) -> list[float]:
    """The numbers that a program of the service user's prints inside."""
    uid = service.uid
    ran = service.machine.run(
        *("python3", "-c", program, *arguments),
        uid=uid,
        environment={**user_variables(uid), "HOME": STATE},
        timeout_s=600,
    )
    return [float(line) for line in ran.stdout.split()]


def running(service: Service) -> int:
    """How many services of ours have a process, which is all the memory that they have."""
    listed = service.machine.output(
        *("systemctl", "show", "--property=Id,MainPID", "agentorch-*.service"),
    )
    return sum(line.startswith("MainPID=") and line != "MainPID=0" for line in listed.splitlines())
