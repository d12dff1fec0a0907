"""Names of hosts in policies: their form, and whether a list has them. Pure words.

An entry is `NAME` (port 443) or `NAME:PORT`; a server's list may also say `*.NAME` for everything
below a name. Addresses are not names: what may be connected to is decided by name, and the
address that the name leads to is checked by whoever connects.
"""

from __future__ import annotations

import re
from collections.abc import Collection

DEFAULT_PORT = 443

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# The last label of a name is never all digits (RFC 3696, section 2): an address is no name.
_HOST = re.compile(rf"(?P<name>(?:{_LABEL}\.)+(?!\d+(?:$|:)){_LABEL})(?::(?P<port>\d{{1,5}}))?")


def is_host(entry: str) -> bool:
    """Return whether this is `NAME` or `NAME:PORT`."""
    match = _HOST.fullmatch(entry)
    return match is not None and len(match["name"]) <= 253 and 0 < int(match["port"] or 443) < 65536


def is_listed_host(entry: str) -> bool:
    """Return whether this may stand in a server's list: `*.NAME` too."""
    return is_host(entry.removeprefix("*."))


def split_host(entry: str) -> tuple[str, int]:
    """Return the name in lower case, and the port."""
    name, _, port = entry.partition(":")
    return name.lower(), int(port or DEFAULT_PORT)


def is_listed(entry: str, listed: Collection[str]) -> bool:
    """Return whether a list has this host with this port, by itself or below a `*.NAME`."""
    name, port = split_host(entry)
    for one in listed:
        known, known_port = split_host(one)
        if port == known_port and (
            name == known or (known.startswith("*.") and name.endswith(known[1:]))
        ):
            return True
    return False
