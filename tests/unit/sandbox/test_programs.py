"""Which paths a program needs, where it is not installed below /usr."""

from __future__ import annotations

from pathlib import Path

from agentorch.sandbox import programs


def needed(top: Path, name: str, *private: Path) -> programs.Needed:
    return programs.needed_paths([name], {"PATH": f"{top}/bin:{top}/.local/bin:/usr/bin"}, private)


def script(path: Path, first: str = "#!/bin/sh") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{first}\n")
    path.chmod(0o755)
    return path


def test_a_program_of_the_system_needs_nothing(tmp_path: Path) -> None:
    assert needed(tmp_path, "git") == programs.Needed()
    assert needed(tmp_path, "no-such-program") == programs.Needed()
    assert needed(tmp_path, "./bin/x") == programs.Needed()


def test_a_program_brings_its_prefix(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "x")
    assert needed(tmp_path, "x") == programs.Needed((tmp_path,))


def test_a_prefix_that_holds_something_private_is_not_shown(tmp_path: Path) -> None:
    program = script(tmp_path / "bin" / "x")
    assert needed(tmp_path, "x", tmp_path / "work") == programs.Needed((program,))


def test_a_program_of_the_work_tree_is_shown_by_the_work_tree(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "x")
    assert needed(tmp_path, "x", tmp_path / "bin") == programs.Needed()


def test_a_link_in_a_local_directory_is_repeated(tmp_path: Path) -> None:
    target = script(tmp_path / ".local/share/x/versions/1.0")
    link = tmp_path / ".local/bin/x"
    link.parent.mkdir()
    link.symlink_to("../share/x/versions/1.0")
    expected = programs.Needed((target,), {str(link): "../share/x/versions/1.0"})
    assert needed(tmp_path, "x") == expected


def test_an_interpreter_is_needed_too(tmp_path: Path) -> None:
    script(tmp_path / "node" / "bin" / "node")
    program = script(tmp_path / "x" / "bin" / "x", "#!/usr/bin/env -S node --flag")
    path = f"{tmp_path}/x/bin:{tmp_path}/node/bin"
    found = programs.needed_paths([str(program)], {"PATH": path}, ())
    assert found == programs.Needed((tmp_path / "x", tmp_path / "node"))
