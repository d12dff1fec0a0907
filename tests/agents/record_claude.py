"""Makes corpora/claude/: what the real Claude Code prints at each of its ends.

    python -m tests.agents.record_claude [NAME…]

Run by hand, after a new version was pinned in clis.py; the changed files then show what changed.
The program is run against the model double by the adapter's own command line, without a sandbox, in
a directory that is removed again. Ids, times, ports and paths are replaced by fixed ones; a corpus
in which a path of this machine is left is not written.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agentorch.agents.base import Command, Endpoint, Request
from agentorch.agents.claude.adapter import AGENT
from agentorch.scripted_model import (
    Answer,
    Broken,
    Call,
    Fault,
    Hang,
    ModelDouble,
    Turn,
    Usage,
    playing,
)
from tests.support.clis import programs

CORPORA = Path(__file__).parent / "corpora" / "claude"
NOBODY_LISTENS = "http://127.0.0.1:9"
RUN_S = 60
CREDIT = (
    "Your credit balance is too low to access the Anthropic API. "
    "Please go to Plans & Billing to upgrade or purchase credits."
)
LIMITS = {
    "anthropic-ratelimit-unified-status": "rejected",
    "anthropic-ratelimit-unified-reset": "1795392000",
    "anthropic-ratelimit-unified-representative-claim": "five_hour",
}
UNKNOWN_SESSION = "11111111-1111-4111-8111-111111111111"
MARK = "first.txt"
DONE = Turn("The greeting is there.\n\nNothing else was changed.")


def write(path: str) -> Turn:
    """A turn that writes a file below the workspace."""
    return Turn("I write it.", (Call("Write", {"file_path": f"WORK/{path}", "content": "hi\n"}),))


def bash(command: str, usage: Usage | None = None) -> Turn:
    """A turn that runs a command."""
    calls = (Call("Bash", {"command": command}),)
    return Turn("I run it.", calls, usage=usage or Usage())


@dataclass(frozen=True)
class Case:
    """A run: what the double answers, and how it differs from an ordinary implementer's."""

    answers: tuple[Answer, ...] = (DONE,)
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    resume: str | None = None
    reads_only: bool = False
    prompt: str = "Add a greeting."
    # sent when the model is asked for the second time
    signal: int | None = None


QUICK = {"CLAUDE_CODE_MAX_RETRIES": "1", "API_TIMEOUT_MS": "800"}
# All of them are 300 s where nothing is said, and 10 s at least.
WATCHDOGS = {
    "CLAUDE_ENABLE_BYTE_WATCHDOG": "1",
    "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": "1500",
    "CLAUDE_ENABLE_STREAM_WATCHDOG": "1",
    "CLAUDE_STREAM_IDLE_TIMEOUT_MS": "1500",
}
CASES: Mapping[str, Case] = {
    "done": Case((write("hello.txt"), DONE)),
    "thought": Case((Turn("Thought about.", usage=Usage(100, 60, 40, 30)),)),
    "read": Case((Turn("", (Call("Read", {"file_path": f"WORK/{MARK}"}),)), DONE), reads_only=True),
    "401": Case((Fault(401, message="invalid x-api-key"),)),
    "credit": Case((Fault(400, message=CREDIT),)),
    "403": Case((Fault(403, message="Your organization has disabled this"),)),
    "404-model": Case((Fault(404, message="model: claude-nope"),)),
    "429": Case((Fault(429, message="This would exceed your rate limit"),), environment=QUICK),
    "429-retry-after-1": Case((Fault(429, message="slower", retry_after="1"),), environment=QUICK),
    "429-retry-after-3600": Case((Fault(429, message="slower", retry_after="3600"),)),
    "429-login": Case(
        (Fault(429, message="limit", retry_after="3600", headers=LIMITS),),
        environment={"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-" + "oat01-double"},
        without=("ANTHROPIC_API_KEY",),
    ),
    "429-recovered": Case((Fault(429, message="slower", retry_after="0"), DONE)),
    "500": Case((Fault(500, message="Internal server error"),), environment=QUICK),
    "529": Case((Fault(529, message="Overloaded"),), environment=QUICK),
    "529-later": Case((write("hello.txt"), Fault(529, message="Overloaded")), environment=QUICK),
    "context": Case((Fault(400, message="prompt is too long: 210000 tokens > 200000 maximum"),)),
    "context-own": Case(
        (bash("true", Usage(input=199000)), DONE), environment={"DISABLE_AUTO_COMPACT": "1"}
    ),
    "max-turns": Case((bash("true"),), options={"max_turns": 2}),
    "max-cost": Case((bash("true", Usage(100000, 2000)),), options={"max_cost_usd": 0.01}),
    "denied": Case((write(".git/hooks/pre-commit"), DONE)),
    "denied-then-done": Case((write(".git/hooks/pre-commit"), write("hello.txt"), DONE)),
    "unoffered": Case((bash("touch x"), DONE), reads_only=True),
    "refused": Case(environment={**QUICK, "ANTHROPIC_BASE_URL": NOBODY_LISTENS}),
    "hang": Case((Hang(),), environment=QUICK),
    "stalled": Case((Broken("stall"),), environment={**QUICK, **WATCHDOGS}),
    "dropped": Case((Broken("drop"),), environment=QUICK),
    "dropped-once": Case((Broken("drop"), DONE)),
    "garbage": Case((Broken("garbage"),), environment=QUICK),
    "broker-quota": Case((Fault(403, message="agentorch: quota: the limit resets at 12:00"),)),
    "broker-budget": Case((Fault(403, message="agentorch: budget: 1.00 USD are used up"),)),
    "term": Case((bash("true"), Hang()), signal=signal.SIGTERM),
    "int": Case((bash("true"), Hang()), signal=signal.SIGINT),
    "kill": Case((bash("true"), Hang()), signal=signal.SIGKILL),
    "unknown-session": Case(resume=UNKNOWN_SESSION),
    "bad-flag": Case(more=("--nope",)),
    "no-prompt": Case(prompt=""),
    "local-command": Case(prompt="/cost"),
    "no-key": Case(without=("ANTHROPIC_API_KEY",)),
}


