"""Everything of ours is killed, again and again, while jobs come in and run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import RELEASES, booted, missing
from tests.support.selection import one_for
from tests.support.service import STATE, Service, document

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}; not proved here")

# Short enough to be done between two blows, long enough to be hit by one.
SCRIPT = "echo one >>file; sleep 0.3; echo two >>file"
# A job may lose its owner four times, so no more of these kill runners; their order is by chance.
ROUNDS = ("all", "all", "ours", "ours", "steps", "steps")
VICTIMS = ("agentorch-runner@*.service", "agentorch-webhook.service", "agentorch-broker.service")

# Kills at random moments, the steps' units of the user's manager among all; says whom it met.
KILL = """
import random, subprocess, sys, time
seed, rounds, user, *victims = sys.argv[1:]
chance = random.Random(int(seed))
kinds = rounds.split()
chance.shuffle(kinds)
def systemctl(*arguments):
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True).stdout
for kind in kinds:
    time.sleep(chance.uniform(0.3, 4))
    if kind != "steps":
        units = systemctl("list-units", "--plain", "--no-legend", *victims).split("\\n")
        names = [line.split()[0] for line in units if line]
        for name in names:
            systemctl("kill", "--signal=KILL", "--kill-whom=all", name)
        print(kind, *names, flush=True)
    if kind != "ours":
        manager = ("--user", "--machine=" + user + "@.host")
        units = systemctl(*manager, "list-units", "--plain", "--no-legend", "agentorch-step-*")
        names = [line.split()[0] for line in units.split("\\n") if line]
        for name in names:
            systemctl(*manager, "kill", "--signal=KILL", name)
        print(kind, *names, flush=True)
"""


@pytest.fixture(scope="module", params=one_for(RELEASES, __name__))
def service(request: pytest.FixtureRequest, deb: Path) -> Iterator[Service]:
    with booted(suite=request.param) as machine:
        yield Service.installed(
            machine, deb, AGENTORCH_SLOTS="3", RUNNER_MAX_ATTEMPTS_PER_STEP="20"
        )


def test_kills_at_random_moments(service: Service) -> None:
    seed = random.randrange(1 << 32)
    told = ("systemd-run", "--collect", "--unit=killer", "python3", "-c", KILL)
    documents = [document(SCRIPT, SCRIPT) for _ in range(16)]
    for each in documents:
        for step in each["steps"]:
            step["max_retries"] = 10
            step["retry_backoff_sec"] = 0
    service.machine.run(*told, str(seed), " ".join(ROUNDS), "agentorch", *VICTIMS)
    service.post(*documents, timeout_s=180)
    service.machine.wait_for("! systemctl is-active --quiet killer", 120)
    story = service.machine.output("journalctl", "--unit=killer", "--output=cat")
    assert "agentorch-runner@" in story, f"seed {seed} met nobody: {story}"
    try:
        service.assert_sound()
    except AssertionError as problem:
        raise AssertionError(f"seed {seed}: {problem}\n{story}") from problem


def test_a_loss_of_power_under_load(service: Service) -> None:
    service.post(*[document(SCRIPT, SCRIPT) for _ in range(8)])
    service.machine.wait_for(f"ls {STATE}/queue/running/*/[0-9]*")
    service.machine.power_cut()
    service.assert_sound()
