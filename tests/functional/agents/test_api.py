"""Agents without a CLI: the program, run as a step would run it, against the model double."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.agents import failure_rules
from agentorch.agents.api import patch as patches
from agentorch.agents.api import program, surroundings
from agentorch.agents.api.adapter import ANTHROPIC, OPENAI, ApiAgent
from agentorch.agents.api.question import Limits, Trouble, check_answer, retry_after_s, wait_s
from agentorch.agents.api.server_sent_events import Events
from agentorch.agents.api.surroundings import Seen
from agentorch.agents.api.wire_formats import CHAT, MESSAGES, Answer, Question
from agentorch.agents.base import Endpoint, Request
from agentorch.agents.registry import load as load_registry
from agentorch.config.settings import load
from agentorch.core.abilities import Number
from agentorch.core.errors import Refused
from agentorch.core.job import Outcome
from agentorch.core.process_end import Ending, Exit, Line
from agentorch.core.states import OutcomeClass
from agentorch.process.output import lines
from agentorch.scripted_model import Broken, Call, Fault, Hang, ModelDouble, Turn, Usage, playing

WAITS_S = 0.5
# Quick to give up, with time for a try after the first.
AGENTS = [
    replace(agent, first_byte_s=WAITS_S, idle_s=WAITS_S, tries=2) for agent in (ANTHROPIC, OPENAI)
]
IDS = [agent.name for agent in AGENTS]

DIFF = textwrap.dedent(
    """\
    diff --git a/hello.txt b/hello.txt
    --- a/hello.txt
    +++ b/hello.txt
    @@ -1,2 +1,2 @@
     one
    -two
    +three
    """
)


@pytest.fixture
def double() -> Iterator[ModelDouble]:
    with playing([Turn("Done.")]) as double:
        yield double


@dataclass(frozen=True)
class Place:
    """A workspace, and what a step would hand to the program."""

    top: Path

    @property
    def work(self) -> Path:
        return self.top / "work"

    def request(self, url: str, **changes: Any) -> Request:
        endpoint = Endpoint(provider="p", url=url, token="job-token-0123456789")
        request = Request(
            job_id="0123456789abcdef",
            step_id="02_implement",
            attempt=1,
            agent="api",
            role="implementer",
            goal="Greet",
            prompt="system and task",
            script="",
            work=self.work,
            home=self.top / "home",
            artifacts=self.top / "artifacts",
            system="You are neutral.",
            body="Change hello.txt.",
            timeout_s=60,
            endpoint=endpoint,
        )
        return replace(request, **changes)

    def run(self, agent: ApiAgent, url: str, **changes: Any) -> Outcome:
        """The agent's program from its command to its classified outcome, confined by nothing."""
        command = agent.command(self.request(url, **changes))
        (self.top / "stdin").write_bytes(command.stdin)
        with (
            (self.top / "stdin").open("rb") as stdin,
            (self.top / "stdout").open("wb") as stdout,
            (self.top / "stderr").open("wb") as stderr,
        ):
            ended = subprocess.run(
                command.argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=self.work,
                env={"PATH": os.environ["PATH"], "HOME": str(self.top), **command.environment},
                timeout=60,
                check=False,
            )
        exit_ = Exit(Ending.EXITED, ended.returncode, None, 1.0)
        printed = (line for name in ("stdout", "stderr") for line in lines(self.top / name, name))
        return failure_rules.classify(
            agent.outcome(exit_, printed), agent.name, failure_rules.rules()
        )

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.top / "stdout").read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/hello.txt").write_text("one\ntwo\n")
    subprocess.run(["git", "init", "-q", tmp_path / "work"], check=True)
    return Place(tmp_path)


