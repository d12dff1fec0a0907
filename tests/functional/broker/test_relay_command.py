"""What the relay runs: its command, as if it were not there; and when it runs nothing."""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agentorch.broker import relay
from tests.support.relayed import PATIENCE_S, PROGRAM, PYTHON, broker, exactly, relay_line, relayed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.sock"


# ---- its command ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_it_ends_as_its_command_did(path: Path, script: str, code: int) -> None:
    with relayed(path, "sh", "-c", script) as relay:
        assert relay.left() == code


def test_a_command_that_cannot_be_run(path: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    for command, code, words in (
        ("no-such-program", 127, "No such file or directory"),
        (str(tmp_path / "text"), 126, "Permission denied"),
    ):
        with relayed(path, command) as relay:
            _, said = relay.process.communicate(timeout=PATIENCE_S)
            assert said.decode() == f"agentorch relay: {command}: {words}\n"
            assert relay.left() == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_the_commands(path: Path, number: signal.Signals) -> None:
    script = """trap 'echo term; exit 11' TERM; trap 'echo int; exit 12' INT
trap 'echo hup; exit 13' HUP; echo ready; while :; do read line; done"""
    codes = {signal.SIGTERM: 11, signal.SIGINT: 12, signal.SIGHUP: 13}
    with relayed(path, "bash", "-c", script) as relay:
        assert relay.process.stdout is not None
        assert relay.process.stdout.readline() == b"ready\n"
        relay.process.send_signal(number)
        assert relay.left() == codes[number]


def test_it_leaves_at_once_with_its_command(path: Path) -> None:
    """Neither an open connection nor what the command left behind holds it."""
    script = "sleep 60 <&- >&- 2>&- & echo $!; read line"
    with broker(path), relayed(path, "sh", "-c", script) as relay:
        assert relay.process.stdin is not None
        assert relay.process.stdout is not None
        left_behind = int(relay.process.stdout.readline())
        with relay.connection() as client:
            client.sendall(b"hello")
            assert exactly(client, 5) == b"hello"
            relay.process.stdin.close()
            assert relay.left() == 1
            assert client.recv(1) == b""
        os.kill(left_behind, signal.SIGKILL)


def test_the_command_gets_the_streams_and_the_variables_as_they_are(path: Path) -> None:
    with broker(path):
        ran = subprocess.run(
            relay_line(path, "--port", "0", command=("sh", "-c", "cat; env; echo no >&2")),
            input=b"prompt\n",
            capture_output=True,
            env={"PATH": "/usr/bin:/bin", "ODD": "a\nb"},
            check=True,
        )
    lines = [
        line for line in ran.stdout.decode().splitlines() if not line.startswith(("_=", "SHLVL"))
    ]
    assert sorted(lines) == sorted(
        ["prompt", "PATH=/usr/bin:/bin", "ODD=a", "b", f"PWD={os.getcwd()}"]
    )
    assert ran.stderr == b"no\n"


def test_the_command_has_no_descriptors_and_no_signals_of_the_relays(path: Path) -> None:
    script = """
import os
print(sorted(os.listdir("/proc/self/fd"))[:-1])
"""
    with relayed(path, "cat", "/proc/self/status") as relay:
        said, _ = relay.process.communicate(timeout=PATIENCE_S)
    fields = dict(line.split(":\t", 1) for line in said.decode().splitlines() if ":\t" in line)
    # posix_spawn(3) of glibc ignores its own two, 32 and 33
    ignored = int(fields["SigIgn"], 16) & ~(3 << 31)
    assert (ignored, int(fields["SigBlk"], 16)) == (0, 0)
    with relayed(path, PYTHON, "-c", script) as relay:
        said, _ = relay.process.communicate(timeout=PATIENCE_S)
    assert said.decode().splitlines()[0] == "['0', '1', '2']"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_trouble(path: Path, tmp_path: Path, closed: str) -> None:
    found = tmp_path / "found"
    inner = f"ls -l /proc/self/fd >{found} 2>/dev/null; exit 5"
    line = relay_line(path, "--port", "0", command=("sh", "-c", inner))
    assert subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *line], check=False).returncode == 5
    assert "socket:" not in found.read_text()


# ---- no way out -------------------------------------------------------------------------------


def test_a_port_that_is_taken(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = told(path, "--port", port)
    assert ran == f"agentorch relay: 127.0.0.1:{port}: can't listen there: Address already in use\n"


@pytest.mark.parametrize("options", [[], ["--port", "x"], ["--port", "1", "--listen-fd", "1"]])
def test_usage(path: Path, options: list[str]) -> None:
    assert "usage: relay.py" in told(path, *options)


@pytest.mark.parametrize("port", ["65536", "9" * 30])
def test_a_port_that_there_is_not(path: Path, port: str) -> None:
    assert "no such number" in told(path, "--port", port)


def told(path: Path, *options: str) -> str:
    """The one line that it says instead of running anything."""
    ran = subprocess.run(
        relay_line(path, *options, command=("echo", "started")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (125, "", 1)
    return ran.stderr


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root; not proved here")


@needs_root
def test_a_new_namespaces_loopback_is_brought_up(path: Path) -> None:
    script = (
        "import socket; s = socket.create_connection(('127.0.0.1', 8080));"
        "s.sendall(b'hello'); print(s.recv(5))"
    )
    line = relay_line(path, "--port", "8080", command=(PYTHON, "-c", script))
    with broker(path):
        ran = subprocess.run(["unshare", "--net", *line], capture_output=True, check=True)
    assert ran.stdout == b"b'hello'\n"


@needs_root
def test_a_loopback_that_is_down_and_stays_down(path: Path) -> None:
    line = relay_line(path, "--port", "8080", command=("echo", "started"))
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--"]
    ran = subprocess.run(
        ["unshare", "--net", *powerless, *line], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (125, "")
    assert ran.stderr == (
        "agentorch relay: lo is down and can't be brought up: Operation not permitted\n"
    )


# ---- what it is -------------------------------------------------------------------------------


def test_it_needs_nothing_but_a_few_modules_of_python() -> None:
    nodes = list(ast.walk(ast.parse(Path(PROGRAM).read_text("utf-8"))))
    imported = {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names
    script = "import sys; exec(open(sys.argv[1]).read(), {'__name__': ''}); print(*sys.modules)"
    loaded = subprocess.run(
        [
            PYTHON,
            "-I",
            "-S",
            "-c",
            script,
            PROGRAM,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"asyncio", "subprocess", "socket", "signal", "enum", "re", "collections"} & set(
        loaded.stdout.split()
    )


def test_its_command_line() -> None:
    assert relay.relay_argv("python3", "/r/relay.py", "/run/b", 8080, ("claude", "-p")) == (
        *("python3", "-I", "-S", "/r/relay.py", "--socket", "/run/b", "--port", "8080"),
        *("--", "claude", "-p"),
    )
