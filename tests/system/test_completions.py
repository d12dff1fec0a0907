"""What a shell makes of a TAB: real shells on a terminal, with what `make install` puts there."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
PROMPT = "say it: "
SHOW = b"\x18\x18"
CLEAR = b"\x15"
ANSWER_S = 60

BASH = f"""
. {BASH_COMPLETION}
bind 'set completion-query-items 0' 'set bell-style none'
bind -x '"\\C-x\\C-x": printf %s "$READLINE_LINE" >"$LINE.new"; mv "$LINE.new" "$LINE"'
PS1={PROMPT!r}
"""
ZSH = f"""
fpath=("$PREFIX/share/zsh/vendor-completions" $fpath)
autoload -Uz compinit
compinit -u -D
show() {{ print -rn -- "$BUFFER" >"$LINE.new"; mv "$LINE.new" "$LINE" }}
zle -N show
bindkey '^X^X' show
bindkey '^U' kill-whole-line
PS1={PROMPT!r}
"""


@dataclass
class Shell:
    """An interactive shell. `terminal` is the user's end; `line` a file for what is typed."""

    terminal: int
    line: Path

    def completed(self, typed: str) -> str:
        """What a line is after a TAB."""
        self.line.unlink(missing_ok=True)
        os.write(self.terminal, CLEAR + typed.encode() + b"\t" + SHOW)
        self._read_until(lambda _: self.line.exists())
        return self.line.read_text()

    def prompted(self) -> None:
        """Returns when it waits for a line."""
        self._read_until(lambda said: PROMPT.encode() in said)

    def _read_until(self, is_there: Callable[[bytes], bool]) -> None:
        said, end = b"", time.monotonic() + ANSWER_S
        while not is_there(said):
            assert time.monotonic() < end, said.decode(errors="replace")
            if select.select([self.terminal], [], [], 0.05)[0]:
                said += os.read(self.terminal, 65536)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("completions") / "agentorch"
    environment = os.environ | {"PYTHON": sys.executable, "PREFIX": str(top)}
    subprocess.run([ROOT / "packaging/install"], env=environment, check=True)
    return top


@contextlib.contextmanager
def interactive(argv: list[str], prefix: Path, home: Path) -> Iterator[Shell]:
    """A shell on a terminal of its own."""
    line = home / "line"
    environment = {
        "PATH": f"{prefix}/bin:/usr/bin:/bin",
        "XDG_DATA_DIRS": f"{prefix}/share:/usr/share",
        "HOME": str(home),
        "ZDOTDIR": str(home),
        "TERM": "dumb",
        "LINE": str(line),
        "PREFIX": str(prefix),
    }
    terminal, inside = os.openpty()
    shell = subprocess.Popen(
        ["setsid", "--ctty", *argv],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env=environment,
        cwd=home,
    )
    os.close(inside)
    try:
        ready = Shell(terminal, line)
        ready.prompted()
        yield ready
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)


@pytest.fixture(params=["bash", "zsh"], scope="module")
def shell(
    request: pytest.FixtureRequest, prefix: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shell]:
    home = tmp_path_factory.mktemp("home")
    (home / "bashrc").write_text(BASH)
    (home / ".zshrc").write_text(ZSH)
    (home / "only.json").write_text("{}")
    argv = {"bash": ["bash", "--rcfile", "bashrc", "-i"], "zsh": ["zsh", "-d", "-i"]}[request.param]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} not installed: apt install {argv[0]}")
    if request.param == "bash" and not BASH_COMPLETION.exists():
        pytest.skip("not installed: apt install bash-completion")
    with interactive(argv, prefix, home) as ready:
        yield ready


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("agentorch-ls --pe", "agentorch-ls --pending "),
        ("agentorch-ls --done --pe", "agentorch-ls --done --pending "),
        ("agentorch ls --aw", "agentorch ls --awaiting "),
        ("agentorch unl", "agentorch unlock "),
        ("agentorch-submit on", "agentorch-submit only.json "),
        ("agentorch-ls --nothing-such", "agentorch-ls --nothing-such"),
    ],
)
def test_a_tab(shell: Shell, typed: str, completed: str) -> None:
    assert shell.completed(typed) == completed


def test_a_program_by_its_path(shell: Shell, prefix: Path) -> None:
    """Of any program, bash only loads the completion at the first TAB after a path."""
    typed = f"{prefix}/bin/agentorch-ls --fa"
    shell.completed(typed)
    assert shell.completed(typed) == f"{prefix}/bin/agentorch-ls --failed "
