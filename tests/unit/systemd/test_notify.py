"""Messages to the service manager: to the byte, and a manager that does not read."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentorch.systemd import notify

# more than any queue of datagrams holds (net.unix.max_dgram_qlen is 10 to 512)
MANY = 2000


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The manager's socket, which nobody reads but the test."""
    notify.leave()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield bound
    notify.leave()


def test_states_go_out_as_one_datagram_of_lines(manager: socket.socket) -> None:
    notify.notify("READY=1", "STATUS=looking")
    assert manager.recv(100) == b"READY=1\nSTATUS=looking"


def test_any_text_is_utf_8(manager: socket.socket) -> None:
    notify.notify("STATUS=слот занят, é, \udcff")
    assert manager.recv(100) == "STATUS=слот занят, é, ?".encode()


def test_a_manager_that_does_not_read_holds_nobody_up(manager: socket.socket) -> None:
    for number in range(MANY):
        notify.notify(f"STATUS={number}")
    assert manager.recv(100) == b"STATUS=0"


def test_after_leaving_nothing_is_sent(manager: socket.socket) -> None:
    notify.notify("READY=1")
    notify.leave()
    notify.notify("READY=1")
    assert "NOTIFY_SOCKET" not in os.environ
    assert manager.recv(100) == b"READY=1"
    manager.setblocking(False)  # noqa: FBT003  (socket's own)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


# sdnotify leaves the socket of a failed connection to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_manager_that_is_not_there_yet_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify.leave()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    notify.notify("STATUS=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(5)
        notify.notify("STATUS=2")
        assert bound.recv(100) == b"STATUS=2"
    notify.leave()


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify.notify("READY=1")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15),
    ],
)
def test_how_often_the_watchdog_wants_to_be_fed(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert notify.watchdog_s(environment) == seconds
