"""When it ends: idle, told to, wrongly configured. No connection is lost over it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentorch.core.states import State
from tests.support.polling import eventually
from tests.support.webhook import (
    TIMEOUT_S,
    TOKEN,
    Activator,
    Answer,
    Site,
    activated,
    answer_of,
    argv,
    opened,
)
from tests.support.webhook import listening as held_socket


def post(port: int) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        connection.request("POST", "/webhook", b'{"goal": "x"}', headers)
        return answer_of(connection.getresponse())
    finally:
        connection.close()


def test_no_connection_is_lost_over_many_ends(site: Site) -> None:
    with Activator(site, "--idle-s", "0.001") as activator:
        port = activator.held.getsockname()[1]

        def client(number: int) -> list[int]:
            statuses = []
            for turn in range(8):
                # pauses of every length about that of an idle end
                time.sleep((number * 7 + turn * 13) % 40 / 1000)
                statuses.append(post(port).status)
            return statuses

        with ThreadPoolExecutor(3) as pool:
            statuses = [status for found in pool.map(client, range(3)) for status in found]
    assert statuses == [200] * 24
    assert activator.starts > 3, "it hardly ever ended: nothing was tried"
    assert set(activator.codes) == {0}
    assert sum(1 for _ in site.queue.list_state(State.PENDING)) == 24


def test_it_stays_while_somebody_is_connected(site: Site) -> None:
    with held_socket() as held:
        process = activated(site, held, "--idle-s", "0.2")
        with socket.create_connection(held.getsockname(), timeout=TIMEOUT_S) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
            time.sleep(1.5)
            assert process.poll() is None
            client.sendall(b"Connection: close\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert process.wait(TIMEOUT_S) == 0


def test_it_stays_while_it_has_to_remember_who_asked(site: Site) -> None:
    site.variables |= {
        "WEBHOOK_RATE_LIMIT_MAX_REQUESTS": "1",
        "WEBHOOK_RATE_LIMIT_WINDOW_SEC": "3",
    }
    with held_socket() as held:
        process = activated(site, held, "--idle-s", "0.1")
        port = held.getsockname()[1]
        assert post(port).status == 200
        refused = post(port)
        assert refused.status == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 3
        time.sleep(1)
        assert process.poll() is None
        assert process.wait(TIMEOUT_S) == 0


def test_what_was_begun_is_answered_after_a_term(site: Site) -> None:
    body = json.dumps({"goal": "x"}).encode()
    head = f"POST /webhook HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    head += f"Content-Length: {len(body)}\r\n\r\n".encode()
    with opened(site) as door:
        address = ("127.0.0.1", door.port)
        silent = socket.create_connection(address, timeout=TIMEOUT_S)
        begun = socket.create_connection(address, timeout=TIMEOUT_S)
        with silent, begun:
            begun.sendall(head + body[:3])
            assert door.ask("GET", "/health").status == 200
            door.process.send_signal(signal.SIGTERM)
            assert silent.recv(100) == b""
            assert door.process.poll() is None
            begun.sendall(body[3:])
            assert begun.recv(1000).startswith(b"HTTP/1.1 200 ")
            begun.close()
            assert door.process.wait(TIMEOUT_S) == 0


def run(site: Site, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**site.environment(), **variables}
    return subprocess.run(
        argv(*options), env=environment, text=True, capture_output=True, check=False, timeout=30
    )


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0"])
def test_the_token_that_everybody_knows_is_refused_elsewhere(site: Site, bind: str) -> None:
    ended = run(site, "--bind", bind, WEBHOOK_TOKENS="")
    assert (ended.returncode, ended.stdout) == (78, "")
    assert ended.stderr.startswith("agentorch-webhook: WEBHOOK_TOKEN: ")
    assert len(ended.stderr.splitlines()) == 1


def test_a_credential_is_where_the_tokens_are(site: Site) -> None:
    (site.top / "webhook-tokens").write_text("from-a-file=*\nanother=one\n")
    site.variables["CREDENTIALS_DIRECTORY"] = str(site.top)
    with opened(site) as door:
        assert door.post({"goal": "x"}, "from-a-file").status == 200
        assert door.post({"goal": "x"}, "another").status == 403
        assert door.post({"goal": "x"}, TOKEN).status == 403


@pytest.mark.parametrize("text", ["secret-of-mine", "secret-of-mine=", "a=*,a=one"])
def test_wrong_tokens_are_not_shown(site: Site, text: str) -> None:
    (site.top / "webhook-tokens").write_text(text)
    from_file = run(site, "--bind", "127.0.0.1:0", CREDENTIALS_DIRECTORY=str(site.top))
    from_variable = run(site, "--bind", "127.0.0.1:0", WEBHOOK_TOKENS=text)
    for ended, name in ((from_file, "webhook-tokens"), (from_variable, "WEBHOOK_TOKENS")):
        assert ended.returncode == 78
        assert name in ended.stderr
        assert "secret-of-mine" not in ended.stderr


def test_a_port_that_is_taken(site: Site) -> None:
    with held_socket() as held:
        ended = run(site, "--bind", f"127.0.0.1:{held.getsockname()[1]}")
    assert ended.returncode == 75
    assert "in use" in ended.stderr


def test_without_a_socket(site: Site) -> None:
    ended = run(site)
    assert ended.returncode == 2
    assert "--bind" in ended.stderr


def test_a_unix_socket_of_its_own_and_a_port(site: Site) -> None:
    path = site.top / "socket"
    log = site.top / "said"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            argv("--bind", f"unix:{path}", "--bind", "127.0.0.1:0"),
            env=site.environment(),
            stderr=stderr,
        )
    try:
        eventually(lambda: "listening on" in log.read_text(), TIMEOUT_S)
        assert os.stat(path).st_mode & 0o777 == 0o660
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.0 200 ")
        port = int(log.read_text().split("127.0.0.1:")[1].split()[0])
        assert post(port).status == 200
        second = run(site, "--bind", f"unix:{path}")
        assert second.returncode == 75
    finally:
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
    assert not path.exists()


@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate not installed"
)
def test_systemds_own_activation(site: Site) -> None:
    with held_socket() as free:
        port = free.getsockname()[1]
    variables = [f"--setenv={name}={value}" for name, value in site.environment().items()]
    process = subprocess.Popen(
        ["systemd-socket-activate", f"--listen=127.0.0.1:{port}", *variables, *argv()],
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        assert b"Listening" in process.stderr.readline()
        assert post(port).status == 200
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def test_what_it_tells_its_service_manager(site: Site) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, held_socket() as held:
        told.bind(str(site.top / "notify"))
        told.settimeout(TIMEOUT_S)
        site.variables["NOTIFY_SOCKET"] = str(site.top / "notify")
        process = activated(site, held, "--idle-s", "0.05")
        assert told.recv(1000).decode().splitlines()[0] == "READY=1"
        assert "STOPPING=1" in told.recv(1000).decode()
        assert process.wait(TIMEOUT_S) == 0


def test_nothing_wakes_it_while_nobody_asks(site: Site) -> None:
    with opened(site) as door:
        status = Path(f"/proc/{door.process.pid}/status")
        time.sleep(1.5)
        before = switches(status.read_text())
        time.sleep(2)
        assert switches(status.read_text()) - before <= 1
        assert threading.active_count() < 10


def switches(text: str) -> int:
    return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
