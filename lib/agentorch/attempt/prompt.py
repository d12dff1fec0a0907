"""The prompt: the system prompt, the task, the conversation, the input artifacts.

    SYSTEM PROMPT                               only where the agent has one; without it there
    ## Task                                     is no such heading, and the task comes first
    TASK
    ## Conversation context (STRATEGY)
    ### 1. ROLE
    CONTENT
    ## Input artifacts
    === BEGIN ARTIFACT: PATH ===
    TEXT
    === END ARTIFACT ===
    [artifacts_truncated_or_limited]            where anything was cut or left out

An artifact is written by an agent and may say anything, but it can't end its frame: a line of it,
or of a message, that starts like a BEGIN or END line gets one space before it. That space counts
as a character of the artifact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from agentorch.core.conversation import Message
from agentorch.core.job import ContextStrategy

Problem = Literal["missing", "invalid_path"]

NOTICE = "[artifacts_truncated_or_limited]"
TRUNCATED_BY_FILE = "[truncated:file_limit]"
TRUNCATED_BY_TOTAL = "[truncated:total_limit]"

# Whatever a reader may take for the start of a line.
_FRAME_LINE = re.compile(
    r"(?:^|(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]))(?====[ \t]*(?:BEGIN|END)[ \t]+ARTIFACT)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Limits:
    """The share of the input artifacts that goes into a prompt; 0 is none."""

    files: int = 10
    file_chars: int = 12000
    total_chars: int = 40000


@dataclass(frozen=True)
class Artifact:
    """An input artifact as it was read. `text` is None exactly where there is a problem.

    A reader may stop after Limits.file_chars + 1 characters: no more of them are looked at.
    """

    path: str
    text: str | None
    problem: Problem | None = None


@dataclass(frozen=True)
class Parts:
    """The parts of a prompt.

    `artifacts` are those of `wanted` and read one by one, as they are needed; `left_out` says how
    many more the step asked for.
    """

    task: str
    system: str | None = None
    strategy: ContextStrategy = ContextStrategy.SLIDING
    messages: Sequence[Message] = ()
    artifacts: Iterable[Artifact] = ()
    left_out: int = 0
    limits: Limits = Limits()


def readable_inputs(paths: Sequence[str], limits: Limits) -> tuple[str, ...]:
    """Return those of a step's input artifacts that are read at all."""
    return tuple(paths[: limits.files])


def compose(parts: Parts) -> str:
    """Return the prompt. Ends with exactly one newline."""
    sections = (parts.task, *_conversation(parts), *_artifacts(parts))
    body = "\n\n".join(section.strip("\n") for section in sections)
    return with_system(parts.system or "", body)


def with_system(system: str, body: str) -> str:
    """Return a prompt that was composed without a system prompt, with one; a blank one is none.

    Ends with exactly one newline.
    """
    stripped = system.strip("\n")
    whole = f"{stripped}\n\n## Task\n\n{body}" if system.strip() else body
    return whole.rstrip("\n") + "\n"


def _conversation(parts: Parts) -> Iterator[str]:
    if not parts.messages:
        return
    yield f"## Conversation context ({parts.strategy.value})"
    for number, message in enumerate(parts.messages, 1):
        role = _printable(str(message.get("role", "user")))
        content = unforgeable(str(message.get("content", ""))).strip("\n")
        yield f"### {number}. {role}\n{content}"


def _artifacts(parts: Parts) -> Iterator[str]:
    frames = []
    left = parts.limits.total_chars
    cut = parts.left_out > 0
    for artifact in parts.artifacts:
        body, marker = _body(artifact, parts.limits.file_chars, left)
        left -= len(body)
        cut = cut or (marker is not None and artifact.problem is None)
        frames.append(_frame(artifact.path, body, marker))
    if frames or cut:
        yield "## Input artifacts"
    yield from frames
    if cut:
        yield NOTICE


def _body(artifact: Artifact, file_chars: int, left: int) -> tuple[str, str | None]:
    """Return what is shown of an artifact, and the marker where that isn't all of it."""
    if artifact.problem is not None:
        return "", f"[{artifact.problem}]"
    text = unforgeable((artifact.text or "")[: file_chars + 1])
    if len(text) > left and left < max(file_chars, 1):
        return text[:left], TRUNCATED_BY_TOTAL
    if len(text) > file_chars:
        return text[:file_chars], TRUNCATED_BY_FILE
    return text, None


def _frame(path: str, body: str, marker: str | None) -> str:
    lines = [f"=== BEGIN ARTIFACT: {_printable(path)} ==="]
    if body:
        lines.append(body.removesuffix("\n"))
    if marker is not None:
        lines.append(marker)
    return "\n".join([*lines, "=== END ARTIFACT ==="])


def unforgeable(text: str) -> str:
    """Text in which no line is a BEGIN or END line of an artifact's frame."""
    return _FRAME_LINE.sub(" ", text)


def _printable(word: str) -> str:
    """Return a word that stays on its line, control characters spelled out."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in word)
