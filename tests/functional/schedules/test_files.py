"""The folder of schedules: what a file says, what is wrong with it, which units come of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agentorch.core.errors import Invalid
from agentorch.schedules import files
from agentorch.schedules.files import Folder, schedule_of
from agentorch.schedules.timers import NEEDS_UTC, TARGET_DROP_IN, Overlap, crontab, units

ROOT = Path(__file__).parents[3]
GOOD: Mapping[str, Any] = {"id": "good", "schedule": "0 3 * * *", "payload": {"goal": "x"}}


def put(directory: Path, name: str, document: Any) -> Path:
    path = directory / name
    path.write_text(document if isinstance(document, str) else json.dumps(document), "utf-8")
    return path


def ids(folder: Folder) -> list[str]:
    return [one.schedule_id for one in folder.schedules]


def test_the_defaults_are_those_of_the_contract() -> None:
    contract = json.loads((ROOT / "contracts/schedule.schema.json").read_text("utf-8"))
    found = schedule_of(GOOD)
    for name, field in contract["properties"].items():
        if "default" in field:
            assert getattr(found, name) == field["default"], name


@pytest.mark.parametrize("path", sorted((ROOT / "examples/schedules").iterdir()))
def test_every_example_is_one(path: Path) -> None:
    assert files.read_file(path).schedule_id == path.stem


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "a b"}, ".id: 'a b' does not match"),
        ({"id": "../x"}, ".id: '../x' does not match"),
        ({"id": "a\n"}, ".id: 'a\\n' does not match"),
        ({"id": ""}, ".id: '' does not match"),
        ({"id": None}, ".id: expected string, found null"),
        ({"enabled": "yes"}, ".enabled: expected boolean, found a string"),
        ({"schedule": 5}, ".schedule: expected string, found a number"),
        ({"schedule": "61 * * * *"}, ".schedule: field 1 (minute): '61': expected 0 to 59"),
        ({"schedule": "0 0 30 2 *"}, ".schedule: never runs"),
        ({"on_calendar": "daily"}, ".: expected one of 'schedule' and 'on_calendar'"),
        ({"on_calendar": "daily\n[Service]"}, ".on_calendar: 'daily\\n[Service]' does not match"),
        ({"overlap": "wait"}, ".overlap: 'wait' is not one of skip, queue, replace"),
        ({"jitter_s": -1}, ".jitter_s: -1 is below 0"),
        ({"payload": "x"}, ".payload: expected object, found a string"),
        ({"payload": {"goal": "x", "job_id": "abcdefgh"}}, ".payload.job_id: is set by each run"),
        ({"scedule": "x"}, ".: 'scedule' is unknown (did you mean 'schedule'?)"),
    ],
)
def test_what_is_no_schedule(change: Mapping[str, Any], words: str) -> None:
    with pytest.raises(Invalid) as refused:
        schedule_of({**GOOD, **change})
    assert any(problem.startswith(words) for problem in refused.value.problems), refused.value


def test_neither_kind_of_time() -> None:
    with pytest.raises(Invalid, match="expected one of 'schedule' and 'on_calendar'"):
        schedule_of({"id": "x", "payload": {}})


@pytest.mark.parametrize("document", [[], "x", None, 5])
def test_what_is_no_object(document: Any) -> None:
    with pytest.raises(Invalid, match="expected object"):
        schedule_of(document)


def test_a_bad_file_harms_no_other(tmp_path: Path) -> None:
    put(tmp_path, "a.json", "{")
    put(tmp_path, "b.json", {**GOOD, "id": "b"})
    put(tmp_path, "c.json", {"id": "c"})
    put(tmp_path, "d.json", {**GOOD, "id": "b"})
    put(tmp_path, "e.json", {**GOOD, "id": "e", "schedule": "x"})
    put(tmp_path, "f.json", b"\xff".decode("latin-1"))
    put(tmp_path, "g\nRequires=x.json", "{")
    os.mkfifo(tmp_path / "h.json")
    (tmp_path / "i.json").mkdir()
    (tmp_path / "j.json").symlink_to("nowhere")
    put(tmp_path, "k.json", {**GOOD, "id": "k"})
    put(tmp_path, ".l.json", "{")
    put(tmp_path, "m.json~", "{")
    folder = files.read(tmp_path)
    assert ids(folder) == ["b", "k"]
    said = {Path(problem.split(": ")[0]).name for problem in folder.problems}
    assert said == {f"{name}.json" for name in ("a", "c", "d", "e", "f", "g Requires=x", *"hij")}
    for name, text in units(folder.schedules, folder.problems).items():
        assert name == TARGET_DROP_IN or name.startswith("agentorch-schedule@")
        assert not any(line.startswith(("Requires", "x")) for line in text.splitlines())


def test_no_folder_is_none_and_one_that_is_none_is_told(tmp_path: Path) -> None:
    assert files.read(tmp_path / "nowhere") == Folder()
    path = put(tmp_path, "file", "")
    assert files.read(path).problems == (f"{path}: Not a directory",)


# ---- units ------------------------------------------------------------------------------------


def test_the_units_of_a_folder() -> None:
    first = schedule_of({**GOOD, "schedule": "0 0 13 * 5", "jitter_s": 60})
    second = schedule_of({**GOOD, "id": "off", "enabled": False})
    made = units([first, second], ["x: wrong"])
    assert set(made) == {TARGET_DROP_IN, "agentorch-schedule@good.timer"}
    assert made[TARGET_DROP_IN] == (
        "[Unit]\n# wrong schedule: x: wrong\nWants=agentorch-schedule@good.timer\n"
    )
    lines = made["agentorch-schedule@good.timer"].splitlines()
    assert [line for line in lines if "=" in line][2:] == [
        "PartOf=agentorch.target",
        "OnCalendar=*-*-13 00:00:00 UTC",
        "OnCalendar=Fri *-*-* 00:00:00 UTC",
        "Persistent=yes",
        "RandomizedDelaySec=60s",
        "AccuracySec=1s",
    ]


@pytest.mark.needs("systemd-analyze")
def test_systemd_has_nothing_against_a_timer(tmp_path: Path) -> None:
    found = [files.read_file(path) for path in (ROOT / "examples/schedules").iterdir()]
    found.append(schedule_of({**GOOD, "id": "a.b-c_d", "schedule": "*/5 1-3 */2 feb-nov mon"}))
    made = {name: text for name, text in units(found).items() if name != TARGET_DROP_IN}
    for name, text in made.items():
        put(tmp_path, name, text)
        service = "[Service]\nType=oneshot\nExecStart=/bin/true\n"
        put(tmp_path, name.replace(".timer", ".service"), service)
    argv = ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.glob("*.timer"))]
    asked = subprocess.run(argv, capture_output=True, text=True, check=False)
    ours = [line for line in asked.stderr.splitlines() if "agentorch-schedule" in line]
    assert (len(made), ours) == (3, [])


def test_lines_for_cron() -> None:
    found = [
        schedule_of({**GOOD, "schedule": " 0  3 * *\tmon-fri "}),
        schedule_of({**GOOD, "id": "often", "schedule": "@hourly", "jitter_s": 9}),
        schedule_of({"id": "event", "on_calendar": "daily", "payload": {}}),
        schedule_of({**GOOD, "id": "off", "enabled": False}),
    ]
    assert crontab(found) == [
        NEEDS_UTC,
        "CRON_TZ=UTC",
        "0 3 * * mon-fri agentorch-schedule run --due good",
        "# often: cron knows no jitter_s (9)",
        "@hourly agentorch-schedule run --due often",
        "# event: cron knows no on_calendar (daily)",
    ]


def test_overlap_is_read() -> None:
    assert schedule_of({**GOOD, "overlap": "replace"}).overlap is Overlap.REPLACE


# ---- the generator ----------------------------------------------------------------------------


def generate(top: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the generator of a user's manager, without what the machine has for Python."""
    lib = str(ROOT / "lib")
    program = f"import sys; sys.path = [{lib!r}, *(p for p in sys.path if 'site-' not in p)]"
    call = "from agentorch.commands.generator import main; main()"
    return subprocess.run(
        [sys.executable, "-IS", "-c", f"{program}; {call}", str(top / "out"), "x", "x"],
        env={"SYSTEMD_SCOPE": "user", "HOME": str(top), **variables},
        capture_output=True,
        text=True,
        check=True,
    )


