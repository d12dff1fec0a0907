"""The units on a real systemd: quiet, locked down, started where there is work and only there."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.inside import user_variables
from tests.support.installing import TOP, installed, processes, started, starts
from tests.support.machine import RELEASES, Machine, missing
from tests.support.selection import one_for
from tests.support.service import STATE, document

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}; not proved here")

ENVIRONMENT = "/etc/agentorch/agentorch.env"
USUAL = b"ENABLE_REAL_CLI=1\nALLOWED_BINARIES=sh,python3,curl\nWEBHOOK_TOKEN=a-token-of-the-tests\n"
RUNNER = "agentorch-runner@1.service"
SLOT = "agentorch-runner@1.path"
SYSTEM = "/usr/lib/systemd/system"
SERVICES = sorted(path.name for path in (TOP / "units/system").glob("*.service"))
# What `systemd-analyze security` may say at most, tenths: those that have a network have more, and
# the one whose children may become another user to send mail the most.
MOST = {
    "agentorch-announce.service": 26,
    "agentorch-broker.service": 20,
    "agentorch-notify.service": 20,
}
HOUSEKEEPERS = ("reclaim", "gc", "metrics", "notify", "announce")
USUALLY_MOST = 10
# The generator ran after the last change, and what started it is over.
GENERATED = "/run/systemd/generator/agentorch.target.d/50-agentorch.conf"
TAKEN_OVER = f"""! find {ENVIRONMENT} -cnewer {GENERATED} | grep -q . &&
[ "$(systemctl is-active agentorch-config.service)" = inactive ]"""
# Start limits are 200 in 2 s of a path unit, 5 in 10 s of a service: what spins has shown it.
WATCHED_S = 20


@pytest.fixture(scope="module", params=one_for(RELEASES, __name__))
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with installed(request.param, USUAL.decode()) as running:
        running.shell("mkdir -p /srv/empty")
        yield running


@pytest.fixture
def fresh(machine: Machine) -> Iterator[Machine]:
    """The machine with everything started; afterwards nothing of ours is left in it."""
    machine.put(ENVIRONMENT, USUAL)
    started(machine)
    yield machine
    stopped(machine)
    machine.run("systemctl", "reset-failed", "agentorch-*")
    # not every test has had a job: there may be no directories yet
    unended = '! -path "*/done/*" ! -path "*/failed/*"'
    machine.shell(f'find "$1/queue" -name "[0-9]-*" {unended} -delete', STATE)


def stopped(machine: Machine) -> None:
    """Stops everything; returns when no process of ours is left."""
    machine.run("systemctl", "stop", "agentorch.target")
    machine.wait_for(lambda: not processes(machine), why="no process is left")


def submit(machine: Machine, *scripts: str, **fields: object) -> str:
    """The id of a job whose steps run scripts."""
    job = {**document(*scripts), "workdir": "/srv/empty", **fields}
    ran = machine.run("agentorch-submit", "-", stdin=json.dumps(job).encode())
    return ran.stdout.decode().strip()


def ended(machine: Machine, job_id: str) -> str:
    """The status of a job, when it ended."""
    machine.wait_for(f"ls {STATE}/queue/done {STATE}/queue/failed | grep -q {job_id}")
    told = json.loads(machine.output("cat", f"{STATE}/artifacts/{job_id}/result.json"))
    assert isinstance(told["status"], str)
    return told["status"]


def state(machine: Machine, unit: str) -> str:
    said = machine.run("systemctl", "is-active", unit, check=False)
    return said.stdout.decode().strip()


# ---- the files ------------------------------------------------------------------------------


@pytest.mark.parametrize("manager", ["--system", "--user"])
def test_systemd_has_nothing_to_say_of_them(machine: Machine, manager: str) -> None:
    kind = manager.removeprefix("--")
    listed = machine.shell(f"ls -d /usr/lib/systemd/{kind}/agentorch*.*")
    units = [name for name in listed.split() if not name.endswith(".d")]
    assert len(units) == len(list((TOP / f"units/{kind}").iterdir()))
    argv = ("systemd-analyze", manager, "verify", "--man=no", *units)
    said = machine.run(*argv, environment={"XDG_RUNTIME_DIR": "/tmp"}, check=False)
    assert (said.stdout + said.stderr).decode() == ""


@pytest.mark.parametrize(("name", "passed"), [("webhook", "http"), ("broker", "broker")])
def test_a_socket_is_passed_by_its_name(machine: Machine, name: str, passed: str) -> None:
    argv = ("systemctl", "show", "--property=FileDescriptorName", "--value")
    assert machine.output(*argv, f"agentorch-{name}.socket") == passed


def test_every_unit_names_pages_that_are_there() -> None:
    for path in sorted((TOP / "units").glob("*/agentorch*")):
        named = re.findall(r"man:([a-z.-]+)\(([0-9])\)", path.read_text())
        assert named, path
        for page, section in named:
            assert (TOP / f"man/{page}.{section}.scd").exists(), (path.name, page)


@pytest.mark.parametrize("name", SERVICES)
def test_security(machine: Machine, name: str) -> None:
    most = MOST.get(name, USUALLY_MOST)
    said = machine.run(
        *("systemd-analyze", "security", "--offline=true", f"--threshold={most}"),
        f"{SYSTEM}/{name}",
        check=False,
    )
    last = said.stdout.decode().splitlines()[-1]
    assert said.returncode == 0, last


def test_every_variable_of_ours_in_a_unit_is_of_a_service() -> None:
    for path in sorted((TOP / "units").glob("*/*.service")):
        text = path.read_text()
        assert "SyslogIdentifier=agentorch-" in text, path
        if "/usr/bin/agentorch" in text:
            assert re.search(r"Environment=AGENTORCH_UNIT=%n\n(# .*\n)?Environment", text), path
            # a filter of a user's service sets NoNewPrivileges=, and its programs may send mail
            is_filtered = (path.parent.name, path.stem) != ("user", "agentorch-announce")
            assert ("RestrictNamespaces=yes" in text) is is_filtered, path


def test_the_generator_takes_no_time(machine: Machine) -> None:
    """A budget far above what it takes on a busy machine: it imports little, and asks nobody."""
    program = "/usr/lib/systemd/system-generators/agentorch-generator"
    script = 'for n in 1 2 3 4 5 6 7 8 9 10; do "$1" /tmp/g/n /tmp/g/e /tmp/g/l; done'
    began = time.monotonic()
    machine.shell(script, program)
    assert time.monotonic() - began < 10


# ---- slots ------------------------------------------------------------------------------------


def test_a_job_wakes_a_slot_which_leaves(fresh: Machine) -> None:
    assert processes(fresh) == []
    job_id = submit(fresh, "echo done >file")
    assert ended(fresh, job_id) == "success"
    fresh.wait_for(lambda: not processes(fresh), why="the slot leaves")
    assert fresh.output("systemctl", "is-system-running") == "running"
    assert fresh.failed_units() == []


def test_slots_come_and_go_with_the_configuration(fresh: Machine) -> None:
    for count in (4, 2, 3):
        fresh.put(ENVIRONMENT, USUAL + f"AGENTORCH_SLOTS={count}\n".encode())
        last = f"agentorch-runner@{count}.path"
        fresh.wait_for(partial(has_slots, fresh, count), why=f"{count} slots")
        assert slots(fresh)[-1] == last


def has_slots(machine: Machine, count: int) -> bool:
    return len(slots(machine)) == count


def slots(machine: Machine) -> list[str]:
    said = machine.output(
        *("systemctl", "list-units", "--plain", "--no-legend", "--state=active"),
        "agentorch-runner@*.path",
    )
    return [line.split()[0] for line in said.splitlines()]


def test_an_enabled_slot_stays_warm(fresh: Machine) -> None:
    fresh.run("systemctl", "enable", "--now", RUNNER)
    job_id = submit(fresh, "echo done >file")
    assert ended(fresh, job_id) == "success"
    pid = fresh.output("systemctl", "show", "--value", "-pMainPID", RUNNER)
    time.sleep(8)
    assert fresh.output("systemctl", "show", "--value", "-pMainPID", RUNNER) == pid
    fresh.run("systemctl", "reload", RUNNER)
    fresh.wait_for(f'[ "$(systemctl show --value -pMainPID {RUNNER})" != {pid} ]')
    fresh.wait_for(f"systemctl is-active {RUNNER}")
    fresh.run("systemctl", "disable", RUNNER)
    fresh.run("systemctl", "restart", RUNNER)
    fresh.wait_for(lambda: state(fresh, RUNNER) == "inactive", why="it is warm no more")


def test_steps_end_with_the_target_not_with_their_runner(fresh: Machine) -> None:
    job_id = submit(fresh, "touch began; sleep 300")
    fresh.wait_for(f"test -e {STATE}/workspaces/{job_id}/work/began")
    sleeping = "pgrep -u agentorch -f 'sleep 300'"
    pid = fresh.shell(sleeping)
    fresh.run("systemctl", "restart", RUNNER)
    assert fresh.shell(sleeping) == pid
    stopped(fresh)
    assert fresh.failed_units() == []


# ---- what must not spin -----------------------------------------------------------------------


def test_a_wrong_configuration_starts_each_unit_once(fresh: Machine) -> None:
    job_id = submit(fresh, "echo done >file", policy={"requires_approval": True})
    fresh.put(ENVIRONMENT, USUAL + b"SANDBOX=maybe\n")
    fresh.wait_for(TAKEN_OVER, why="the configuration is taken over")
    fresh.shell("cd $1/queue; mv awaiting_approval/*$2* pending", STATE, job_id)
    fresh.run("curl", "--silent", "--max-time", "5", "127.0.0.1:8080/health", check=False)
    units = (RUNNER, "agentorch-webhook.service", "agentorch-reclaim.service")
    before = [starts(fresh, unit) for unit in units[2:]]
    fresh.run("systemctl", "start", units[2], check=False)
    time.sleep(WATCHED_S)
    assert [starts(fresh, unit) for unit in units[2:]] == [before[0] + 1]
    for unit in units:
        told = fresh.output("systemctl", "show", "--value", "-pExecMainStatus", "-pResult", unit)
        assert set(told.split()) == {"exit-code", "78"}, unit
        lines = fresh.output("journalctl", "-b", "-ocat", f"_SYSTEMD_UNIT={unit}", "-n1")
        assert "SANDBOX: 'maybe': expected" in lines
    assert state(fresh, SLOT) == "inactive"
    fresh.put(ENVIRONMENT, USUAL)
    assert ended(fresh, job_id) == "success"
    fresh.wait_for("curl --silent --fail 127.0.0.1:8080/health")
    assert fresh.failed_units() == []


def test_a_line_that_is_none_leaves_what_runs(fresh: Machine) -> None:
    fresh.put(ENVIRONMENT, USUAL + b"AGENTORCH_SLOTS=2\n")
    fresh.wait_for(lambda: len(slots(fresh)) == 2, why="two slots")
    fresh.put(ENVIRONMENT, USUAL + b"nonsense\n")
    config = "agentorch-config.service"
    fresh.wait_for(lambda: state(fresh, config) == "failed", why="it is told")
    said = fresh.output("journalctl", "-b", "-ocat", f"_SYSTEMD_UNIT={config}", "-n1")
    assert said.endswith("agentorch.env: line 4: expected NAME=value, found 'nonsense'")
    assert len(slots(fresh)) == 2
    fresh.put(ENVIRONMENT, USUAL)
    fresh.wait_for(lambda: len(slots(fresh)) == 1, why="one slot")
    assert fresh.failed_units() == []


@pytest.mark.parametrize("why", ["busy", "full", "waiting"])
def test_what_can_not_go_on_starts_a_slot_once_at_most(fresh: Machine, why: str) -> None:
    lock = f"{STATE}/queue/running/1/.lock"
    if why == "full":
        fresh.put(ENVIRONMENT, USUAL + b"AGENTORCH_MIN_FREE_BYTES=999999999999999\n")
        fresh.wait_for(TAKEN_OVER, why="the configuration is taken over")
    elif why == "busy":
        fresh.shell('mkdir -p "$(dirname "$1")"; chown -R agentorch: "$1/../.."', lock[:-6])
        hold = ("systemd-run", "--collect", "--unit=holder", "-puser=agentorch", "flock", lock)
        fresh.run(*hold[:3], "--uid=agentorch", *hold[4:], "sleep", "1000")
    before = starts(fresh, RUNNER)
    approval = why == "waiting"
    if why == "full":
        # submit refuses, too
        job = json.dumps({**document("true"), "workdir": "/srv/empty"}).encode()
        refused = fresh.run("agentorch-submit", "-", stdin=job, check=False)
        assert refused.returncode == 75
        environment = {"AGENTORCH_MIN_FREE_BYTES": "0"}
        fresh.run("agentorch-submit", "-", stdin=job, environment=environment)
    else:
        submit(fresh, "true", policy={"requires_approval": approval})
    # the timer does so each minute
    fresh.run("systemctl", "start", "agentorch-reclaim.service", check=False)
    time.sleep(WATCHED_S)
    assert starts(fresh, RUNNER) - before == (0 if approval else 1)
    assert state(fresh, SLOT) == "active"
    if why == "busy":
        fresh.run("systemctl", "stop", "holder.service")


def test_a_runner_that_can_not_start_is_no_reason_to_give_up(fresh: Machine) -> None:
    broken = "/etc/systemd/system/agentorch-runner@.service.d/broken.conf"
    fresh.put(broken, b"[Service]\nExecStart=\nExecStart=/bin/false\n")
    fresh.run("systemctl", "daemon-reload")
    before = starts(fresh, RUNNER)
    job_id = submit(fresh, "true")
    time.sleep(20)
    # one each two seconds
    assert 3 < starts(fresh, RUNNER) - before <= 12
    assert state(fresh, SLOT) == "active"
    fresh.run("rm", broken)
    fresh.run("systemctl", "daemon-reload")
    assert ended(fresh, job_id) == "success"


# ---- the others -------------------------------------------------------------------------------


def test_the_broker_serves_a_step_and_leaves(fresh: Machine) -> None:
    impatient = "/etc/systemd/system/agentorch-broker.service.d/idle.conf"
    command = "/usr/bin/agentorch-broker --grants=/run/agentorch-broker/grants --idle-s=2"
    fresh.put(impatient, f"[Service]\nExecStart=\nExecStart={command}\n".encode())
    fresh.put(ENVIRONMENT, USUAL + b"ALLOWED_HOSTS=example.org\n")
    fresh.run("systemctl", "daemon-reload")
    broker = "agentorch-broker.service"
    before = starts(fresh, broker)
    script = "curl --silent --max-time 20 --output /dev/null --write-out '%{http_connect}'"
    job_id = submit(
        fresh,
        f"{script} https://example.org/ >code || test -s code",
        policy={"allow_hosts": ["example.org"]},
    )
    assert ended(fresh, job_id) == "success"
    assert starts(fresh, broker) == before + 1
    # it was the broker that answered: it let the name through and did not find it
    code = fresh.output("cat", f"{STATE}/workspaces/{job_id}/work/code")
    assert code in ("502", "504"), code
    fresh.wait_for(lambda: state(fresh, broker) == "inactive", why="it leaves")
    assert fresh.output("ls", "/run/agentorch-broker/grants") == ""
    fresh.run("rm", impatient)


def test_keys_of_the_credential_store_reach_the_broker(fresh: Machine) -> None:
    store = "/etc/credstore.encrypted"
    fresh.shell(
        "mkdir -p $1; echo ANTHROPIC_API_KEY=made-up | systemd-creds encrypt --with-key=host "
        "--name=keys.env - $1/agentorch.keys.env",
        store,
    )
    fresh.run("systemctl", "start", "agentorch-broker.service")
    pid = fresh.output("systemctl", "show", "--value", "-pMainPID", "agentorch-broker.service")
    read = f"nsenter -t {pid} -m cat /run/credentials/agentorch-broker.service/keys.env"
    assert fresh.shell(read) == "ANTHROPIC_API_KEY=made-up"
    fresh.run("systemctl", "stop", "agentorch-broker.service")
    fresh.run("rm", "-r", store)


def test_the_housekeepers_end_well(fresh: Machine) -> None:
    names = [f"agentorch-{name}.service" for name in HOUSEKEEPERS]
    fresh.run("systemctl", "start", *names)
    for name in names:
        assert fresh.output("systemctl", "show", "--value", "-pResult", name) == "success"
    written = "/var/lib/prometheus/node-exporter/agentorch.prom"
    assert "orchestrator_queue_jobs" in fresh.output("cat", written)


def test_custom_places(machine: Machine) -> None:
    top = "/data/agentorch"
    roots = f"QUEUE_ROOT={top}/queue\nARTIFACTS_ROOT={top}/artifacts\n"
    machine.shell("mkdir -p $1; chown agentorch: $1", top)
    machine.put(ENVIRONMENT, USUAL + roots.encode())
    started(machine)
    submit(machine, "echo done >file")
    machine.wait_for(f"ls {top}/queue/done | grep -q .")
    machine.wait_for("curl --silent --fail 127.0.0.1:8080/health")
    names = [f"agentorch-{name}.service" for name in HOUSEKEEPERS if name != "metrics"]
    machine.run("systemctl", "start", *names)
    stopped(machine)
    assert machine.failed_units() == []


def test_the_same_for_one_developer(machine: Machine) -> None:
    home, uid = "/home/dev", 1000
    machine.shell("rm -f $1; mkdir -p /etc/agentorch; chmod 755 /etc/agentorch", ENVIRONMENT)
    environment = machine.add_user("dev", uid)

    def run(*argv: str, stdin: bytes = b"") -> str:
        ran = machine.run(*argv, uid=uid, environment=environment, stdin=stdin)
        return ran.stdout.decode().strip()

    machine.put(f"{home}/.config/agentorch/agentorch.env", USUAL + b"AGENTORCH_SLOTS=2\n")
    machine.run("chown", "-R", "dev:", home)
    run("systemctl", "--user", "daemon-reload")
    run("systemctl", "--user", "enable", "--now", "agentorch.target")
    job = {**document("echo done >file"), "workdir": "/srv/empty"}
    job_id = run("agentorch-submit", "-", stdin=json.dumps(job).encode())
    machine.wait_for(f"ls {home}/.local/state/agentorch/queue/done | grep -q {job_id}")
    listed = run("systemctl", "--user", "list-units", "--plain", "--no-legend", "agentorch*.path")
    assert "agentorch-runner@2.path" in listed
    assert machine.failed_units(uid) == []
    run("systemctl", "--user", "stop", "agentorch.target")
    argv = ("pgrep", "--uid", str(uid), "--full", "agentorch-")
    machine.wait_for(lambda: machine.run(*argv, check=False).returncode == 1, why="none is left")
    assert user_variables(uid).items() <= environment.items()
    assert Path(home).name == "dev"
