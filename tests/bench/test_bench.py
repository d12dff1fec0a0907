"""The rows of tests/bench run and say what they measured; how fast that was is not asked here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.measure import Figure, Goal, interleaved, median_ratio
from tests.bench.run import ROWS
from tests.support.selection import selected

RUN = Path(__file__).resolve().parents[1] / "bench" / "run.py"


@pytest.mark.needs("bwrap", "git", "sh")
@pytest.mark.parametrize("row", selected(list(ROWS), 8))
def test_a_row_prints_its_figures(row: str, tmp_path: Path) -> None:
    argv = [sys.executable, str(RUN), "--quick", "--directory", str(tmp_path), row]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    figures = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(ended.stderr.splitlines()) == len(figures) > 0
    assert not list(tmp_path.iterdir()), "a row removes what it made"
    if "skipped" in figures[0]:
        pytest.skip(figures[0]["skipped"])
    for figure in figures:
        assert list(figure) == ["name", "value", "unit", "goal", "ok"]
        assert (figure["goal"] is None) == (figure["ok"] is None)


@pytest.mark.parametrize("row", ["agents", "agent_memory"])
def test_a_row_says_why_it_is_not_measured(row: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": "/nonexistent"}
    argv = [sys.executable, str(RUN), "--quick", row]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    (said,) = [json.loads(line) for line in ended.stdout.splitlines()]
    assert said == {"name": row, "skipped": said["skipped"]}
    assert "npm" in said["skipped"]
    assert said["skipped"] in ended.stderr


def test_a_goal_is_a_bound_from_one_side() -> None:
    assert Figure("a", 1.2, "x", Goal(1.2)).ok
    assert not Figure("a", 1.21, "x", Goal(1.2)).ok
    assert Figure("a", 0.5, "x", Goal(0.5, at_least=True)).ok
    assert not Figure("a", 0.49, "x", Goal(0.5, at_least=True)).ok
    assert Figure("a", 9, "x").ok is None


def test_sides_are_measured_in_turn_and_each_round_is_compared_with_itself() -> None:
    order: list[str] = []

    def side(name: str, value: float) -> float:
        order.append(name)
        return value

    taken = interleaved({"a": lambda: side("a", 2.0), "b": lambda: side("b", 1.0)}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert taken == {"a": [2.0] * 3, "b": [1.0] * 3}
    assert median_ratio([2, 3, 40], [1, 1, 10]) == 3
