"""Jobs that wait, held and parked ones too, on a real systemd: nothing spins, none is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from tests.support.installing import TOP, installed, processes, started, starts
from tests.support.machine import RELEASES, Machine, missing
from tests.support.selection import one_for
from tests.support.service import STATE, document, step

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}; not proved here")

ENVIRONMENT = "/etc/agentorch/agentorch.env"
USUAL = "ENABLE_REAL_CLI=1\nALLOWED_BINARIES=sh\nMAILTO=ops\n"
NOTIFY = "/etc/agentorch/notify.d"
LOCK = f"{STATE}/queue/announcing.lock"
COUNTED = "/var/log/agentorch-count"
EXAMPLES = TOP / "examples/notify.d"
# The units' timers come each minute; here they come as often as this, and are watched for twice it.
TIMER_S = 8
WATCHED_S = 2 * TIMER_S
TIMERS = {
    "announce": "OnUnitInactiveSec",
    "notify": "OnUnitActiveSec",
    "reclaim": "OnUnitActiveSec",
}
# As postfix(1) has it: who sends mail becomes another group, which may write into the spool.
SENDMAIL = b"""#!/bin/sh
[ "$*" = "-t -oi" ] || exit 2
exec /usr/sbin/drop "/var/spool/drop/$$"
"""
SPOOL = """
groupadd --system dropping
install -d -m 0730 -o root -g dropping /var/spool/drop
install -m 2755 -o root -g dropping /usr/bin/tee /usr/sbin/drop
"""


@pytest.fixture(scope="module", params=one_for(RELEASES, __name__))
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with installed(request.param, USUAL) as running:
        running.shell("mkdir -p /srv/empty")
        for name, period in TIMERS.items():
            drop_in = f"/etc/systemd/system/agentorch-{name}.timer.d/soon.conf"
            times = f"OnActiveSec=\nOnActiveSec={TIMER_S}s\n{period}={TIMER_S}s\nAccuracySec=1s\n"
            running.put(drop_in, f"[Timer]\n{times}".encode())
        running.run("systemctl", "daemon-reload")
        started(running)
        yield running


def submit(machine: Machine, *steps: dict[str, Any], **fields: Any) -> str:
    """The id of a job."""
    job = {**document(), "steps": list(steps), "workdir": "/srv/empty", **fields}
    ran = machine.run("agentorch-submit", "-", stdin=json.dumps(job).encode())
    return ran.stdout.decode().strip()


def is_in(machine: Machine, job_id: str, state: str) -> bool:
    return job_id in machine.output("ls", f"{STATE}/queue/{state}")


def gets_to(machine: Machine, job_id: str, state: str, timeout_s: float = 120) -> None:
    machine.wait_for(partial(is_in, machine, job_id, state), timeout_s, f"it is {state}")


def at_rest(machine: Machine) -> None:
    machine.wait_for(lambda: not processes(machine), why="no process is left")


# Makes a job's state.json and queue file those of one that a provider's limit parked, as the
# runner's own code writes them: what the limit itself does is other tests' business.
PARK = """
import sys
from datetime import datetime
from agentorch.commands.base import open_queue
from agentorch.artifacts.state import JobState, PENDING, Parked
from agentorch.jobqueue.finish import park
from agentorch.jobqueue.lookup import find
from agentorch.core.pipeline import begin
from agentorch.jobqueue.slots import hold
queue = open_queue()
found = find(queue, sys.argv[1])
with hold(queue, "parks", wait=True) as slot:
    assert slot.take(found.state, found.key)
    state = JobState(found.job.job_id, PENDING, begin(found.job))
    park(slot, found.key, found.job, state, Parked(sys.argv[2], "quota", "limit reached"))
