"""Codex's adapter: its command line as a value, and its ends as the real program printed them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentorch.agents import failure_rules
from agentorch.agents.base import Endpoint, Request
from agentorch.agents.codex import adapter
from agentorch.agents.codex.adapter import AGENT
from agentorch.core.abilities import TOOLS
from agentorch.core.errors import Refused
from agentorch.core.job import Outcome
from agentorch.core.process_end import Ending, Exit, Line
from agentorch.core.states import OutcomeClass
from tests.agents.record_codex import CASES, CORPORA, UNKNOWN_SESSION

BROKER = Endpoint("openai", "http://127.0.0.1:8080/openai", "job-token")
REQUEST = Request(
    job_id="0123456789abcdef",
    step_id="02_implement",
    attempt=1,
    agent="codex",
    role="implementer",
    goal="Add a greeting",
    prompt="System.\n\nAdd a greeting.",
    script="Add a greeting.",
    work=Path("/w/work"),
    home=Path("/w/home"),
    artifacts=Path("/a"),
    system="System.",
    body="Add a greeting.",
    endpoint=BROKER,
)
DONE = Exit(Ending.EXITED, 0, None, 1.0)
GONE = Exit(Ending.EXITED, 1, None, 1.0)


# ---- the command line -------------------------------------------------------------------------


def argv(**changes: Any) -> tuple[str, ...]:
    return AGENT.command(replace(REQUEST, **changes)).argv


def configured(words: Sequence[str]) -> dict[str, Any]:
    """What the --config words say, as TOML."""
    pairs = [words[place + 1] for place, word in enumerate(words) if word == "--config"]
    return tomllib.loads("\n".join(pairs))


def test_an_implementer_has_our_sandbox_only() -> None:
    words = argv(model="gpt-5.5", options={"effort": "high"})
    assert words[:7] == (
        *("codex", "exec", "--json", "--skip-git-repo-check"),
        *("--dangerously-bypass-approvals-and-sandbox", "--ignore-rules"),
        "--model",
    )
    assert words[7] == "gpt-5.5"
    assert words[-1] == "-"
    assert configured(words)["model_reasoning_effort"] == "high"


@pytest.mark.parametrize(
    "changes",
    [
        {"reads_only": True},
        {"reads_only": True, "tools": TOOLS},
        {"tools": ("Read", "Grep", "Glob")},
        {"tools": ("Read",)},
        {"tools": ()},
    ],
)
def test_a_step_that_reads_has_the_read_only_mode(changes: dict[str, Any]) -> None:
    command = AGENT.command(replace(REQUEST, **changes))
    settings_ = configured(command.argv)
    assert (settings_["sandbox_mode"], settings_["approval_policy"]) == ("read-only", "never")
    assert not {"--dangerously-bypass-approvals-and-sandbox", "--ignore-rules"} & set(command.argv)
    rules = command.files[".codex/rules/default.rules"].decode()
    assert 'prefix_rule(pattern=["cat"], decision="allow")\n' in rules
    assert (changes.get("tools") == ()) is ("shell_tool" in settings_["features"])


@pytest.mark.parametrize("tools", [("Bash",), ("Read", "Edit", "Write", "Bash"), None])
def test_the_shell_means_everything(tools: tuple[str, ...] | None) -> None:
    assert "--dangerously-bypass-approvals-and-sandbox" in argv(tools=tools)


@pytest.mark.parametrize("tools", [("Edit",), ("Read", "Grep", "Write")])
def test_what_can_t_be_enforced_is_refused(tools: tuple[str, ...]) -> None:
    with pytest.raises(Refused, match="add 'Bash'"):
        argv(tools=tools)


def test_no_endpoint() -> None:
    with pytest.raises(Refused):
        argv(endpoint=None)


def test_the_provider_is_the_endpoint() -> None:
    settings_ = configured(argv())
    assert settings_["model_provider"] == "agentorch"
    assert settings_["model_providers"]["agentorch"] == {
        "name": "agentorch",
        "base_url": "http://127.0.0.1:8080/openai/v1",
        "env_key": adapter.TOKEN,
        "wire_api": "responses",
        **adapter.TRIES,
    }
    assert settings_["shell_environment_policy"] == {"inherit": "all", "exclude": [adapter.TOKEN]}


def test_with_a_login_there_is_neither_url_nor_key() -> None:
    proxy = "http://x:job-token@127.0.0.1:8080"
    endpoint = replace(BROKER, login=True, proxy_url=proxy)
    command = AGENT.command(replace(REQUEST, endpoint=endpoint))
    told = configured(command.argv)["model_providers"]["agentorch"]
    assert (told["requires_openai_auth"], told["supports_websockets"]) == (True, False)
    assert not {"base_url", "env_key"} & set(told)
    assert command.environment == {
        "CODEX_HOME": "/w/home/.codex",
        "TZ": "UTC",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "HTTPS_PROXY": proxy,
        "https_proxy": proxy,
    }


def test_variables() -> None:
    proxy = "http://x:job-token@127.0.0.1:8080"
    found = adapter.environment(REQUEST, replace(BROKER, proxy_url=proxy))
    assert found == {
        "CODEX_HOME": "/w/home/.codex",
        "TZ": "UTC",
        adapter.TOKEN: "job-token",
        "HTTPS_PROXY": proxy,
        "https_proxy": proxy,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


@pytest.mark.parametrize("home", ["/tmp/x/home", "/var/tmp/x/home"])
def test_its_home_is_never_below_the_temporary_directory(home: str) -> None:
    request = replace(REQUEST, home=Path(home))
    assert adapter.environment(request, BROKER)["TMPDIR"] == f"{home}/tmp"
    assert "tmp/.keep" in adapter.files(request)


def test_neither_prompt_nor_token_is_on_the_command_line() -> None:
    secret = replace(REQUEST, system="S3CRET", body="T4SK", prompt="S3CRET T4SK")
    command = AGENT.command(secret)
    assert not [word for word in command.argv if "S3CRET" in word or "T4SK" in word]
    assert not [word for word in command.argv if "job-token" in word]
    assert command.stdin == b"T4SK"
    assert tomllib.loads(command.files[".codex/config.toml"].decode()) == {
        "developer_instructions": "S3CRET",
        "projects": {"/w/work": {"trust_level": "untrusted"}},
    }


def test_without_parts_the_whole_prompt_is_read() -> None:
    command = AGENT.command(replace(REQUEST, system="", body="", prompt="all \ud800"))
    assert command.stdin == b"all ?"
    assert b"developer_instructions" not in command.files[".codex/config.toml"]


def test_a_reader_is_told_what_runs() -> None:
    read = adapter.config(replace(REQUEST, reads_only=True))
    words = tomllib.loads(read)["developer_instructions"]
    assert words.startswith("System.\n\nThe workspace is read-only.")
    assert "sed -n, git status" in words


@given(st.text())
def test_any_text_is_a_string_of_toml(text: str) -> None:
    assert tomllib.loads(f"x = {adapter.toml_string(text)}") == {"x": text}


def test_resume_names_the_session_and_keeps_the_settings() -> None:
    words = argv(resume=UNKNOWN_SESSION)
    assert words[:4] == ("codex", "exec", "resume", "--json")
    assert words[-2:] == (UNKNOWN_SESSION, "-")
    assert "--dangerously-bypass-approvals-and-sandbox" in words


def test_what_it_takes() -> None:
    abilities = AGENT.capabilities.abilities
    assert all(map(abilities.takes_model, ("gpt-5.5", "codex-mini-latest", "o4-mini")))
    assert not abilities.takes_model("claude-sonnet-4-5")
    assert set(abilities.options) == {"effort", "max_cost_usd", "resume"}
    assert AGENT.provider("gpt-5.5") == AGENT.capabilities.provider == "openai"


# ---- ends -------------------------------------------------------------------------------------


def corpus(name: str) -> tuple[Exit, list[Line]]:
    """How a recorded run ended, and its lines."""
    recorded = json.loads((CORPORA / f"{name}.json").read_text("utf-8"))
    code = recorded["exit"]
    ended = Exit(Ending.SIGNALLED, None, -code, 1.0) if code < 0 else replace(DONE, code=code)
    streams = ("stderr", "stdout")
    return ended, [Line(stream, text) for stream in streams for text in recorded[stream]]


def came_to(exit_: Exit, lines: Sequence[Line]) -> Outcome:
    """The outcome as the step has it: the adapter's, classified."""
    return failure_rules.classify(AGENT.outcome(exit_, iter(lines)), "codex", failure_rules.rules())


