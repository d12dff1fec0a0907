"""The broker as a program: what it is passed, what it says, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agentorch.core.errors import Exit
from tests.support.broker import PROGRAM, Start, at
from tests.support.polling import eventually
from tests.support.provider import provider, whole


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-c", PROGRAM, "--grants", "/nonexistent", *options),
        env={
            **{name: os.environ.get(name, "") for name in ("PATH", "PYTHONPATH")},
            "AGENTORCH_ENV_FILE": "/dev/null",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_without_a_socket_it_says_so() -> None:
    ended = run()
    assert ended.returncode == Exit.CONFIGURATION
    assert "agentorch-broker.socket" in ended.stderr


def test_with_a_parent_that_is_gone_it_ends() -> None:
    assert run("--parent", "1").returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("keys.env", "K=1\n", "chmod 600"),
        ("prices.toml", "[[price]]\n", "price 1"),
        ("providers.toml", "[x]\n", "providers.toml: x"),
    ],
)
def test_a_bad_file_is_named_at_the_start(
    start: Start, name: str, content: str, words: str
) -> None:
    configuration = start.top / "configuration"
    configuration.mkdir()
    (configuration / name).write_text(content)
    child = start.expect(Exit.CONFIGURATION, AGENTORCH_CONFIG_DIR=str(configuration))
    eventually(lambda: words in child.said())


def test_it_says_when_it_is_ready(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        start(NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert manager.recv(100) == b"READY=1"


def test_it_ends_at_once_with_a_call_open(start: Start) -> None:
    def silent(_: object, connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with provider(silent) as one:
        site = start(**at(one.url))
        site.send_only()
        eventually(lambda: bool(one.asked))
        os.kill(site.pid, signal.SIGTERM)
        eventually(lambda: "Z" in Path(f"/proc/{site.pid}/stat").read_text().split(")")[1])


def test_a_call_is_one_line(start: Start) -> None:
    with provider(whole(b"{}")) as one:
        site = start(**at(one.url))
        site.ask("/anthropic/v1/models", method="GET").read()
        eventually(lambda: "v1/models" in site.said())
        assert site.said().count("\n") == 1


def test_what_a_step_imports_needs_no_server() -> None:
    script = "import sys; from agentorch.broker import client; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run((sys.executable, "-c", script), check=False).returncode == 0
