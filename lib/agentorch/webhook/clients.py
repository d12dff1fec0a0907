"""Who asks: the peer, or whom a proxy that we trust names. Pure.

A Unix socket's peers count as 127.0.0.1: they are on this host.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
LOCAL = IPv4Address("127.0.0.1")
# What one customer is given: to count single addresses would count nothing.
IPV6_PREFIX = 64


def networks(words: Iterable[str]) -> tuple[Network, ...]:
    """The networks of WEBHOOK_TRUSTED_PROXIES."""
    return tuple(ip_network(word) for word in words)


def client(peer: str, forwarded: str | None, trusted: Sequence[Network]) -> str:
    """The address that a request comes from: the nearest hop that is no proxy of ours.

    `forwarded` is the X-Forwarded-For header: each proxy adds its peer at the right, so what
    stands left of an address that we don't trust may be anybody's invention.
    """
    address = _address(peer) or LOCAL
    for hop in reversed((forwarded or "").split(",")):
        if not _is_within(address, trusted) or (before := _address(hop)) is None:
            break
        address = before
    return str(address)


def counted(address: str) -> str:
    """What the requests of an address are counted under."""
    found = _address(address)
    if isinstance(found, IPv6Address):
        return str(ip_network((found, IPV6_PREFIX), strict=False))
    return address


def _is_within(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


@lru_cache(maxsize=1024)
def _address(text: str) -> Address | None:
    try:
        found = ip_address(text.strip())
    except ValueError:  # a Unix socket's peer, or a proxy that names no address
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