SUCCESS = (OutcomeClass.SUCCESS, None)
AUTH = (OutcomeClass.AUTH, "auth_failed")
CREDIT = (OutcomeClass.AUTH, "credit_empty")
QUOTA = (OutcomeClass.QUOTA, "rate_limited")
OVERLOADED = (OutcomeClass.INFRA, "overloaded")
PROVIDER = (OutcomeClass.INFRA, "provider_error")
NETWORK = (OutcomeClass.INFRA, "network_unreachable")
SANDBOX = (OutcomeClass.INFRA, "sandbox_broken")
FORBIDDEN = (OutcomeClass.POLICY, "permission_denied")
NO_MODEL = (OutcomeClass.POLICY, "model_unknown")
CONTEXT = (OutcomeClass.AGENT_ERROR, "context_too_long")
NONZERO = (OutcomeClass.AGENT_ERROR, "agent_exit_nonzero")
UNCLASSIFIED = (OutcomeClass.AGENT_ERROR, "unclassified")
NO_RESULT = (OutcomeClass.PARSE_ERROR, "no_result")

ENDS = {
    **dict.fromkeys(("done", "moved", "patch-fails", "scripted", "thought", "resumed"), SUCCESS),
    **dict.fromkeys(("read", "read-refused", "unknown-model-metadata", "unknown-tool"), SUCCESS),
    **dict.fromkeys(("429-recovered", "500-recovered", "dropped-once", "sandbox-partly"), SUCCESS),
    "sandbox-broken": SANDBOX,
    "no-answer": NO_RESULT,
    "401": AUTH,
    "403": FORBIDDEN,
    "404-model": NO_MODEL,
    "400": UNCLASSIFIED,
    "400-prompt": UNCLASSIFIED,
    "context": CONTEXT,
    "context-400": CONTEXT,
    "credit": CREDIT,
    "credit-later": CREDIT,
    "usage-limit": QUOTA,
    "plan": CREDIT,
    "429": QUOTA,
    "429-retry-after-1": QUOTA,
    "429-stream": QUOTA,
    "500": OVERLOADED,
    "502": PROVIDER,
    "503": OVERLOADED,
    "503-plain": OVERLOADED,
    "500-later": OVERLOADED,
    "refused": NETWORK,
    "hang": NONZERO,
    "stalled": PROVIDER,
    "dropped": PROVIDER,
    "garbage": PROVIDER,
    "term": NONZERO,
    "int": UNCLASSIFIED,
    "kill": NONZERO,
    "unknown-session": NONZERO,
    "bad-flag": NONZERO,
    "bad-setting": NONZERO,
    "no-prompt": NONZERO,
    "no-key": AUTH,
    "broker-quota": QUOTA,
    "broker-budget": (OutcomeClass.BUDGET, "max_cost"),
    "broker-auth": AUTH,
}
NAMES = sorted(ENDS)


