"""Makes the corpora of OpenCode, by runs of the real program against the model double.

    python -m tests.agents.record_opencode [NAME…]       in the repository's top; all: 15 minutes

Each run is a file `corpora/opencode/NAME.json`: how the process ended, and both streams, with
ids, times and paths replaced by fixed ones, so that a new recording shows only what changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.agents import clis
from tests.agents.model.script import Answer, Broken, Call, Fault, Hang, Turn
from tests.agents.model.server import ModelDouble, playing

from agentorch.agents.base import Command, Endpoint, Request
from agentorch.agents.opencode import AGENT

CORPORA = Path(__file__).parent / "corpora" / "opencode"
BEFORE = "def add(a, b):\n    return a - b\n"
AFTER = "def add(a, b):\n    return a + b\n"
PATCH = """*** Begin Patch
*** Update File: add.py
@@
 def add(a, b):
-    return a - b
+    return a + b
*** End Patch"""
DONE = Turn("Added it up.\n\nThe minus is a plus now.")
CLAUDE, KIMI, OTHER = "anthropic/claude-sonnet-4-6", "moonshot/kimi-k2.6", "openai/other-model"


@dataclass(frozen=True)
class Case:
    """A run. `permission` and `options` replace some of the configuration; `ends` is the signal
    that it gets once the model was asked; `limit_s` is when it is stopped as too slow.
    """

    answers: Sequence[Answer] = ()
    model: str | None = None
    role: str = "implementer"
    resume: str | None = None
    prompt: str = "Make add.py add."
    argv: tuple[str, ...] = ()
    permission: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    ends: signal.Signals | None = None
    limit_s: float = 200
    refused: bool = False


def _same(count: int) -> list[Answer]:
    """The same call again and again, then an answer."""
    return [*[Turn(calls=(Call("read", {"filePath": "WORK/add.py"}),))] * count, DONE]


def _broker(words: str) -> Case:
    return Case([Fault(403, "agentorch", f"agentorch: {words}")])


CASES: Mapping[str, Case] = {
    "answered": Case([DONE], role="planner"),
    "edited": Case([Turn(calls=(Call("apply_patch", {"patchText": PATCH}),)), DONE]),
    "edited-anthropic": Case(
        [
            Turn(calls=(Call("read", {"filePath": "WORK/add.py"}),)),
            Turn(
                "Now the edit.",
                calls=(
                    Call("edit", {"filePath": "WORK/add.py", "oldString": "-", "newString": "+"}),
                ),
            ),
            DONE,
        ],
        CLAUDE,
    ),
    "written-chat": Case(
        [Turn(calls=(Call("write", {"filePath": "WORK/new.py", "content": "1\n"}),)), DONE], KIMI
    ),
    "command-fails": Case(
        [Turn(calls=(Call("bash", {"command": "exit 3", "description": "fails"}),)), DONE]
    ),
    "auth-openai": Case([Fault(401, "invalid_api_key", "Incorrect API key provided: x.")]),
    "auth-anthropic": Case([Fault(401, "authentication_error", "invalid x-api-key")], CLAUDE),
    "auth-moonshot": Case(
        [Fault(401, "invalid_authentication_error", "Invalid Authentication")], KIMI
    ),
    "credit-openai": Case(
        [
            Fault(
                429,
                "insufficient_quota",
                "You exceeded your current quota, please check your plan and billing details.",
            )
        ]
    ),
    "credit-anthropic": Case(
        [
            Fault(
                400,
                "invalid_request_error",
                "Your credit balance is too low to access the Anthropic API. "
                "Please go to Plans & Billing to upgrade or purchase credits.",
            )
        ],
        CLAUDE,
    ),
    "credit-moonshot": Case(
        [
            Fault(
                429,
                "exceeded_current_quota_error",
                "Your account is suspended due to insufficient balance, "
                "please recharge your account or check your plan and billing details",
            )
        ],
        KIMI,
    ),
    "forbidden": Case([Fault(403, "permission_error", "Your key may not use this.")], CLAUDE),
    "model-openai": Case(
        [
            Fault(
                404,
                "model_not_found",
                "The model `gpt-9` does not exist or you do not have access to it.",
            )
        ],
        "openai/gpt-9",
    ),
    "model-anthropic": Case(
        [Fault(404, "not_found_error", "model: claude-none")], "anthropic/claude-none"
    ),
    "limit": Case([Fault(429, "rate_limit_exceeded", "Rate limit reached for gpt-5.5.")]),
    "limit-after": Case(
        [Fault(429, "rate_limit_error", "This request would exceed your limit.", "1")], CLAUDE
    ),
    "limit-chat": Case([Fault(429, "rate_limit_reached_error", "max RPM reached")], KIMI),
    "limit-then-answer": Case([Fault(429, "rate_limit_exceeded", "Rate limit", "1"), DONE]),
    "error-500": Case([Fault(500, "server_error", "The server had an error.")]),
    "error-503": Case([Fault(503, "", "Service Unavailable")], OTHER),
    "overloaded": Case([Fault(529, "overloaded_error", "Overloaded")], CLAUDE),
    "context-openai": Case(
        [
            Fault(
                400,
                "context_length_exceeded",
                "Your input exceeds the context window of this model. "
                "Please adjust your input and try again.",
            )
        ]
    ),
    "context-anthropic": Case(
        [Fault(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")],
        CLAUDE,
    ),
    "context-chat": Case(
        [
            Fault(
                400,
                "invalid_request_error",
                "Invalid request: Your request exceeded model token limit: 262144",
            )
        ],
        KIMI,
    ),
    "bad-request": Case([Fault(400, "invalid_request_error", "Unknown parameter: 'x'.")]),
    "denied-file": Case(
        [Turn(calls=(Call("read", {"filePath": "/etc/hostname"}),)), Turn("I may not read it.")]
    ),
    "denied-edit": Case(
        [Turn(calls=(Call("apply_patch", {"patchText": PATCH}),)), Turn("I may not edit.")],
        role="planner",
    ),
    "refused-question": Case(
        [Turn("I ask.", calls=(Call("bash", {"command": "true", "description": "x"}),)), DONE],
        permission={"bash": "ask"},
    ),
    "same-again": Case(_same(4)),
    "refused-connection": Case([DONE], refused=True),
    "hang": Case([Hang()], limit_s=30),
    "hang-timed": Case([Hang()], options={"headerTimeout": 3000}),
    "stalled": Case([Broken("stall")], options={"chunkTimeout": 3000}),
    "dropped": Case([Broken("drop")]),
    "dropped-once": Case([Broken("drop"), DONE]),
    "garbage": Case([Broken("garbage")]),
    "huge": Case([Turn("A long line. " * 2_000, pieces=50)]),
    "terminated": Case([Hang()], ends=signal.SIGTERM),
    "interrupted": Case([Hang()], ends=signal.SIGINT),
    "killed": Case([Hang()], ends=signal.SIGKILL),
    "resume-unknown": Case([DONE], resume="ses_ffffffffffffffffffffffffff"),
    "bad-flag": Case([DONE], argv=("--no-such-flag",)),
    "empty-prompt": Case([DONE], prompt=""),
    "broker-quota": _broker("quota: the provider's limit is used up until 18:00 UTC"),
    "broker-budget": _broker("budget: the step may cost 5.00 USD and has cost 5.00"),
    "broker-auth": _broker("auth: no key for openai"),
    "broker-policy": _broker("policy: v1/files is not for agents"),
}


# ---- one run ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """How a run ended, and what it printed."""

    code: int | None
    signal: int | None
    slow: bool
    seconds: float
    stdout: str
    stderr: str


def request(case: Case, top: Path, url: str) -> Request:
    """What the step asks."""
    return Request(
        job_id="job-12345678",
        step_id="02_implement",
        attempt=1,
        agent=AGENT.name,
        role=case.role,
        goal="Make it add.",
        prompt=case.prompt,
        script=case.prompt,
        work=top / "work",
        home=top / "home",
        artifacts=top / "artifacts",
        model=case.model,
        reads_only=case.role == "planner",
        resume=case.resume,
        endpoint=Endpoint(AGENT.provider(case.model) or "", url, "step-token"),
    )


def changed(command: Command, case: Case) -> Command:
    """The command with what the case has otherwise."""
    variables = dict(command.environment)
    configuration = json.loads(variables["OPENCODE_CONFIG_CONTENT"])
    configuration["permission"] |= case.permission
    for entry in configuration["provider"].values():
        entry["options"] |= case.options
    variables["OPENCODE_CONFIG_CONTENT"] = json.dumps(configuration)
    return replace(command, argv=(*command.argv, *case.argv), environment=variables)


def laid_out(top: Path) -> None:
    """The repository to work in, and an empty home."""
    for name in ("work", "home", "artifacts"):
        (top / name).mkdir()
    (top / "work" / "add.py").write_text(BEFORE)
    subprocess.run(["git", "init", "-q"], cwd=top / "work", check=True)


def placed(command: Command, home: Path) -> None:
    """The command's files, below its home."""
    for name, content in command.files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)


