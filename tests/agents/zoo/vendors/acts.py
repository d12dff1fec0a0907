"""What a vendor's program of the zoo can do, one after the other, as its prompt says:

    zoo: [["play", "401"], ["leave", 0]]

A list whose first word is the act. What is at fault here is at fault on purpose.
"""

from __future__ import annotations

import json
import os
import random
import signal
import string
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from . import shapes, surroundings

CORPORA = Path(__file__).parent / "corpora"
LONG_S = 31_536_007


def main(vendor: str) -> None:
    """Does as the prompt on standard input says."""
    if sys.argv[1:] == ["--version"]:
        tell(shapes.VERSIONS[vendor])
        return
    prompt = sys.stdin.buffer.read()
    (Path.home() / "ran").touch()
    (line,) = (one for one in prompt.splitlines() if one.startswith(b"zoo: "))
    for act, *arguments in json.loads(line.removeprefix(b"zoo: ")):
        ACTS[act](vendor, *arguments)


def write(content: bytes, stream: int = 1) -> None:
    while content:
        content = content[os.write(stream, content) :]


def tell(*lines: str, stream: int = 1) -> None:
    for line in lines:
        write(line.encode("utf-8", "surrogatepass") + b"\n", stream)


# ---- what it prints ---------------------------------------------------------------------------


def play(vendor: str, name: str | dict[str, str], code: int | None = None) -> NoReturn:
    """What the real program printed once, and how it left, unless `code` says so."""
    name = name if isinstance(name, str) else name[vendor]
    recorded = json.loads((CORPORA / vendor / f"{name}.json").read_text("utf-8"))
    tell(*recorded["stdout"])
    tell(*recorded["stderr"], stream=2)
    left = recorded["exit"]
    if isinstance(left, dict):
        left = left["code"] if left["signal"] is None else -left["signal"]
    leave(vendor, left if code is None else code)


def begin(vendor: str) -> None:
    tell(shapes.begun(vendor))


def answer(vendor: str, text: str = "I did what was asked.") -> None:
    tell(*shapes.answered(vendor, text))


def key(vendor: str) -> None:
    """Answers with what looks like a key; put together here, so that no prompt has it."""
    letters = "".join(random.Random(7).choices(string.ascii_letters + string.digits, k=90))
    answer(vendor, "-".join(("The key is sk", "ant", "api03", f"Zq7{letters}AA, keep it.")))


def again(vendor: str, text: str) -> None:
    """The event that ends the run, once more."""
    tell(shapes.ended(vendor, text))


def raw(_vendor: str, text: str, stream: int = 1) -> None:
    write(text.encode("utf-8", "surrogatepass"), stream)


def noise(_vendor: str, count: int, stream: int = 1) -> None:
    """Any bytes, NUL among them, the same every time."""
    write(b"\0" + random.Random(count).randbytes(count) + b"\0\n", stream)


def long_line(vendor: str, count: int) -> None:
    """One line of so many bytes, which is an event."""
    before, after = shapes.used_tool(vendor, "@").encode().split(b"@")
    write(before)
    for _ in range(count >> 20):
        write(b"x" * (1 << 20))
    write(after + b"\n")


def long_answer(vendor: str, count: int) -> None:
    """An answer of so many bytes, and the end of the run."""
    answer(vendor, f"Long.\n{'many words ' * (count // 11)}")


def flood(vendor: str, count: int) -> None:
    """Events without end, nearly."""
    lines = (shapes.used_tool(vendor, "x" * 65_000) + "\n").encode() * 64
    for _ in range(count // len(lines)):
        write(lines)


def half(vendor: str) -> None:
    """As much as a pipe holds, the last event cut in its middle."""
    whole = "\n".join(shapes.answered(vendor, "y" * 200_000)).encode()
    write(whole[: 1 << 16])


# ---- how it leaves, or does not ---------------------------------------------------------------


def leave(_vendor: str, code: int) -> NoReturn:
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


def deaf(_vendor: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def hang(_vendor: str) -> NoReturn:
    while True:
        time.sleep(LONG_S)


def compute(_vendor: str, seconds: float) -> None:
    """Uses a little CPU time now and then, and says nothing."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(500_000))
        time.sleep(0.2)


def save(_vendor: str, seconds: float) -> None:
    """Writes a few bytes now and then, and says nothing."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        (Path.home() / "saved").write_text("progress")
        time.sleep(0.2)


# ---- whom it leaves behind --------------------------------------------------------------------


def child(vendor: str, kind: str) -> None:
    """A child that stays when its parent has gone."""
    if os.fork() == 0:
        CHILDREN[kind](vendor)


def daemon(vendor: str) -> NoReturn:
    os.setsid()
    if os.fork():
        os._exit(0)
    for stream in range(3):
        os.dup2(os.open("/dev/null", os.O_RDWR), stream)
    deaf(vendor)
    hang(vendor)


def session(vendor: str) -> NoReturn:
    os.setsid()
    hang(vendor)


def deafened(vendor: str) -> NoReturn:
    deaf(vendor)
    hang(vendor)


def holding(vendor: str) -> NoReturn:
    """Keeps its parent's output open, and goes on printing."""
    deaf(vendor)
    while True:
        tell(shapes.said(vendor, "still here"))
        time.sleep(0.01)


def forking(vendor: str) -> NoReturn:
    """Every few milliseconds it is another process in another session."""
    deaf(vendor)
    while True:
        if os.fork():
            os._exit(0)
        os.setsid()
        time.sleep(0.002)


CHILDREN: dict[str, Callable[[str], NoReturn]] = {
    "daemon": daemon,
    "session": session,
    "holding": holding,
    "forking": forking,
    "deafened": deafened,
}


# ---- what it sees -----------------------------------------------------------------------------


def look(_vendor: str) -> None:
    """Writes down what it finds around itself."""
    (Path.home() / "seen.json").write_text(json.dumps(surroundings.seen()))


def second_time(vendor: str) -> None:
    """Fails, and leaves something in HOME; where it finds that, it goes well."""
    left = Path.home() / "left"
    if left.exists():
        return
    left.touch()
    tell(shapes.begun(vendor))
    leave(vendor, 9)


ACTS: dict[str, Callable[..., Any]] = {
    one.__name__: one
    for one in (
        *(play, begin, answer, key, again, raw, noise, long_line, long_answer, flood, half),
        *(leave, deaf, hang, compute, save, child, look, second_time),
    )
}