def test_every_case_has_a_corpus_and_an_end() -> None:
    assert {path.stem for path in CORPORA.iterdir()} == set(CASES) == set(NAMES)


@pytest.mark.parametrize("name", ENDS)
def test_ends(name: str) -> None:
    outcome = came_to(*corpus(name))
    assert (outcome.kind, outcome.error) == ENDS[name], outcome
    assert outcome.summary


def test_a_run_in_full() -> None:
    outcome = came_to(*corpus("done"))
    assert outcome.report == "The greeting is there.\n\nNothing else was changed."
    assert outcome.summary == "The greeting is there. Nothing else was changed."
    assert outcome.session_id == UNKNOWN_SESSION
    assert outcome.files == ("/job/work/a b.txt", "/job/work/first.txt")
    assert outcome.metrics == {
        "tokens_in": 400,
        "tokens_cached": 160,
        "tokens_out": 80,
        "tokens_reasoning": 0,
        "turns": 1,
        "tool_calls": 3,
    }


def test_a_resumed_session_counts_from_its_beginning() -> None:
    first, second = (came_to(*corpus(name)).metrics for name in ("thought", "resumed"))
    assert (first["tokens_in"], second["tokens_in"]) == (100, 200)
    assert (first["tokens_reasoning"], second["tokens_reasoning"]) == (30, 30)


