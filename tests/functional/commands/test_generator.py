"""What the generator writes for a configuration, and what it makes of a wrong one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import agentorch
from agentorch.commands import generator
from agentorch.commands.generator import (
    WRITERS,
    Given,
    check_variables,
    drop_in,
    uid_of,
    units,
    user_units,
)
from agentorch.config import settings

PROGRAM = Path(agentorch.__file__).parents[2] / "units/agentorch-generator"
ROOTS = {"QUEUE_ROOT": "/data/one/queue", "ARTIFACTS_ROOT": "/data/one/artifacts"}


def test_a_configuration_that_says_nothing_has_one_slot_and_no_drop_in_but_the_target_s() -> None:
    assert units(Given()) == {"agentorch.target.d/50-agentorch.conf": target(1)}


def target(slots: int) -> str:
    wants = "".join(f"Wants=agentorch-runner@{slot}.path\n" for slot in range(1, slots + 1))
    return f"[Unit]\n{wants}"


@pytest.mark.parametrize("slots", [0, 1, 4, 64])
def test_slots(slots: int) -> None:
    written = units(check_variables({"AGENTORCH_SLOTS": str(slots)}))
    assert written[drop_in("agentorch.target")] == target(slots)


def test_the_service_user_s_manager_is_found_and_delegates_io() -> None:
    written = units(Given(uid=997))
    assert written[drop_in("user@997.service")] == "[Service]\nDelegate=cpu memory pids io\n"
    for name in ("runner@", "steps"):
        text = written[f"agentorch-{name}.service.d/50-agentorch-user.conf"]
        assert "After=user@997.service\n" in text
        assert "Environment=XDG_RUNTIME_DIR=/run/user/997\n" in text
        assert "Environment=DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/997/bus\n" in text


def test_totals_are_the_slice_s() -> None:
    totals = {"MEMORY_MAX": "8G", "CPU_QUOTA": "150%", "TASKS_MAX": "500", "IO_WEIGHT": "50"}
    given = check_variables({f"AGENTORCH_TOTAL_{name}": value for name, value in totals.items()})
    written = units(Given(given.variables, uid=997))[drop_in("user-997.slice")]
    assert written == "[Slice]\nMemoryMax=8G\nCPUQuota=150%\nTasksMax=500\nIOWeight=50\n"


def test_queue_and_artifacts_are_below_one_directory_in_every_service() -> None:
    written = units(check_variables(ROOTS))
    for name in WRITERS:
        text = written[drop_in(f"agentorch-{name}.service")]
        assert 'ReadWritePaths=\nReadWritePaths="-/data/one"\n' in text, name


def test_the_webhook_does_not_see_workspaces_wherever_they_are() -> None:
    written = units(check_variables({"WORKSPACES_ROOT": "/fast/work"}))
    text = written[drop_in("agentorch-webhook.service")]
    assert 'InaccessiblePaths="-/fast/work"\n' in text


def test_path_units_look_where_the_queue_is() -> None:
    written = units(check_variables({"AGENTORCH_STATE_DIR": "/srv/100% agentorch"}))
    assert written[drop_in("agentorch-runner@.path")] == (
        "[Path]\nDirectoryNotEmpty=\n"
        "DirectoryNotEmpty=/srv/100%% agentorch/queue/pending\n"
        "PathExistsGlob=/srv/100%% agentorch/queue/running/%i/[0-9]*\n"
    )
    assert "/srv/100%% agentorch/queue/outbox/new\n" in written[drop_in("agentorch-notify.path")]
    service = written[drop_in("agentorch-gc.service")]
    assert service == '[Service]\nReadWritePaths=\nReadWritePaths="-/srv/100%% agentorch"\n'


def test_who_tells_of_waiting_jobs_looks_where_they_wait() -> None:
    written = units(
        check_variables({"QUEUE_ROOT": "/fast/queue", "ARTIFACTS_ROOT": "/fast/artifacts"})
    )
    assert written[drop_in("agentorch-announce.path")] == (
        "[Path]\nPathChanged=\n"
        "PathChanged=/fast/queue/awaiting_approval\nPathChanged=/fast/queue/held\n"
    )
    conditions = "agentorch-announce.service.d/51-agentorch.conf"
    assert written[conditions] == (
        "[Unit]\nConditionDirectoryNotEmpty=\n"
        "ConditionDirectoryNotEmpty=|/fast/queue/awaiting_approval\n"
        "ConditionDirectoryNotEmpty=|/fast/queue/held\n"
    )
    service = written[drop_in("agentorch-announce.service")]
    assert "ReadWritePaths=-/var/spool -/var/mail -/var/log\n" in service
    assert "InaccessiblePaths=" in service
    written = user_units(check_variables({"AGENTORCH_CONFIG_DIR": "/home/me/own"}))
    assert written[conditions] == (
        "[Unit]\nConditionDirectoryNotEmpty=\nConditionDirectoryNotEmpty=/home/me/own/notify.d\n"
    )
    assert drop_in("agentorch-announce.path") not in written
    assert conditions not in units(check_variables({"AGENTORCH_SLOTS": "2"}))


def test_what_lies_below_home_is_shown() -> None:
    written = units(check_variables({"AGENTORCH_STATE_DIR": "/home/agentorch/state"}))
    text = written[drop_in("agentorch-reclaim.service")]
    assert 'BindPaths="-/home/agentorch/state"\n' in text


def test_an_interval_and_a_metrics_file() -> None:
    given = check_variables({"RETENTION_INTERVAL_SEC": "60", "AGENTORCH_METRICS_FILE": "/m/a.prom"})
    written = units(given)
    assert written[drop_in("agentorch-gc.timer")].endswith("OnUnitActiveSec=60s\n")
    metrics = written["agentorch-metrics.service.d/51-agentorch.conf"]
    assert "ConditionPathIsDirectory=/m\n" in metrics
    assert 'ReadWritePaths="-/m"\n' in metrics


def test_custom_places_leave_the_metrics_their_directory() -> None:
    written = units(check_variables(ROOTS))
    both = sorted(name for name in written if name.startswith("agentorch-metrics.service.d/"))
    text = "".join(written[name] for name in both)
    added = 'ReadWritePaths="-/var/lib/prometheus/node-exporter"\n'
    assert added in text.rpartition("ReadWritePaths=\n")[2]


def test_an_enabled_slot_stays() -> None:
    written = user_units(Given(warm=("3",)))
    text = written[drop_in("agentorch-runner@3.service")]
    assert "ExecStart=\nExecStart=/usr/bin/agentorch-runner --slot=3\nRestart=always\n" in text


def test_a_wrong_variable_counts_as_not_set_and_is_told() -> None:
    given = check_variables(
        {"AGENTORCH_SLOTS": "many", "QUEUE_ROOT": "here", "ARTIFACTS_ROOT": "/a/b"}
    )
    assert [problem.split(":")[0] for problem in given.problems] == [
        "AGENTORCH_SLOTS",
        "QUEUE_ROOT",
        "QUEUE_ROOT, ARTIFACTS_ROOT",
    ]
    assert "# wrong: AGENTORCH_SLOTS: 'many': " in units(given)[drop_in("agentorch.target")]


def test_every_variable_is_read_as_the_settings_read_it() -> None:
    known = {name: read for name, _, read in settings.VARIABLES}
    for name, read in generator.READERS.items():
        for text in ("0", "1", "65", "/a", "a", "x%", "150%", "8G"):
            if name in known:
                assert _reads(read, text) == _reads(known[name], text), (name, text)


def _reads(read: object, text: str) -> object:
    assert callable(read)
    try:
        return read(text)
    except ValueError:
        return ValueError


def test_a_user_s_number_without_the_name_service() -> None:
    accounts = "root:x:0:0::/root:/bin/sh\nagentorch-broker:x:9:9::/:\nagentorch:x:997:997::/:\n"
    assert uid_of(accounts) == 997
    assert uid_of("root:x:0:0::/root:/bin/sh\nbroken\n") is None


# ---- the program ------------------------------------------------------------------------------


def run(directory: Path, text: str | None, scope: str = "user") -> subprocess.CompletedProcess[str]:
    """The program as systemd starts it, with this tree's library."""
    home = directory / "home"
    configuration = home / ".config/agentorch/agentorch.env"
    configuration.parent.mkdir(parents=True)
    if text is not None:
        configuration.write_text(text)
    library = str(Path(agentorch.__file__).parents[1])
    program = PROGRAM.read_text().replace("/usr/lib/python3/dist-packages", library)
    return subprocess.run(
        [sys.executable, "-IS", "-c", program, *(str(directory / name) for name in "nel")],
        env={"HOME": str(home), "SYSTEMD_SCOPE": scope, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize(
    "text",
    [None, "", "AGENTORCH_SLOTS='2'\n", "nonsense\n", "AGENTORCH_SLOTS=\\\n3\n"],
)
def test_the_program_writes_below_its_directory_alone_and_never_fails(
    tmp_path: Path, text: str | None
) -> None:
    run(tmp_path, text)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "home" not in path.parts]
    assert written == [tmp_path / "n/agentorch.target.d/50-agentorch.conf"]
    slots = 2 if text and "2" in text else 3 if text and "3" in text else 1
    found = written[0].read_text()
    assert found.count("Wants=") == slots
    assert ("# wrong: " in found) == (text == "nonsense\n")
