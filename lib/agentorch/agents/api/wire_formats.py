"""The providers' protocols: what is sent, and how an answer is read. Pure.

A wire is a value with the four members of Wire; a third party's stands in a module of its own, and
is named to `api.ApiAgent` as `module:attribute`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentorch.agents.json_lines import MAX_COUNT

ANTHROPIC_VERSION = "2023-06-01"
# Messages wants a limit; every model since Claude 4 may answer that long.
ANTHROPIC_MAX_TOKENS = 32_000

DONE = "done"
# Why an answer ended, in the words of `ends`, by the providers' own.
STOPS = {
    "end_turn": DONE,
    "stop": DONE,
    "stop_sequence": DONE,
    "max_tokens": "length",
    "length": "length",
    "model_context_window_exceeded": "context",
    "refusal": "refusal",
    "content_filter": "refusal",
    "tool_use": "tools",
    "tool_calls": "tools",
    "function_call": "tools",
    "pause_turn": "paused",
}


@dataclass(frozen=True)
class Question:
    """A question to a model. `options` are those of the step."""

    system: str
    text: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Answer:
    """The part of an answer that was read so far.
    `fault` an error that came instead of the rest: its kind and its message. `ended`: nothing
    follows. The token counts are those of `agents.protocol`.
    """

    parts: list[str] = field(default_factory=list)
    chars: int = 0
    usage: dict[str, int] = field(default_factory=dict)
    model: str | None = None
    stop: str | None = None
    ended: bool = False
    fault: tuple[str, str] | None = None

    @property
    def text(self) -> str:
        """The answer's text."""
        return "".join(self.parts)

    def add(self, text: str) -> None:
        """Take the next piece of the text."""
        self.parts.append(text)
        self.chars += len(text)


class Wire(Protocol):
    """A provider's protocol, streamed as server-sent events with JSON in each."""

    @property
    def path(self) -> str:
        """Return where a question goes, below the endpoint."""

    def headers(self, token: str) -> Mapping[str, str]:
        """Return the headers of a question beside the content type's."""

    def body(self, question: Question) -> Mapping[str, Any]:
        """Return the question as a JSON document."""

    def hear(self, event: Mapping[str, Any], answer: Answer) -> None:
        """Add an event to an answer. Whatever it does not know it passes over."""


# ---- the two that are built in ----------------------------------------------------------------


@dataclass(frozen=True)
class AnthropicMessages:
    """POST v1/messages. An effort asks for adaptive thinking, which Claude 4.6 brought."""

    path: str = "/v1/messages"

    def headers(self, token: str) -> Mapping[str, str]:
        return {"x-api-key": token, "anthropic-version": ANTHROPIC_VERSION}

    def body(self, question: Question) -> Mapping[str, Any]:
        options = question.options
        effort = options.get("effort")
        return {
            "model": question.model,
            "max_tokens": options.get("max_tokens", ANTHROPIC_MAX_TOKENS),
            "stream": True,
            "messages": [{"role": "user", "content": question.text}],
            **({"system": question.system} if question.system.strip() else {}),
            **_pick_options(options, "temperature"),
            **(
                {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}
                if effort
                else {}
            ),
        }

    def hear(self, event: Mapping[str, Any], answer: Answer) -> None:
        match event:
            case {"type": "content_block_delta", "delta": {"text": str(text)}}:
                answer.add(text)
            case {"type": "message_start", "message": {"model": str(model), "usage": usage}}:
                answer.model = model
                answer.usage.update(messages_usage(usage))
            case {"type": "message_delta", "delta": {"stop_reason": stop}}:
                answer.stop = stop if isinstance(stop, str) else answer.stop
                _update(answer.usage, messages_usage(event.get("usage")))
            case {"type": "message_stop"}:
                answer.ended = True
            case {"type": "error", "error": error}:
                answer.fault = fault(error)


@dataclass(frozen=True)
class ChatCompletions:
    """POST v1/chat/completions, which compatible servers speak too."""

    path: str = "/v1/chat/completions"

    def headers(self, token: str) -> Mapping[str, str]:
        return {"authorization": f"Bearer {token}"}

    def body(self, question: Question) -> Mapping[str, Any]:
        options = question.options
        system = [{"role": "system", "content": question.system}]
        limit = {"max_completion_tokens": options.get("max_tokens")}
        effort = {"reasoning_effort": options.get("effort")}
        return {
            "model": question.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [
                *(system if question.system.strip() else []),
                {"role": "user", "content": question.text},
            ],
            **_pick_options(options, "temperature"),
            **{key: value for key, value in (limit | effort).items() if value is not None},
        }

    def hear(self, event: Mapping[str, Any], answer: Answer) -> None:
        match event.get("model"):
            case str(model) if model:
                answer.model = model
        match event.get("choices"):
            case [dict(choice), *_]:
                _choice(choice, answer)
        if isinstance(event.get("usage"), dict):
            answer.usage.update(chat_usage(event["usage"]))
        if event.get("error"):
            answer.fault = fault(event["error"])


MESSAGES = AnthropicMessages()
CHAT = ChatCompletions()


def _choice(choice: Mapping[str, Any], answer: Answer) -> None:
    match choice.get("delta"):
        case {"content": str(text)}:
            answer.add(text)
        case {"refusal": str(_)}:
            answer.stop = "refusal"
    match choice.get("finish_reason"):
        case str(stop):
            answer.stop = answer.stop or stop


def _pick_options(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}


# ---- figures and errors -----------------------------------------------------------------------


def messages_usage(usage: object) -> dict[str, int]:
    """Tokens of Messages, whose input leaves out what was read from or written to the cache."""
    counted = usage if isinstance(usage, dict) else {}
    cached = _count(counted, "cache_read_input_tokens")
    written = _count(counted, "cache_creation_input_tokens")
    return _present(
        tokens_in=_count(counted, "input_tokens") + cached + written,
        tokens_out=_count(counted, "output_tokens"),
        tokens_cached=cached,
    )


def chat_usage(usage: Mapping[str, Any]) -> dict[str, int]:
    """Tokens of Chat Completions; their details are parts of the totals."""
    prompt = usage.get("prompt_tokens_details")
    completion = usage.get("completion_tokens_details")
    return _present(
        tokens_in=_count(usage, "prompt_tokens"),
        tokens_out=_count(usage, "completion_tokens"),
        tokens_cached=_count(prompt, "cached_tokens"),
        tokens_reasoning=_count(completion, "reasoning_tokens"),
    )


def fault(error: object) -> tuple[str, str]:
    """Return an error's kind and message, wherever a provider puts them."""
    if not isinstance(error, dict):
        return "error", error if isinstance(error, str) else ""
    kinds = [error.get(name) for name in ("type", "code", "status")]
    kind = " ".join(dict.fromkeys(one for one in kinds if isinstance(one, str) and one))
    return kind or "error", str(error.get("message") or error.get("detail") or "")


def _count(usage: object, key: str) -> int:
    value = usage.get(key) if isinstance(usage, dict) else None
    # JSON's true is an int to Python
    right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    return value if right and isinstance(value, int) else 0


def _present(**counts: int) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _update(usage: dict[str, int], later: Mapping[str, int]) -> None:
    """Update the figures of an answer: they grow while it is streamed, and may be missing at its
    start.
    """
    for name, count in later.items():
        usage[name] = max(count, usage.get(name, 0))
