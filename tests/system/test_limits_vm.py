"""What only a virtual machine proves: limits that hold, and jobs that outlive a loss of power."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.service import STATE, Service, document
from tests.support.vm import missing, virtual

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}; not proved here")

TIMERS = [f"agentorch-{name}.timer" for name in ("gc", "metrics", "notify", "announce", "reclaim")]
MIB = 1 << 20
MEMORY = 128 * MIB
TASKS = 48
HOG = "tail /dev/zero"
BOMB = "while :; do sleep 1000 & done"
# burns its processor, then writes to the disk
BURNER = """touch began
until [ -e go ]; do :; done
dd if=/dev/zero of="$HOME/written" bs=1M count=4 conv=fsync 2>/dev/null
"""
HEALTHY = "touch began; until [ -e go ]; do sleep 0.5; done; echo done >file"
GROUP = "/sys/fs/cgroup/user.slice/user-$1.slice/user@$1.service"


@pytest.fixture(scope="module")
def service(deb: Path) -> Iterator[Service]:
    with virtual() as machine:
        # each of their starts costs an emulated processor seconds
        machine.run("systemctl", "mask", *TIMERS)
        yield Service.installed(machine, deb, AGENTORCH_SLOTS="2")


def limited(script: str, **resources: int) -> dict[str, Any]:
    """A job of one step within limits."""
    return document(script, policy={"resources": resources})


def group_of(service: Service, job_id: str, name: str) -> str:
    """A file of the control group of the job's step."""
    script = f'find "{GROUP}" -path "*agentorch-step-$2:*" -name "$3" | head -n 1 | xargs cat'
    return service.machine.shell(script, str(service.uid), job_id, name)


def end_of(service: Service, job_id: str) -> dict[str, Any]:
    """The result of the job's only step."""
    (step,) = service.result(job_id)["steps"]
    told: dict[str, Any] = step
    return told


def limits_hold_and_nobody_else_notices(service: Service) -> None:
    (healthy,) = service.post(document(HEALTHY), timeout_s=300)
    works = [service.begun(healthy)]
    # one after the other, in the other slot
    hog, bomb, burner = service.post(
        limited(HOG, memory_max_bytes=MEMORY),
        limited(BOMB, tasks_max=TASKS),
        limited(BURNER, cpu_quota_percent=20),
        timeout_s=300,
    )
    service.doomed |= {hog, bomb}
    works.append(service.begun(burner))
    assert group_of(service, burner, "cpu.max") == "20000 100000"
    assert "nr_throttled 0\n" not in group_of(service, burner, "cpu.stat")
    for work in works:
        service.machine.run("touch", f"{work}/go")
    service.assert_sound()

    killed = end_of(service, hog)
    assert killed["error"]["code"] == "oom"
    details, used = killed["error"]["details"], killed["metrics"]
    assert details["memory_max_bytes"] == MEMORY
    assert 0.8 * MEMORY < details["memory_peak_bytes"] <= MEMORY
    assert used["oom_kills"] >= 1

    stopped = end_of(service, bomb)
    assert stopped["error"]["code"] == "agent_exit_nonzero"
    assert 0.8 * TASKS < stopped["metrics"]["tasks_peak"] <= TASKS

    assert end_of(service, burner)["metrics"]["io_write_bytes"] >= 4 * MIB
    alone = end_of(service, healthy)
    assert (alone["status"], alone["attempts"]) == ("success", 1)
    assert alone["metrics"].get("oom_kills", 0) == 0


def a_loss_of_power_loses_nothing_that_was_acknowledged(service: Service) -> None:
    script = "echo one >file; sleep 1; echo two >>file"
    service.post(*[document(script, script) for _ in range(3)], timeout_s=300)
    service.machine.wait_for(f"ls {STATE}/queue/running/*/[0-9]*")
    service.machine.power_cut()
    service.assert_sound()


# minutes each, and the emulation of a processor takes one
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "proved",
    [limits_hold_and_nobody_else_notices, a_loss_of_power_loses_nothing_that_was_acknowledged],
)
def test_in_a_virtual_machine(service: Service, proved: Callable[[Service], None]) -> None:
    proved(service)
