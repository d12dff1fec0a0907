"""The machines that the other tests stand on keep what they are to keep."""

from __future__ import annotations

import pytest

from tests.support.machine import booted, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}; not proved here")


def test_a_machine_keeps_its_disk_and_nothing_else() -> None:
    with booted() as machine:
        machine.put("/var/lib/kept", b"here")
        machine.shell("setsid sleep 1000 >/dev/null 2>&1 &")
        leaders = {machine.leader}
        for again in (machine.reboot, machine.power_cut):
            again()
            leaders.add(machine.leader)
            assert machine.output("cat", "/var/lib/kept") == "here"
            assert machine.run("pgrep", "sleep", check=False).returncode == 1
            machine.wait_for("systemctl is-system-running --wait")
            assert machine.failed_units() == []
        assert len(leaders) == 3
        assert len(machine.output("journalctl", "--list-boots", "--quiet").splitlines()) >= 3