def main(names: list[str]) -> None:
    """Records these cases, or all."""
    CORPORA.mkdir(parents=True, exist_ok=True)
    for name in names or CASES:
        corpus = recorded(CASES[name])
        text = json.dumps(corpus, indent=1, ensure_ascii=False)
        (CORPORA / f"{name}.json").write_text(f"{text}\n", "utf-8")
        print(f"{name}: exit {corpus['exit']}, {len(corpus['stdout'])} lines")  # noqa: T201


def recorded(case: Case) -> dict[str, Any]:
    """A corpus: the lines of both streams, and the exit code (negative: the signal)."""
    with directories() as top, playing(case.answers) as double:
        work, home = top / "work", top / "home"
        double.play([placed(answer, work) for answer in case.answers])
        command = AGENT.command(request(case, double, work, home))
        code = run(case, command, double, top)
        texts = [(top / name).read_text("utf-8") for name in ("stdout", "stderr")]
        stdout, stderr = (lines(normal(text, top)) for text in texts)
    return {"exit": code, "stdout": stdout, "stderr": stderr}


@contextmanager
def directories() -> Iterator[Path]:
    """A repository to work in, and a HOME."""
    with tempfile.TemporaryDirectory(prefix="agentorch-claude-", dir="/var/tmp") as name:
        top = Path(name)
        (top / "work").mkdir()
        (top / "home").mkdir()
        (top / "work" / MARK).write_text("first\n")
        yield top


def placed(answer: Answer, work: Path) -> Answer:
    """The answer with the workspace's path in its calls."""
    if not isinstance(answer, Turn):
        return answer
    calls = (
        Call(
            call.tool,
            {key: value.replace("WORK", str(work)) for key, value in call.arguments.items()},
        )
        for call in answer.calls
    )
    return replace(answer, calls=tuple(calls))


def request(case: Case, double: ModelDouble, work: Path, home: Path) -> Request:
    """What the adapter is asked."""
    return Request(
        job_id="0123456789abcdef",
        step_id="02_implement",
        attempt=1,
        agent="claude",
        role="reviewer" if case.reads_only else "implementer",
        goal="Add a greeting",
        prompt=case.prompt,
        script=case.prompt,
        work=work,
        home=home,
        artifacts=work.parent / "artifacts",
        model="claude-sonnet-4-5",
        options=case.options,
        reads_only=case.reads_only,
        resume=case.resume,
        endpoint=Endpoint("anthropic", double.url, "job-token"),
    )


def run(case: Case, command: Command, double: ModelDouble, top: Path) -> int:
    """Runs it to its end, or to the signal."""
    for path, content in command.files.items():
        (top / "home" / path).parent.mkdir(parents=True, exist_ok=True)
        (top / "home" / path).write_bytes(content)
    # the adapter keeps a leading slash from being a command: here it is to be one
    (top / "prompt").write_bytes(command.stdin if case.prompt != "/cost" else b"/cost")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(top / "home"),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        **command.environment,
        **case.environment,
    }
    with (
        (top / "prompt").open() as stdin,
        (top / "stdout").open("wb") as stdout,
        (top / "stderr").open("wb") as stderr,
    ):
        process = subprocess.Popen(
            (str(programs() / command.argv[0]), *command.argv[1:], *case.more),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=top / "work",
            env={key: value for key, value in environment.items() if key not in case.without},
        )
        try:
            if case.signal is not None:
                asked(double, 2)
                process.send_signal(case.signal)
            return process.wait(RUN_S)
        finally:
            process.kill()


def asked(double: ModelDouble, times: int) -> None:
    """Returns when the model was asked so often."""
    pause = double.over
    for _ in range(RUN_S * 20):
        if len(double.asked) >= times:
            return
        pause.wait(0.05)
    raise TimeoutError(times)


UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
FIXED = {
    r'"(\w*_ms|duration)":[0-9.]+': r'"\1":1',
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z": "2026-01-01T00:00:00.000Z",
    r"127\.0\.0\.1:\d{2,5}": "127.0.0.1:8080",
    r"cc-socks/\d+": "cc-socks/1",
    r"after \d+ ms|final \d+ ms": "after 1 ms",
}
LEFT = re.compile(r"(?<![\w/])/(root|var|tmp|work|home)/|agentorch-claude-")


def lines(text: str) -> list[str]:
    """The lines; what stands behind the last newline only where something does."""
    return text.removesuffix("\n").split("\n") if text else []


def normal(text: str, top: Path) -> str:
    """The text without anything of this run or this machine. Raises ValueError: some is left."""
    text = text.replace(str(top), "/w").replace(str(top).replace("/", "-"), "-w")
    for pattern, fixed in FIXED.items():
        text = re.sub(pattern, fixed, text)
    ids: dict[str, str] = {UNKNOWN_SESSION: UNKNOWN_SESSION}
    text = UUID.sub(
        lambda found: ids.setdefault(found[0], f"00000000-0000-4000-8000-{len(ids):012}"), text
    )
    left = LEFT.search(text)
    if left is not None:
        raise ValueError(text[max(0, left.start() - 100) : left.end() + 100])
    return text


if __name__ == "__main__":
    main(sys.argv[1:])
