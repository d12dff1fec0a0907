"""Kimi Code's adapter: its command line as a value, its ends as the real program printed them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentorch.agents import failure_rules
from agentorch.agents.base import Endpoint, Request
from agentorch.agents.kimi.adapter import AGENT, SAY, configuration, hook_text
from agentorch.agents.registry import load as load_registry
from agentorch.config.settings import load
from agentorch.core.errors import Refused
from agentorch.core.job import Outcome
from agentorch.core.process_end import Ending, Exit, Line
from agentorch.core.states import OutcomeClass
from tests.agents.record_kimi import CASES, CORPORA, DONE

BROKER = Endpoint("moonshot", "http://127.0.0.1:8080/moonshot", "job-token")
REQUEST = Request(
    job_id="0123456789abcdef",
    step_id="02_implement",
    attempt=1,
    agent="kimi",
    role="implementer",
    goal="Add a greeting",
    prompt="System.\n\nAdd a greeting.",
    script="Add a greeting.",
    work=Path("/w/work"),
    home=Path("/w/home"),
    artifacts=Path("/a"),
    endpoint=BROKER,
)
GOOD = Exit(Ending.EXITED, 0, None, 1.0)


def config(**changes: Any) -> dict[str, Any]:
    return tomllib.loads(configuration(replace(REQUEST, **changes), BROKER))


# ---- the command line -------------------------------------------------------------------------


def test_the_command_line() -> None:
    command = AGENT.command(REQUEST)
    assert command.argv == ("kimi", "--prompt", SAY, "--output-format", "stream-json")
    assert command.stdin == b""
    assert command.environment["AGENTORCH_TOKEN"] == "job-token"
    assert command.environment["KIMI_CODE_HOME"] == "/w/home/.kimi-code"
    assert "HTTPS_PROXY" not in command.environment
    prompt = command.files[".kimi-code/agentorch-prompt.md"]
    assert prompt == b"The workspace is /w/work.\n\nSystem.\n\nAdd a greeting."


def test_no_secret_is_in_a_file_or_an_argument() -> None:
    command = AGENT.command(REQUEST)
    for written in (*command.files.values(), *map(str.encode, command.argv)):
        assert b"job-token" not in written


def test_resumed() -> None:
    assert AGENT.command(replace(REQUEST, resume="session_1")).argv[-2:] == (
        *("--session", "session_1"),
    )


def test_other_hosts_by_the_proxy() -> None:
    endpoint = replace(BROKER, proxy_url="http://x:job-token@127.0.0.1:8080")
    environment = AGENT.command(replace(REQUEST, endpoint=endpoint)).environment
    assert environment["HTTPS_PROXY"] == endpoint.proxy_url
    assert "127.0.0.1" in environment["NO_PROXY"]


@pytest.mark.parametrize("endpoint", [None, replace(BROKER, login=True)])
def test_no_key_no_program(endpoint: Endpoint | None) -> None:
    with pytest.raises(Refused, match="needs a key"):
        AGENT.command(replace(REQUEST, endpoint=endpoint))


def test_configuration() -> None:
    found = config(model='odd "model"\x7f', options={"max_turns": 7, "effort": "high"})
    assert found["models"]["job"]["model"] == 'odd "model"\x7f'
    assert found["providers"]["job"]["base_url"] == "http://127.0.0.1:8080/moonshot/v1"
    assert found["loop_control"]["max_steps_per_turn"] == 7
    assert found["thinking"] == {"enabled": True, "effort": "high"}
    assert found["telemetry"] is False
    assert "thinking" not in config()
    assert config()["tools"]["enabled"] == [
        *("Read", "Grep", "Glob", "Edit", "Write", "Bash", "TodoList")
    ]


def test_a_home_with_odd_characters() -> None:
    found = config(home=Path('/w/it\'s "home"'))
    command = found["hooks"][0]["command"]
    assert command == """cat '/w/it'"'"'s "home"/.kimi-code/agentorch-prompt.md'"""


@pytest.mark.parametrize(
    ("tools", "reads_only", "offered"),
    [
        (("Bash", "Read"), False, ["Bash", "Read", "TodoList"]),
        (("Bash", "Read"), True, ["Read", "TodoList"]),
        (None, True, ["Read", "Grep", "Glob", "TodoList"]),
        ((), False, ["TodoList"]),
    ],
)
def test_tools(tools: tuple[str, ...] | None, reads_only: bool, offered: list[str]) -> None:  # noqa: FBT001
    assert config(tools=tools, reads_only=reads_only)["tools"]["enabled"] == offered


@given(st.text())
def test_any_prompt_is_told(prompt: str) -> None:
    asked = replace(REQUEST, prompt=prompt)
    assert hook_text(asked).startswith("The workspace is /w/work.\n")
    assert AGENT.command(asked).files


def test_registered(tmp_path: Path) -> None:
    assert load_registry(load({"AGENTORCH_STATE_DIR": str(tmp_path)})).get("kimi") is AGENT


# ---- ends -------------------------------------------------------------------------------------


def corpus(name: str) -> tuple[Exit, list[Line]]:
    document = json.loads((CORPORA / f"{name}.json").read_text("utf-8"))
    code = document["exit"]
    exit_ = (
        Exit(Ending.SIGNALLED, None, -code, 1.0)
        if code < 0
        else Exit(Ending.EXITED, code, None, 1.0)
    )
    printed = [Line(name, text) for name in ("stdout", "stderr") for text in document[name]]
    return exit_, printed


def ended(exit_: Exit, lines: list[Line]) -> Outcome:
    return failure_rules.classify(AGENT.outcome(exit_, iter(lines)), "kimi", failure_rules.rules())


K = OutcomeClass
ENDS = {
    "done": (K.SUCCESS, None),
    "edit": (K.SUCCESS, None),
    "outside": (K.SUCCESS, None),
    "unoffered": (K.SUCCESS, None),
    "command-fails": (K.SUCCESS, None),
    "silent": (K.PARSE_ERROR, "no_result"),
    "400": (K.AGENT_ERROR, "unclassified"),
    "401": (K.AUTH, "auth_failed"),
    "403": (K.AUTH, "auth_failed"),
    "402": (K.AUTH, "credit_empty"),
    "credit": (K.AUTH, "credit_empty"),
    "404-model": (K.POLICY, "model_unknown"),
    "413": (K.AGENT_ERROR, "context_too_long"),
    "429": (K.QUOTA, "rate_limited"),
    "429-recovered": (K.SUCCESS, None),
    "500": (K.INFRA, "provider_error"),
    "503": (K.INFRA, "overloaded"),
    "529": (K.INFRA, "overloaded"),
    "context": (K.AGENT_ERROR, "context_too_long"),
    "max-turns": (K.BUDGET, "max_turns"),
    "refused": (K.INFRA, "network_unreachable"),
    "dropped": (K.INFRA, "provider_error"),
    "dropped-once": (K.SUCCESS, None),
    "garbage": (K.PARSE_ERROR, "malformed_output"),
    "term": (K.AGENT_ERROR, "unclassified"),
    "int": (K.AGENT_ERROR, "unclassified"),
    "kill": (K.AGENT_ERROR, "agent_exit_nonzero"),
    "unknown-session": (K.AGENT_ERROR, "agent_exit_nonzero"),
    "bad-flag": (K.AGENT_ERROR, "unclassified"),
    "no-key": (K.AUTH, "auth_failed"),
}
# The broker's own words, and the rules for them.
REFUSALS = ("broker-quota", "broker-budget")


def test_every_corpus_has_an_end() -> None:
    assert {*ENDS, *REFUSALS} == set(CASES) == {path.stem for path in CORPORA.glob("*.json")}


@pytest.mark.parametrize("name", ENDS)
def test_ends(name: str) -> None:
    outcome = ended(*corpus(name))
    assert (outcome.kind, outcome.error) == ENDS[name], outcome
    assert "job-token" not in str(outcome)


@pytest.mark.parametrize("name", REFUSALS)
def test_the_brokers_words_are_not_the_providers(name: str) -> None:
    outcome = AGENT.outcome(*corpus(name))
    [line] = outcome.details["evidence"]
    assert line.startswith("agentorch: ")
    assert ended(*corpus(name)).error != "auth_failed"


def test_what_a_success_tells() -> None:
    outcome = ended(*corpus("edit"))
    assert outcome.summary == "The greeting is there."
    assert outcome.report == DONE.text
    assert outcome.metrics == {"turns": 3, "tool_calls": 2}
    assert outcome.files == ("hello.txt", "sub/b.txt")
    assert outcome.session_id == "session_00000000-0000-4000-8000-000000000000"


def test_files_outside_are_not_told() -> None:
    assert ended(*corpus("outside")).files == ()


def test_the_prompt_is_no_report() -> None:
    assert "The workspace is" not in ended(*corpus("dropped")).report


def test_stopped_with_what_it_said_so_far() -> None:
    _, lines = corpus("edit")
    outcome = ended(Exit(Ending.TIMEOUT, None, 15, 60.0), lines[:4])
    assert (outcome.kind, outcome.report) == (K.TIMEOUT, "I write it.")


def test_lingered() -> None:
    _, lines = corpus("done")
    assert [line for line in lines if AGENT.is_end(line)] == [lines[3]]
    assert ended(Exit(Ending.LINGERED, None, 9, 1.0), lines).kind is K.SUCCESS


def test_a_result_and_a_bad_exit() -> None:
    _, lines = corpus("done")
    outcome = ended(Exit(Ending.EXITED, 1, None, 1.0), lines)
    assert (outcome.kind, outcome.error) == (K.AGENT_ERROR, "agent_exit_nonzero")
    assert outcome.report == DONE.text


def test_no_end() -> None:
    _, lines = corpus("done")
    assert ended(GOOD, lines[:3]).error == "no_result"
    assert ended(GOOD, [*lines[:3], Line("stdout", '{"role":"me')]).error == "truncated_output"
    assert ended(GOOD, []).error == "no_result"


def cuts() -> Iterator[str]:
    yield from ("done", "edit", "429", "garbage", "max-turns")


@settings(max_examples=40)
@given(st.sampled_from([*cuts()]), st.data())
def test_output_cut_anywhere(name: str, data: st.DataObject) -> None:
    """A success needs the whole of its end."""
    _, lines = corpus(name)
    stdout = "\n".join(line.text for line in lines if line.stream == "stdout")
    kept = stdout[: data.draw(st.integers(0, len(stdout) - 1))]
    outcome = ended(GOOD, [Line("stdout", text) for text in kept.split("\n")])
    assert outcome.kind is K.PARSE_ERROR


@settings(max_examples=100)
@given(
    st.lists(
        st.text(max_size=20)
        | st.sampled_from(
            [
                '{"role":"assistant","content":null,"tool_calls":[{"function":null}, 3]}',
                '{"role":"assistant","content":["x"],"tool_calls":{}}',
                '{"role":"meta","type":"session.resume_hint","session_id":3}',
                '{"role":"assistant","tool_calls":[{"function":{"name":"Edit","arguments":"[]"}}]}',
                "[" * 5000,
            ]
        )
    ),
    st.sampled_from([GOOD, Exit(Ending.EXITED, 1, None, 1.0)]),
)
def test_any_output_has_an_outcome(texts: list[str], exit_: Exit) -> None:
    for stream in ("stdout", "stderr"):
        outcome = ended(exit_, [Line(stream, text) for text in texts])
        assert isinstance(outcome.kind, OutcomeClass)
        assert len(outcome.details.get("evidence", ())) <= 20
