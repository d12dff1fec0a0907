"""Sockets that were passed: taken once, closed in children, checked."""

from __future__ import annotations

import os
import socket

import pytest

from agentorch.systemd import sockets


def test_nothing_was_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    assert sockets.passed_sockets() == []


def test_what_was_passed_to_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("systemd.daemon", reason="make venv: libsystemd-dev is missing")
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert sockets.passed_sockets() == []


def test_a_listening_socket_is_taken_closed_in_children_and_never_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        os.set_inheritable(held.fileno(), True)  # noqa: FBT003  (os's own)
        with sockets.taken_socket(os.dup(held.fileno())) as taken:
            assert taken.getsockname() == held.getsockname()
            assert not taken.get_inheritable()
            assert not taken.getblocking()


def test_what_does_not_listen_is_refused() -> None:
    one, other = socket.socketpair()
    with one, other, pytest.raises(OSError, match="does not listen"):
        sockets.taken_socket(one.fileno())
    reading, writing = os.pipe()
    with pytest.raises(OSError, match=r"[Nn]on-socket|not a socket"):
        sockets.taken_socket(reading)
    for descriptor in (reading, writing):
        os.close(descriptor)
