"""workspace.json as values: the commit record of a workspace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from agentorch.workspace.history import Snapshot


@dataclass(frozen=True)
class Begun:
    """The visit of a step that began last, and what of its work tree no git tree holds."""

    step_id: str
    visit: int
    before: Snapshot
    opaque: tuple[bytes, ...] = ()
    directories: tuple[bytes, ...] = ()
    modes: Mapping[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """`last` are the trees of the latest begin or end, `boot` the boot in which that was.

    `mark` is that of the listing that `last` was made from (`tree.Listing`). `visits` has, by
    `STEP:VISIT`, the trees that every visit began with.
    """

    commit: str
    base: Snapshot
    last: Snapshot
    boot: str
    begun: Begun | None = None
    visits: Mapping[str, Snapshot] = field(default_factory=dict)
    mark: str = ""


# latin-1 gives every byte of a path a character, and gets it back


def encode(record: Record) -> dict[str, Any]:
    """Return the record as it is written. Pure."""
    begun = record.begun
    return {
        "commit": record.commit,
        "base": asdict(record.base),
        "last": asdict(record.last),
        "boot": record.boot,
        "begun": None if begun is None else _encode_begun(begun),
        "mark": record.mark,
        "visits": {visited: asdict(before) for visited, before in record.visits.items()},
    }


def decode(document: Mapping[str, Any]) -> Record:
    """Return the record that was written. Raises KeyError or TypeError. Pure."""
    begun = document["begun"]
    return Record(
        commit=document["commit"],
        base=Snapshot(**document["base"]),
        last=Snapshot(**document["last"]),
        boot=document["boot"],
        begun=None if begun is None else _decode_begun(begun),
        mark=document["mark"],
        visits={visited: Snapshot(**tree) for visited, tree in document["visits"].items()},
    )


def _encode_begun(begun: Begun) -> dict[str, Any]:
    return {
        "step_id": begun.step_id,
        "visit": begun.visit,
        "before": asdict(begun.before),
        "opaque": [path.decode("latin-1") for path in begun.opaque],
        "directories": [path.decode("latin-1") for path in begun.directories],
        "modes": {path.decode("latin-1"): mode for path, mode in begun.modes.items()},
    }


def _decode_begun(document: Mapping[str, Any]) -> Begun:
    return Begun(
        step_id=document["step_id"],
        visit=document["visit"],
        before=Snapshot(**document["before"]),
        opaque=tuple(path.encode("latin-1") for path in document["opaque"]),
        directories=tuple(path.encode("latin-1") for path in document["directories"]),
        modes={path.encode("latin-1"): mode for path, mode in document["modes"].items()},
    )
