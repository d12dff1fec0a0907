#!/usr/bin/env python3
"""Measures what DESIGN promises: JSON lines on stdout, a table on stderr.

    tests/bench/run.py [--quick] [--directory DIR] [ROW]...

Exits with 1 where a figure misses its goal; with --quick, which measures nothing, never.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.measure import Figure, Options

# Each row is a module here, whose `figures` measures it.
ROWS = {
    "submit": "submits",
    "claim": "claims",
    "start": "starts",
    "three_steps": "three_steps",
    "command": "command_starts",
    "memory": "memory",
    "idle": "idle",
}


def main() -> int:
    """Measures the rows that were asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", metavar="ROW", nargs="*", choices=[[], *ROWS], default=[])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: do the rows work?")
    parser.add_argument("--directory", type=Path, help="on the disk to measure; else TMPDIR")
    given = parser.parse_args()
    missed = 0
    for figure in measured(given.rows or ROWS, Options(given.directory, given.quick)):
        sys.stdout.write(f"{json.dumps(figure.document())}\n")
        sys.stdout.flush()
        sys.stderr.write(f"{line(figure)}\n")
        missed += figure.ok is False
    return 1 if missed and not given.quick else 0


def measured(rows: Iterable[str], options: Options) -> Iterator[Figure]:
    """The figures of these rows, as they come."""
    for row in rows:
        yield from import_module(f"tests.bench.{ROWS[row]}").figures(options)


def line(figure: Figure) -> str:
    """A line of the table."""
    verdict = {None: "", True: "ok", False: "MISSED"}[figure.ok]
    goal = f"goal {figure.goal}" if figure.goal is not None else ""
    return f"{figure.name:24} {figure.value:12.4g} {figure.unit:12} {goal:14} {verdict}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
