"""The package in a booted Debian: installed, at work, upgraded in the middle of a step, purged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import RELEASES, Machine, booted, missing
from tests.support.package import ROOT
from tests.support.selection import one_for

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}; not proved here")

STATE = "/var/lib/agentorch"
ONLY = {"step_id": "01_only", "agent": "exec", "role": "tester", "prompt": "echo done"}
POSTED = json.dumps({"goal": "try it", "steps": [ONLY]})
REAL = ("ENABLE_REAL_CLI=1", "ALLOWED_BINARIES=sh,git")


@pytest.fixture(params=one_for(RELEASES, __name__))
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with booted(suite=request.param) as machine:
        machine.wait_for("systemctl is-system-running --wait")
        yield machine


def submit(machine: Machine, script: str, user: str = "root") -> str:
    """Queues a job of one step that runs a script; its id."""
    step = {"step_id": "01_only", "agent": "exec", "role": "tester", "prompt": script}
    document = {"goal": "try it", "workdir": "/srv/project", "steps": [step]}
    machine.put("/srv/job.json", json.dumps(document).encode())
    return machine.output("runuser", "--user", user, "--", "agentorch-submit", "/srv/job.json")


def ready(machine: Machine, deb: Path) -> None:
    """Installs, turns real programs on, and starts all of it."""
    machine.install(deb)
    machine.shell(
        'mkdir -p /srv/project && printf "%s\\n" "$@" >>/etc/agentorch/agentorch.env', *REAL
    )
    machine.run("systemctl", "enable", "--now", "agentorch.target")


def ended(machine: Machine, job_id: str) -> dict[str, object]:
    """The job's result, when there is one."""
    path = f"{STATE}/artifacts/{job_id}/result.json"
    machine.wait_for(f"test -e {path}")
    result: dict[str, object] = json.loads(machine.output("cat", path))
    return result


def modes(machine: Machine, *paths: str) -> list[str]:
    return machine.output("stat", "--format=%n %a %U:%G", *paths).splitlines()


def listing(machine: Machine) -> set[str]:
    return set(machine.output("find", "/etc", "/usr", "/var/lib", "/run", "-xdev").splitlines())


# ---- installed --------------------------------------------------------------------------------