def test_the_generator_makes_timers_of_good_files_only(tmp_path: Path) -> None:
    folder = tmp_path / ".config/agentorch/schedules"
    folder.mkdir(parents=True)
    put(folder, "a.json", GOOD)
    bad = put(folder, "b.json", {**GOOD, "id": "a b", "unknown": 1})
    generate(tmp_path)
    made = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert made == {
        "agentorch.target.d",
        "agentorch.target.d/50-agentorch.conf",
        TARGET_DROP_IN,
        "agentorch-schedule@good.timer",
    }
    assert (tmp_path / "out" / TARGET_DROP_IN).read_text().splitlines() == [
        "[Unit]",
        f"# wrong schedule: {bad}: {files.UNTOLD}",
        "Wants=agentorch-schedule@good.timer",
    ]


def test_the_generator_knows_where_the_configuration_is(tmp_path: Path) -> None:
    (tmp_path / "schedules").mkdir()
    put(tmp_path / "schedules", "a.json", GOOD)
    environment = tmp_path / "agentorch.env"
    environment.write_text(f"AGENTORCH_CONFIG_DIR={tmp_path}\n")
    generate(tmp_path, AGENTORCH_ENV_FILE=str(environment))
    assert (tmp_path / "out/agentorch-schedule@good.timer").exists()


def test_without_a_folder_the_generator_writes_nothing_of_it(tmp_path: Path) -> None:
    generate(tmp_path)
    assert not (tmp_path / "out" / TARGET_DROP_IN).exists()