# ---- an answer --------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", AGENTS, ids=IDS)
def test_a_report(place: Place, double: ModelDouble, agent: ApiAgent) -> None:
    double.play([Turn("# Plan\n\nDo it.", usage=Usage(100, 20, 40, 7), pieces=5)])
    outcome = place.run(agent, double.url)
    assert (outcome.kind, outcome.summary) == (OutcomeClass.SUCCESS, "# Plan")
    assert outcome.report == "# Plan\n\nDo it."
    assert outcome.model == agent.default_model
    expected = {"tokens_in": 100, "tokens_out": 20, "tokens_cached": 40, "turns": 1}
    told = expected | ({"tokens_reasoning": 7} if agent.name == "openai" else {})
    assert outcome.metrics == told
    assert (place.top / "stderr").read_text() == ""


@pytest.mark.parametrize("agent", AGENTS, ids=IDS)
def test_what_is_asked(place: Place, double: ModelDouble, agent: ApiAgent) -> None:
    options = {"effort": "high", "max_tokens": 500, "max_cost_usd": 1.0}
    place.run(agent, double.url, model="some-model", options=options)
    [asked] = double.asked
    document = asked.document
    assert (document["model"], document["stream"]) == ("some-model", True)
    text = document["messages"][-1]["content"]
    assert text.startswith("Change hello.txt.\n")
    for expected in ("```diff", "hello.txt (8 bytes)", "one\ntwo"):
        assert expected in text
    assert "You are neutral." not in text
    assert "You are neutral." in json.dumps(document)
    assert "job-token-0123456789" not in json.dumps(document)
    assert "job-token-0123456789" in str(asked.headers)


def test_the_wires_options() -> None:
    question = Question("", "hi", "m", {"effort": "low", "max_tokens": 5, "temperature": 0})
    assert MESSAGES.body(question) == {
        "model": "m",
        "max_tokens": 5,
        "stream": True,
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "low"},
    }
    assert CHAT.body(question) == {
        "model": "m",
        "max_completion_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
        "reasoning_effort": "low",
    }


def test_what_an_agent_takes() -> None:
    for agent in (ANTHROPIC, OPENAI):
        abilities = agent.capabilities.abilities
        assert {"effort", "max_tokens", "max_cost_usd"} <= abilities.options.keys()
        assert "resume" not in abilities.options
    assert OPENAI.capabilities.abilities.options["temperature"] == Number(0, 2, whole=False)
    assert "temperature" not in ANTHROPIC.capabilities.abilities.options


@pytest.mark.parametrize("agent", [ANTHROPIC, OPENAI], ids=IDS)
def test_no_key_no_program(place: Place, agent: ApiAgent) -> None:
    request = place.request("http://127.0.0.1:1")
    with pytest.raises(Refused, match="needs a key"):
        agent.command(replace(request, endpoint=None))
    assert request.endpoint is not None
    with pytest.raises(Refused, match="needs a key"):
        agent.command(replace(request, endpoint=replace(request.endpoint, login=True)))


def test_the_command_line_has_no_secret_and_no_prompt(place: Place) -> None:
    command = ANTHROPIC.command(place.request("http://127.0.0.1:1"))
    assert command.argv[:2] == (sys.executable, "-I")
    words = " ".join(command.argv)
    assert "token" not in words
    assert "hello" not in words
    assert command.environment == {"AGENTORCH_TOKEN": "job-token-0123456789"}
    assert b"job-token" not in command.stdin


