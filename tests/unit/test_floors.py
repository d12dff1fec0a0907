"""The floors: imports go down, on one floor to the left; the lowest touch nothing outside.

The table is the docstring of the package, so what is read there is what is so.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentorch

PACKAGE = Path(agentorch.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
PURE_FLOORS = (0, 1)
IMPURE = {
    *("asyncio", "fcntl", "io", "multiprocessing", "os", "pathlib", "random", "secrets"),
    *("select", "shutil", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time"),
}


def floors() -> dict[str, tuple[int, int]]:
    """Each name of the table with its floor and its place there, counted from the left."""
    table: dict[str, tuple[int, int]] = {}
    floor = None
    for line in (agentorch.__doc__ or "").splitlines():
        match = re.fullmatch(r"    (\d| )  ((?:[a-z_]+/? )*[a-z_]+/?)(?:  .*)?", line)
        if match is None or (match[1] == " " and floor is None):
            continue
        floor = floor if match[1] == " " else int(match[1])
        assert floor is not None
        for name in match[2].split():
            table[name.rstrip("/")] = (floor, len(table))
    return table


def part(path: Path) -> str:
    """The name in the table that a source file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions and for types only as well."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_part_has_a_floor_and_every_name_is_there() -> None:
    assert set(floors()) == {part(path) for path in SOURCES} - {"__init__"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_or_to_the_left(path: Path) -> None:
    table = floors()
    here = part(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "agentorch" or not {here, *parts[1:2]} <= set(table):
            continue  # what has no floor is named by the test above
        if len(parts) == 1 or parts[1] == here:
            continue
        (floor, place), (own_floor, own_place) = table[parts[1]], table[here]
        assert floor < own_floor or (floor == own_floor and place < own_place), (
            f"{path.name}: {here} (floor {own_floor}) imports {parts[1]} (floor {floor})"
        )


def test_the_lowest_floors_touch_nothing_outside() -> None:
    table = floors()
    touched = {
        f"{part(path)} imports {name}"
        for path in SOURCES
        if part(path) in table and table[part(path)][0] in PURE_FLOORS
        for name in imported(path)
        if name.split(".")[0] in IMPURE
    }
    assert touched == set()


def test_imports_are_absolute() -> None:
    nodes = (node for path in SOURCES for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in nodes)
