"""The network and the kernel, as far as the default sandbox lets an agent reach them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentorch.core.job import Network
from agentorch.sandbox import Wrapper, probe
from tests.support.confined import NAMES, TRY, USERS, Inside, outside, place, said

pytestmark = pytest.mark.skipif(
    not Path("/usr/bin/bwrap").exists(), reason="needs bubblewrap; not proved here"
)


@pytest.fixture(params=USERS, ids=lambda uid: NAMES.get(uid, "user"))
def inside(request: pytest.FixtureRequest) -> Iterator[Inside]:
    with place(request.param) as there:
        yield there


# ---- the network ------------------------------------------------------------------------------


@pytest.fixture
def listeners() -> Iterator[dict[str, str]]:
    """Services of the host: on both loopbacks, and on an abstract socket."""
    abstract = f"agentorch-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind("\0" + abstract)
        unix.listen()
        yield {
            "four": str(four.getsockname()[1]),
            "six": str(six.getsockname()[1]),
            "abstract": abstract,
        }


CONNECT = """
def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as client:
        client.settimeout(5)
        client.connect(address)
        client.send(b"x")
four, six, abstract = sys.argv[1:4]
print(
    attempt(connect, socket.AF_INET, ("127.0.0.1", int(four))),
    attempt(connect, socket.AF_INET6, ("::1", int(six))),
    attempt(connect, socket.AF_UNIX, "\\0" + abstract),
)
"""
FAR = """
print(
    attempt(connect, socket.AF_INET, ("192.0.2.1", 443)),
    attempt(connect, socket.AF_INET, ("169.254.169.254", 80)),
    attempt(connect, socket.AF_INET6, ("2001:db8::1", 443)),
    attempt(connect, socket.AF_INET, ("192.0.2.53", 53), socket.SOCK_DGRAM),
    sorted(name for _, name in socket.if_nameindex()),
)
"""


def test_no_service_of_the_host_answers(inside: Inside, listeners: dict[str, str]) -> None:
    told = said(inside, CONNECT, *listeners.values())
    assert told == "ECONNREFUSED ECONNREFUSED ECONNREFUSED"
    assert outside(inside, CONNECT, *listeners.values()) == "done done done"


def test_no_way_out(inside: Inside, listeners: dict[str, str]) -> None:
    told = said(inside, CONNECT + FAR, *listeners.values()).splitlines()[-1]
    assert told == "ENETUNREACH ENETUNREACH ENETUNREACH ENETUNREACH ['lo']"


def test_no_socket_of_a_service(inside: Inside) -> None:
    paths = "/run/dbus/system_bus_socket /var/run/docker.sock /run/systemd/journal/socket /run/user"
    told = said(inside, "print(*(attempt(os.stat, path) for path in sys.argv[1:]))", *paths.split())
    assert set(told.split()) == {"ENOENT"}


def test_allow_is_the_hosts_network(inside: Inside, listeners: dict[str, str]) -> None:
    confinement = inside.allowing(network=Network.ALLOW)
    argv = ["/usr/bin/python3", "-c", TRY + CONNECT, *listeners.values()]
    ran = inside.run(argv, confinement)
    assert ran.stdout.startswith("done done")
    there = Path("/etc/resolv.conf").exists()
    assert (inside.run(["test", "-e", "/etc/resolv.conf"], confinement).returncode == 0) == there


# ---- the kernel -------------------------------------------------------------------------------

# Calls that an ordinary user may make outside. A made-up file name, or arguments that the kernel
# would refuse with another error, keep those harmless that are made where nothing refuses them.
CALLS = {
    "keyctl": ("kernel('keyctl', 0, -3, 0)", "EPERM"),
    "add_key": ("kernel('add_key', b'user', b'x', b'y', 1, -2)", "EPERM"),
    "request_key": ("kernel('request_key', b'user', b'x', None, -2)", "EPERM"),
    "ptrace": ("kernel('ptrace', 0, 0, 0, 0)", "EPERM"),
    "process_vm_readv": ("kernel('process_vm_readv', os.getpid(), 0, 0, 0, 0, 0)", "EPERM"),
    "io_uring": ("kernel('io_uring_setup', 1, 0)", "EPERM"),
    "bpf": ("kernel('bpf', 99, 0, 0)", "EPERM"),
    "perf": ("kernel('perf_event_open', 0, 0, -1, -1, 0)", "EPERM"),
    "userfaultfd": ("kernel('userfaultfd', 1)", "EPERM"),
    "handle": ("kernel('open_by_handle_at', -1, 0, 0)", "EPERM"),
    "unshare user": ("kernel('unshare', 0x10000000)", "EPERM"),
    "unshare user high": ("kernel('unshare', 0x10000000 | 1 << 40)", "EPERM"),
    "clone user": ("kernel('clone', 0x10000000 | 17, 0, 0, 0, 0)", "EPERM"),
    "clone3": ("kernel('clone3', 0, 0)", "ENOSYS"),
    "setns": ("kernel('setns', -1, 0)", "EPERM"),
    "mount": ("kernel('mount', b'none', b'/nowhere', b'tmpfs', 0, 0)", "EPERM"),
    "umount": ("kernel('umount2', b'/nowhere', 0)", "EPERM"),
    "fsopen": ("kernel('fsopen', b'none', 0)", "EPERM"),
    "open_tree": ("kernel('open_tree', -1, b'', 0)", "EPERM"),
    "pidfd_getfd": ("kernel('pidfd_getfd', -1, 0, 0)", "EPERM"),
    "kexec": ("kernel('kexec_load', 0, 0, 0, 99)", "EPERM"),
    "module": ("kernel('finit_module', -1, b'', 0)", "EPERM"),
    "TIOCSTI": ("kernel('ioctl', 0, 0x5412, b'x')", "EPERM"),
    "TIOCSTI high": ("kernel('ioctl', 0, 0x5412 | 1 << 32, b'x')", "EPERM"),
    "TIOCLINUX": ("kernel('ioctl', 0, 0x541C, b'x')", "EPERM"),
    "packet": ("attempt(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)", "EAFNOSUPPORT"),
    "vsock": ("attempt(socket.socket, 40, socket.SOCK_STREAM)", "EAFNOSUPPORT"),
    "crypto": ("attempt(socket.socket, 38, socket.SOCK_SEQPACKET)", "EAFNOSUPPORT"),
    "bluetooth": ("attempt(socket.socket, 31, socket.SOCK_RAW)", "EAFNOSUPPORT"),
    "family high": ("kernel('socket', 40 | 1 << 32, 1, 0)", "EAFNOSUPPORT"),
    "family 0": ("kernel('socket', 0, 1, 0)", "EAFNOSUPPORT"),
    "uevent": ("attempt(socket.socket, 16, socket.SOCK_RAW, 15)", "EAFNOSUPPORT"),
}


@pytest.mark.parametrize("what", CALLS)
def test_calls_are_refused(inside: Inside, what: str) -> None:
    call, expected = CALLS[what]
    assert said(inside, f"print({call})") == expected


def test_the_filter_makes_the_difference(inside: Inside) -> None:
    """Without a sandbox most of these calls end otherwise, so the table above proves something."""
    harmless = {what: call for what, (call, _) in CALLS.items() if what not in NOT_OUTSIDE}
    script = "\n".join(f"print({call})" for call in harmless.values())
    told = outside(inside, script).splitlines()
    different = [what for what, word in zip(harmless, told, strict=True) if word != CALLS[what][1]]
    assert len(different) > len(harmless) / 2


# They would act on the test's own keyring or processes.
NOT_OUTSIDE = ("add_key", "ptrace", "unshare user", "unshare user high", "clone user")


def test_what_must_work_works(inside: Inside) -> None:
    script = """
