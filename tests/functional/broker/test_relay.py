"""The relay: every byte and every end of each connection, and no more memory than it may."""

from __future__ import annotations

import select
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.relayed import PATIENCE_S, all_of, broker, echo, exactly, relayed, served

MIB = 1 << 20
LONG_ANSWER = 50 * MIB
# Python itself takes 8 to 10 MiB.
MOST_KIB = 16 << 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.sock"


# ---- bytes and ends ---------------------------------------------------------------------------


def test_bytes_go_there_and_back(path: Path) -> None:
    with broker(path), relayed(path) as relay, relay.connection() as client:
        for word in (b"one", b"two", bytes(range(256)) * 1000):
            client.sendall(word)
            assert exactly(client, len(word)) == word


def test_the_end_of_a_question_is_not_the_end_of_its_answer(path: Path) -> None:
    def answer(connection: socket.socket) -> None:
        question = all_of(connection)
        connection.sendall(b"all of " + question)

    with broker(path, answer), relayed(path) as relay, relay.connection() as client:
        client.sendall(b"it")
        client.shutdown(socket.SHUT_WR)
        assert all_of(client) == b"all of it"


def test_the_end_of_an_answer_is_not_the_end_of_its_question(path: Path) -> None:
    asked: list[bytes] = []
    done = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"no")
        connection.shutdown(socket.SHUT_WR)
        asked.append(all_of(connection))
        done.set()

    with broker(path, answer), relayed(path) as relay, relay.connection() as client:
        assert all_of(client) == b"no"
        client.sendall(b"still asking")
        client.shutdown(socket.SHUT_WR)
        assert done.wait(PATIENCE_S)
    assert asked == [b"still asking"]


def test_a_client_that_is_gone_is_gone_for_the_broker(path: Path) -> None:
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        assert all_of(connection) == b"hello"
        ended.set()

    with broker(path, answer), relayed(path) as relay:
        with relay.connection() as client:
            client.sendall(b"hello")
        assert ended.wait(PATIENCE_S)


def test_a_broken_connection_is_broken_on_the_other_side(path: Path) -> None:
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.recv(5)
        try:
            while True:
                connection.sendall(bytes(MIB))
        except OSError:
            ended.set()

    with broker(path, answer), relayed(path) as relay:
        with relay.connection() as client:
            client.sendall(b"hello")
            client.recv(10)
            # leaves with an RST: what was sent to it lies there unread
        assert ended.wait(PATIENCE_S)
        with relay.connection() as another:
            another.sendall(b"hello")
            assert another.recv(10)


def test_a_hundred_at_once(path: Path) -> None:
    with broker(path), relayed(path) as relay:
        clients = [relay.connection() for _ in range(100)]
        for number, client in enumerate(clients):
            client.sendall(b"%03d" % number * 1000)
        for number, client in enumerate(clients):
            assert exactly(client, 3000) == b"%03d" % number * 1000
        for client in clients:
            client.close()


# ---- limits -----------------------------------------------------------------------------------


def test_a_long_answer_takes_no_memory(path: Path) -> None:
    """Its reader comes late, and nothing is held for it meanwhile."""
    sent = 0

    def answer(connection: socket.socket) -> None:
        nonlocal sent
        connection.recv(5)
        piece = bytes(MIB)
        while sent < LONG_ANSWER:
            connection.sendall(piece)
            sent += len(piece)

    with broker(path, answer), relayed(path) as relay, relay.connection() as client:
        client.sendall(b"hello")
        assert client.recv(1, socket.MSG_WAITALL) == b"\0"
        assert 1 + len(all_of(client)) == LONG_ANSWER
        assert relay.status("VmHWM") < MOST_KIB


def test_nothing_is_read_that_nobody_takes(path: Path) -> None:
    full = threading.Event()
    sent = 0

    def answer(connection: socket.socket) -> None:
        nonlocal sent
        connection.recv(5)
        connection.settimeout(0)
        while select.select([], [connection], [], 1)[1]:
            sent += connection.send(bytes(MIB))
        full.set()

    with broker(path, answer), relayed(path) as relay, relay.connection() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.sendall(b"hello")
        assert full.wait(PATIENCE_S)
        assert 0 < sent < 16 * MIB
        assert len(exactly(client, sent)) == sent


def test_a_long_question_takes_no_memory_either(path: Path) -> None:
    with broker(path), relayed(path) as relay, relay.connection() as client:
        received = 0

        def read() -> None:
            nonlocal received
            received = len(all_of(client))

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(LONG_ANSWER // MIB):
            client.sendall(bytes(MIB))
        client.shutdown(socket.SHUT_WR)
        reader.join(PATIENCE_S)
        assert received == LONG_ANSWER
        assert relay.status("VmHWM") < MOST_KIB


def test_clients_wait_while_the_brokers_backlog_is_full(path: Path) -> None:
    """Nobody is turned away because many come at once."""
    open_ = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        with relayed(path) as relay:
            clients = [relay.connection() for _ in range(10)]
            for client in clients:
                client.sendall(b"hello")

            def serve() -> None:
                for _ in clients:
                    connection, _ = listener.accept()
                    threading.Thread(target=served, args=(connection, echo), daemon=True).start()
                open_.set()

            threading.Thread(target=serve, daemon=True).start()
            for client in clients:
                assert exactly(client, 5) == b"hello"
                client.close()
    assert open_.is_set()


def test_clients_wait_while_there_are_no_descriptors(path: Path) -> None:
    with broker(path), relayed(path) as relay:
        subprocess.run(["prlimit", f"--pid={relay.process.pid}", "--nofile=16:16"], check=True)
        clients = [relay.connection() for _ in range(10)]
        for client in clients:
            client.sendall(b"hello")
        for client in clients:
            assert exactly(client, 5) == b"hello"
            client.close()


def test_a_broker_that_is_not_there_is_said_at_once(path: Path) -> None:
    with relayed(path) as relay:
        for _ in range(3):
            with relay.connection() as client:
                assert client.recv(10) == b""
        _, said = relay.process.communicate(timeout=PATIENCE_S)
    assert said.decode() == f"agentorch relay: {path}: No such file or directory\n"


def test_a_path_longer_than_an_address(tmp_path: Path) -> None:
    path = tmp_path.joinpath(*["directory" * 3] * 6) / "broker.sock"
    assert len(str(path)) > 108
    path.parent.mkdir(parents=True)
    with broker(path), relayed(path) as relay, relay.connection() as client:
        client.sendall(b"hello")
        assert exactly(client, 5) == b"hello"
