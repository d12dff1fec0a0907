"""The address of a client: its own, or the one that a trusted proxy reports. Pure.

The peers of a Unix socket count as 127.0.0.1, because they are on this host.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
LOCAL = IPv4Address("127.0.0.1")
# The network that one customer usually gets. He could use as many addresses of it as he likes, so
# single addresses are not counted.
IPV6_PREFIX = 64


def parse_networks(words: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks of WEBHOOK_TRUSTED_PROXIES."""
    return tuple(ip_network(word) for word in words)


def client_address(peer: str, forwarded: str | None, trusted: Sequence[Network]) -> str:
    """Return the address that a request comes from: the nearest hop that is no trusted proxy.

    `forwarded` is the X-Forwarded-For header: each proxy adds its peer at the right, so whatever
    is left of an untrusted address may be invented.
    """
    address = _address(peer) or LOCAL
    for hop in reversed((forwarded or "").split(",")):
        if not _is_within(address, trusted) or (before := _address(hop)) is None:
            break
        address = before
    return str(address)


def rate_key(address: str) -> str:
    """Return the key under which requests are counted: the address, or its IPv6 network."""
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
    except ValueError:  # the peer of a Unix socket, or a proxy that reports no address
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