def test_the_environment_decides_nothing(place: Place, double: ModelDouble) -> None:
    """A workspace can't shadow a module, and no proxy of the environment is asked."""
    for name in ("httpx.py", "json.py", "agentorch.py"):
        (place.work / name).write_text("raise SystemExit('shadowed')")
    command = OPENAI.command(place.request(double.url))
    environment = {"PYTHONPATH": str(place.work), "HTTP_PROXY": "http://127.0.0.1:1"}
    done = subprocess.run(
        command.argv,
        input=command.stdin,
        cwd=place.work,
        env={"PATH": os.environ["PATH"], **environment, **command.environment},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert b'"status": "success"' in done.stdout


def test_registered(tmp_path: Path) -> None:
    registry = load_registry(load({"AGENTORCH_STATE_DIR": str(tmp_path)}))
    assert registry.get("anthropic") is ANTHROPIC
    assert registry.get("openai") is OPENAI


def test_its_end_is_seen() -> None:
    assert ANTHROPIC.is_end(Line("stdout", '{"type": "result", "status": "success"}'))
    assert not ANTHROPIC.is_end(Line("stdout", '{"type": "usage", "tokens_in": 1}'))
    assert not ANTHROPIC.is_end(Line("stderr", '{"type": "result"}'))


# ---- a patch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", AGENTS, ids=IDS)
def test_a_patch(place: Place, double: ModelDouble, agent: ApiAgent) -> None:
    double.play([Turn(f"Here it is.\n\n```diff\n{DIFF}```\n\nThat was it.\n", pieces=9)])
    outcome = place.run(agent, double.url)
    assert (outcome.kind, outcome.summary) == (OutcomeClass.SUCCESS, "Here it is.")
    assert outcome.files == ("hello.txt",)
    assert (place.work / "hello.txt").read_text() == "one\nthree\n"
    assert "+three" in outcome.report


def test_who_only_reads_changes_nothing(place: Place, double: ModelDouble) -> None:
    double.play([Turn(f"```diff\n{DIFF}```\n")])
    outcome = place.run(OPENAI, double.url, reads_only=True)
    assert (outcome.kind, outcome.files) == (OutcomeClass.SUCCESS, ())
    assert (place.work / "hello.txt").read_text() == "one\ntwo\n"
    assert "```diff" not in double.asked[0].document["messages"][-1]["content"].split("##")[1]


def test_a_patch_that_does_not_apply(place: Place, double: ModelDouble) -> None:
    wrong = DIFF.replace("two", "no such line")
    double.play([Turn(f"Look.\n```diff\n{wrong}```\n")])
    outcome = place.run(OPENAI, double.url)
    assert (outcome.kind, outcome.error) == (OutcomeClass.PATCH, "patch_apply_failed")
    assert "hello.txt" in outcome.summary
    assert outcome.report.startswith("Look.\n")
    assert outcome.metrics["tokens_in"] == 100
    assert (place.work / "hello.txt").read_text() == "one\ntwo\n"


NEW_FILE = (
    "diff --git a/{0} b/{0}\nnew file mode 100644\n--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+x\n"
)


@pytest.mark.parametrize("path", ["../out.txt", ".git/hooks/post-commit", "link/x", "/etc/out"])
def test_a_patch_stays_in_the_workspace(place: Place, path: str) -> None:
    (place.work / "link").symlink_to(place.top)
    before = sorted(place.top.rglob("*"))
    with pytest.raises(patches.NotApplied):
        patches.apply(NEW_FILE.format(path), place.work)
    assert sorted(place.top.rglob("*")) == before


def test_a_patch_is_applied_whole_or_not_at_all(place: Place) -> None:
    with pytest.raises(patches.NotApplied):
        patches.apply(NEW_FILE.format("new.txt") + DIFF.replace("two", "zwei"), place.work)
    assert not (place.work / "new.txt").exists()


def test_miscounted_hunks(place: Place) -> None:
    patches.apply(DIFF.replace("@@ -1,2 +1,2 @@", "@@ -1,7 +1,9 @@"), place.work)
    assert (place.work / "hello.txt").read_text() == "one\nthree\n"


def test_nothing_of_the_workspace_runs(place: Place) -> None:
    """Neither a filter that git would run on applying, nor a monitor on listing."""
    trap = place.top / "trapped"
    run = f"touch {trap}"
    for key in ("core.fsmonitor", "filter.x.clean", "filter.x.smudge", "core.pager"):
        subprocess.run(["git", "-C", place.work, "config", key, run], check=True)
    (place.work / ".gitattributes").write_text("* filter=x\n")
    patches.apply(DIFF, place.work)
    surroundings.workspace_text(place.work, "")
    assert not trap.exists()
    assert (place.work / "hello.txt").read_text() == "one\nthree\n"


@pytest.mark.parametrize(
    ("answer", "patch"),
    [
        ("no change", None),
        ("```python\nx\n```\n", None),
        (f"a\n```diff\n{DIFF}```\nb", DIFF),
        (f"a\n~~~~ Patch file\n{DIFF}~~~~\nb", DIFF),
        (f"```diff\n{DIFF}```\n```patch\n{DIFF}```", DIFF + DIFF),
        (f"```diff\n{DIFF}", DIFF),
        (f"```diff\n{DIFF}\n\n```", DIFF),
        (f"It goes:\n{DIFF}\n", DIFF),
        ("```diff\n+```\n ```\n```", "+```\n ```\n"),
        ("```diff\n```\n", ""),
    ],
)
def test_patches_in_answers(answer: str, patch: str | None) -> None:
    assert patches.find_patch(answer) == patch


@given(st.text(alphabet="`~ \n+-diffpatch@", max_size=60))
def test_any_text_is_an_answer(answer: str) -> None:
    found = patches.find_patch(answer)
    assert found is None or patches.changed_files(found) is not None


# ---- what goes wrong --------------------------------------------------------------------------

P, A, I, Q, C = (  # noqa: E741
    OutcomeClass.PARSE_ERROR,
    OutcomeClass.AGENT_ERROR,
    OutcomeClass.INFRA,
    OutcomeClass.QUOTA,
    OutcomeClass.AUTH,
)
FAULTS = [
    (Fault(400), A, "unclassified", 1),
    (Fault(401), C, "auth_failed", 1),
    (Fault(403), C, "auth_failed", 1),
    (Fault(402, message="Payment required"), C, "credit_empty", 1),
    (Fault(400, message="Your credit balance is too low"), C, "credit_empty", 1),
    (Fault(429, "insufficient_quota"), C, "credit_empty", 1),
    (Fault(404), OutcomeClass.POLICY, "model_unknown", 1),
    (Fault(400, "context_length_exceeded"), A, "context_too_long", 1),
    (Fault(400, message="prompt is too long: 210000 tokens"), A, "context_too_long", 1),
    (Fault(413), A, "context_too_long", 1),
    (Fault(429), Q, "rate_limited", 2),
    (Fault(429, retry_after="1"), Q, "rate_limited", 2),
    (Fault(429, retry_after="3600"), Q, "rate_limited", 1),
    (Fault(500), I, "provider_error", 2),
    (Fault(502), I, "provider_error", 2),
    (Fault(503), I, "overloaded", 2),
    (Fault(529), I, "overloaded", 2),
    (Hang(), I, "provider_error", 2),
    (Broken("stall"), I, "provider_error", 2),
    (Broken("drop"), P, "truncated_output", 2),
    (Broken("garbage"), P, "malformed_output", 2),
    (Turn(""), P, "no_result", 1),
]


@pytest.mark.parametrize("agent", AGENTS, ids=IDS)
@pytest.mark.parametrize(("answer", "kind", "error", "asked"), FAULTS, ids=str)
def test_faults(
    place: Place,
    double: ModelDouble,
    agent: ApiAgent,
    answer: Any,
    kind: OutcomeClass,
    error: str,
    asked: int,
) -> None:
    double.play([answer])
    outcome = place.run(agent, double.url)
    assert (outcome.kind, outcome.error) == (kind, error), outcome
    assert len(double.asked) == asked
    if isinstance(answer, Broken):
        assert outcome.report == answer.text
    if isinstance(answer, Fault) and answer.retry_after:
        assert outcome.details["retry_after_s"] == int(answer.retry_after)


@pytest.mark.parametrize("agent", AGENTS, ids=IDS)
@pytest.mark.parametrize(
    "answer",
    [Fault(429, retry_after="0"), Fault(500), Fault(529), Broken("drop"), Broken("garbage")],
    ids=str,
)
def test_what_passes(place: Place, double: ModelDouble, agent: ApiAgent, answer: Any) -> None:
    double.play([answer, Turn("Well.")])
    outcome = place.run(agent, double.url)
    assert (outcome.kind, outcome.report) == (OutcomeClass.SUCCESS, "Well.")
    assert any(one["type"] == "progress" and "again in" in one["text"] for one in place.events)


@pytest.mark.parametrize("agent", AGENTS, ids=IDS)
def test_nobody_listens(place: Place, agent: ApiAgent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    outcome = place.run(agent, f"http://127.0.0.1:{port}")
    assert (outcome.kind, outcome.error) == (I, "network_unreachable")


def test_a_tool_that_nobody_offered(place: Place, double: ModelDouble) -> None:
    double.play([Turn("Let me look.", calls=(Call("Bash", {"command": "ls"}),))])
    outcome = place.run(OPENAI, double.url)
    assert (outcome.kind, outcome.error) == (A, "unclassified")
    assert outcome.details["evidence"] == ["api stop tools (tool_calls)"]


def test_the_brokers_words_are_not_the_providers(place: Place, double: ModelDouble) -> None:
    words = "agentorch: budget: the step's 1.00 USD are used up"
    double.play([Fault(403, message=words)])
    command = replace(OPENAI, tries=4)
    outcome = place.run(command, double.url)
    assert outcome.details["evidence"] == [words]
    assert (outcome.error, len(double.asked)) != ("auth_failed", 4)


def test_less_time_than_the_model_takes(place: Place, double: ModelDouble) -> None:
    double.play([Turn("one two three four five six", pieces=6, between_s=0.5)])
    outcome = place.run(OPENAI, double.url, timeout_s=3)
    assert (outcome.kind, outcome.error) == (OutcomeClass.TIMEOUT, "timeout")
    assert outcome.report.startswith("one")


def test_slow_but_alive(place: Place, double: ModelDouble) -> None:
    """Pieces that come one by one are no stall, however long the whole takes."""
    double.play([Turn("one two three four", pieces=4, between_s=WAITS_S / 2)])
    outcome = place.run(replace(OPENAI, idle_s=WAITS_S), double.url)
    assert (outcome.kind, outcome.report) == (OutcomeClass.SUCCESS, "one two three four")


def test_a_huge_answer(place: Place, double: ModelDouble) -> None:
    double.play([Turn("x" * 3_000_000, pieces=300)])
    outcome = place.run(ANTHROPIC, double.url)
    assert outcome.kind is OutcomeClass.SUCCESS
    assert len(outcome.report) == 1_000_000


def test_control_characters_and_markup(place: Place, double: ModelDouble) -> None:
    double.play([Turn("\x1b[31mred\x00 \ud83d\ude00 <b>\u2028</b>\n")])
    outcome = place.run(ANTHROPIC, double.url)
    assert outcome.kind is OutcomeClass.SUCCESS
    assert "\x1b" not in outcome.report
    assert "\U0001f600 <b>" in outcome.report


@pytest.mark.parametrize(
    ("stop", "error"),
    [
        ("max_tokens", "truncated_output"),
        ("length", "truncated_output"),
        ("pause_turn", "truncated_output"),
        ("refusal", "permission_denied"),
        ("content_filter", "permission_denied"),
        ("model_context_window_exceeded", "context_too_long"),
        ("something_new", "unclassified"),
    ],
)
def test_why_an_answer_stopped(stop: str, error: str) -> None:
    answer = Answer(stop=stop)
    answer.add("half")
    with pytest.raises(Trouble) as trouble:
        check_answer(answer)
    assert classified(trouble.value.lines).error == error


@pytest.mark.parametrize(
    ("fault", "error", "again"),
    [
        (("overloaded_error", "Overloaded"), "overloaded", True),
        (("api_error", "Internal server error"), "provider_error", True),
        (("rate_limit_error", "slow down"), "rate_limited", True),
        (("invalid_request_error", "prompt is too long: 9 tokens"), "context_too_long", False),
        (("authentication_error", "invalid x-api-key"), "auth_failed", False),
    ],
)
def test_errors_in_the_stream(fault: tuple[str, str], error: str, again: bool) -> None:  # noqa: FBT001
    kind, message = fault
    answer = Answer()
    MESSAGES.hear({"type": "error", "error": {"type": kind, "message": message}}, answer)
    with pytest.raises(Trouble) as trouble:
        check_answer(answer)
    assert trouble.value.again == again
    assert classified(trouble.value.lines).error == error


def classified(evidence: tuple[str, ...]) -> Outcome:
    result = program.failure_line("unclassified", evidence[0], Answer(), evidence=evidence)
    line = Line("stdout", json.dumps(result))
    outcome = ANTHROPIC.outcome(Exit(Ending.EXITED, 0, None, 1.0), [line])
    return failure_rules.classify(outcome, "somebody's", failure_rules.rules())


# ---- decisions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("again", "after_s", "tried", "left_s", "wait"),
    [
        (False, None, 1, 100, None),
        (True, None, 1, 100, 1),
        (True, None, 2, 100, 2),
        (True, None, 3, 100, 4),
        (True, None, 4, 100, None),
        (True, 30, 1, 100, 30),
        (True, 61, 1, 1000, None),
        (True, 30, 1, 20, None),
        (True, 0, 1, 100, 0),
    ],
)
def test_when_it_is_asked_again(
    again: bool,  # noqa: FBT001
    after_s: float | None,
    tried: int,
    left_s: float,
    wait: float | None,
) -> None:
    trouble = Trouble("api status 500", again=again, after_s=after_s)
    assert wait_s(trouble, tried, Limits(total_s=1000), left_s) == wait


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-7"}, 0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}, 60),
        ({"retry-after": "Thu, 01 Jan 2026 00:01:00 -0000"}, 60),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


@pytest.mark.parametrize("timeout_s", [1, 3, 10, 600, 86400])
def test_the_whole_ends_before_the_step(place: Place, timeout_s: int) -> None:
    request = place.request("http://127.0.0.1:1", timeout_s=timeout_s)
    document = json.loads(ANTHROPIC.command(request).stdin)
    total_s = program.read(document).limits.total_s
    assert timeout_s / 2 <= total_s < timeout_s
    assert math.isclose(program.read(document).limits.first_byte_s, 300)


# ---- the stream -------------------------------------------------------------------------------

STREAM = b'event: a\r\ndata: {"x":\r\ndata: 1}\r\n\r\n: ping\n\ndata:two\n\ndata: cut'


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_come_in_any_pieces(places: list[int]) -> None:
    cuts = [0, *sorted(places), len(STREAM)]
    events = Events()
    chunks = [STREAM[start:end] for start, end in pairwise(cuts)]
    heard = [data for chunk in chunks for data in events.feed(chunk)]
    assert heard == [b'{"x":\n1}', b"two"]


KEYS = (
    *("type", "delta", "text", "choices", "usage", "error", "message", "stop_reason", "refusal"),
    *("finish_reason", "content", "model", "input_tokens", "prompt_tokens_details"),
)
KINDS = ("message_start", "message_delta", "content_block_delta", "error")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(KINDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["type", "delta", "choices", "usage", "error"]), JSON))
def test_any_event_is_heard(event: dict[str, Any]) -> None:
    for wire in (MESSAGES, CHAT):
        answer = Answer()
        wire.hear(event, answer)
        assert all(isinstance(part, str) for part in answer.parts)
        assert all(count >= 0 for count in answer.usage.values())


