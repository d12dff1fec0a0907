#!/usr/bin/env python3
"""Measures what DESIGN promises: JSON lines on stdout, a table on stderr.

    tests/bench/run.py [--quick] [--directory DIR] [ROW]...

A row that can't be measured here says why. Exits with 1 where a figure misses its goal; with
--quick, which measures nothing, never.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.measure import Figure, Options, Unmeasured

# Each row is a module here, whose `figures` measures it.
ROWS = {
    "submit": "submits",
    "claim": "claims",
    "start": "starts",
    "three_steps": "three_steps",
    "command": "command_starts",
    "memory": "memory",
    "webhook": "webhook",
    "idle": "idle",
    "activated": "activated",
    "metrics": "metrics",
    "broker": "broker",
    "agents": "agents",
    "agent_memory": "agent_memory",
}


@dataclass(frozen=True)
class Skipped:
    """A row that can't be measured here, and why."""

    row: str
    why: str

    def document(self) -> dict[str, object]:
        """It as one JSON object."""
        return {"name": self.row, "skipped": self.why}

    def __str__(self) -> str:
        return f"{self.row:24} not measured: {self.why}"


def main() -> int:
    """Measures the rows that were asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", metavar="ROW", nargs="*", choices=[[], *ROWS], default=[])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: do the rows work?")
    parser.add_argument("--directory", type=Path, help="on the disk to measure; else TMPDIR")
    given = parser.parse_args()
    # what is installed is compiled: so are the programs that are measured, once they were warm
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    missed = 0
    for found in measured(given.rows or ROWS, Options(given.directory, given.quick)):
        sys.stdout.write(f"{json.dumps(found.document())}\n")
        sys.stdout.flush()
        sys.stderr.write(f"{line(found) if isinstance(found, Figure) else found}\n")
        missed += isinstance(found, Figure) and found.ok is False
    return 1 if missed and not given.quick else 0


def measured(rows: Iterable[str], options: Options) -> Iterator[Figure | Skipped]:
    """The figures of these rows, as they come."""
    for row in rows:
        try:
            yield from import_module(f"tests.bench.{ROWS[row]}").figures(options)
        except Unmeasured as problem:
            yield Skipped(row, str(problem))


def line(figure: Figure) -> str:
    """A line of the table."""
    verdict = {None: "", True: "ok", False: "MISSED"}[figure.ok]
    goal = f"goal {figure.goal}" if figure.goal is not None else ""
    return f"{figure.name:24} {figure.value:12.4g} {figure.unit:12} {goal:14} {verdict}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