"""


def parked(machine: Machine, until: datetime) -> str:
    """The id of a job that a limit parked until then."""
    job_id = submit(machine, step("echo done >file"), policy={"requires_approval": True})
    stamp = until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    machine.run("python3", "-c", PARK, job_id, stamp)
    return job_id


def test_held_and_parked_jobs_start_nothing_and_go_on_by_themselves(machine: Machine) -> None:
    """A time in which no slot starts; then what was due is done, without anybody's doing."""
    soon = datetime.now(UTC) + timedelta(seconds=WATCHED_S + TIMER_S)
    waits = parked(machine, soon)
    far = parked(machine, datetime.now(UTC) + timedelta(days=3))
    held = submit(machine, step("true"), policy={"requires_approval": True})
    hold(machine, held)
    at_rest(machine)
    assert is_in(machine, far, "parked")
    before = starts(machine, "agentorch-runner@1.service")
    time.sleep(WATCHED_S)
    assert starts(machine, "agentorch-runner@1.service") == before
    assert is_in(machine, waits, "parked")
    gets_to(machine, waits, "done")
    assert datetime.now(UTC) >= soon
    assert is_in(machine, far, "parked")
    assert machine.failed_units() == []
    assert is_in(machine, held, "held")
    machine.run("agentorch-cancel", far, held)


def test_a_reboot_changes_nothing(machine: Machine) -> None:
    held = submit(machine, step("true"), policy={"requires_approval": True})
    hold(machine, held)
    asks = submit(machine, step("exit 1", on_failure="ask_human"))
    gets_to(machine, asks, "awaiting_approval")
    later = parked(machine, datetime.now(UTC) + timedelta(days=3))
    # its time came three days ago, when the machine was off
    past = parked(machine, datetime.now(UTC) - timedelta(days=3))
    machine.reboot()
    gets_to(machine, past, "done")
    assert is_in(machine, held, "held")
    assert is_in(machine, asks, "awaiting_approval")
    assert is_in(machine, later, "parked")
    machine.run("agentorch-release", held, later)
    machine.run("agentorch-approve", "--accept", asks)
    for job_id in (held, later, asks):
        gets_to(machine, job_id, "done")
    at_rest(machine)
    assert machine.failed_units() == []


def hold(machine: Machine, job_id: str) -> None:
    """The job in held/: its hold comes while it is pending, and no slot is there to take it."""
    slot = ("agentorch-runner@1.path", "agentorch-runner@1.service")
    machine.run("systemctl", "stop", *slot)
    machine.run("agentorch-approve", job_id)
    machine.run("agentorch-hold", job_id)
    assert is_in(machine, job_id, "held")
    machine.run("systemctl", "start", slot[0])


# ---- who hears of it --------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nobody(machine: Machine) -> None:
    """Nobody is told of anything yet, nor was ever."""
    at_rest(machine)
    machine.shell(f"rm -rf {NOTIFY}/* {LOCK} {COUNTED} && install -d -o agentorch {COUNTED}")


def test_nobody_to_tell_starts_nothing(machine: Machine) -> None:
    job_id = submit(machine, step("true"), policy={"requires_approval": True})
    time.sleep(3)
    assert machine.run("test", "-e", LOCK, check=False).returncode != 0
    machine.run("agentorch-cancel", job_id)


def test_a_mail_is_sent_soon_and_once_while_the_job_waits(machine: Machine) -> None:
    machine.shell(SPOOL)
    machine.put("/usr/sbin/sendmail", SENDMAIL, "0755")
    machine.put(f"{NOTIFY}/mail", (EXAMPLES / "mail").read_bytes(), "0755")
    machine.put(f"{NOTIFY}/count", f"#!/bin/sh\necho run >>{COUNTED}/runs\n".encode(), "0755")
    job_id = submit(machine, step("true"), goal="to be read", policy={"requires_approval": True})
    machine.wait_for("ls /var/spool/drop | grep -q .", 20, "the mail is in the spool")
    mail = machine.shell("cat /var/spool/drop/*")
    assert mail.startswith("To: ops\n")
    assert "agentorch-approve --hash=" in mail
    assert machine.shell("stat -c %U:%G /var/spool/drop/*") == "agentorch:dropping"
    # the timer has come by meanwhile
    time.sleep(WATCHED_S)
    assert machine.output("cat", f"{COUNTED}/runs") == "run"
    machine.run("agentorch-approve", job_id)
    gets_to(machine, job_id, "done")
    machine.wait_for(partial(is_quiet, machine), why="nothing is told any more")
    assert machine.failed_units() == []