def test_an_installation_starts_nothing_and_is_ready(machine: Machine, deb: Path) -> None:
    said = machine.install(deb)
    assert b"ailed" not in said.stderr
    assert machine.failed_units() == []
    ours = ("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "agentorch*")
    assert machine.output(*ours) == ""
    assert machine.run("systemctl", "is-enabled", "agentorch.target", check=False).returncode == 1
    assert modes(
        machine, "/etc/agentorch", *(f"/etc/agentorch/{n}.env" for n in ("agentorch", "keys"))
    ) == [
        "/etc/agentorch 750 root:agentorch",
        "/etc/agentorch/agentorch.env 640 root:agentorch",
        "/etc/agentorch/keys.env 600 agentorch-broker:agentorch-broker",
    ]
    assert modes(machine, STATE) == [f"{STATE} 750 agentorch:agentorch"]
    assert machine.output("id", "--groups", "--name", "agentorch-broker").split() == [
        "agentorch-broker",
        "agentorch",
    ]
    # no reboot: the service user's manager runs, where steps are started
    machine.wait_for('systemctl is-active "user@$(id -u agentorch).service"')
    assert machine.output("dpkg", "--verify", "agentorch") == ""


def test_a_job_of_root_is_worked_on_at_once(machine: Machine, deb: Path) -> None:
    ready(machine, deb)
    assert ended(machine, submit(machine, "echo done >file"))["status"] == "success"
    assert machine.failed_units() == []


def test_a_strangers_job_goes_to_a_queue_of_its_own(machine: Machine, deb: Path) -> None:
    ready(machine, deb)
    machine.run("useradd", "--create-home", "stranger")
    job_id = submit(machine, "echo done >file", "stranger")
    assert machine.run("agentorch-status", job_id, check=False).returncode == 1
    machine.run("test", "-d", f"/home/stranger/.local/state/agentorch/artifacts/{job_id}")


def test_it_depends_on_all_that_it_needs(machine: Machine, deb: Path) -> None:
    # in the image for the tests' own sake
    machine.run("dpkg", "--purge", "curl", "procps", "prometheus-node-exporter")
    ready(machine, deb)
    machine.shell('for each in /usr/bin/agentorch*; do "$each" --help >/dev/null; done')
    for user in ("root", "agentorch"):
        machine.run("runuser", "--user", user, "--", "agentorch-doctor")
    assert ended(machine, submit(machine, "echo done >file"))["status"] == "success"
    needed = machine.output("dpkg-query", "--show", "--showformat=${Depends}", "agentorch")
    assert "acl" in needed.split(", ")
    assert machine.failed_units() == []


def test_a_member_of_the_group_looks_and_posts_but_changes_nothing(
    machine: Machine, deb: Path
) -> None:
    ready(machine, deb)
    machine.run("useradd", "--create-home", "--groups", "agentorch", "member")
    as_member = ("runuser", "--user", "member", "--")
    post = ("curl", "--fail-with-body", "--silent", "--unix-socket", "/run/agentorch/webhook.sock")
    header = ("--header", "Authorization: Bearer dev-token")
    said = machine.output(*as_member, *post, *header, "--data", POSTED, "http://localhost/webhook")
    job_id = json.loads(said)["job_id"]
    ended(machine, job_id)
    machine.wait_for(f"agentorch-ls --done | grep -qx {job_id}", 20)
    assert machine.output(*as_member, "agentorch-ls") == job_id
    assert json.loads(machine.output(*as_member, "agentorch-status", job_id))["status"] == "success"
    assert machine.output(*as_member, "agentorch-logs", job_id)
    for refused in (("submit", "--goal", "no"), ("retry", job_id), ("cancel", job_id)):
        ran = machine.run(*as_member, f"agentorch-{refused[0]}", *refused[1:], check=False)
        assert (ran.returncode, ran.stdout) == (2, b""), ran
        assert ran.stderr.startswith(f"agentorch-{refused[0]}: ".encode())
    assert machine.output("agentorch-ls") == job_id


# ---- upgraded ---------------------------------------------------------------------------------

SLOW = "touch began; while [ ! -e go ]; do sleep 0.2; done; echo ended >file"


def begun(machine: Machine, job_id: str) -> str:
    """The workspace of a job whose step waits for a file `go` in it."""
    work = f"{STATE}/workspaces/{job_id}/work"
    machine.wait_for(f"test -e {work}/began")
    return work


def test_an_upgrade_in_the_middle_of_a_step(machine: Machine, deb: Path, newer_deb: Path) -> None:
    ready(machine, deb)
    job_id = submit(machine, SLOW)
    work = begun(machine, job_id)
    step = machine.output("pgrep", "--full", "sh -eu .*01_only")
    runner = machine.output("systemctl", "show", "--property=MainPID", "agentorch-runner@1.service")
    machine.install(newer_deb)
    assert machine.output("pgrep", "--full", "sh -eu .*01_only") == step
    machine.wait_for("systemctl is-active agentorch-runner@1.service")
    again = machine.output("systemctl", "show", "--property=MainPID", "agentorch-runner@1.service")
    assert again != runner
    machine.run("touch", f"{work}/go")
    result = ended(machine, job_id)
    assert result["status"] == "success"
    assert [each["attempts"] for each in result["steps"]] == [1]  # type: ignore[attr-defined]
    assert machine.output("agentorch-submit", "--version") == "99.0"
    assert machine.failed_units() == []


def test_an_upgrade_keeps_what_the_administrator_wrote(
    machine: Machine, deb: Path, newer_deb: Path
) -> None:
    ready(machine, deb)
    machine.shell(
        "echo WEBHOOK_TOKEN=mine >>/etc/agentorch/agentorch.env; echo K=v >/etc/agentorch/keys.env"
    )
    machine.run("systemctl", "stop", "agentorch.target")
    machine.install(newer_deb)
    assert "WEBHOOK_TOKEN=mine" in machine.output("cat", "/etc/agentorch/agentorch.env")
    assert machine.output("cat", "/etc/agentorch/keys.env") == "K=v"
    assert machine.output("stat", "--format=%a", "/etc/agentorch/keys.env") == "600"
    # what was stopped is not started
    assert machine.run("systemctl", "is-active", "agentorch.target", check=False).returncode == 3


# ---- removed and purged -----------------------------------------------------------------------


def test_removed_it_stops_and_installed_again_it_goes_on(machine: Machine, deb: Path) -> None:
    ready(machine, deb)
    job_id = submit(machine, SLOW)
    work = begun(machine, job_id)
    machine.run("dpkg", "--remove", "agentorch", timeout_s=150)
    assert machine.run("pgrep", "--full", "sh -eu .*01_only", check=False).returncode == 1
    assert machine.failed_units() == []
    machine.run("rm", f"{work}/began")
    ready(machine, deb)
    machine.run("touch", f"{begun(machine, job_id)}/go")
    assert ended(machine, job_id)["status"] == "success"


def test_a_purge_leaves_what_it_says(machine: Machine, deb: Path) -> None:
    machine.run("mkdir", "-p", "/srv/project")
    before = listing(machine)
    ready(machine, deb)
    machine.run("systemctl", "enable", "--now", "agentorch-runner@1.service")
    job_id = submit(machine, "echo done >file")
    ended(machine, job_id)
    machine.run("dpkg", "--purge", "agentorch", timeout_s=150)
    left = {path for path in listing(machine) - before if "agentorch" in path}
    assert left == set()
    assert machine.failed_units() == []
    assert machine.output("getent", "passwd", "agentorch", "agentorch-broker").count("nologin") == 2
    machine.wait_for("! pgrep --uid agentorch")
    ready(machine, deb)
    assert ended(machine, submit(machine, "echo again >file"))["status"] == "success"


# ---- what the package's own tests say ---------------------------------------------------------


@pytest.mark.parametrize("name", ["commands", "boot"])
def test_autopkgtest(machine: Machine, deb: Path, name: str) -> None:
    machine.install(deb)
    script = (ROOT / "packaging/debian/tests" / name).read_bytes()
    machine.put("/var/tmp/autopkgtest", script, "0755")
    said = machine.run("/var/tmp/autopkgtest", check=False, timeout_s=150)
    assert (said.returncode, said.stderr.count(b"Traceback")) == (0, 0), said
