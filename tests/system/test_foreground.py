"""`make dev` and `make webhook-example`, as somebody without systemd runs them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.test_demo import processes_that_name

ROOT = Path(__file__).parents[2]
LONG_S = 60

pytestmark = pytest.mark.needs("git", "curl", "make")


@pytest.fixture
def bind() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@contextlib.contextmanager
def foreground(top: Path, bind: str) -> Iterator[subprocess.Popen[bytes]]:
    """All of it, as a terminal starts it: a process group of its own."""
    inherited = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    (top / "env").touch()
    with (top / "said").open("wb") as said:
        process = subprocess.Popen(
            [ROOT / "packaging/dev", bind],
            env=inherited
            | {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "AGENTORCH_ENV_FILE": str(top / "env"),
                "AGENTORCH_STATE_DIR": str(top / "state"),
            },
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(what: Callable[[], object], top: Path) -> None:
    end = time.monotonic() + LONG_S
    while not what():
        assert time.monotonic() < end, (top / "said").read_text()
        time.sleep(0.1)


def answers(bind: str) -> bool:
    host, port = bind.split(":")
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection((host, int(port))):
        return True
    return False


def posted(bind: str) -> str:
    """What `make webhook-example` says."""
    argv = ["make", "--directory", str(ROOT), "webhook-example", f"BIND={bind}"]
    done = subprocess.run(argv, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_example_is_posted_and_worked_on_until_control_c(tmp_path: Path, bind: str) -> None:
    queue = tmp_path / "state/queue"
    with foreground(tmp_path, bind) as process:
        wait_for(lambda: answers(bind), tmp_path)
        assert '"queued"' in posted(bind)
        wait_for(lambda: list(queue.glob("done/*.json")), tmp_path)
        # what timers do elsewhere
        wait_for((tmp_path / "state/metrics.prom").exists, tmp_path)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(LONG_S) == 130
        assert processes_that_name(tmp_path) == []
    assert "Traceback" not in (tmp_path / "said").read_text()


def test_one_that_ends_ends_all(tmp_path: Path, bind: str) -> None:
    host, port = bind.split(":")
    with socket.create_server((host, int(port))), foreground(tmp_path, bind) as process:
        assert process.wait(LONG_S) not in {0, 130}
        assert bind in (tmp_path / "said").read_text()
        assert processes_that_name(tmp_path) == []