def environment(command: Command, home: Path) -> dict[str, str]:
    """All that the program gets."""
    path = f"{clis.programs()}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(home), "TMPDIR": "/tmp", **command.environment}


def run(case: Case, top: Path, double: ModelDouble) -> Ran:
    """One run of the real program, until it ends or is ended."""
    url = "http://127.0.0.1:1/openai" if case.refused else double.url
    command = changed(AGENT.command(request(case, top, url)), case)
    placed(command, top / "home")
    (top / "stdin").write_bytes(command.stdin)
    began = time.monotonic()
    with (
        (top / "stdin").open("rb") as stdin,
        (top / "stdout").open("wb") as stdout,
        (top / "stderr").open("wb") as stderr,
    ):
        process = subprocess.Popen(
            command.argv,
            executable=clis.programs() / command.argv[0],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment(command, top / "home"),
            cwd=top / "work",
            start_new_session=True,
        )
        slow = _ended(process, case, double)
    seconds = time.monotonic() - began
    code = process.returncode
    said = [(top / name).read_text(errors="replace") for name in ("stdout", "stderr")]
    return Ran(
        max(code, 0) if code >= 0 else None, -code if code < 0 else None, slow, seconds, *said
    )


def _ended(process: subprocess.Popen[bytes], case: Case, double: ModelDouble) -> bool:
    """Waits for the end; whether it had to be ended as too slow."""
    if case.ends is not None:
        _until(lambda: bool(double.asked))
        process.send_signal(case.ends)
    try:
        process.wait(case.limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def _until(there: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not there():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


# ---- the files --------------------------------------------------------------------------------

_FIXED = (
    (re.compile(r'"(timestamp|start|end|created|time)":\d{13}'), r'"\1":1750000000000'),
    (re.compile(r"\b(ses|msg|prt|per|call)_[A-Za-z0-9]{20,}"), r"\1_0000000000000000000000000"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:8080"),
    (re.compile(r'"date":"[^"]*"'), '"date":"Mon, 16 Jun 2025 00:00:00 GMT"'),
    (re.compile(r'"server":"[^"]*"'), '"server":"double"'),
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
)


def normal(text: str, top: Path) -> str:
    """The text as any machine would have made it."""
    for found, to in ((str(top), "/agentorch"), (str(clis.programs().parent), "/opt/clis")):
        text = text.replace(found, to)
    for pattern, instead in _FIXED:
        text = pattern.sub(instead, text)
    return text


def recorded(case: Case, ran: Ran, top: Path, asked: int) -> dict[str, Any]:
    """The document of a run."""
    return {
        "version": clis.PACKAGES["opencode-ai"],
        "exit": {"code": ran.code, "signal": ran.signal, "slow": ran.slow},
        "asked": asked,
        "stdout": normal(ran.stdout, top).splitlines(),
        "stderr": normal(ran.stderr, top).splitlines(),
    }


def record(name: str) -> None:
    """Runs a case, and writes its file."""
    top = Path(tempfile.mkdtemp(prefix="agentorch-opencode-", dir="/var/tmp"))
    case = CASES[name]
    try:
        laid_out(top)
        with playing(_located(case.answers, top)) as double:
            ran = run(case, top, double)
            asked = len(double.asked)
        document = recorded(case, ran, top, asked)
    finally:
        shutil.rmtree(top, ignore_errors=True)
    CORPORA.mkdir(parents=True, exist_ok=True)
    (CORPORA / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    sys.stderr.write(f"{name}: {document['exit']}, asked {asked}, {ran.seconds:.1f} s\n")


def _located(answers: Sequence[Answer], top: Path) -> list[Answer]:
    """The answers, with the work tree's path where they say WORK."""
    return [_turn(one, str(top / "work")) if isinstance(one, Turn) else one for one in answers]


def _turn(turn: Turn, work: str) -> Turn:
    calls = [
        replace(
            call,
            arguments={
                key: value.replace("WORK", work) if isinstance(value, str) else value
                for key, value in call.arguments.items()
            },
        )
        for call in turn.calls
    ]
    return replace(turn, calls=tuple(calls))


if __name__ == "__main__":
    for chosen in sys.argv[1:] or CASES:
        record(chosen)