# ---- the workspace as text --------------------------------------------------------------------


def test_the_workspace(place: Place) -> None:
    work = place.work
    (work / ".gitignore").write_text("ignored/\n")
    (work / "ignored").mkdir()
    (work / "ignored/x.txt").write_text("never")
    (work / "binary").write_bytes(b"\0\1")
    (work / "latin").write_bytes(b"caf\xe9")
    (work / "link").symlink_to("/etc/passwd")
    (work / "big.txt").write_text("y" * (surroundings.FILE_CHARS + 1))
    text = surroundings.workspace_text(work, "look at things")
    assert "binary (2 bytes)" in text
    assert "### hello.txt\n\n```\none\ntwo\n```" in text
    for absent in ("never", "root:", "### binary", "### latin", "### big.txt", "link ("):
        assert absent not in text
    assert "### big.txt" in surroundings.workspace_text(work, "shorten big.txt.")


def test_the_order_of_files() -> None:
    files = [Seen("a/big.py", 90), Seen("b.py", 10), Seen("README.md", 50), Seen("a/c.py", 99)]
    words = surroundings.path_words("fix (a/c.py), please")
    shown = [one.path for one in surroundings.sort_by_relevance(files, words)]
    assert shown == ["a/c.py", "README.md", "b.py", "a/big.py"]


