"""The conversation between steps: what is added, kept, folded."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.core.conversation import (
    MAX_FOLD_CHARS,
    MAX_ITEM_CHARS,
    Message,
    Messages,
    add_step,
    document,
    start,
    trim,
)
from agentorch.core.job import ContextStrategy

TEXTS = st.text(max_size=300)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": TEXTS, "content": TEXTS | st.just("word " * 80)}), max_size=60
)


def after(
    messages: Sequence[Message], strategy: ContextStrategy, summary: str = "made a plan"
) -> Messages:
    return add_step(
        messages,
        strategy,
        "Plan it.",
        step_id="01_plan",
        agent="opencode",
        role="planner",
        status="success",
        summary=summary,
    )


def messages(count: int) -> Messages:
    return start({"role": "user", "content": f"message {number}"} for number in range(count))


def test_a_step_adds_its_prompt_and_one_line() -> None:
    assert after((), ContextStrategy.FULL) == (
        {"role": "user", "content": "Plan it."},
        {
            "role": "assistant",
            "content": "step 01_plan, agent opencode, role planner: success: made a plan",
        },
    )


def test_the_line_stays_one_line() -> None:
    added = after((), ContextStrategy.FULL, "first\nsecond\u2028 third\n")
    assert added[1]["content"].endswith(": first second third")
    assert after((), ContextStrategy.FULL, " \n")[1]["content"].endswith(": success")


def test_roles_are_cut_and_empty_messages_dropped() -> None:
    window = [
        {"role": "r" * 33, "content": "a", "name": "kept"},
        {"role": "user", "content": ""},
        {"role": "user", "content": " \n"},
        {"role": "user"},
        {"content": "b"},
        {"role": "two\nlines", "content": "c"},
        {"role": " \t", "content": "d"},
        {"role": "r" * 31 + " cut behind a space", "content": "e"},
    ]
    assert start(window) == (
        {"role": "r" * 32, "content": "a", "name": "kept"},
        {"role": "user", "content": "b"},
        {"role": "two lines", "content": "c"},
        {"role": "user", "content": "d"},
        {"role": "r" * 31, "content": "e"},
    )


def test_full_keeps_all_and_sliding_the_last_12() -> None:
    assert len(after(messages(40), ContextStrategy.FULL)) == 42
    sliding = after(messages(40), ContextStrategy.SLIDING)
    assert len(sliding) == 12
    assert [message["content"] for message in sliding[:2]] == ["message 30", "message 31"]


@pytest.mark.parametrize(("count", "folded"), [(8, 0), (9, 0), (10, 1), (38, 29)])
def test_summarize_folds_all_but_the_last_11(count: int, folded: int) -> None:
    summarized = after(messages(count), ContextStrategy.SUMMARIZE)
    assert len(summarized) == min(count + 2, 12)
    if folded:
        lines = summarized[0]["content"].split("\n")
        assert summarized[0]["role"] == "system"
        assert lines[0] == f"Earlier conversation (messages: {folded}):"
        assert lines[1] == "- user: message 0"
        assert len(lines) == folded + 1


def test_a_fold_is_folded_again_and_still_counts_all() -> None:
    conversation = messages(10)
    for _ in range(500):
        conversation = after(conversation, ContextStrategy.SUMMARIZE, "s" * 500)
    fold = conversation[0]["content"]
    assert len(conversation) == 12
    assert fold.startswith("Earlier conversation (messages: 999):\n")
    assert len(fold) <= MAX_FOLD_CHARS
    assert fold.count("Earlier conversation") == 1


def test_an_absurd_count_and_an_overlong_fold_from_outside_stay_bounded() -> None:
    fold = f"Earlier conversation (messages: {'9' * 12}):\n" + "- user: x\n" * 4000
    folded = trim((*start([{"role": "system", "content": fold}]), *messages(11)), SUMMARIZE)
    again = after(folded, SUMMARIZE)
    assert len(folded[0]["content"]) <= MAX_FOLD_CHARS
    assert again[0]["content"].startswith(f"Earlier conversation (messages: {'9' * 12}):\n")
    assert again[0]["content"].count("Earlier conversation") == 1


SUMMARIZE = ContextStrategy.SUMMARIZE


@given(MESSAGES, st.sampled_from(ContextStrategy))
def test_keeping_twice_is_keeping_once(
    window: list[dict[str, str]], strategy: ContextStrategy
) -> None:
    once = trim(start(window), strategy)
    assert trim(once, strategy) == once
    assert start(once) == once


@given(MESSAGES)
def test_summarize_is_bounded(window: list[dict[str, str]]) -> None:
    summarized = trim(start(window), SUMMARIZE)
    assert len(summarized) <= 12
    if len(start(window)) > 11:
        content = summarized[0]["content"]
        assert len(content) <= MAX_FOLD_CHARS
        assert all(len(line) <= MAX_ITEM_CHARS for line in content.split("\n"))


@given(MESSAGES, st.lists(st.integers(1, 5), max_size=30))
def test_folding_step_by_step_is_folding_at_once(
    window: list[dict[str, str]], sizes: list[int]
) -> None:
    whole = start(window)
    grown: Messages = ()
    rest = whole
    for size in [*sizes, len(whole)]:
        grown, rest = trim((*grown, *rest[:size]), SUMMARIZE), rest[size:]
    assert grown == trim(whole, SUMMARIZE)


def test_the_document_on_disk() -> None:
    now = "2026-01-02T03:04:05Z"
    assert document(ContextStrategy.SLIDING, messages(1), now) == {
        "strategy": "sliding",
        "messages": [{"role": "user", "content": "message 0"}],
        "updated_at": now,
    }
