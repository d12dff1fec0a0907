"""Makes corpora/codex/: what the real Codex prints at each of its ends.

    python -m tests.agents.record_codex [NAME…]

Run by hand, after a new version was pinned in clis.py; the changed files then show what changed.
The program is run against the model double by the adapter's own command line, in a directory that
is removed again; without a sandbox, but for the cases that are about ours. Ids, times, ports and
paths are replaced by fixed ones; a corpus in which a path of this machine is left is not written.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Any

from agentorch.agents.base import Command, Endpoint, Request
from agentorch.agents.codex.adapter import AGENT, TOKEN
from agentorch.core.job import Network
from agentorch.sandbox import Confined, Confinement, Wrapper, confine
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
from tests.support.clis import CACHE, programs

CORPORA = Path(__file__).parent / "corpora" / "codex"
# A model whose tools are called one by one, and one that calls them from a script of its own.
MODEL, SCRIPTING_MODEL = "gpt-5.5", "gpt-6.1-sol"
NOBODY_LISTENS = "http://127.0.0.1:9"
PATH = "/usr/local/bin:/usr/bin:/bin"
RUN_S = 60
UNKNOWN_SESSION = "01a204ba-0000-7000-8000-000000000000"
DONE = Turn("The greeting is there.\n\nNothing else was changed.")
CONTEXT = "Your input exceeds the context window of this model. Please adjust your input."
LIMIT = {"plan_type": "plus", "resets_at": 4102448400, "resets_in_seconds": 7200}


def bash(command: str, **more: Any) -> Turn:
    """A turn that runs a command."""
    return Turn("", (Call("exec_command", {"cmd": command, **more}),))


def patch(*lines: str) -> Turn:
    """A turn that applies a patch."""
    text = "\n".join(("*** Begin Patch", *lines, "*** End Patch"))
    return Turn("", (Call("apply_patch", {"input": text}),))


def scripted(source: str) -> Turn:
    """A turn of the model that calls its tools from JavaScript."""
    return Turn("", (Call("exec", {"input": source}),))


EDIT = patch("*** Update File: first.txt", "@@", "-first", "+second", "*** Add File: a b.txt", "+x")
MOVE = patch("*** Update File: first.txt", "*** Move to: moved.txt", "@@", "-first", "+second")


@dataclass(frozen=True)
class Case:
    """A run: what the double answers, and how it differs from an ordinary implementer's."""

    answers: tuple[Answer, ...] = (DONE,)
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    change: Callable[[str], str] = str
    more: tuple[str, ...] = ()
    resume: str | None = None
    reads_only: bool = False
    prompt: str = "Add a greeting."
    model: str = MODEL
    url: str | None = None
    # a run before this one, whose session is resumed
    before: tuple[Answer, ...] = ()
    # sent when the model is asked for the last time
    signal: int | None = None
    # in our sandbox, where Codex can't have its own
    confined: bool = False


def impatient(word: str) -> str:
    """The command line's word with a stream that may be idle for half a second only."""
    return word.replace("stream_idle_timeout_ms=300000", "stream_idle_timeout_ms=500")


def tokens(count: int) -> Turn:
    """An answer that took many tokens."""
    return Turn("Thought about.", usage=Usage(count, 60, 40, 30))


