"""Which addresses are public: both ends of every range, and every disguise of a private one."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agentorch.system.public_addresses import refusal

PUBLIC = (
    *("1.1.1.1", "8.8.8.8", "93.184.216.34", "151.101.0.223"),
    # the neighbours of what is not
    *("9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"),
    *("128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0"),
    *("191.255.255.255", "192.0.1.0", "192.0.3.0", "192.167.255.255", "192.169.0.0"),
    *("198.17.255.255", "198.20.0.0", "198.51.99.255", "203.0.114.0", "223.255.255.255"),
    *("168.63.129.15", "168.63.129.17", "1.0.0.0"),
    *("2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "2001:4860:4860::8888"),
    *("2001:200::1", "2001:db7::1", "2001:db9::1", "2003::1", "2001:678::1"),
    # a public address in a form that a network with IPv6 alone needs
    *("64:ff9b::8.8.8.8", "::ffff:8.8.8.8"),
)

REFUSED = {
    "private": ("10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.1"),
    "private, IPv6": ("fc00::", "fd12:3456::1", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "loopback": ("127.0.0.1", "127.0.0.53", "127.255.255.255", "::1"),
    "link-local": ("169.254.0.1", "169.254.255.255", "fe80::1", "febf::1", "fe80::1%eth0"),
    "site-local": ("fec0::1", "feff::1"),
    "metadata": (
        *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("fd00:ec2::254", "fd20:ce::254"),
    ),
    "carriers": ("100.64.0.0", "100.127.255.255"),
    "multicast": ("224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"),
    "unspecified": ("0.0.0.0", "0.0.0.1", "0.255.255.255", "::"),
    "reserved": ("240.0.0.1", "255.255.255.255", "192.0.0.1", "192.0.0.170", "198.18.0.1"),
    "reserved, IPv6": ("100::1", "200::1", "4000::1", "5f00::1", "8000::", "e000::1", "3ffe::1"),
    "protocols": ("192.31.196.1", "192.52.193.1", "192.175.48.1", "192.88.99.1", "198.19.255.255"),
    "protocols, IPv6": ("2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff::1", "2620:4f:8000::1"),
    "documentation": ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"),
    "mapped": ("::ffff:127.0.0.1", "::ffff:10.1.2.3", "::ffff:169.254.169.254", "::ffff:0.0.0.0"),
    "compatible": ("::127.0.0.1", "::10.0.0.1", "::8.8.8.8", "::2"),
    "translated": ("64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254"),
    "translated locally": ("64:ff9b:1::1", "64:ff9b:1:ffff::8.8.8.8"),
    "6to4": ("2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::1", "2002:808:808::1"),
    "Teredo": ("2001::1", "2001:0:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
    "ISATAP": ("2a00:1450::5efe:10.0.0.1", "2a00:1450::200:5efe:127.0.0.1"),
    "no address": (
        *("", "localhost", "1.2.3", "127.1", "0x7f000001", "2130706433", "010.0.0.1", "1.2.3.4/8"),
        *("[::1]", "::1%", "1.2.3.4 ", "1.2.3.4\0", "\u0661.1.1.1"),
    ),
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize("address", [one for many in REFUSED.values() for one in many])
def test_refused(address: str) -> None:
    assert refusal(address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.0.0.1", "private"),
        ("127.0.0.1", "loopback"),
        ("169.254.169.254", "a metadata service"),
        ("::ffff:169.254.169.254", "a metadata service"),
        ("169.254.1.1", "link-local"),
        ("fd00::1", "private"),
        ("2002:808:808::1", "6to4"),
        ("4000::1", "reserved"),
    ],
)
def test_the_words(address: str, words: str) -> None:
    assert refusal(address) == words


@given(st.ip_addresses(v=4))
def test_what_python_knows_to_be_special_is_refused(address: ipaddress.IPv4Address) -> None:
    special = address.is_private or address.is_multicast or address.is_reserved
    if special or address.is_link_local or address.is_loopback or address.is_unspecified:
        assert refusal(str(address))


@given(st.ip_addresses(v=6))
def test_what_python_knows_to_be_special_is_refused_in_ipv6(address: ipaddress.IPv6Address) -> None:
    assume(address.ipv4_mapped is None)  # it takes them all for private
    assume(address not in ipaddress.IPv6Network("64:ff9b::/96"))  # judged by what they carry
    special = address.is_private or address.is_multicast or address.is_reserved
    if special or address.is_link_local or address.is_site_local or address.is_unspecified:
        assert refusal(str(address))


@given(st.ip_addresses(v=4))
def test_a_disguise_is_no_better_than_what_it_hides(address: ipaddress.IPv4Address) -> None:
    for prefix in ("::ffff:", "64:ff9b::"):
        assert refusal(f"{prefix}{address}") == refusal(str(address))
    number = int(address)
    assert refusal(f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1")
    assert refusal(str(ipaddress.IPv6Address(number)))