def test_many_files(place: Place) -> None:
    for number in range(surroundings.LISTED_FILES + 10):
        (place.work / f"f{number:04}").write_text("z" * 200)
    text = surroundings.workspace_text(place.work, "")
    assert "[and 11 more files]" in text
    assert len(text) < 1.4 * (surroundings.SHOWN_CHARS + surroundings.LISTED_CHARS)


def test_a_directory_that_is_no_repository(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.txt").write_text("aaa")
    assert "sub/a.txt (3 bytes)" in surroundings.workspace_text(tmp_path, "")


def test_a_file_that_is_a_fence(place: Place) -> None:
    (place.work / "doc.md").write_text("```sh\nls\n```\n")
    assert "````\n```sh\nls\n```\n````" in surroundings.workspace_text(place.work, "")


# ---- somebody else's --------------------------------------------------------------------------

WIRE = """
from dataclasses import dataclass, replace
from typing import Any

@dataclass(frozen=True)
class Plain:
    path: str = "/v1/chat/completions"

    def headers(self, token):
        return {"x-mine": token}

    def body(self, question):
        return {"model": question.model, "stream": True}

    def hear(self, event, answer):
        for choice in event.get("choices", []):
            answer.add(choice["delta"].get("content") or "")
        answer.stop = "end_turn"

PLAIN = Plain()
"""


def test_somebody_elses_wire(place: Place, double: ModelDouble) -> None:
    """As the module's docstring says: a value, and a module of one's own."""
    directory = place.top / "mine"
    directory.mkdir()
    (directory / "my_wire.py").write_text(WIRE)
    agent = ApiAgent(
        name="mine",
        provider_name="mine",
        default_model="mine-1",
        wire="my_wire:PLAIN",
        paths=(directory,),
    )
    double.play([Turn("Mine.")])
    outcome = place.run(agent, double.url)
    assert (outcome.kind, outcome.report) == (OutcomeClass.SUCCESS, "Mine.")
    assert double.asked[0].headers["x-mine"] == "job-token-0123456789"
    assert directory in agent.capabilities.read_only


def test_the_example_of_the_documentation(place: Place, double: ModelDouble) -> None:
    from agentorch.agents.api import adapter  # noqa: PLC0415

    assert adapter.__doc__ is not None
    example = adapter.__doc__.partition("entry-point group:\n")[2].partition(
        "A protocol of its own"
    )[0]
    names: dict[str, Any] = {}
    exec(textwrap.dedent(example), names)
    outcome = place.run(names["AGENT"], double.url)
    assert (outcome.kind, outcome.model) == (OutcomeClass.SUCCESS, "mistral-large-latest")
