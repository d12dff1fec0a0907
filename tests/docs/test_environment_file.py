"""agentorch.env has every variable that there is, and its defaults are the program's."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from agentorch.config import environment_file, settings
from agentorch.config.settings import Settings

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples/configuration/agentorch.env"
PROVIDERS = ROOT / "lib/agentorch/broker/providers.toml"
VARIABLE = re.compile(r"^#([A-Z][A-Z0-9_]*)=(.*)$")
STATE = "/var/lib/agentorch"

# Not for the file: it says where the file is.
OUTSIDE = {"AGENTORCH_ENV_FILE"}


def known() -> set[str]:
    """The names that the program reads."""
    limits = {
        f"{begins}{name}" for _, begins, _ in settings.LIMITED for name, _, _ in settings.LIMITS
    }
    places = {"QUEUE_ROOT", "ARTIFACTS_ROOT", "WORKSPACES_ROOT", "STATE_DB_PATH"}
    providers = tomllib.loads(PROVIDERS.read_text("utf-8")).values()
    return (
        {name for name, _, _ in settings.VARIABLES}
        | limits
        | places
        | {"AGENTORCH_STATE_DIR"}
        | settings.SECRET
        | {provider["base_url_variable"] for provider in providers}
    )


def blocks() -> list[tuple[str, list[str]]]:
    """Each comment, with the variables below it."""
    found: list[tuple[str, list[str]]] = []
    words: list[str] = []
    for line in SAMPLE.read_text("utf-8").splitlines():
        if VARIABLE.match(line):
            if words:
                found.append((" ".join(words), []))
                words = []
            found[-1][1].append(line[1:])
        elif line.startswith("# "):
            words.append(line[2:])
        else:
            words = []
    return found


def loaded(lines: list[str], directory: Path) -> Settings:
    path = directory / "agentorch.env"
    path.write_text("\n".join(lines), "utf-8")
    return settings.load({"AGENTORCH_ENV_FILE": str(path), "AGENTORCH_STATE_DIR": STATE})


def different(one: Settings, other: Settings) -> list[str]:
    names = [each.name for each in fields(Settings) if each.name != "environment"]
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def variables(*, with_default: bool) -> list[str]:
    return [
        line
        for words, lines in blocks()
        for line in lines
        if ("no default" in words) != with_default
    ]


def test_every_variable_is_there_once_and_no_other() -> None:
    names = [line.partition("=")[0] for _, lines in blocks() for line in lines]
    assert len(names) == len(set(names))
    assert set(names) == known() - OUTSIDE


def test_nothing_is_set() -> None:
    assert environment_file.parse(SAMPLE.read_text("utf-8"), "sample") == {}


def test_every_default_is_the_programs(tmp_path: Path) -> None:
    lines = variables(with_default=True)
    assert different(loaded(lines, tmp_path), loaded([], tmp_path)) == []


@pytest.mark.parametrize("line", variables(with_default=False))
def test_an_example_is_read_and_is_no_default(line: str, tmp_path: Path) -> None:
    found = loaded([line], tmp_path)
    name, _, value = line.partition("=")
    assert found.environment[name] == value
    assert name.endswith("_BASE_URL") or different(found, loaded([], tmp_path))


def test_the_root_has_the_same_file() -> None:
    assert (ROOT / ".env.example").read_bytes() == SAMPLE.read_bytes()