def is_quiet(machine: Machine) -> bool:
    return not processes(machine)


def test_what_failed_is_told_by_the_timer_and_over_a_reboot(machine: Machine) -> None:
    machine.put(
        f"{NOTIFY}/fails",
        f"#!/bin/sh\ntest -e /etc/mended && touch {COUNTED}/m\n".encode(),
        "0755",
    )
    job_id = submit(machine, step("true"), policy={"requires_approval": True})
    known = f"{STATE}/artifacts/{job_id}/announced"
    machine.wait_for(f"grep -q 'exited with 1' {known}", why="it has failed")
    machine.shell(f"""sed -i 's/"again_at": "20../"again_at": "2000/' {known}; touch /etc/mended""")
    machine.reboot()
    machine.wait_for(f"test -e {COUNTED}/m", 90, "the timer tells it")
    said = machine.output("journalctl", "--boot=all", "-ocat", "-tagentorch-announce")
    assert f"{job_id}: notify.d/fails: it exited with 1; again at " in said
    machine.run("agentorch-cancel", job_id)


def test_a_slow_one_is_no_reason_to_start_again_and_again(machine: Machine) -> None:
    """Decisions and new jobs by the dozen while it runs: the units neither fail nor pile up."""
    machine.put(f"{NOTIFY}/slow", b"#!/bin/sh\nsleep 1\n", "0755")
    jobs = [submit(machine, step("true"), policy={"requires_approval": True}) for _ in range(12)]
    machine.run("agentorch-cancel", *jobs)
    machine.run("rm", f"{NOTIFY}/slow")
    at_rest(machine)
    for kind in ("path", "timer"):
        unit = f"agentorch-announce.{kind}"
        assert machine.output("systemctl", "is-active", unit) == "active"
    assert machine.failed_units() == []


def test_waiting_that_is_over_ends_by_itself(machine: Machine) -> None:
    machine.put(ENVIRONMENT, (USUAL + "WAITING_POLICY=reject\nWAITING_MAX_SEC=60\n").encode())
    job_id = submit(machine, step("true"), policy={"requires_approval": True})
    gets_to(machine, job_id, "failed", 200)
    said = machine.output(
        "journalctl", "-b", "-ocat", "-tagentorch-reclaim", f"AGENTORCH_JOB={job_id}"
    )
    assert "reject by agentorch: nobody decided for " in said
    machine.put(ENVIRONMENT, USUAL.encode())


def test_a_user_s_desktop_hears_of_it(machine: Machine) -> None:
    uid = 1000
    environment = machine.add_user("dev", uid)
    home = "/home/dev"
    double = b'#!/bin/sh\nfor one; do printf "%s\\n" "$one"; done >>"$HOME/shown"\n'
    machine.put("/usr/local/bin/notify-send", double, "0755")
    machine.put(f"{home}/.config/agentorch/agentorch.env", USUAL.encode())
    machine.put(
        f"{home}/.config/agentorch/notify.d/desktop", (EXAMPLES / "desktop").read_bytes(), "0755"
    )
    machine.run("chown", "-R", "dev:", home)
    user = partial(machine.run, uid=uid, environment=environment)
    user("systemctl", "--user", "daemon-reload")
    user("systemctl", "--user", "enable", "--now", "agentorch.target")
    job = {**document("true"), "workdir": "/srv/empty", "policy": {"requires_approval": True}}
    job_id = user("agentorch-submit", "-", stdin=json.dumps(job).encode()).stdout.decode().strip()
    machine.wait_for(f"grep -q {job_id} {home}/shown", 20, "it is shown")
    user("systemctl", "--user", "stop", "agentorch.target")
    assert machine.failed_units(uid) == []
