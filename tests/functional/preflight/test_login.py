"""agentorch-login: an agent's own login, on the terminal, in a HOME of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import stat
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.installation import Installation
from tests.support.polling import eventually

FILE = ".claude/.credentials.json"
WRITES = f"mkdir -p .claude; umask 0; echo '{{\"token\": 1}}' >{FILE}"


def fake(here: Installation, script: str, name: str = "claude") -> str:
    """A PATH with a program of this name that is asked to log in."""
    directory = here.top / "bin"
    directory.mkdir(exist_ok=True)
    program = directory / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def home(here: Installation, agent: str = "claude") -> Path:
    return here.state / "logins" / agent


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_login_that_works(here: Installation) -> None:
    script = f'{WRITES}; env -0 >environment; printf "%s\\n" "$@" >words; pwd >>words'
    path = fake(here, script)
    keys = {"ANTHROPIC_API_KEY": "sk-ant-canary", "CLAUDECODE": "1", "HTTPS_PROXY": "http://x"}
    done = here.run(
        "login", "claude", "--", "--console", "a b", given="", code=0, PATH=path, **keys
    )
    assert done.stdout == ""
    assert done.stderr == f"agentorch-login: the login of 'claude' is there, in {home(here)}\n"
    words = (home(here) / "words").read_text().splitlines()
    assert words == ["auth", "login", "--console", "a b", str(home(here))]
    pairs = (home(here) / "environment").read_text().split("\0")[:-1]
    environment = dict(pair.split("=", 1) for pair in pairs)
    assert environment.pop("PWD", None) in (None, str(home(here)))
    assert set(environment) <= {"PATH", "HOME", "TERM", "LANG", "_", "OLDPWD", "SHLVL"}
    assert (environment["HOME"], environment["PATH"]) == (str(home(here)), path)
    assert (mode(home(here)), mode(home(here) / FILE)) == (0o700, 0o600)
    assert mode(here.state) == 0o750


def test_a_directory_that_others_can_read_is_closed(here: Installation) -> None:
    home(here).mkdir(parents=True)
    home(here).chmod(0o755)
    here.run("login", "claude", PATH=fake(here, WRITES))
    assert mode(home(here)) == 0o700


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 3", "'claude' ended with exit code 3"),
        ("kill -KILL $$", "'claude' ended with exit code 137"),
        ("exit 0", "'claude' left no login: there is no "),
        (f"mkdir -p .claude; : >{FILE}", "'claude' left no login: there is no "),
        (f"mkdir -p .claude; ln -s /etc/passwd {FILE}", "'claude' left no login: there is no "),
        (f"mkdir -p {FILE}", "'claude' left no login: there is no "),
        (f"{WRITES}; exit 1", "exit code 1; the login of before is still there"),
    ],
)
def test_a_login_that_does_not_work(here: Installation, script: str, words: str) -> None:
    done = here.run("login", "claude", code=1, PATH=fake(here, script))
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cluade"], "did you mean 'claude'?"),
        (["exec"], "agent 'exec' has no login of its own"),
        (["../x"], "'../x' is unknown"),
        ([], "Missing argument"),
        (["claude", "--remove"], "agent 'claude' has no login here"),
        (["claude", "--remove", "--", "x"], "--remove takes no arguments"),
    ],
)
def test_what_is_refused(here: Installation, arguments: list[str], words: str) -> None:
    done = here.run("login", *arguments, code=2, PATH=fake(here, WRITES))
    assert words in done.stderr
    assert done.stdout == ""
    assert not home(here).exists()


def test_a_program_that_is_not_there_says_how_to_get_it(here: Installation) -> None:
    done = here.run("login", "claude", code=2, PATH="/usr/bin:/bin")
    assert "'claude' is not on PATH (/usr/bin:/bin): npm install" in done.stderr


def test_what_is_no_program(here: Installation) -> None:
    path = fake(here, "")
    (here.top / "bin/claude").write_bytes(b"\x7fELF but not really")
    assert "Exec format error" in here.run("login", "claude", code=2, PATH=path).stderr


def test_a_login_is_removed(here: Installation) -> None:
    path = fake(here, f"{WRITES}; mkdir closed; touch closed/x; chmod 0 closed")
    here.run("login", "claude", PATH=path)
    other = here.run("login", "claude", PATH=path)
    assert "is there" in other.stderr
    here.run("login", "claude", "--remove", PATH=path)
    assert not home(here).exists()
    assert home(here).parent.is_dir()


# ---- on a terminal ----------------------------------------------------------------------------


def on_terminal(here: Installation, script: str, act: Callable[[int], None]) -> tuple[int, str]:
    """The exit code of a login on a terminal, and what was seen; `act` gets the other end."""
    ours, theirs = pty.openpty()

    def take() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        here.argv("login", "claude"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=here.environment | {"PATH": fake(here, script), "TERM": "vt100"},
        start_new_session=True,
        preexec_fn=take,  # noqa: PLW1509  (one thread)
    )
    os.close(theirs)
    try:
        act(ours)
        return process.wait(timeout=30), _rest(ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _rest(terminal: int) -> str:
    seen = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # EIO: nobody has the other end any more
            return seen.decode()
        seen += piece


def test_the_program_has_the_terminal(here: Installation) -> None:
    script = (
        "test -t 0 && test -t 1 && test -t 2 && : </dev/tty || exit 9\n"
        f'printf "code? $TERM "; read -r code; mkdir .claude; echo "$code" >{FILE}'
    )

    def answer(terminal: int) -> None:
        os.write(terminal, b"1234\n")

    code, seen = on_terminal(here, script, answer)
    assert (code, "code? vt100 " in seen) == (0, True), seen
    assert (home(here) / FILE).read_text() == "1234\n"


def test_an_interrupt_is_for_the_program_and_its_end_is_told(here: Installation) -> None:
    started = here.top / "started"
    script = f"trap 'exit 7' INT; touch {started}; while :; do sleep 0.05; done"

    def interrupt(terminal: int) -> None:
        eventually(started.exists)
        os.write(terminal, b"\x03")

    code, seen = on_terminal(here, script, interrupt)
    assert (code, "'claude' ended with exit code 7" in seen) == (1, True), seen


# ---- a real one -------------------------------------------------------------------------------


def test_codex_itself_takes_a_key_from_standard_input(here: Installation) -> None:
    from tests.support import clis  # noqa: PLC0415  (only here)

    if (why := clis.missing()) is not None:
        pytest.skip(why)
    path = f"{clis.programs()}:{os.environ['PATH']}"
    given = "sk-not-a-real-key-1234\n"
    here.run("login", "codex", "--", "--with-api-key", given=given, PATH=path)
    written = home(here, "codex") / ".codex/auth.json"
    assert json.loads(written.read_text())["OPENAI_API_KEY"] == "sk-not-a-real-key-1234"
    assert mode(written) == 0o600
