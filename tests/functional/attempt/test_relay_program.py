"""The relay's program: compiled where that is of its source, else the source."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import subprocess
import sys
from pathlib import Path

from agentorch.attempt.broker_access import compiled_head
from agentorch.broker import relay

FIND = "from agentorch.attempt.broker_access import relay_program; print(relay_program())"


def copied(top: Path) -> Path:
    """A package with nothing compiled in it; its relay."""
    package = Path(relay.__file__).parents[1]
    subprocess.run(["cp", "-a", str(package), str(top)], check=True)
    subprocess.run(["find", str(top), "-name", "*.pyc", "-delete"], check=True)
    return top / "agentorch" / "broker" / "relay.py"


def found(top: Path, *, writes: bool) -> Path:
    """What is run of this package, by a process that keeps what it compiles, or does not."""
    environment = {**os.environ, "PYTHONPATH": str(top)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    options = () if writes else ("-B",)
    argv = (sys.executable, *options, "-c", FIND)
    return Path(subprocess.check_output(argv, env=environment, text=True).strip())


def test_what_was_not_compiled_is_run_as_it_is(tmp_path: Path) -> None:
    source = copied(tmp_path)
    assert found(tmp_path, writes=False) == source


def test_what_was_compiled_is_run_so(tmp_path: Path) -> None:
    source = copied(tmp_path)
    program = found(tmp_path, writes=True)
    assert program == Path(importlib.util.cache_from_source(source))
    argv = (sys.executable, "-I", "-S", str(program), "--socket")
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == relay.TROUBLE
    assert "usage: relay.py" in ended.stderr


def test_what_was_compiled_of_another_source_is_not_run(tmp_path: Path) -> None:
    source = copied(tmp_path)
    assert found(tmp_path, writes=True) != source
    os.utime(source, (1, 1))
    assert found(tmp_path, writes=False) == source


def test_how_a_compiled_file_begins(tmp_path: Path) -> None:
    source, compiled = tmp_path / "x.py", tmp_path / "x.pyc"
    source.write_text("x = 1\n")
    py_compile.compile(str(source), str(compiled))
    seen = source.stat()
    assert compiled.read_bytes()[:16] == compiled_head(seen.st_mtime, seen.st_size)
    assert compiled.read_bytes()[:16] != compiled_head(seen.st_mtime + 1, seen.st_size)
