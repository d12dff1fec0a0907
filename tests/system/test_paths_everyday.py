"""What people do with the installed package: jobs by HTTP, a reboot, an upgrade under load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import RELEASES, booted, missing
from tests.support.selection import EVERYTHING, one_for
from tests.support.service import SOCKET, STATE, TOKEN, Service, document

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}; not proved here")

# A job costs two seconds of a processor, most of them systemd's and Python's.
JOBS = 200 if EVERYTHING else 40
SHORT = 'echo "$PWD" >file'
WAITS = "touch began; while [ ! -e go ]; do sleep 0.1; done; echo ended >file"


@pytest.fixture(scope="module", params=one_for(RELEASES, __name__))
def service(request: pytest.FixtureRequest, deb: Path) -> Iterator[Service]:
    with booted(suite=request.param) as machine:
        yield Service.installed(machine, deb, AGENTORCH_SLOTS="4")


@pytest.mark.parametrize(
    "where", [["http://127.0.0.1:8080"], ["--unix-socket", SOCKET, "http://x"]]
)
def test_a_job_by_curl(service: Service, where: list[str]) -> None:
    machine = service.machine
    *options, address = where
    said = machine.run(
        *("curl", "--silent", "--show-error", "--fail-with-body", *options),
        *("--header", f"Authorization: Bearer {TOKEN}", "--json", "@-", f"{address}/webhook"),
        stdin=json.dumps(document(SHORT)).encode(),
    )
    job_id = json.loads(said.stdout)["job_id"]
    service.jobs.append(job_id)
    service.wait(job_id)
    assert service.result(job_id)["status"] == "success"
    story = machine.output("journalctl", "--output", "cat", f"AGENTORCH_JOB={job_id}")
    for event in ("claimed", "started", "ended", "success"):
        assert event in story
    service.assert_sound()


def test_node_exporter_tells_of_them(service: Service) -> None:
    machine = service.machine
    machine.run("systemctl", "start", "prometheus-node-exporter.service")
    machine.run("systemctl", "start", "agentorch-metrics.service")
    told = r'^orchestrator_jobs_total\{status="success"\} [1-9]'
    machine.wait_for(f"curl --silent http://127.0.0.1:9100/metrics | grep -E '{told}'")
    assert "node_textfile_scrape_error 0\n" in machine.output(
        "curl", "--silent", "http://127.0.0.1:9100/metrics"
    )


def test_many_jobs_in_four_slots(service: Service) -> None:
    ids = service.post(*[document(SHORT) for _ in range(JOBS)])
    audited = service.assert_sound(600)["jobs"]
    assert all(len(audited[job]["steps"]["01_step"]) == 1 for job in ids)
    slots = service.machine.output("ls", f"{STATE}/queue/running").split()
    assert slots == ["1", "2", "3", "4"]


def test_a_reboot_in_the_middle_of_a_step(service: Service) -> None:
    ended, running = service.post(document(SHORT), document(SHORT, WAITS, SHORT))
    service.begun(running)
    service.wait(ended)
    service.machine.reboot()
    # not what the first attempt left: the second one's agent
    service.machine.wait_for("pgrep --full '^sh -eu .*02_step'")
    service.machine.run("touch", f"{service.begun(running)}/go")
    audited = service.assert_sound()["jobs"][running]["steps"]
    assert [len(audited[step]) for step in ("01_step", "03_step")] == [1, 1]


def test_an_upgrade_under_load(service: Service, newer_deb: Path) -> None:
    service.post(*[document("sleep 0.5; echo done >file", SHORT) for _ in range(12)])
    service.machine.install(newer_deb)
    service.post(*[document(SHORT) for _ in range(4)])
    audited = service.assert_sound()["jobs"]
    # no step was disturbed
    assert all(
        len(made) == 1 for job in service.jobs[-16:] for made in audited[job]["steps"].values()
    )
    assert service.machine.output("agentorch-submit", "--version") == "99.0"