CASES: Mapping[str, Case] = {
    "done": Case((bash("cat first.txt"), EDIT, bash("false"), DONE)),
    "moved": Case((MOVE, DONE)),
    "patch-fails": Case((patch("*** Update File: nope.txt", "@@", "-x", "+y"), DONE)),
    "scripted": Case(
        (scripted('text((await tools.exec_command({cmd: "cat first.txt"})).output)'), DONE),
        model=SCRIPTING_MODEL,
    ),
    "thought": Case((tokens(100),)),
    "read": Case((bash("cat first.txt | head -3 && ls"), DONE), reads_only=True),
    "read-refused": Case((bash("ls"), EDIT, DONE), reads_only=True),
    "sandbox-broken": Case((bash("touch x"), EDIT, DONE), reads_only=True, confined=True),
    "sandbox-partly": Case(
        (bash("cat first.txt"), bash("touch x"), DONE), reads_only=True, confined=True
    ),
    "unknown-model-metadata": Case(model="gpt-0-unheard-of"),
    "unknown-tool": Case((Turn("", (Call("nosuch", {}),)), DONE)),
    "no-answer": Case((Turn(""),)),
    "resumed": Case(before=(tokens(100),)),
    "401": Case((Fault(401, "invalid_api_key", "Incorrect API key provided: tok*"),)),
    "403": Case((Fault(403, "forbidden", "You have no access to this project."),)),
    "404-model": Case((Fault(404, "model_not_found", "The model `gpt-5.5` does not exist."),)),
    "400": Case((Fault(400, "invalid_request_error", "Unsupported value"),)),
    "400-prompt": Case((Fault(200, "invalid_prompt", "Invalid prompt: it was flagged."),)),
    "context": Case((Fault(200, "context_length_exceeded", CONTEXT),)),
    "context-400": Case((Fault(400, "context_length_exceeded", CONTEXT),)),
    "credit": Case((Fault(429, "insufficient_quota", "You exceeded your current quota."),)),
    "credit-later": Case((bash("true"), Fault(200, "insufficient_quota", "No quota."))),
    "usage-limit": Case((Fault(429, "usage_limit_reached", "The limit.", fields=LIMIT),)),
    "plan": Case((Fault(429, "usage_not_included", "Not in this plan."),)),
    "429": Case((Fault(429, "rate_limit_exceeded", "Rate limit reached."),)),
    "429-retry-after-1": Case((Fault(429, "rate_limit_exceeded", "Slower.", retry_after="1"),)),
    "429-stream": Case((Fault(200, "rate_limit_exceeded", "Please try again in 1.2s."),)),
    "429-recovered": Case((Fault(429, "rate_limit_exceeded", "Slower.", retry_after="1"), DONE)),
    "500": Case((Fault(500, "server_error", "The server had an error."),)),
    "502": Case((Fault(502, "bad_gateway", "Bad gateway."),)),
    "503": Case((Fault(503, "server_is_overloaded", "Overloaded, slow down."),)),
    "503-plain": Case((Fault(503, "", "Unavailable."),)),
    "500-later": Case((bash("cat first.txt"), Fault(500, "server_error", "Error."))),
    "500-recovered": Case((Fault(500, "server_error", "The server had an error."), DONE)),
    "refused": Case(url=NOBODY_LISTENS),
    "hang": Case((Hang(),), signal=SIGTERM),
    "stalled": Case((Broken("stall"),), change=impatient),
    "dropped": Case((Broken("drop"),)),
    "dropped-once": Case((Broken("drop"), DONE)),
    "garbage": Case((Broken("garbage"),)),
    "broker-quota": Case((Fault(403, "permission_error", "agentorch: quota: resets at 12:00"),)),
    "broker-budget": Case((Fault(403, "permission_error", "agentorch: budget: 1.00 USD used"),)),
    "broker-auth": Case((Fault(403, "permission_error", "agentorch: auth: no key for openai"),)),
    "term": Case((bash("true"), Hang()), signal=SIGTERM),
    "int": Case((bash("true"), Hang()), signal=SIGINT),
    "kill": Case((bash("true"), Hang()), signal=SIGKILL),
    "unknown-session": Case(resume=UNKNOWN_SESSION),
    "bad-flag": Case(more=("--nope",)),
    "bad-setting": Case(more=("--config", "sandbox_mode=17")),
    "no-prompt": Case(prompt=""),
    "no-key": Case(environment={TOKEN: ""}),
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
    with directories() as top, playing(case.before or case.answers) as double:
        resume = case.resume
        if case.before:
            run(case, AGENT.command(request(case, double, top, None)), double, top)
            resume = json.loads((top / "stdout").read_text().splitlines()[0])["thread_id"]
            double.play(case.answers)
        code = run(case, AGENT.command(request(case, double, top, resume)), double, top)
        texts = [(top / name).read_text("utf-8") for name in ("stdout", "stderr")]
    stdout, stderr = (lines(normal(text, top)) for text in texts)
    return {"exit": code, "stdout": stdout, "stderr": stderr}


@contextmanager
def directories() -> Iterator[Path]:
    """A place with something to work on, and a HOME."""
    with tempfile.TemporaryDirectory(prefix="agentorch-codex-", dir=CACHE) as name:
        top = Path(name)
        (top / "work").mkdir()
        (top / "home").mkdir()
        (top / "work" / "first.txt").write_text("first\n")
        yield top


def request(case: Case, double: ModelDouble, top: Path, resume: str | None) -> Request:
    """What the adapter is asked."""
    return Request(
        job_id="0123456789abcdef",
        step_id="02_implement",
        attempt=1,
        agent="codex",
        role="reviewer" if case.reads_only else "implementer",
        goal="Add a greeting",
        prompt=case.prompt,
        script=case.prompt,
        work=top / "work",
        home=top / "home",
        artifacts=top / "artifacts",
        model=case.model,
        options=case.options,
        reads_only=case.reads_only,
        resume=resume,
        endpoint=Endpoint("openai", case.url or double.url, "job-token"),
    )


def run(case: Case, command: Command, double: ModelDouble, top: Path) -> int:
    """Runs it to its end, which a signal may be."""
    (top / "stdin").write_bytes(command.stdin)
    for path, content in command.files.items():
        (top / "home" / path).parent.mkdir(parents=True, exist_ok=True)
        (top / "home" / path).write_bytes(content)
    with (
        started(case, command, top) as start,
        (top / "stdin").open("rb") as stdin,
        (top / "stdout").open("wb") as stdout,
        (top / "stderr").open("wb") as stderr,
    ):
        process = subprocess.Popen(
            start.argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=top / "work",
            env=start.environment,
            pass_fds=start.pass_fds,
        )
        if case.signal is not None:
            asked(double, len(case.answers))
            os.kill(process.pid, case.signal)
        return process.wait(RUN_S)


def started(case: Case, command: Command, top: Path) -> AbstractContextManager[Confined]:
    """What to start for it, in our sandbox or without any."""
    words = [case.change(word) for word in command.argv]
    environment = {
        "PATH": f"{programs()}:{PATH}",
        "HOME": str(top / "home"),
        **command.environment,
        **case.environment,
    }
    confinement = Confinement(
        name=top.name,
        work=top / "work",
        home=top / "home",
        artifacts=top / "artifacts",
        network=Network.ALLOW,
        environment=environment,
    )
    argv = (str(programs() / words[0]), *words[1:-1], *case.more, words[-1])
    return confine(Wrapper("bwrap") if case.confined else None, confinement, argv)


def asked(double: ModelDouble, times: int) -> None:
    """Returns when the model was asked so often."""
    for _ in range(RUN_S * 20):
        if len(double.asked) >= times:
            return
        double.over.wait(0.05)
    raise TimeoutError(times)


def lines(text: str) -> list[str]:
    """The lines; what stands behind the last newline only where something does."""
    return text.removesuffix("\n").split("\n") if text else []


_CHANGING: tuple[tuple[str, str], ...] = (
    (r"http://127\.0\.0\.1:\d+", "http://127.0.0.1:8080"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", UNKNOWN_SESSION),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "2026-01-01T00:00:00.000000Z"),
)


def normal(text: str, top: Path) -> str:
    """The text without what differs from run to run, or belongs to this machine."""
    text = text.replace(str(top), "/job")
    for pattern, fixed in _CHANGING:
        text = re.sub(pattern, fixed, text)
    left = {str(Path.home()), str(programs()), tempfile.gettempdir(), "/var/tmp"}
    found = sorted(path for path in left if path in text)
    if found:
        raise SystemExit(f"a path of this machine is left: {', '.join(found)}")
    return text


if __name__ == "__main__":
    main(sys.argv[1:])
