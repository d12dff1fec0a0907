"""The model double, where its client is no CLI."""

from __future__ import annotations

import socket
import struct
import threading
from urllib.parse import urlsplit

import pytest

from agentorch.scripted_model.script import Turn
from agentorch.scripted_model.server import ModelDouble, playing
from tests.support.polling import eventually

REQUEST = b"""POST /v1/chat/completions HTTP/1.1\r
Host: localhost\r
Content-Length: 32\r
\r
{"stream": true, "messages": []}"""
RESET = struct.pack("ii", 1, 0)


def test_a_client_that_hangs_up_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    before = threading.active_count()
    with playing([Turn("x" * 1000, pieces=100, between_s=0.01)]) as double:
        with asking(double) as client:
            client.sendall(REQUEST)
            assert client.recv(1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        eventually(lambda: threading.active_count() <= before + 1, 30)
    assert capfd.readouterr() == ("", "")


def asking(double: ModelDouble) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(double.url).port or 0), 30)