def test_what_was_heard_is_kept_with_a_failure() -> None:
    outcome = came_to(*corpus("500-later"))
    assert (outcome.session_id, outcome.metrics["tool_calls"]) == (UNKNOWN_SESSION, 1)


def test_when_a_limit_ends() -> None:
    assert came_to(*corpus("usage-limit")).details["resets_at"] == 4102448400
    assert came_to(*corpus("429-stream")).details["retry_after_s"] == 1


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (Ending.TIMEOUT, OutcomeClass.TIMEOUT),
        (Ending.STALLED, OutcomeClass.STALLED),
        (Ending.SILENT, OutcomeClass.STALLED),
        (Ending.CANCELLED, OutcomeClass.CANCELLED),
    ],
)
def test_what_was_heard_is_kept_with_a_stop_from_outside(
    ending: Ending, kind: OutcomeClass
) -> None:
    _, lines = corpus("term")
    outcome = came_to(Exit(ending, None, 15, 60.0), lines)
    assert (outcome.kind, outcome.session_id) == (kind, UNKNOWN_SESSION)


def test_one_that_said_it_was_done_and_stayed() -> None:
    _, lines = corpus("done")
    assert came_to(Exit(Ending.LINGERED, None, 15, 9.0), lines).kind is OutcomeClass.SUCCESS


def test_a_good_result_and_exit_1_is_a_failure() -> None:
    _, lines = corpus("done")
    outcome = came_to(GONE, lines)
    assert (outcome.kind, outcome.error) == NONZERO
    assert outcome.report


def test_exit_0_with_an_error_is_a_failure() -> None:
    _, lines = corpus("401")
    outcome = came_to(DONE, lines)
    assert (outcome.kind, outcome.error) == AUTH


@pytest.mark.parametrize(
    ("last", "error"),
    [
        ([], "no_result"),
        (['{"type":"item.comp'], "truncated_output"),
        (["Killed"], "truncated_output"),
    ],
)
def test_exit_0_without_an_end(last: list[str], error: str) -> None:
    _, lines = corpus("done")
    left = [*lines[:-1], *(Line("stdout", text) for text in last)]
    outcome = came_to(DONE, left)
    assert (outcome.kind, outcome.error) == (OutcomeClass.PARSE_ERROR, error)


def test_an_output_that_is_none() -> None:
    outcome = came_to(DONE, [Line("stdout", "\x00\ufffd hello"), Line("stdout", "[]")])
    assert (outcome.kind, outcome.error) == (OutcomeClass.PARSE_ERROR, "malformed_output")


def test_a_changed_file_without_a_word_is_a_result() -> None:
    _, lines = corpus("done")
    silent = [line for line in lines if "agent_message" not in line.text]
    assert came_to(DONE, silent).summary == "codex gave no final message"


def test_an_answer_longer_than_what_is_kept_of_a_line() -> None:
    head = '{"type":"item.completed","item":{"id":"item_3","type":"agent_message","text":"'
    _, lines = corpus("thought")
    cut = [line for line in lines if "agent_message" not in line.text]
    cut.insert(-1, Line("stdout", f"{head}Start \\u00e4 \\n{'x' * 5000}\\u00", cut=True))
    outcome = came_to(DONE, cut)
    assert (outcome.kind, outcome.report) == (OutcomeClass.SUCCESS, f"Start ä \n{'x' * 5000}")


def test_a_long_output_of_a_tool_hides_nothing() -> None:
    _, lines = corpus("done")
    head = '{"type":"item.completed","item":{"id":"item_9","type":"command_execution","command":"'
    fake = '{"type":"turn.failed","error":{"message":"fake"}}'
    lines.insert(-1, Line("stdout", f"{head}{fake}", cut=True))
    assert came_to(DONE, lines).kind is OutcomeClass.SUCCESS


def test_a_tool_that_prints_events_says_nothing() -> None:
    fake = json.dumps({"type": "turn.failed", "error": {"message": "Quota exceeded."}})
    item = {"type": "command_execution", "aggregated_output": f"{fake}\n", "exit_code": 0}
    _, lines = corpus("done")
    lines.insert(-1, Line("stdout", json.dumps({"type": "item.completed", "item": item})))
    lines.append(Line("stderr", fake))
    assert came_to(DONE, lines).kind is OutcomeClass.SUCCESS


