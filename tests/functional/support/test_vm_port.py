"""Questions to a virtual machine and their answers, over a port that may be slow."""

from __future__ import annotations

import base64
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support import guest
from tests.support.vm import Port

WAIT_S = 60
NO_WAIT_S = 0.01


@pytest.fixture
def ends() -> Iterator[tuple[Port, socket.socket]]:
    """The test's end of a port, and the machine's."""
    ours, machine = socket.socketpair()
    port = Port(ours)
    yield port, machine
    port.close()
    machine.close()


def question(script: str, stdin: bytes = b"") -> dict[str, object]:
    given = base64.b64encode(stdin).decode()
    return {"argv": ["sh", "-c", script], "environment": {}, "stdin": given, "timeout_s": WAIT_S}


def test_a_guest_is_up_and_answers(ends: tuple[Port, socket.socket]) -> None:
    port, machine = ends

    def serve() -> None:
        with machine.makefile("rwb", buffering=0) as raw, suppress(EOFError):
            assert isinstance(raw, io.RawIOBase)
            guest.serve(raw)

    thread = threading.Thread(target=serve)
    thread.start()
    port.wait_until_up(WAIT_S)
    large = b"x" * 1_000_000
    for number in range(3):
        answer = port.ask(question(f"cat; exit {number}", large), WAIT_S)
        assert (answer["code"], base64.b64decode(answer["stdout"])) == (number, large)
    port.close()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_a_boot_that_is_late_answers_no_question(ends: tuple[Port, socket.socket]) -> None:
    port, machine = ends
    with pytest.raises(TimeoutError):
        port.wait_until_up(NO_WAIT_S)
    machine.sendall(guest.encoded({"up": True}) + guest.encoded({"number": 1, "code": 5}))
    assert port.ask(question("exit 5"), WAIT_S)["code"] == 5


def test_a_late_answer_is_not_that_of_the_next_question(
    ends: tuple[Port, socket.socket],
) -> None:
    port, machine = ends
    late = guest.encoded({"number": 1, "code": 1})
    machine.sendall(late[:7])
    with pytest.raises(TimeoutError):
        port.ask(question("exit 1"), NO_WAIT_S)
    machine.sendall(late[7:] + guest.encoded({"number": 2, "code": 2}))
    assert port.ask(question("exit 2"), WAIT_S)["code"] == 2


def test_a_question_that_was_half_sent_is_sent_whole_before_the_next(
    ends: tuple[Port, socket.socket],
) -> None:
    port, machine = ends
    with pytest.raises(TimeoutError):
        port.ask(question("cat", b"x" * 10_000_000), NO_WAIT_S)
    machine.sendall(guest.encoded({"number": 2, "code": 2}))
    answers = []
    thread = threading.Thread(target=lambda: answers.append(port.ask(question("exit 2"), WAIT_S)))
    thread.start()
    with machine.makefile("rb", buffering=0) as raw:
        assert isinstance(raw, io.RawIOBase)
        assert [guest.read(raw)["number"] for _ in range(2)] == [1, 2]
    thread.join(WAIT_S)
    assert answers == [{"number": 2, "code": 2}]


def test_a_machine_that_is_gone_is_an_os_error(ends: tuple[Port, socket.socket]) -> None:
    port, machine = ends
    machine.close()
    with pytest.raises(OSError, match=r"gone|Broken pipe"):
        port.ask(question("true"), WAIT_S)
