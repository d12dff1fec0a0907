"""Makes corpora/kimi/: what the real Kimi Code prints at each of its ends.

    python -m tests.agents.record_kimi [NAME…]

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
from agentorch.agents.kimi.adapter import AGENT, TOKEN
from agentorch.scripted_model import Answer, Broken, Call, Fault, Hang, ModelDouble, Turn, playing
from tests.support.clis import programs

CORPORA = Path(__file__).parent / "corpora" / "kimi"
NOBODY_LISTENS = "http://127.0.0.1:9"
RUN_S = 60
DONE = Turn("The greeting is there.\n\nNothing else was changed.")
EMPTY_ACCOUNT = "Your account is suspended, please check your plan and billing details"
UNKNOWN_SESSION = "session_11111111-1111-4111-8111-111111111111"


def write(path: str) -> Turn:
    """A turn that writes a file below the workspace."""
    return Turn("I write it.", (Call("Write", {"path": path, "content": "hi\n"}),))


def bash(command: str) -> Turn:
    """A turn that runs a command."""
    return Turn("I run it.", (Call("Bash", {"command": command}),))


@dataclass(frozen=True)
class Case:
    """A run: what the model answers, and what differs from an ordinary one."""

    answers: tuple[Answer, ...] = (DONE,)
    options: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = "Add a greeting."
    reads_only: bool = False
    resume: str | None = None
    url: str | None = None
    more: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    signal: signal.Signals | None = None


CASES: Mapping[str, Case] = {
    "done": Case(),
    "edit": Case((write("WORK/hello.txt"), write("sub/b.txt"), DONE)),
    "outside": Case((write("/etc/agentorch-no"), write("../no"), DONE), reads_only=True),
    "unoffered": Case((bash("touch x"), DONE), reads_only=True),
    "command-fails": Case((bash("exit 3"), DONE)),
    "silent": Case((Turn(""),)),
    "400": Case((Fault(400, message="Invalid request: bad parameter"),)),
    "401": Case((Fault(401, message="Invalid Authentication"),)),
    "403": Case((Fault(403, message="The API you are accessing is not open"),)),
    "402": Case((Fault(402, message="Payment required"),)),
    "credit": Case((Fault(429, "exceeded_current_quota_error", EMPTY_ACCOUNT),)),
    "404-model": Case((Fault(404, "resource_not_found_error", "Not found the model kimi-nope"),)),
    "413": Case((Fault(413, message="Request entity too large"),)),
    "429": Case((Fault(429, "rate_limit_reached_error", "max RPM reached", retry_after="0"),)),
    "429-recovered": Case((Fault(429, retry_after="0"), DONE)),
    "500": Case((Fault(500, message="Internal server error"),)),
    "503": Case((Fault(503, message="Service unavailable"),)),
    "529": Case((Fault(529, message="Overloaded"),)),
    "context": Case(
        (Fault(400, message="Invalid request: Your request exceeded model token limit: 262144"),)
    ),
    "max-turns": Case((bash("true"),), options={"max_turns": 2}),
    "refused": Case(url=NOBODY_LISTENS),
    "dropped": Case((Broken("drop"),)),
    "dropped-once": Case((Broken("drop"), DONE)),
    "garbage": Case((Broken("garbage"),)),
    "broker-quota": Case((Fault(403, message="agentorch: quota: the limit resets at 12:00"),)),
    "broker-budget": Case((Fault(403, message="agentorch: budget: 1.00 USD are used up"),)),
    "term": Case((bash("true"), Hang()), signal=signal.SIGTERM),
    "int": Case((bash("true"), Hang()), signal=signal.SIGINT),
    "kill": Case((bash("true"), Hang()), signal=signal.SIGKILL),
    "unknown-session": Case(resume=UNKNOWN_SESSION),
    "bad-flag": Case(more=("--nope",)),
    "no-key": Case(without=(TOKEN,)),
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
    with directories() as top, playing([DONE]) as double:
        double.play([placed(answer, top / "work") for answer in case.answers])
        command = AGENT.command(request(case, case.url or double.url, top))
        code = run(case, command, double, top)
        texts = [(top / name).read_text("utf-8") for name in ("stdout", "stderr")]
        stdout, stderr = (normal(text, top).splitlines() for text in texts)
    return {"exit": code, "stdout": stdout, "stderr": stderr}


@contextmanager
def directories() -> Iterator[Path]:
    """A repository to work in, and a HOME."""
    with tempfile.TemporaryDirectory(prefix="agentorch-kimi-", dir="/var/tmp") as name:
        top = Path(name)
        (top / "work").mkdir()
        (top / "home").mkdir()
        (top / "work/first.txt").write_text("first\n")
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


def request(case: Case, url: str, top: Path) -> Request:
    """What the adapter is asked."""
    return Request(
        job_id="0123456789abcdef",
        step_id="02_implement",
        attempt=1,
        agent="kimi",
        role="reviewer" if case.reads_only else "implementer",
        goal="Add a greeting",
        prompt=case.prompt,
        script=case.prompt,
        work=top / "work",
        home=top / "home",
        artifacts=top / "artifacts",
        options=case.options,
        reads_only=case.reads_only,
        resume=case.resume,
        endpoint=Endpoint("moonshot", url, "job-token"),
    )


def run(case: Case, command: Command, double: ModelDouble, top: Path) -> int:
    """Runs it to its end, or to the signal."""
    for path, content in command.files.items():
        (top / "home" / path).parent.mkdir(parents=True, exist_ok=True)
        (top / "home" / path).write_bytes(content)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(top / "home"),
        "LANG": "C.UTF-8",
        **command.environment,
    }
    with (top / "stdout").open("wb") as stdout, (top / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            (str(programs() / command.argv[0]), *command.argv[1:], *case.more),
            stdin=subprocess.DEVNULL,
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
    for _ in range(RUN_S * 20):
        if len(double.asked) >= times:
            return
        double.over.wait(0.05)
    raise TimeoutError(times)


UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
FIXED = {
    r'"delay_ms":[0-9.]+': '"delay_ms":1',
    r"127\.0\.0\.1:\d{2,5}": "127.0.0.1:8080",
}
LEFT = re.compile(r"(?<![\w/])/(root|var|tmp|work|home)/|agentorch-kimi-")


def normal(text: str, top: Path) -> str:
    """The text without what differs from run to run, or belongs to this machine."""
    text = text.replace(str(top), "/w")
    for pattern, fixed in FIXED.items():
        text = re.sub(pattern, fixed, text)
    ids = dict.fromkeys(UUID.findall(text))
    for number, one in enumerate(ids):
        if one not in UNKNOWN_SESSION:
            text = text.replace(one, f"00000000-0000-4000-8000-{number:012}")
    if LEFT.search(text):
        raise ValueError(f"a path of this machine: {LEFT.search(text)}: {text}")
    return text


if __name__ == "__main__":
    main(sys.argv[1:])
