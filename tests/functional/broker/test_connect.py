"""CONNECT: the hosts of the grant and no other, at public addresses and no other."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentorch.broker import connect
from tests.support.outworld import (
    BREAKS,
    CLOSED,
    COUNTS,
    FLOOD_BYTES,
    FLOODS,
    PATIENCE_S,
    PUBLIC,
    SILENT,
    SIX,
    TOKEN,
    Door,
    doored,
    first_line,
    question,
    until_end,
)
from tests.support.polling import eventually

pytestmark = pytest.mark.needs("unshare", "ip")
OPEN = "HTTP/1.1 200 Connection established"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with doored(tmp_path_factory.mktemp("door"), address_s=0.5, lookup_s=1) as there:
        there.grant()
        yield there


# ---- hosts that may be reached ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["public.example", "six.example", "PUBLIC.Example."])
def test_a_listed_host_is_reached(door: Door, name: str) -> None:
    with door.ask(f"{name}:443") as connection:
        assert first_line(connection) == OPEN
        connection.sendall(b"hello")
        assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
    assert f"{name.lower().removesuffix('.')}:443" in door.account()["connections"]


def test_what_is_sent_before_the_answer_arrives(door: Door) -> None:
    with door.ask("public.example:443", early=b"early") as connection:
        assert first_line(connection) == OPEN
        assert connection.recv(5, socket.MSG_WAITALL) == b"early"


def test_a_question_in_single_bytes(door: Door) -> None:
    with door.connection() as connection:
        for byte in question("public.example:443"):
            connection.sendall(bytes([byte]))
        assert first_line(connection) == OPEN


def test_an_end_is_passed_on_and_the_answer_comes_back(door: Door) -> None:
    with door.ask(f"public.example:{COUNTS}") as connection:
        assert first_line(connection) == OPEN
        connection.sendall(bytes(1 << 20))
        connection.shutdown(socket.SHUT_WR)
        assert until_end(connection) == str(1 << 20).encode()


def test_the_next_address_is_tried(door: Door) -> None:
    """One does not answer, of another a part is private: that part is not tried."""
    for name in ("half-dead.example", "mixed.example"):
        with door.ask(f"{name}:443") as connection:
            assert first_line(connection) == OPEN
            connection.sendall(b"hello")
            assert connection.recv(5, socket.MSG_WAITALL) == b"hello"


def test_a_flood_takes_no_memory_and_waits_for_its_reader(door: Door) -> None:
    before = status(door, "VmRSS")
    with door.ask(f"public.example:{FLOODS}") as connection:
        assert first_line(connection) == OPEN
        assert len(until_end(connection)) == FLOOD_BYTES
    assert status(door, "VmHWM") - before < 16 << 10


def status(door: Door, name: str) -> int:
    """In KiB, of the process that unshare(1) became."""
    text = Path(f"/proc/{door.process.pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(f"{name}:")).split()[1])


def test_many_at_once(door: Door) -> None:
    connections = [door.ask("public.example:443", early=b"hello") for _ in range(100)]
    for connection in connections:
        assert first_line(connection) == OPEN
        assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
        connection.close()


# ---- hosts that may not -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked_for",
    [
        *("unlisted.example:443", "public.example:80", "public.example:22"),
        *(f"{PUBLIC}:443", f"[{SIX}]:443", "127.0.0.1:443", "[::1]:443", "localhost:443"),
        *("169.254.169.254:80", "0.0.0.0:443", "[::ffff:127.0.0.1]:443", "1572395042:443"),
    ],
)
def test_a_host_that_is_not_listed(door: Door, asked_for: str) -> None:
    told = door.refused(asked_for)
    assert told.startswith("HTTP/1.1 403 agentorch: policy: ")
    assert any(asked_for in one["why"] for one in door.account()["refused"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("private.example", "private"),
        ("loop.example", "loopback"),
        ("loop6.example", "loopback"),
        ("metadata.example", "a metadata service"),
        ("metadata6.example", "a metadata service"),
        ("mapped.example", "private"),
        ("zero.example", "unspecified"),
    ],
)
def test_a_listed_name_that_leads_inside(door: Door, name: str, words: str) -> None:
    told = door.told(f"{name}:443")
    why = f"{name} leads to no public address ({words})"
    assert told == f"HTTP/1.1 403 agentorch: policy: {why}"
    assert {"what": "CONNECT", "why": why} in door.account()["refused"]
    assert f"{name}:443" not in door.account()["connections"]


def test_a_token_is_asked_for(door: Door) -> None:
    told = door.refused("public.example:443", None)
    assert told.startswith("HTTP/1.1 407 agentorch: policy: ")
    assert "\r\nProxy-Authenticate: Basic " in told


def test_another_token(door: Door) -> None:
    assert "this token is of no step that runs" in door.told("public.example:443", "wrong")
    assert "this token is of no step that runs" in door.told("public.example:443", TOKEN + "x")


def test_a_token_whose_time_is_over(door: Door) -> None:
    door.grant("expired", expires_at=1.0)
    assert "this token is of no step that runs" in door.told("public.example:443", "expired")


def test_a_grant_without_hosts(door: Door) -> None:
    door.grant("none", hosts=())
    assert "403 agentorch: policy: public.example:443 is not" in door.told(
        "public.example:443", "none"
    )


def test_unreachable_is_said_at_once(door: Door) -> None:
    assert door.told(f"public.example:{CLOSED}") == (
        f"HTTP/1.1 502 agentorch: infra: public.example:{CLOSED} can't be reached:"
        " Connection refused"
    )
    assert "dead.example:443 can't be reached" in door.told("dead.example:443")


def test_a_name_whose_server_is_silent_holds_up_nobody_else(door: Door) -> None:
    line = "silent-name.example:443"
    door.grant("lost", hosts=(line,))
    waiting = [door.ask(line, "lost") for _ in range(2 * connect.MOST_LOOKUPS)]
    with door.ask("public.example:443") as connection:
        assert first_line(connection) == OPEN
    for connection in waiting:
        assert first_line(connection) == f"HTTP/1.1 504 agentorch: infra: {line}: no answer"
        connection.close()


def test_a_host_that_breaks_off(door: Door) -> None:
    with door.ask(f"public.example:{BREAKS}", early=b"hello") as connection:
        assert first_line(connection) == OPEN
        assert until_end(connection) == b""


def test_a_head_without_end(door: Door) -> None:
    with door.connection() as connection:
        connection.sendall(b"CONNECT public.example:443 HTTP/1.1\r\n")
        filler = b"X-Filler: " + b"x" * 1000 + b"\r\n"
        with contextlib.suppress(BrokenPipeError):  # it is answered before all is sent
            for _ in range(connect.MOST_HEAD_BYTES // len(filler) + 2):
                connection.sendall(filler)
        assert first_line(connection).startswith("HTTP/1.1 431 ")


def test_no_more_than_so_many_of_one_step(door: Door) -> None:
    door.grant("greedy")
    line = f"public.example:{SILENT}"
    connections = [door.ask(line, "greedy") for _ in range(connect.MOST_TUNNELS)]
    assert {first_line(connection) for connection in connections} == {OPEN}
    assert " 503 agentorch: policy: this step has 128 " in door.told(line, "greedy")
    assert door.told("public.example:443") == OPEN
    for connection in connections:
        connection.close()
    eventually(lambda: door.told(line, "greedy") == OPEN, PATIENCE_S)


# ---- its ends -----------------------------------------------------------------------------------


def test_a_client_that_leaves_leaves_nothing(door: Door) -> None:
    eventually(lambda: door.account()["open"] == 0, PATIENCE_S)
    for name in ("public.example", "dead.example"):
        for _ in range(10):
            door.ask(f"{name}:443").close()
    with door.ask(f"public.example:{FLOODS}") as connection:
        assert first_line(connection) == OPEN
    eventually(lambda: door.account()["open"] == 0, PATIENCE_S)
    assert door.account()["lines"][-1].startswith("job/step: CONNECT ")
    assert TOKEN not in str(door.account()["lines"])


def test_a_tunnel_in_which_nothing_moves(tmp_path: Path) -> None:
    with doored(tmp_path, idle_s=0.3, look_s=0.05) as door:
        door.grant()
        with door.ask(f"public.example:{SILENT}") as connection:
            assert first_line(connection) == OPEN
            assert connection.recv(1) == b""
        assert "nothing moved for 0.3 s" in door.account()["lines"][-1]


def test_a_tunnel_whose_grant_is_taken_away(tmp_path: Path) -> None:
    with doored(tmp_path, look_s=0.05) as door:
        path = door.grant()
        with door.ask("public.example:443", early=b"hello") as connection:
            assert first_line(connection) == OPEN
            assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
            path.unlink()
            assert connection.recv(1) == b""
        assert door.told("public.example:443").startswith("HTTP/1.1 403 ")


def test_a_question_that_does_not_end(tmp_path: Path) -> None:
    with doored(tmp_path, head_s=0.2) as door, door.connection() as connection:
        connection.sendall(b"CONNECT public.example:443 HTTP/1.1\r\n")
        assert first_line(connection).startswith("HTTP/1.1 408 ")


# ---- the front door -----------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [(b"GET",), (b"C", b"OPY")])
def test_everything_else_is_the_servers(door: Door, pieces: tuple[bytes, ...]) -> None:
    with door.connection() as connection:
        for piece in (*pieces, b" / HTTP/1.1\r\nHost: a\r\n\r\n"):
            connection.sendall(piece)
        assert first_line(connection) == "HTTP/1.1 200 OK"


def test_a_request_after_another_on_one_connection(door: Door) -> None:
    with door.connection() as connection:
        for _ in range(3):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert first_line(connection) == "HTTP/1.1 200 OK"
            assert connection.recv(1 << 16)


def test_a_silent_connection_is_closed_without_a_trace(door: Door) -> None:
    for word in (b"", b"CONN"):
        with door.connection() as connection:
            connection.sendall(word)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
