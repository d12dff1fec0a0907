"""The generator: what units can't spell, written when systemd loads them (systemd.generator(7)).

The number of slots, the service user's number, limits of all steps together, places that the
configuration names: all of it drop-ins below the directory that systemd gives. A variable that is
wrong counts as not set: the programs that read it say so and end with 78, and the boot goes on.

It runs at every boot and reload, before anything else does: no settings are loaded here, nothing
is asked of the name service (systemd itself would have to answer), nothing else is written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from agentorch.config import environment_file, variables
from agentorch.core.errors import Misconfigured

USER = "agentorch"
STATE = PurePosixPath("/var/lib/agentorch")
METRICS_FILE = "/var/lib/prometheus/node-exporter/agentorch.prom"
DROP_IN = "50-agentorch.conf"
# agentorch-reconfigure looks for lines that begin so
WRONG = "# wrong: "

LIMITS: tuple[tuple[str, str, Callable[[str], object]], ...] = (
    ("MEMORY_MAX", "MemoryMax", variables.size_bytes),
    ("MEMORY_HIGH", "MemoryHigh", variables.size_bytes),
    ("CPU_QUOTA", "CPUQuota", variables.percent),
    ("TASKS_MAX", "TasksMax", variables.whole(1)),
    ("IO_WEIGHT", "IOWeight", variables.between(1, 10000)),
)
READERS: Mapping[str, Callable[[str], object]] = {
    "AGENTORCH_SLOTS": variables.between(0, 64),
    "AGENTORCH_STATE_DIR": variables.absolute,
    "AGENTORCH_CONFIG_DIR": variables.absolute,
    "QUEUE_ROOT": variables.absolute,
    "ARTIFACTS_ROOT": variables.absolute,
    "WORKSPACES_ROOT": variables.absolute,
    "STATE_DB_PATH": variables.absolute,
    "AGENTORCH_METRICS_FILE": variables.absolute,
    "RETENTION_INTERVAL_SEC": variables.whole(1),
    **{f"AGENTORCH_TOTAL_{name}": read for name, _, read in LIMITS},
}
# Services that write to the state directory.
WRITERS = ("runner@", "webhook", "reclaim", "gc", "metrics", "notify", "announce", "schedule@")
# What a service does not see of the state, and where else it writes.
HIDING = ("webhook", "announce")
MORE_WRITABLE: Mapping[str, tuple[str, ...]] = {
    "announce": ("ReadWritePaths=-/var/spool -/var/mail -/var/log",)
}
# Services that talk to the service user's manager.
CALLERS = ("runner@", "steps")
HOMES = ("/home", "/root", "/run/user")


@dataclass(frozen=True)
class Given:
    """The configuration as it is known when units are loaded.

    `uid` None: there is no service user yet.

    `variables` are those that were set and can be read; `warm` are the slots whose services are
    enabled; `problems` are a line each.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    uid: int | None = None
    warm: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def units(given: Given) -> dict[str, str]:
    """Drop-ins of the system's manager, by their names below the directory. Pure."""
    return {
        **user_units(given),
        **dict(_user_manager(given)),
        **dict(_writable_paths(given)),
        **dict(_totals(given)),
        **dict(_metrics_directory(given)),
    }


def user_units(given: Given) -> dict[str, str]:
    """Drop-ins of a user's manager. Pure."""
    return {
        drop_in("agentorch.target"): _slots(given),
        **dict(_warm_slots(given)),
        **dict(_queue_paths(given)),
        **dict(_notify_paths(given)),
        **dict(_retention_interval(given)),
    }


def drop_in(unit: str) -> str:
    """Return the name of our drop-in for a unit. Pure."""
    return f"{unit}.d/{DROP_IN}"


def _service(name: str) -> str:
    """Return the drop-in of a service of ours: of a template where the name ends in @."""
    return drop_in(f"agentorch-{name}.service")


def _slots(given: Given) -> str:
    count = int(given.variables.get("AGENTORCH_SLOTS", "1"))
    wants = (f"Wants=agentorch-runner@{slot}.path" for slot in range(1, count + 1))
    return _text("Unit", *(f"{WRONG}{problem}" for problem in given.problems), *wants)


def _warm_slots(given: Given) -> Iterator[tuple[str, str]]:
    """Yield drop-ins of enabled slots: they don't leave when idle, and come back when they were
    told to.
    """
    for slot in given.warm:
        command = f"ExecStart=/usr/bin/agentorch-runner --slot={slot}"
        lines = ("ExecStart=", command, "Restart=always")
        yield drop_in(f"agentorch-runner@{slot}.service"), _text("Service", *lines)


def _user_manager(given: Given) -> Iterator[tuple[str, str]]:
    if given.uid is None:
        return
    service, runtime = f"user@{given.uid}.service", f"/run/user/{given.uid}"
    text = _text("Unit", f"Wants={service}", f"After={service}") + _text(
        "Service",
        f"Environment=XDG_RUNTIME_DIR={runtime}",
        f"Environment=DBUS_SESSION_BUS_ADDRESS=unix:path={runtime}/bus",
    )
    for name in CALLERS:
        yield _service(name).replace(".conf", "-user.conf"), text
    # of what systemd delegates without being asked, io is missing: no IOWeight=, no figures
    yield drop_in(service), _text("Service", "Delegate=cpu memory pids io")


