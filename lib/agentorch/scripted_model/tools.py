"""Which of the tools that a request offers runs a command, and how it is called. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agentorch.scripted_model.script import Call

# What agents call their shell, in the order in which it is looked for.
SHELLS = ("bash", "shell", "shell_command", "exec_command", "execute_command", "run_command")
# Codex has models that call their tools from JavaScript, by this one.
SCRIPTING = "exec"


def command_call(request: Mapping[str, Any], command: str) -> Call | None:
    """Return the call that runs `command`; None where the request offers nothing that could."""
    offered = {str(tool.get("name", "")).lower(): tool for tool in _offered_tools(request)}
    if offered.get(SCRIPTING, {}).get("type") == "custom":
        source = f"text(await tools.exec_command({{cmd: {json.dumps(command)}}}));"
        return Call(SCRIPTING, {"input": source})
    tool = next((offered[shell] for shell in SHELLS if shell in offered), None)
    return None if tool is None else Call(tool["name"], _arguments(tool, command))


def _offered_tools(request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the tools, wherever the protocol has them: each with its name and its schema."""
    given = request.get("input")
    items = given if isinstance(given, list) else []
    later = [item for item in items if item.get("type") == "additional_tools"]
    for place in (request, *later):
        for tool in place.get("tools") or ():
            # a namespace holds tools
            yield from tool.get("tools") or [tool.get("function", tool)]


def _arguments(tool: Mapping[str, Any], command: str) -> dict[str, Any]:
    schema = tool.get("input_schema") or tool.get("parameters") or {}
    properties = schema.get("properties", {})
    more = {"description": "runs a command"} if "description" in properties else {}
    if "cmd" in properties:
        return {**more, "cmd": command}
    if properties.get("command", {}).get("type") == "array":
        return {**more, "command": ["sh", "-c", command]}
    return {**more, "command": command}
