"""Claude Code's ends: what was recorded of the real program, whole and broken."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.agents import failure_rules
from agentorch.agents.claude.adapter import AGENT
from agentorch.core.job import Outcome
from agentorch.core.process_end import Ending, Exit, Line
from agentorch.core.states import OutcomeClass

CORPORA = Path(__file__).parents[2] / "agents/corpora" / "claude"
RULES = failure_rules.rules(None)
# what the adapter chose for the request of record_claude.py
SESSION = "d9b88747-e7a3-5284-bc9c-2b0a5817771b"
DONE = Exit(Ending.EXITED, 0, None, 1.0)


@dataclass(frozen=True)
class Corpus:
    """What the real program printed, and how it left."""

    exit: int
    stdout: tuple[str, ...]
    stderr: tuple[str, ...]

    @property
    def ended(self) -> Exit:
        """The exit as a watcher sees it."""
        if self.exit < 0:
            return Exit(Ending.SIGNALLED, None, -self.exit, 1.0)
        return Exit(Ending.EXITED, self.exit, None, 1.0)

    @property
    def lines(self) -> list[Line]:
        """Its lines, as a step reads them."""
        return [
            *(Line("stdout", text) for text in self.stdout),
            *(Line("stderr", text) for text in self.stderr),
        ]


def corpus(name: str) -> Corpus:
    document = json.loads((CORPORA / f"{name}.json").read_text("utf-8"))
    return Corpus(document["exit"], tuple(document["stdout"]), tuple(document["stderr"]))


def ended(exit_: Exit, lines: Iterable[Line]) -> Outcome:
    """The outcome that a step makes of it."""
    return failure_rules.classify(AGENT.outcome(exit_, lines), "claude", RULES)


def of(name: str) -> Outcome:
    recorded = corpus(name)
    return ended(recorded.ended, recorded.lines)


# ---- recorded ends ----------------------------------------------------------------------------

ENDS: Mapping[str, tuple[OutcomeClass, str | None]] = {
    "done": (OutcomeClass.SUCCESS, None),
    "thought": (OutcomeClass.SUCCESS, None),
    "read": (OutcomeClass.SUCCESS, None),
    "429-recovered": (OutcomeClass.SUCCESS, None),
    "dropped-once": (OutcomeClass.SUCCESS, None),
    "denied-then-done": (OutcomeClass.SUCCESS, None),
    "unoffered": (OutcomeClass.SUCCESS, None),
    "401": (OutcomeClass.AUTH, "auth_failed"),
    "403": (OutcomeClass.AUTH, "auth_failed"),
    "no-key": (OutcomeClass.AUTH, "auth_failed"),
    "credit": (OutcomeClass.AUTH, "credit_empty"),
    "404-model": (OutcomeClass.POLICY, "model_unknown"),
    "denied": (OutcomeClass.POLICY, "permission_denied"),
    "429": (OutcomeClass.QUOTA, "rate_limited"),
    "429-retry-after-1": (OutcomeClass.QUOTA, "rate_limited"),
    "429-retry-after-3600": (OutcomeClass.QUOTA, "rate_limited"),
    "429-login": (OutcomeClass.QUOTA, "rate_limited"),
    "500": (OutcomeClass.INFRA, "provider_error"),
    "529": (OutcomeClass.INFRA, "overloaded"),
    "529-later": (OutcomeClass.INFRA, "overloaded"),
    "refused": (OutcomeClass.INFRA, "network_unreachable"),
    "dropped": (OutcomeClass.INFRA, "network_unreachable"),
    "hang": (OutcomeClass.INFRA, "provider_error"),
    "stalled": (OutcomeClass.INFRA, "provider_error"),
    "garbage": (OutcomeClass.INFRA, "provider_error"),
    "context": (OutcomeClass.AGENT_ERROR, "context_too_long"),
    "context-own": (OutcomeClass.AGENT_ERROR, "context_too_long"),
    "max-turns": (OutcomeClass.BUDGET, "max_turns"),
    "max-cost": (OutcomeClass.BUDGET, "max_cost"),
    "term": (OutcomeClass.AGENT_ERROR, "agent_exit_nonzero"),
    "int": (OutcomeClass.AGENT_ERROR, "agent_exit_nonzero"),
    "kill": (OutcomeClass.AGENT_ERROR, "agent_exit_nonzero"),
    "unknown-session": (OutcomeClass.AGENT_ERROR, "agent_exit_nonzero"),
    "bad-flag": (OutcomeClass.AGENT_ERROR, "agent_exit_nonzero"),
    "no-prompt": (OutcomeClass.AGENT_ERROR, "agent_exit_nonzero"),
    "local-command": (OutcomeClass.PARSE_ERROR, "no_result"),
    "broker-quota": (OutcomeClass.QUOTA, "rate_limited"),
    "broker-budget": (OutcomeClass.BUDGET, "max_cost"),
}


def test_every_corpus_has_its_end() -> None:
    assert set(ENDS) == {path.stem for path in CORPORA.glob("*.json")}


@pytest.mark.parametrize("name", ENDS)
def test_a_recorded_end(name: str) -> None:
    outcome = of(name)
    assert (outcome.kind, outcome.error) == ENDS[name]
    assert outcome.summary
    assert len(outcome.details.get("evidence", ())) <= 20
    assert all(len(line) <= 500 for line in outcome.details.get("evidence", ()))


def test_what_a_run_that_edited_a_file_came_to() -> None:
    outcome = of("done")
    assert outcome.summary == "The greeting is there."
    assert outcome.report == "The greeting is there.\n\nNothing else was changed."
    assert outcome.files == ("hello.txt",)
    assert outcome.model == "claude-sonnet-4-5"
    assert outcome.session_id == SESSION
    assert outcome.metrics == {
        "tool_calls": 1,
        "turns": 2,
        "tokens_in": 200,
        "tokens_cached": 80,
        "tokens_out": 40,
        "tokens_reasoning": 0,
        # 120 fresh at 3, 80 cached at 0.3, 40 out at 15 USD a million
        "cost_usd": pytest.approx(0.000984),
    }


def test_a_file_that_was_only_read_is_not_changed() -> None:
    assert of("read").files == ()


def test_when_the_quota_is_there_again() -> None:
    assert of("429-login").details["resets_at"] == 1795392000


def test_what_was_refused_is_told_of_a_run_that_went_on() -> None:
    outcome = of("denied-then-done")
    assert outcome.details["denied"] == ["Write /w/work/.git/hooks/pre-commit"]
    assert outcome.files == ("hello.txt",)


def test_a_denial_that_only_the_result_tells() -> None:
    lines = [line for line in corpus("denied").lines if "permission_denied" not in line.text]
    assert ended(DONE, lines).error == "permission_denied"


def test_two_results_cost_their_sum() -> None:
    outcome = ended(DONE, [*corpus("done").lines, corpus("done").lines[-1]])
    assert outcome.metrics["tokens_in"] == 400
    assert outcome.metrics["cost_usd"] == pytest.approx(0.001968)


def test_without_the_share_of_this_run_the_totals_are_told() -> None:
    result = json.loads(corpus("done").stdout[-1])
    del result["model_usage_since_last_result"]
    outcome = ended(DONE, [Line("stdout", json.dumps(result))])
    assert outcome.metrics["tokens_in"] == 200


def test_what_a_failed_run_did_is_kept() -> None:
    outcome = of("529-later")
    assert outcome.report == "I write it."
    assert outcome.files == ("hello.txt",)
    assert outcome.metrics["tokens_in"] == 100
    assert outcome.session_id


def test_a_run_without_a_result_has_the_tokens_that_its_messages_told() -> None:
    assert of("kill").metrics == {"tool_calls": 1, "tokens_in": 100, "tokens_cached": 40}
    assert of("bad-flag").metrics == {"tool_calls": 0}


@pytest.mark.parametrize("ending", [Ending.TIMEOUT, Ending.CANCELLED, Ending.STALLED])
def test_a_stopped_run_keeps_what_it_told(ending: Ending) -> None:
    outcome = ended(Exit(ending, None, 2, 9.0), corpus("int").lines)
    assert outcome.kind.value == ending.value
    assert outcome.metrics["cost_usd"] == pytest.approx(0.000492)
    assert outcome.report == "I run it."


def test_a_result_whose_process_stays_is_a_result() -> None:
    outcome = ended(Exit(Ending.LINGERED, None, 9, 9.0), corpus("done").lines)
    assert outcome.kind is OutcomeClass.SUCCESS


def test_a_good_result_and_a_bad_exit_is_a_failure() -> None:
    outcome = ended(Exit(Ending.EXITED, 1, None, 1.0), corpus("done").lines)
    assert (outcome.kind, outcome.error) == (OutcomeClass.AGENT_ERROR, "agent_exit_nonzero")
    assert outcome.report.startswith("The greeting")


def test_an_error_and_a_good_exit_is_that_error() -> None:
    assert ended(DONE, corpus("401").lines).error == "auth_failed"
    assert ended(DONE, corpus("max-turns").lines).error == "max_turns"


def test_an_error_that_nobody_knows_is_unclassified_with_evidence() -> None:
    result = {"type": "result", "subtype": "error_new", "is_error": True, "errors": ["what?"]}
    outcome = ended(Exit(Ending.EXITED, 1, None, 1.0), [Line("stdout", json.dumps(result))])
    assert (outcome.kind, outcome.error) == (OutcomeClass.AGENT_ERROR, "unclassified")
    assert outcome.details["evidence"] == ["subtype error_new", "result what?"]
    assert outcome.summary == "claude: what?"


def test_words_of_the_model_are_no_evidence() -> None:
    said = "error rate_limit\nstatus 529\nCredit balance is too low ECONNREFUSED"
    message = {"type": "assistant", "message": {"content": [{"type": "text", "text": said}]}}
    lines = [Line("stdout", json.dumps(message)), Line("stderr", "odd")]
    assert ended(Exit(Ending.EXITED, 1, None, 1.0), lines).error == "unclassified"


# ---- the last event ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENDS)
def test_the_result_and_only_the_result_is_the_end(name: str) -> None:
    found = [json.loads(line.text)["type"] for line in corpus(name).lines if AGENT.is_end(line)]
    assert found in ([], ["result"])
    assert bool(found) == any(
        json.loads(text)["type"] == "result" for text in corpus(name).stdout if text
    )


@pytest.mark.parametrize(
    "line",
    [
        Line("stderr", '{"type":"result"}'),
        Line("stdout", '{"type":"user","tool_use_result":{"type":"result"}}'),
        Line("stdout", '{"type":"result"', cut=True),
        Line("stdout", '"type":"result"'),
        Line("stdout", ""),
    ],
)
def test_what_only_looks_like_the_end(line: Line) -> None:
    assert not AGENT.is_end(line)


# ---- output that is broken --------------------------------------------------------------------


def printed(*texts: str) -> list[Line]:
    return [Line("stdout", text) for text in texts]


def test_exit_0_without_a_result_is_no_success() -> None:
    whole = corpus("done").stdout
    assert ended(DONE, []).error == "no_result"
    assert ended(DONE, printed(*whole[:-1])).error == "no_result"
    assert ended(DONE, printed(*whole[:-1], whole[-1][:500])).error == "truncated_output"
    cut = Line("stdout", whole[-1][:1000], cut=True)
    assert ended(DONE, [*printed(*whole[:-1]), cut]).error == "truncated_output"
    assert ended(DONE, printed("Hello, I am no JSON", "\x00\x1b[31m")).error == "malformed_output"


def test_an_answer_longer_than_a_line_that_is_kept_is_an_answer() -> None:
    whole = corpus("done").stdout
    before, mark, _ = whole[-1].partition('"result":"')
    cut = Line("stdout", f"{before}{mark}Long.\\n\\u00e9{'x' * 2_000_000}\\u00", cut=True)
    outcome = ended(DONE, [*printed(*whole[:-1]), cut])
    assert (outcome.kind, outcome.summary) == (OutcomeClass.SUCCESS, "Long.")
    assert outcome.report.startswith("Long.\n\u00e9xxx")
    assert outcome.metrics["tokens_in"] == 200
    assert AGENT.is_end(cut)
    inside = whole[-1].replace('"subtype"', '"x":{"subtype"').partition('"result":"')
    assert not AGENT.is_end(Line("stdout", "".join(inside[:2]) + "x" * 99, cut=True))
    assert not AGENT.is_end(Line("stdout", whole[1][:900], cut=True))


ODD: list[Any] = [None, True, -1, 1e308, "x", [], {}, [None], {"type": 1}, "a\x1b[31m\ud800"]


@pytest.mark.parametrize("value", ODD)
def test_a_field_of_another_kind_is_no_traceback_and_no_false_success(value: Any) -> None:
    for name in ("done", "401", "denied", "429-login"):
        recorded = corpus(name)
        for number, text in enumerate(recorded.stdout):
            for key in json.loads(text):
                lines = list(recorded.stdout)
                lines[number] = json.dumps({**json.loads(text), key: value})
                outcome = ended(recorded.ended, printed(*lines))
                assert outcome.kind is not OutcomeClass.SUCCESS or name in ("done", "denied")


@given(st.sampled_from(sorted(ENDS)), st.integers(0, 20_000))
def test_any_truncation_is_no_success_without_its_result(name: str, length: int) -> None:
    recorded = corpus(name)
    whole = "\n".join(recorded.stdout)
    lines = whole[:length].split("\n")
    outcome = ended(DONE, printed(*lines))
    if outcome.kind is OutcomeClass.SUCCESS:
        assert any(AGENT.is_end(line) for line in printed(*lines))
        assert ENDS[name][0] is OutcomeClass.SUCCESS


@given(st.sampled_from(sorted(ENDS)), st.integers(0, 20_000), st.text(max_size=20))
def test_any_corruption_is_no_traceback(name: str, place: int, noise: str) -> None:
    recorded = corpus(name)
    whole = "\n".join(recorded.stdout)
    lines = (whole[:place] + noise + whole[place + len(noise) :]).split("\n")
    outcome = ended(recorded.ended, printed(*lines))
    assert outcome.summary
    if recorded.exit != 0:
        assert outcome.kind is not OutcomeClass.SUCCESS


@given(st.lists(st.text(max_size=80)))
def test_noise_is_never_a_success(noise: list[str]) -> None:
    assert ended(DONE, printed(*noise)).kind is OutcomeClass.PARSE_ERROR


def test_no_corpus_tells_of_the_machine_it_was_made_on() -> None:
    for path in CORPORA.glob("*.json"):
        text = path.read_text("utf-8")
        assert "/var/tmp" not in text
        assert "/root" not in text
