"""Which addresses the broker connects to for a step: the public ones, and no other. Pure.

A name that a step may reach can lead anywhere, also to this host, its network or the cloud's
metadata service, so every address is looked at before it is used. The tables are IANA's registries
of special-purpose addresses (RFC 6890 and its successors) and what clouds use besides; ipaddress's
own properties differ between versions of Python. An address that carries an IPv4 address in it is
judged by that one. Not seen is an operator's own NAT64 prefix (RFC 6052), which looks public.
"""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# First match tells; what matches nothing is public.
_IPV4 = tuple(
    (ipaddress.IPv4Network(network), words)
    for network, words in (
        ("169.254.169.254/32", "a metadata service"),
        ("169.254.170.2/32", "a metadata service"),
        ("100.100.100.200/32", "a metadata service"),
        ("168.63.129.16/32", "a metadata service"),
        ("192.0.0.192/32", "a metadata service"),
        ("0.0.0.0/32", "unspecified"),
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier's customers"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.31.196.0/24", "reserved for protocols"),
        ("192.52.193.0/24", "reserved for protocols"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "reserved for protocols"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
    )
)

_IPV6 = tuple(
    (ipaddress.IPv6Network(network), words)
    for network, words in (
        ("fd00:ec2::254/128", "a metadata service"),
        ("fd20:ce::254/128", "a metadata service"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "IPv4-compatible"),
        ("64:ff9b:1::/48", "a local translation of IPv4"),
        ("100::/64", "discarded"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "reserved for protocols"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "reserved for protocols"),
        ("3ffe::/16", "given back"),
        ("3fff::/20", "for documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL = ipaddress.IPv6Network("2000::/3")
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
# RFC 5214, section 6.1: the interface identifiers that carry an IPv4 address in any network.
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})


def refusal(text: str) -> str | None:
    """Why this address must not be connected to, in words; None where it may be."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "no address"
    if isinstance(address, ipaddress.IPv4Address):
        return _refusal_v4(address)
    return _refusal_v6(address)


def _refusal_v4(address: ipaddress.IPv4Address) -> str | None:
    return next((words for network, words in _IPV4 if address in network), None)


def _refusal_v6(address: ipaddress.IPv6Address) -> str | None:
    if address.scope_id is not None:
        return "of one link"
    if address in _MAPPED or address in _TRANSLATED:
        return _refusal_v4(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return "ISATAP"
    words = next((words for network, words in _IPV6 if address in network), None)
    return words or (None if address in _GLOBAL else "reserved")