import subprocess, threading, asyncio, multiprocessing
families = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
print(*(attempt(socket.socket, family) for family in families), attempt(socket.if_nameindex))
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
print(subprocess.run(["echo", "child"], capture_output=True).stdout.decode().strip())
left, right = socket.socketpair()
left.send(b"pair"); print(right.recv(4).decode())
async def speak():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, _ = await asyncio.open_connection("127.0.0.1", port)
    print("read", await reader.read())
asyncio.run(speak())
"""
    told = said(inside, script).splitlines()
    assert told == ["done done done done", "thread", "child", "pair", "read b''"]


def test_no_capability_and_no_way_to_get_one(inside: Inside) -> None:
    status = inside.run(["cat", "/proc/self/status"]).stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    capabilities = {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert capabilities == {"0" * 16}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


# ---- the probe --------------------------------------------------------------------------------


@pytest.mark.parametrize("network", Network)
def test_the_probe_finds_nothing(network: Network) -> None:
    assert probe(Wrapper(), network) == ()


@pytest.mark.parametrize("parent", ["/var/tmp", "/dev/shm"])
def test_a_workspace_in_places_that_are_special_inside(parent: str) -> None:
    assert probe(Wrapper(), directory=Path(parent)) == ()


def test_the_probe_finds_a_hole_in_the_servers_arguments() -> None:
    found = probe(Wrapper("bwrap", ("--bind", "/tmp", "/tmp")))
    assert found == (
        "SANDBOX_WRAPPER: 'bwrap': other files of the host can be seen inside: use bwrap",
    )


def test_the_probe_says_why_it_does_not_start() -> None:
    found = probe(Wrapper("bwrap", ("--no-such-option",)))
    assert found == (
        "SANDBOX_WRAPPER: 'bwrap': it does not start: bwrap: Unknown option --no-such-option",
    )
