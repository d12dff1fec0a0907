"""Trouble around the installed service: nothing spins or blocks, and work goes on after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.inside import Ran
from tests.support.machine import booted, missing
from tests.support.service import SOCKET, STATE, TOKEN, USUAL, Service, document

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}; not proved here")

SHORT = "echo done >file"
# The start limit of a path unit is 200 starts in 2 s, of a service 5 in 10 s: what spins has shown
# it within this time many times over.
WATCHED_S = 12
RUNNER = "agentorch-runner@1.service"


@pytest.fixture(scope="module")
def service(deb: Path) -> Iterator[Service]:
    with booted() as machine:
        yield Service.installed(machine, deb)


def starts(service: Service, unit: str, since: str) -> int:
    """How often a unit was started since a time."""
    service.machine.run("journalctl", "--sync")
    argv = ("journalctl", "--output=cat", f"--since={since}", f"UNIT={unit}")
    return service.machine.output(*argv).count("Starting ")


def now(service: Service) -> str:
    """The time, as the journal's."""
    return service.machine.output("date", "+%F %T.%6N")


def curl(service: Service) -> Ran:
    """Posts a job, once; the answer's status and headers on stdout."""
    return service.machine.run(
        *("curl", "--silent", "--include", "--max-time", "20", "--unix-socket", SOCKET),
        *("--header", f"Authorization: Bearer {TOKEN}", "--json", "@-", "http://x/webhook"),
        stdin=json.dumps(document(SHORT)).encode(),
        check=False,
    )


def queued(service: Service) -> str:
    """A job that waits, with no slot to take it."""
    service.machine.run("systemctl", "stop", "agentorch-runner@1.path", RUNNER)
    (job_id,) = service.post(document(SHORT))
    return job_id


def status_text(service: Service) -> str:
    return service.machine.output("systemctl", "show", "--value", "--property=StatusText", RUNNER)


def test_a_journal_that_does_not_read(service: Service) -> None:
    stop = ("systemctl", "kill", "--signal=STOP", "systemd-journald.service")
    service.machine.run(*stop)
    try:
        service.wait(*service.post(*[document(SHORT) for _ in range(3)]))
    finally:
        service.machine.run(*stop[:2], "--signal=CONT", stop[3])
    service.assert_sound()


def test_no_manager_of_the_service_user(service: Service) -> None:
    manager = f"user@{service.uid}.service"
    job_id = queued(service)
    service.machine.run("systemctl", "mask", "--runtime", manager)
    service.machine.run("systemctl", "stop", manager)
    since = now(service)
    service.machine.run("systemctl", "start", "agentorch-runner@1.path")
    service.machine.wait_for(lambda: "waiting" in status_text(service))
    with pytest.raises(AssertionError):
        service.wait(job_id, timeout_s=WATCHED_S)
    assert starts(service, RUNNER, since) == 1
    service.machine.run("systemctl", "unmask", "--runtime", manager)
    service.machine.run("systemctl", "start", manager)
    service.assert_sound()


def test_a_wrong_configuration(service: Service) -> None:
    job_id = queued(service)
    since = now(service)
    service.configure(**USUAL, RUNNER_POLL_INTERVAL_SEC="soon")
    service.machine.run("systemctl", "start", "agentorch-runner@1.path")
    service.machine.wait_for(lambda: starts(service, RUNNER, since) > 0)
    with pytest.raises(AssertionError):
        service.wait(job_id, timeout_s=WATCHED_S)
    count = starts(service, RUNNER, since)
    assert 1 <= count <= 3
    ours = ("--output=cat", f"--since={since}", f"_SYSTEMD_UNIT={RUNNER}")
    lines = service.machine.output("journalctl", *ours).splitlines()
    assert sum("RUNNER_POLL_INTERVAL_SEC" in line for line in lines) == count
    code = service.machine.output("systemctl", "show", "--value", "-pExecMainStatus", RUNNER)
    assert code == "78"
    service.configure(**USUAL)
    service.wait(job_id)
    service.assert_sound()


@pytest.fixture
def small(service: Service) -> Iterator[Service]:
    """The same service with a state directory of its own, on a small disk."""
    machine = service.machine
    machine.run("systemctl", "stop", "agentorch.target", RUNNER, "agentorch-webhook.service")
    machine.shell("mount -t tmpfs -o size=256M,mode=0750 small $1 && chown agentorch: $1", STATE)
    machine.run("systemctl", "start", "agentorch.target")
    yield Service(machine)
    machine.run("systemctl", "stop", "agentorch.target", RUNNER, "agentorch-webhook.service")
    machine.run("umount", "--lazy", STATE)
    machine.run("systemctl", "start", "agentorch.target")


def test_a_full_disk(small: Service) -> None:
    job_id = queued(small)
    filler = f"{STATE}/filler"
    free = f"df --output=avail --block-size=1 {STATE} | tail -n 1"
    small.machine.shell(f"fallocate --length $(( $({free}) - 33554432 )) {filler}")
    since = now(small)
    small.machine.run("systemctl", "start", "agentorch-runner@1.path")
    answer = curl(small).stdout.decode()
    assert answer.startswith("HTTP/1.1 503 ")
    assert "retry-after:" in answer.lower()
    given = json.dumps({"goal": "a goal", "workdir": "/srv"}).encode()
    submitted = small.machine.run("agentorch-submit", "-", stdin=given, check=False)
    assert submitted.returncode == 75
    with pytest.raises(AssertionError):
        small.wait(job_id, timeout_s=WATCHED_S)
    assert starts(small, RUNNER, since) == 1
    assert "waiting" in status_text(small)
    small.machine.run("rm", filler)
    small.wait(job_id)
    small.assert_sound()


def test_a_taken_port(service: Service) -> None:
    machine = service.machine
    machine.run("systemctl", "stop", "agentorch.target", "agentorch-webhook.socket")
    taker = "import socket, time; s = socket.create_server(('127.0.0.1', 8080)); time.sleep(600)"
    machine.run("systemd-run", "--collect", "--unit=taker", "python3", "-c", taker)
    machine.wait_for("ss -tln 2>/dev/null | grep -q :8080 || grep -q ':1F90 ' /proc/net/tcp")
    machine.run("systemctl", "start", "agentorch.target", check=False)
    # the queue works
    job = json.dumps({**document(SHORT), "workdir": "/etc/agentorch/agents.d"}).encode()
    submitted = machine.run("agentorch-submit", "-", stdin=job)
    service.jobs.append(submitted.stdout.decode().strip())
    service.wait(*service.jobs[-1:])
    assert machine.failed_units() == ["agentorch-webhook.socket"]
    machine.run("systemctl", "stop", "taker")
    # the timer does so each minute
    machine.run("systemctl", "start", "agentorch-reclaim.service")
    machine.wait_for("systemctl is-active agentorch-webhook.socket")
    service.wait(*service.post(document(SHORT)))
    service.assert_sound()
