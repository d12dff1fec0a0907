"""The agents' keys: which one a step's call gets, and where they are.

    $CREDENTIALS_DIRECTORY/NAME     a credential of the unit (systemd.exec(5)), one key a file
    $CREDENTIALS_DIRECTORY/keys.env the file below, as a credential
    keys.env                        NAME=KEY lines, readable by its owner alone
    the environment                 of the broker

NAME is `VAR.AGENT@PROJECT`, `VAR@PROJECT`, `VAR.AGENT` or `VAR`: the most specific that is there,
wherever it is, is the key. Files are read again when they changed, so a new key needs no restart.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agentorch.config.settings import Settings
from agentorch.core.errors import Misconfigured

FILE = "keys.env"
_MOST_BYTES = 1024 * 1024
_LINE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:[.@][A-Za-z0-9._@-]+)?)=(?P<value>.*)")
_QUALIFIER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def names(variable: str, agent: str, project_id: str | None) -> tuple[str, ...]:
    """Return the names that a key may have, the most specific first. Pure."""
    agents = [f".{agent}"] if _QUALIFIER.fullmatch(agent) else []
    projects = [f"@{project_id}"] if project_id and _QUALIFIER.fullmatch(project_id) else []
    both = [one + other for one in agents for other in projects]
    return tuple(variable + end for end in (*both, *projects, *agents, ""))


def parse(text: str, name: str) -> dict[str, str]:
    """`NAME=KEY` lines, # comments, quotes around a key. Raises Misconfigured. Pure."""
    found: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        match = _LINE.fullmatch(line)
        if match is None:  # what is wrong is not shown: it may be a key
            raise Misconfigured(f"{name}: line {number}: expected NAME=KEY")
        value = match["value"].strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[match["name"]] = value
    return found


@dataclass
class KeysFile:
    """A file of keys that is read again when it changed.

    `guarded`: systemd sees to it that nobody else reads it, by an access list that looks like a
    mode for its group.
    """

    path: Path
    guarded: bool = False
    _mark: tuple[int, int, int] = (0, 0, 0)
    _found: dict[str, str] = field(default_factory=dict, repr=False)

    def read(self) -> Mapping[str, str]:
        """Return the keys; none without a file. Raises Misconfigured, where others may read it
        too.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return {}
        except OSError as problem:
            raise Misconfigured(f"{self.path}: {problem.strerror}") from problem
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not self.guarded:
                self._check(status)
            mark = (status.st_ino, status.st_mtime_ns, status.st_size)
            if mark != self._mark:
                text = file.read(_MOST_BYTES).decode("utf-8", "surrogateescape")
                self._found, self._mark = parse(text, str(self.path)), mark
        return self._found

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise Misconfigured(f"{self.path}: is not a regular file")
        if status.st_uid not in (0, os.geteuid()):
            raise Misconfigured(f"{self.path}: belongs to another user (uid {status.st_uid})")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise Misconfigured(f"{self.path}: mode {mode:04o}: others can read it (chmod 600)")


class Keys:
    """All of the broker's keys. `credentials` is the unit's credentials directory."""

    def __init__(
        self, credentials: Path | None, file: Path, environment: Mapping[str, str]
    ) -> None:
        self._credentials = credentials
        loaded = [KeysFile(credentials / FILE, guarded=True)] if credentials is not None else []
        self._files = [*loaded, KeysFile(file)]
        self._environment = environment

    @classmethod
    def load(cls, settings: Settings, environment: Mapping[str, str]) -> Keys:
        """Return the keys of the unit's credentials, of the settings' file, and of an
        environment.
        """
        directory = settings.environment.get("CREDENTIALS_DIRECTORY")
        return cls(Path(directory) if directory else None, settings.keys_file, environment)

    def find(self, variable: str, agent: str, project_id: str | None) -> str | None:
        """Return the key; None where there is none. Raises Misconfigured."""
        found = self.find_named(variable, agent, project_id)
        return None if found is None else found[1]

    def find_named(
        self, variable: str, agent: str, project_id: str | None
    ) -> tuple[str, str] | None:
        """Return the name by which the key is there, and the key. As above."""
        tables = [file.read() for file in self._files]
        for name in names(variable, agent, project_id):
            for key in (self._credential(name), *(table.get(name) for table in tables)):
                if key:
                    return name, key
            if key := self._environment.get(name):
                return name, key
        return None

    def check(self) -> None:
        """Read the files once. Raises Misconfigured."""
        for file in self._files:
            file.read()

    def _credential(self, name: str) -> str | None:
        if self._credentials is None:
            return None
        try:
            text = (self._credentials / name).read_bytes()[:_MOST_BYTES].decode("utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as problem:
            raise Misconfigured(f"credential {name}: can't be read as text") from problem
        return text.strip()