def _totals(given: Given) -> Iterator[tuple[str, str]]:
    lines = tuple(
        f"{key}={given.variables[name]}"
        for name, key in ((f"AGENTORCH_TOTAL_{one}", key) for one, key, _ in LIMITS)
        if name in given.variables
    )
    if lines and given.uid is not None:
        yield drop_in(f"user-{given.uid}.slice"), _text("Slice", *lines)


def _retention_interval(given: Given) -> Iterator[tuple[str, str]]:
    interval = given.variables.get("RETENTION_INTERVAL_SEC")
    if interval is not None:
        # all of a timer's times go with an empty one
        lines = ("OnUnitActiveSec=", f"OnActiveSec={interval}s", f"OnUnitActiveSec={interval}s")
        yield drop_in("agentorch-gc.timer"), _text("Timer", *lines)


def _metrics_directory(given: Given) -> Iterator[tuple[str, str]]:
    path = given.variables.get("AGENTORCH_METRICS_FILE")
    if path is None and Places.from_variables(given.variables) == Places.from_variables({}):
        return
    directory = PurePosixPath(path or METRICS_FILE).parent
    there = ("ConditionPathIsDirectory=", f"ConditionPathIsDirectory={_escape(directory)}")
    # after the drop-in of places, which takes away what the unit itself may write to
    yield (
        _service("metrics").replace("/50-", "/51-"),
        _text("Unit", *there) + _text("Service", *_writable([directory])),
    )


# ---- places -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """The places of the queue and the rest, as the settings have it."""

    state: PurePosixPath
    queue: PurePosixPath
    artifacts: PurePosixPath
    workspaces: PurePosixPath
    ledger: PurePosixPath

    @classmethod
    def from_variables(cls, given: Mapping[str, str], state: PurePosixPath = STATE) -> Places:
        """Return the places that the variables name. Pure."""
        state = PurePosixPath(given.get("AGENTORCH_STATE_DIR", str(state)))
        return cls(
            state,
            PurePosixPath(given.get("QUEUE_ROOT", f"{state}/queue")),
            PurePosixPath(given.get("ARTIFACTS_ROOT", f"{state}/artifacts")),
            PurePosixPath(given.get("WORKSPACES_ROOT", f"{state}/workspaces")),
            PurePosixPath(given.get("STATE_DB_PATH", f"{state}/state.db")),
        )

    def writable(self) -> list[PurePosixPath]:
        """Return the directories that our services write to, none below another.

        Queue and artifacts are below one of them: each is a mount, and between two of them nothing
        can be linked or renamed.
        """
        both = PurePosixPath(os.path.commonpath((self.queue, self.artifacts)))
        wanted = {both, self.state, self.workspaces, self.ledger.parent}
        return sorted(one for one in wanted if not any(other in one.parents for other in wanted))


def _queue_paths(given: Given) -> Iterator[tuple[str, str]]:
    if not {"QUEUE_ROOT", "AGENTORCH_STATE_DIR"} & given.variables.keys():
        return
    queue = _escape(Places.from_variables(given.variables).queue)
    slot = (f"DirectoryNotEmpty={queue}/pending", f"PathExistsGlob={queue}/running/%i/[0-9]*")
    yield drop_in("agentorch-runner@.path"), _text("Path", "DirectoryNotEmpty=", *slot)
    outbox = f"DirectoryNotEmpty={queue}/outbox/new"
    yield drop_in("agentorch-notify.path"), _text("Path", "DirectoryNotEmpty=", outbox)


def _notify_paths(given: Given) -> Iterator[tuple[str, str]]:
    """Yield the drop-ins that say where jobs wait for a human, and where the programs of notify.d
    are.

    An empty condition takes all of a unit's away: what is known comes again, for the rest of them
    the program looks itself.
    """
    conditions = ["ConditionDirectoryNotEmpty="]
    if {"QUEUE_ROOT", "AGENTORCH_STATE_DIR"} & given.variables.keys():
        queue = _escape(Places.from_variables(given.variables).queue)
        waiting = [f"{queue}/{name}" for name in ("awaiting_approval", "held")]
        watched = (f"PathChanged={path}" for path in waiting)
        yield drop_in("agentorch-announce.path"), _text("Path", "PathChanged=", *watched)
        conditions += [f"ConditionDirectoryNotEmpty=|{path}" for path in waiting]
    if (configuration := given.variables.get("AGENTORCH_CONFIG_DIR")) is not None:
        hooks = _escape(PurePosixPath(configuration) / "notify.d")
        conditions.append(f"ConditionDirectoryNotEmpty={hooks}")
    if len(conditions) > 1:
        # beside the drop-in of places
        name = _service("announce").replace("/50-", "/51-")
        yield name, _text("Unit", *conditions)


