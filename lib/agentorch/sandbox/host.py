"""The host, as far as a sandbox depends on it, looked up once, so that the rest is pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentorch.sandbox.confinement import Confinement

# Beside /usr: on a merged system these are links into it.
TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")

# Of /etc: what TLS, users, names, time, the loader and interpreters need; nothing secret.
ETC = (
    *("alternatives", "ca-certificates", "debian_version", "ethers", "group", "host.conf", "hosts"),
    *("java-11-openjdk", "java-17-openjdk", "java-21-openjdk", "ld.so.cache", "ld.so.conf"),
    *("ld.so.conf.d", "locale.alias", "localtime", "magic", "mime.types", "nsswitch.conf"),
    *("os-release", "passwd", "pki/ca-trust", "pki/tls", "protocols", "python3", "python3.11"),
    *("python3.12", "python3.13", "services", "ssl/certs", "ssl/openssl.cnf", "terminfo"),
    *("timezone", "xattr.conf"),
)
ETC_NETWORK = ("resolv.conf", "gai.conf")

MIB = 1024 * 1024
TEMPORARY_BYTES = 1024 * MIB
SHARED_MEMORY_BYTES = 256 * MIB


@dataclass(frozen=True)
class Masks:
    """Paths that look empty inside, by what they are."""

    directories: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Host:
    """`links` and `directories` of TOP, and the links on the way to the program; `user` is uid
    and gid; `present` says which read-only paths exist.
    """

    user: tuple[int, int]
    links: Mapping[str, str]
    directories: tuple[str, ...]
    masks: Masks = Masks()
    present: frozenset[Path] = frozenset()


def host(confinement: Confinement, links: Mapping[str, str]) -> Host:
    """Return the host as it is for this confinement; `links` are more links to repeat inside."""
    tops = [Path("/", name) for name in TOP]
    read_only = (*confinement.read_only, confinement.artifacts)
    return Host(
        user=(os.geteuid(), os.getegid()),
        links={str(top): os.readlink(top) for top in tops if top.is_symlink()} | dict(links),
        directories=tuple(str(top) for top in tops if top.is_dir() and not top.is_symlink()),
        masks=masks(confinement),
        present=frozenset(path for path in read_only if path.exists()),
    )


def masks(confinement: Confinement) -> Masks:
    """Return what of `masked` exists below work or home, where its links really lead.

    What they lead to elsewhere is not visible anyway.
    """
    inside = (confinement.work.resolve(), confinement.home.resolve())
    real = [path.resolve() for path in confinement.masked]
    below = [path for path in real if _is_below(path, inside)]
    # in one that is masked there is nothing left to mask, and no place to mount it
    outermost = [path for path in below if not _is_below(path, below)]
    return Masks(
        directories=tuple(path for path in outermost if path.is_dir()),
        files=tuple(path for path in outermost if path.is_file()),
    )


def _is_below(path: Path, tops: Iterable[Path]) -> bool:
    return any(path != top and path.is_relative_to(top) for top in tops)
