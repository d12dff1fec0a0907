"""A command and its confinement as something to start: descriptors open, everything refused that
can't be enforced, and nobody left inside afterwards.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from agentorch.config import environment_file
from agentorch.core.errors import Misconfigured
from agentorch.sandbox import (
    bubblewrap,
    containers,
    firejail,
    occupants,
    programs,
    seccomp,
    systemd_run,
    wrapper_syntax,
)
from agentorch.sandbox.confinement import Confined, Confinement, Wrapper
from agentorch.sandbox.host import host
from agentorch.sandbox.wrapper_table import refusals

# What the wrapper's own process has: it can be read inside as /proc/1/environ.
CLIENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


@contextlib.contextmanager
def confine(
    wrapper: Wrapper | None,
    confinement: Confinement,
    argv: Sequence[str],
    *,
    alive_fd: int | None = None,
) -> Iterator[Confined]:
    """Yield what to start, once, instead of `argv`; with None as wrapper nothing is confined.

    Start it from a thread that lives as long as the attempt: bwrap dies with the thread that
    started it (PR_SET_PDEATHSIG(2const)).
    `alive_fd` is held open as long as anything runs inside, where the wrapper can (the table of
    `wrappers`); whoever reads or resets the work tree after a crash calls `vacate` first all the
    same. On leaving, whatever is still inside is killed, and is gone on return.
    Raises Misconfigured where something asked can't be enforced.
    """
    if wrapper is None:
        held = () if alive_fd is None else (alive_fd,)
        yield Confined(tuple(argv), dict(confinement.environment), held)
        return
    _check(wrapper, confinement)
    with contextlib.ExitStack() as opened:
        opened.callback(occupants.vacate, confinement.work)
        yield _start(opened, _with_path(wrapper), confinement, argv, alive_fd)


def _check(wrapper: Wrapper, confinement: Confinement) -> None:
    problems = (*refusals(wrapper, confinement), *_not_found(wrapper))
    if problems:
        raise Misconfigured(*problems)
    if any("\0" in word for pair in confinement.environment.items() for word in pair):
        raise ValueError("a variable with a NUL byte in it")


def _not_found(wrapper: Wrapper) -> tuple[str, ...]:
    if _find_wrapper(wrapper) is not None:
        return ()
    package = {"bwrap": "bubblewrap", "docker": "docker.io", "systemd-run": "systemd"}
    name = package.get(wrapper.kind, wrapper.kind)
    return (f"SANDBOX_WRAPPER: {wrapper.command!r} is not installed: install the package {name}",)


def _with_path(wrapper: Wrapper) -> Wrapper:
    return replace(wrapper, command=str(_find_wrapper(wrapper)))


def _find_wrapper(wrapper: Wrapper) -> str | None:
    path = programs.absolute_path(os.environ.get("PATH", CLIENT["PATH"]))
    return shutil.which(wrapper.command, path=path)


def _needed_paths(confinement: Confinement, argv: Sequence[str]) -> programs.Needed:
    private = (confinement.work, confinement.home, confinement.artifacts)
    each = [(argv[0],), *((program,) for program in confinement.programs)]
    found = [programs.needed_paths(one, confinement.environment, private) for one in each]
    trees = (tree for one in found for tree in one.trees)
    links = {path: to for one in found for path, to in one.links.items()}
    return programs.Needed(tuple(dict.fromkeys(trees)), links)


def _with_program(confinement: Confinement, argv: Sequence[str]) -> Confinement:
    """Return the confinement with everything that its program needs, for wrappers that follow
    links.
    """
    found = _needed_paths(confinement, argv)
    more = (*found.trees, *map(Path, found.links))
    return replace(confinement, read_only=(*confinement.read_only, *more))


def _start(
    opened: contextlib.ExitStack,
    wrapper: Wrapper,
    confinement: Confinement,
    argv: Sequence[str],
    alive_fd: int | None,
) -> Confined:
    match wrapper.kind:
        case "bwrap":
            return _bwrap(opened, wrapper, confinement, argv, alive_fd)
        case "docker" | "podman":
            return _container(opened, wrapper, _with_program(confinement, argv), argv)
        case "systemd-run":
            return _unit(opened, wrapper, _with_program(confinement, argv), argv)
        case "firejail":
            return _jail(wrapper, _with_program(confinement, argv), argv)
    return Confined((wrapper.command, *wrapper.arguments, *argv), dict(confinement.environment))


def _bwrap(
    opened: contextlib.ExitStack,
    wrapper: Wrapper,
    confinement: Confinement,
    argv: Sequence[str],
    alive_fd: int | None,
) -> Confined:
    filter_fd = _memory(opened, "filter", seccomp.program())
    needed = _needed_paths(confinement, argv)
    options = bubblewrap.options_argv(
        replace(confinement, read_only=(*confinement.read_only, *needed.trees)),
        host(confinement, needed.links),
        bubblewrap.Descriptors(filter_fd, alive_fd),
        wrapper.arguments,
    )
    options_fd = _memory(opened, "options", bubblewrap.encode(options))
    held = () if alive_fd is None else (alive_fd,)
    command = bubblewrap.client_argv(wrapper, options_fd, argv)
    return Confined(command, CLIENT, (filter_fd, options_fd, *held))


def _container(
    opened: contextlib.ExitStack, wrapper: Wrapper, confinement: Confinement, argv: Sequence[str]
) -> Confined:
    lines = wrapper_syntax.environment_lines(confinement.environment, wrapper.kind)
    variables_fd = _memory(opened, "variables", lines)
    command = containers.run_argv(
        wrapper,
        confinement,
        host(confinement, {}),
        argv,
        variables_fd=variables_fd,
    )
    stop = containers.remove_argv(wrapper, confinement)
    environment = containers.client_environment(os.environ)
    return Confined(command, environment, (variables_fd,), stop)


def _unit(
    opened: contextlib.ExitStack, wrapper: Wrapper, confinement: Confinement, argv: Sequence[str]
) -> Confined:
    lines = environment_file.quote(confinement.environment)
    variables_fd = _memory(opened, "variables", lines)
    around = host(confinement, {})
    command = systemd_run.run_argv(
        wrapper,
        confinement,
        around,
        argv,
        # the manager reads it, while we hold it open
        variables=Path(f"/proc/{os.getpid()}/fd/{variables_fd}"),
    )
    environment = systemd_run.client_environment(os.environ)
    return Confined(command, environment, (), systemd_run.stop_argv(confinement, around.user))


def _jail(wrapper: Wrapper, confinement: Confinement, argv: Sequence[str]) -> Confined:
    command = firejail.jail_argv(
        wrapper,
        confinement,
        host(confinement, {}),
        argv,
        hidden=firejail.listing(),
    )
    return Confined(command, dict(confinement.environment))


def _memory(opened: contextlib.ExitStack, name: str, content: bytes) -> int:
    """Return a descriptor of an anonymous file, at its start, closed with the stack."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    opened.callback(os.close, descriptor)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