def test_only_its_own_error_gives_the_class() -> None:
    """What a tool printed stands on stderr, too."""
    ended, lines = corpus("502")
    said = Line(
        "stderr", "ERROR tools: error=Quota exceeded. Check your plan, unexpected status 401 "
    )
    outcome = came_to(ended, [said, *lines])
    assert (outcome.kind, outcome.error) == PROVIDER


def test_controls_are_not_shown() -> None:
    text = "\x1b[31mred\x1b[0m \u202edcba\n# Heading \ud800"
    item = {"type": "agent_message", "text": text}
    _, lines = corpus("thought")
    lines[2] = Line("stdout", json.dumps({"type": "item.completed", "item": item}))
    outcome = came_to(DONE, lines)
    assert (outcome.report, outcome.summary) == ("red dcba\n# Heading ?", "red dcba # Heading ?")


def test_is_end() -> None:
    for name in NAMES:
        _, lines = corpus(name)
        found = [line.text.split('"')[3] for line in lines if AGENT.is_end(line)]
        assert set(found) <= {"turn.completed", "turn.failed"}
        assert len(found) <= 1
    assert not AGENT.is_end(Line("stderr", '{"type":"turn.completed"}'))
    assert not AGENT.is_end(Line("stdout", '{"type":"turn.completed"'))


# ---- any output -------------------------------------------------------------------------------


@cache
def texts_of(name: str) -> str:
    return "\n".join(line.text for line in corpus(name)[1] if line.stream == "stdout")


def fed(text: str) -> Iterator[Line]:
    return (Line("stdout", line) for line in text.split("\n"))


def completed(text: str) -> bool:
    """Whether a whole line says that the turn is over."""
    for line in text.split("\n"):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("type") == "turn.completed":
            return True
    return False


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_a_truncated_output_is_no_success(name: str, data: st.DataObject) -> None:
    text = texts_of(name)
    left = text[: data.draw(st.integers(0, len(text)))]
    outcome = came_to(DONE, list(fed(left)))
    assert completed(left) or outcome.kind is not OutcomeClass.SUCCESS


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_a_spoilt_output_is_read(name: str, data: st.DataObject) -> None:
    text = list(texts_of(name))
    for _ in range(data.draw(st.integers(1, 5))):
        if text:
            text[data.draw(st.integers(0, len(text) - 1))] = data.draw(
                st.sampled_from('"{}[]:,\\\n0x\x00\ufffd') | st.characters()
            )
    spoilt = "".join(text)
    outcome = came_to(DONE, list(fed(spoilt)))
    assert completed(spoilt) or outcome.kind is not OutcomeClass.SUCCESS
    assert "\n" not in outcome.summary


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=3,
)
KINDS = ("thread.started", "turn.started", "turn.completed", "turn.failed", "error")
ITEMS = ("agent_message", "command_execution", "file_change", "reasoning", "x")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from((*KINDS, "item.started", "item.completed")) | JSON},
            optional={
                "thread_id": JSON,
                "usage": JSON
                | st.fixed_dictionaries({"input_tokens": JSON, "output_tokens": JSON}),
                "error": JSON | st.fixed_dictionaries({"message": JSON}),
                "message": JSON,
                "item": JSON
                | st.fixed_dictionaries(
                    {"type": st.sampled_from(ITEMS) | JSON},
                    optional={
                        "text": JSON,
                        "aggregated_output": JSON,
                        "exit_code": JSON,
                        "status": st.just("completed") | JSON,
                        "changes": JSON | st.lists(st.fixed_dictionaries({"path": JSON})),
                    },
                ),
            },
        ),
        max_size=6,
    ),
    st.sampled_from([DONE, GONE]),
)
def test_events_of_any_shape_are_read(events: list[object], exit_: Exit) -> None:
    outcome = came_to(exit_, [Line("stdout", json.dumps(event)) for event in events])
    assert all(amount >= 0 for amount in outcome.metrics.values())
    json.dumps([outcome.details, outcome.metrics, outcome.files, outcome.report])
