"""The runs of OpenCode that are recorded: what the model says, and what else is otherwise."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentorch.scripted_model import Answer, Broken, Call, Fault, Hang, Turn

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
