"""The conversation that a job's steps share: what the next agent reads of the earlier ones.

A message is a mapping with `role` and `content`; other keys are kept. Under `summarize` the older
messages lie folded in one `system` message, a list with a line each, whose first line counts them:
so a fold can be folded again without losing what it was, and never grows past its limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agentorch.core.job import ContextStrategy

Message = Mapping[str, Any]
Messages = tuple[Message, ...]

MAX_ROLE_CHARS = 32
SLIDING_MESSAGES = 12
UNFOLDED_MESSAGES = 11
MAX_ITEM_CHARS = 140
MAX_FOLD_CHARS = 4000
MAX_FOLD_COUNT = 999_999_999_999

_FOLD = re.compile(r"Earlier conversation \(messages: ([1-9][0-9]{0,11})\):")


def start(window: Iterable[Message]) -> Messages:
    """Return the conversation that a job brings along: roles cut, messages without content
    dropped.
    """
    return tuple(_tidy(message) for message in window if _content(message))


def add_step(
    messages: Sequence[Message],
    strategy: ContextStrategy,
    prompt: str,
    *,
    step_id: str,
    agent: str,
    role: str,
    status: str,
    summary: str,
) -> Messages:
    """Return the conversation after a step ended, as its strategy keeps it."""
    line = f"step {step_id}, agent {agent}, role {role}: {status}"
    said = f"{line}: {_one_line(summary)}" if _one_line(summary) else line
    added = start([{"role": "user", "content": prompt}, {"role": "assistant", "content": said}])
    return trim((*messages, *added), strategy)


def add_comment(
    messages: Sequence[Message], strategy: ContextStrategy, what: str, comment: str
) -> Messages:
    """Return the conversation after a human decided; said twice in a row it stands there once."""
    said = f"A human decided ({what}) and says: {comment}"
    return _append(messages, strategy, {"role": "user", "content": said})


def add_answer(
    messages: Sequence[Message], strategy: ContextStrategy, question: str, answer: str
) -> Messages:
    """Return the conversation after a human answered an agent's question; the same for twice."""
    said = f"A human answers the question: {question}\n\nThe answer: {answer}"
    return _append(messages, strategy, {"role": "user", "content": said})


def _append(messages: Sequence[Message], strategy: ContextStrategy, last: Message) -> Messages:
    before = messages[:-1] if messages and messages[-1] == last else messages
    return trim((*before, last), strategy)


def trim(messages: Messages, strategy: ContextStrategy) -> Messages:
    """Return what a strategy keeps of a conversation; keeping it again changes nothing."""
    match strategy:
        case ContextStrategy.FULL:
            return messages
        case ContextStrategy.SLIDING:
            return messages[-SLIDING_MESSAGES:]
        case ContextStrategy.SUMMARIZE:
            return _fold(messages[:-UNFOLDED_MESSAGES], messages[-UNFOLDED_MESSAGES:])


def document(
    strategy: ContextStrategy, messages: Sequence[Message], updated_at: str
) -> dict[str, Any]:
    """Return what context.json says. `updated_at` is RFC 3339."""
    return {
        "strategy": strategy.value,
        "messages": [dict(message) for message in messages],
        "updated_at": updated_at,
    }


def _fold(old: Messages, recent: Messages) -> Messages:
    if not old or _is_whole_fold(old):
        return (*old, *recent)
    count = min(sum(_fold_count(message) or 1 for message in old), MAX_FOLD_COUNT)
    header = f"Earlier conversation (messages: {count}):"
    items = [item for message in old for item in _items(message)]
    lines = _latest(items, MAX_FOLD_CHARS - len(header))
    return ({"role": "system", "content": "\n".join([header, *lines])}, *recent)


def _is_whole_fold(old: Messages) -> bool:
    return len(old) == 1 and _fold_count(old[0]) > 0 and len(_content(old[0])) <= MAX_FOLD_CHARS


def _fold_count(message: Message) -> int:
    """Return how many messages a fold stands for; 0 where the message is none."""
    first_line = _content(message).partition("\n")[0]
    found = _FOLD.fullmatch(first_line) if message.get("role") == "system" else None
    return int(found[1]) if found else 0


def _items(message: Message) -> list[str]:
    if _fold_count(message):
        return [_cut(line, MAX_ITEM_CHARS) for line in _content(message).split("\n")[1:]]
    return [_cut(f"- {message['role']}: {_one_line(_content(message))}", MAX_ITEM_CHARS)]


def _latest(items: Sequence[str], limit: int) -> list[str]:
    """Return the last items whose lines fit into `limit` characters, newlines counted."""
    size = 0
    for number, item in enumerate(reversed(items)):
        size += len(item) + 1
        if size > limit:
            return list(items[len(items) - number :])
    return list(items)


def _tidy(message: Message) -> Message:
    role = _one_line(str(message.get("role", "")))[:MAX_ROLE_CHARS].rstrip() or "user"
    return {**message, "role": role, "content": _content(message)}


def _content(message: Message) -> str:
    content = message.get("content")
    return content if isinstance(content, str) and content.strip() else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
