"""Which paths a program needs to run, where it is not installed below /usr.

A program brings the tree that it was installed into (PREFIX of PREFIX/bin/NAME), each link on the
way to it, and the interpreter that its first line names. A tree that holds more than programs, a
home above all, is never shown for that: then the program's own file alone is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
PROGRAM_DIRECTORIES = frozenset({"bin", "sbin", "shims"})
# Trees that people keep other things in.
SHARED = ("/", "/etc", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/var")
MAX_LINKS = 40


@dataclass(frozen=True)
class Needed:
    """`trees` are shown as they are, `links` (path: what it points to) are repeated."""

    trees: tuple[Path, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)


def needed_paths(
    argv: Iterable[str], environment: Mapping[str, str], private: Iterable[Path]
) -> Needed:
    """Return what outside /usr the program argv[0] needs; nothing where it is not found.

    No tree holds one of `private`, which the sandbox shows by itself, or a user's home.
    """
    name = next(iter(argv), "")
    if "/" in name and not name.startswith("/"):  # of the work tree
        return Needed()
    found = shutil.which(name, path=absolute_path(environment.get("PATH", "")))
    if found is None:
        return Needed()
    own = tuple(private)
    steps = [*_links(Path(found)), *_interpreter(Path(found), environment)]
    shown = (*map(Path, SYSTEM), *own)
    missing = [step for step in steps if not any(step.is_relative_to(top) for top in shown)]
    return _visible(missing, (*own, _home()))


def _visible(steps: Iterable[Path], private: tuple[Path, ...]) -> Needed:
    trees = {step: _tree(step, private) for step in steps}
    links = {str(step): os.readlink(step) for step in trees if step.is_symlink()}
    return Needed(
        trees=tuple(dict.fromkeys(tree for step, tree in trees.items() if not _link(step, tree))),
        links={path: to for path, to in links.items() if trees[Path(path)] == Path(path)},
    )


def _home() -> Path:
    return Path(os.path.expanduser("~"))  # a user without a home has "~", which holds nothing


def _link(step: Path, tree: Path) -> bool:
    return step == tree and step.is_symlink()


def absolute_path(path: str) -> str:
    """PATH without entries that depend on the current directory."""
    return ":".join(entry for entry in path.split(":") if entry.startswith("/"))


def _links(path: Path) -> list[Path]:
    """Return the path and what each link on the way points to."""
    steps = [path]
    while steps[-1].is_symlink() and len(steps) < MAX_LINKS:
        target = steps[-1].readlink()
        steps.append(Path(os.path.normpath(steps[-1].parent / target)))
    return list(dict.fromkeys([*steps, path.resolve()]))


def _interpreter(path: Path, environment: Mapping[str, str]) -> list[Path]:
    words = _first_line(path)
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    search = absolute_path(environment.get("PATH", ""))
    found = shutil.which(words[0], path=search) if words else None
    return _links(Path(found)) if found else []


def _first_line(path: Path) -> list[str]:
    """Return the words after #! of a script, none of any other program."""
    try:
        with path.open("rb") as program:
            first = program.readline(512)
    except PermissionError:  # may be run and not read: then it is no script
        return []
    return os.fsdecode(first[2:]).split() if first.startswith(b"#!") else []


def _tree(program: Path, private: Iterable[Path]) -> Path:
    """Return what to show for a program: its prefix, or, where that holds other things, itself."""
    if program.parent.name not in PROGRAM_DIRECTORIES:
        return program
    prefix = program.parent.parent
    shared = str(prefix) in SHARED or prefix.parent == Path("/home") or prefix.name == ".local"
    holds = any(path.resolve().is_relative_to(prefix.resolve()) for path in private)
    return program if shared or holds else prefix
