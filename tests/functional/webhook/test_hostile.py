"""Clients that are slow, broken or malicious: no 5xx but 501, no growth, good ones are served."""

from __future__ import annotations

import random
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.support.webhook import TOKEN, Door, Site, opened

AUTHORIZED = f"Authorization: Bearer {TOKEN}\r\n".encode()
JOB = b'{"goal": "x"}'
WHOLE = (
    b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    + AUTHORIZED
    + b"Content-Length: 13\r\n\r\n"
    + JOB
)
SEED = 20261122
REQUESTS = 10_000


def statuses(answer: bytes) -> list[int]:
    """The statuses in a stream of answers; a body of ours is one line, and begins with a brace."""
    return [int(status) for status in re.findall(rb"(?:^|\n)HTTP/1\.[01] (\d{3}) ", answer)]


def test_slow_clients_are_cut_and_others_served_meanwhile(site: Site) -> None:
    with opened(site) as door, ExitStack() as clients:
        slow = []
        for number in range(600):
            client = socket.create_connection(("127.0.0.1", door.port), timeout=30)
            slow.append(clients.enter_context(client))
            client.sendall(b"GET /health HTTP/1.1\r\nX: " if number % 2 else WHOLE[:-3])
        began_s = time.monotonic()
        while time.monotonic() - began_s < 4:
            assert door.ask("GET", "/health").status == 200
            assert door.post(JOB).status == 200
            for client in slow[:50]:
                client.sendall(b"x" if client in slow[1:50:2] else b"")
            time.sleep(0.3)
        assert slow[-1].recv(100) == b""
        assert time.monotonic() - began_s < 20
        assert door.rss_kib() < 80_000


def test_pipelined_requests_are_answered_in_order(door: Door) -> None:
    get = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n"
    assert statuses(door.raw(WHOLE + get + WHOLE + last)) == [200, 404, 200, 200]


def test_a_body_of_two_lengths_gets_one_answer(door: Door) -> None:
    smuggled = b"0\r\n\r\nGET /health HTTP/1.1\r\n\r\n"
    for version in (b"1.0", b"1.1"):
        head = b"POST /webhook HTTP/" + version + b"\r\n" + AUTHORIZED
        for lengths in (
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 30\r\n",
            b"Content-Length: 5\r\nContent-Length: 6\r\n",
            b"Content-Length: +5\r\n",
            b"Content-Length: " + b"9" * 5000 + b"\r\n",
        ):
            assert statuses(door.raw(head + lengths + b"\r\n" + smuggled)) in ([400], [413])


def test_an_unknown_coding_is_the_only_other_5xx(door: Door) -> None:
    answer = door.raw(b"POST /webhook HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n")
    assert statuses(answer) == [501]
    assert b'{"detail": ' in answer


def test_headers_that_are_too_long(door: Door) -> None:
    assert statuses(door.raw(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")) == [431]


def test_urgent_data_keeps_nobody_busy(door: Door) -> None:
    stat = Path(f"/proc/{door.process.pid}/stat")
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as client:
        client.send(b"!", socket.MSG_OOB)
        time.sleep(0.5)
        before = int(stat.read_text().rpartition(")")[2].split()[11])
        time.sleep(0.5)
        assert int(stat.read_text().rpartition(")")[2].split()[11]) - before < 10
    assert door.ask("GET", "/health").status == 200


def malformed(chance: random.Random) -> Iterator[bytes]:
    """Requests with something wrong, for ever."""
    while True:
        content = bytearray(WHOLE)
        for _ in range(chance.randint(1, 8)):
            place = chance.randrange(len(content))
            match chance.randrange(5):
                case 0:
                    content[place] = chance.randrange(256)
                case 1:
                    del content[place : place + chance.randint(1, 30)]
                case 2:
                    content[place:place] = chance.randbytes(chance.randint(1, 20))
                case 3:
                    content[place:place] = chance.choice(ODD)
                case _:
                    content = content[: place + 1]
            if not content:
                break
        yield bytes(content)


ODD = (
    *(b"\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b"%00", b"%", b"//", b"[", b"http://[", b"\xff"),
    *(b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n"),
    *(
        b"ffffffffffffffff\r\n",
        b"Host: a\r\nHost: b\r\n",
        b"Idempotency-Key: \x01\r\n",
        b"HTTP/9.9",
    ),
)


def test_ten_thousand_malformed_requests(site: Site) -> None:
    requests = malformed(random.Random(SEED))
    seen: Counter[int] = Counter()
    with opened(site) as door:
        assert door.post({"goal": ""}).status == 400, "it has loaded what it names problems with"
        for number, content in zip(range(REQUESTS), requests, strict=False):
            if number == 1000:
                before_kib = door.rss_kib()
            seen.update(statuses(door.raw(content)))
            if number % 500 == 0:
                assert door.post(JOB).status == 200
        assert door.rss_kib() - before_kib < 6000
        assert "Traceback" not in door.said()
    assert {status for status in seen if status >= 500} <= {501}
    assert seen[400] > 100