def _writable_paths(given: Given) -> Iterator[tuple[str, str]]:
    places = Places.from_variables(given.variables)
    if places == Places.from_variables({}):
        return
    writable = tuple(_writable(places.writable()))
    hidden = f"InaccessiblePaths={_optional(places.workspaces)}"
    for name in WRITERS:
        more = (*MORE_WRITABLE.get(name, ()), *((hidden,) if name in HIDING else ()))
        yield _service(name), _text("Service", "ReadWritePaths=", *writable, *more)


def _writable(directories: Iterable[PurePosixPath]) -> Iterator[str]:
    for directory in directories:
        if any(directory.is_relative_to(home) for home in HOMES):
            # ProtectHome= has covered what is there
            yield f"BindPaths={_optional(directory)}"
        elif directory != PurePosixPath("/"):
            yield f"ReadWritePaths={_optional(directory)}"


def _escape(path: PurePosixPath) -> str:
    return str(path).replace("%", "%%")


def _optional(path: PurePosixPath) -> str:
    """Return a path of a list: in quotes, and no failure where it is not there."""
    text = _escape(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"-{text}"'


def _text(section: str, *lines: str) -> str:
    return "\n".join((f"[{section}]", *lines, ""))


# ---- the outside ------------------------------------------------------------------------------


def check_variables(found: Mapping[str, str], problems: tuple[str, ...] = ()) -> Given:
    """Return the variables that can be read, and what is wrong with the others. Pure."""
    good, wrong = {}, []
    for name, read in READERS.items():
        if not (value := found.get(name, "").strip()):
            continue
        try:
            read(value)
        except ValueError as problem:
            wrong.append(f"{name}: {value!r}: {problem}")
        else:
            good[name] = value
    places = Places.from_variables(good).writable()
    if PurePosixPath("/") in places:
        wrong.append("QUEUE_ROOT, ARTIFACTS_ROOT: expected one directory, not /, that holds both")
    return Given(good, problems=(*problems, *wrong))


def uid_of(passwd: str, name: str = USER) -> int | None:
    """Return a user's number in the text of /etc/passwd; None where it is not there. Pure."""
    for line in passwd.splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 2 and fields[2].isdecimal():
            return int(fields[2])
    return None


def warm_slots(directory: Path) -> tuple[str, ...]:
    """Return the slots whose services `systemctl enable` has linked, of a directory of units."""
    start, end = "agentorch-runner@", ".service"
    links = directory.glob(f"agentorch.target.wants/{start}*{end}")
    return tuple(sorted(link.name.removeprefix(start).removesuffix(end) for link in links))


def read_given(scope: str, environ: Mapping[str, str]) -> Given:
    """Return what a manager's generator goes by. `scope` is `system` or `user`."""
    if scope == "user":
        configuration = _users_configuration(environ)
        path, own = configuration / "agentorch/agentorch.env", configuration / "systemd/user"
        uid = None
    else:
        path, own = environment_file.SYSTEM_ENV_FILE, Path("/etc/systemd/system")
        uid = uid_of(Path("/etc/passwd").read_text("utf-8", "replace"))
    given = _read(Path(environ.get("AGENTORCH_ENV_FILE") or path))
    return Given(given.variables, uid, warm_slots(own), given.problems)


def _users_configuration(environ: Mapping[str, str]) -> Path:
    home = Path(environ.get("HOME") or "/root")
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config")


def schedules_in(
    given: Given, scope: str, environ: Mapping[str, str]
) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Units of the schedules, by their names, and what is wrong with schedules."""
    top = _users_configuration(environ) if scope == "user" else Path("/etc")
    named = given.variables.get("AGENTORCH_CONFIG_DIR")
    directory = (Path(named) if named else top / "agentorch") / "schedules"
    if not directory.is_dir():
        return {}, ()
    from agentorch.schedules import files  # noqa: PLC0415  (it takes longer than all the rest)

    return files.unit_files(directory)


def _read(path: Path) -> Given:
    try:
        return check_variables(environment_file.parse(path.read_text("utf-8"), str(path)))
    except FileNotFoundError:
        return Given()
    except (OSError, UnicodeDecodeError) as problem:
        return Given(problems=(f"{path}: can't be read as UTF-8 text: {problem}",))
    except Misconfigured as problem:
        return Given(problems=problem.problems)


def main() -> None:
    """Write the drop-ins below the directory that is the first argument."""
    directory = Path(sys.argv[1])
    scope = os.environ.get("SYSTEMD_SCOPE", "system")
    given = read_given(scope, os.environ)
    make = user_units if scope == "user" else units
    _write(directory, make(given))
    timers, wrong = schedules_in(given, scope, os.environ)
    _write(directory, timers)
    for problem in (*given.problems, *wrong):
        _say(problem)


def _write(directory: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def _say(problem: str) -> None:
    """Write a line to the kernel's log: at boot nobody else listens. A user may not write there."""
    line = f"agentorch-generator: {problem}\n"
    try:
        descriptor = os.open("/dev/kmsg", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        sys.stderr.write(line)
        return
    with open(descriptor, "w", encoding="utf-8") as kernel:
        kernel.write(f"<4>{line}")
