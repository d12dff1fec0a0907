"""The events of each vendor's program, as far as a run needs them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

VERSIONS = {
    "claude": "2.1.330 (Claude Code)",
    "codex": "codex-cli 0.169.0",
    "opencode": "1.18.33",
    "rg": "ripgrep 13.0.0",
}
SESSION = "11111111-2222-4333-8444-555555555555"


def line(event: dict[str, Any]) -> str:
    return json.dumps(event, separators=(",", ":"))


def begun(vendor: str) -> str:
    """A run begins; it has a session."""
    match vendor:
        case "claude":
            init = {"type": "system", "subtype": "init", "session_id": SESSION}
            return line({**init, "cwd": "/w", "model": "claude-sonnet-4-5", "tools": []})
        case "codex":
            return line({"type": "thread.started", "thread_id": SESSION})
        case _:
            return line({"type": "step_start", "sessionID": "ses_1", "part": {}})


def said(vendor: str, text: str) -> str:
    """The model says something."""
    match vendor:
        case "claude":
            content = [{"type": "text", "text": text}]
            message = {"id": "msg_1", "model": "claude-sonnet-4-5", "content": content}
            return line({"type": "assistant", "message": message, "parent_tool_use_id": None})
        case "codex":
            item = {"id": "item_1", "type": "agent_message", "text": text}
            return line({"type": "item.completed", "item": item})
        case _:
            part = {"type": "text", "text": text}
            return line({"type": "text", "timestamp": 1, "sessionID": "ses_1", "part": part})


def used_tool(vendor: str, output: str) -> str:
    """A command was run, and printed something."""
    match vendor:
        case "claude":
            content = [{"tool_use_id": "toolu_1", "type": "tool_result", "content": output}]
            return line({"type": "user", "message": {"role": "user", "content": content}})
        case "codex":
            item = {"id": "item_0", "type": "command_execution", "command": "cat big"}
            ended = {"aggregated_output": output, "exit_code": 0, "status": "completed"}
            return line({"type": "item.completed", "item": {**item, **ended}})
        case _:
            state = {"status": "completed", "input": {"command": "cat big"}, "output": output}
            part = {"tool": "bash", "state": state}
            return line({"type": "tool_use", "sessionID": "ses_1", "part": part})


def ended(vendor: str, text: str) -> str:
    """The event that ends a run which went well."""
    match vendor:
        case "claude":
            # in the program's own order: what follows a long answer is cut off with it
            first = {"duration_api_ms": 1, "session_id": SESSION, "is_error": False, "num_turns": 1}
            told = {"subtype": "success", "api_error_status": None, "result": text}
            return line({**first, **told, "type": "result"})
        case "codex":
            usage = {"input_tokens": 100, "cached_input_tokens": 40, "output_tokens": 20}
            return line({"type": "turn.completed", "usage": usage})
        case _:
            tokens = {"input": 60, "output": 20, "reasoning": 0, "cache": {"read": 40, "write": 0}}
            part = {"reason": "stop", "tokens": tokens, "cost": 0}
            return line({"type": "step_finish", "sessionID": "ses_1", "part": part})


def answered(vendor: str, text: str) -> Iterator[str]:
    """A whole run that went well."""
    yield begun(vendor)
    yield said(vendor, text)
    yield ended(vendor, text)
