"""An agent that ends as its job's goal says, attempt by attempt: a third party's, by a manifest.

The goal is JSON, by step: a list of `WORD` or `WORD:ARGUMENT`; of more attempts than it has words
the last one counts. Each attempt writes a line into `story`, marks HOME, and ends:

    success | error | ask:QUESTION | quota | quota:RESETS_AT | budget:CODE | wait (for HOME/go)
"""

from __future__ import annotations

import json
import stat
import sys
import time
from pathlib import Path
from typing import Any

MANIFEST = """
command = ["{program}"]
needs_git = false
"""


def install(agents: Path) -> None:
    """Makes it the agent `wall` of an installation."""
    agents.mkdir(parents=True)
    program = agents / "wall"
    program.write_text(f"#!/usr/bin/python3\n{Path(__file__).read_text()}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    (agents / "wall.toml").write_text(MANIFEST.format(program=program))


def result(words: str) -> dict[str, Any]:
    """The line that it ends with."""
    word, _, argument = words.partition(":")
    if word == "success":
        return {"status": "success", "summary": "done"}
    if word == "ask":
        return {"status": "needs_human", "summary": "asks", "question": argument}
    error = {"code": "limit", "message": words, "class": "agent_error"}
    if word == "quota":
        error |= {"class": "quota"} | ({"resets_at": argument} if argument else {})
    if word == "budget":
        error |= {"class": "budget", "code": argument}
    return {"status": "failed", "summary": words, "error": error}


def main() -> None:
    request = json.loads(sys.stdin.read())
    step_id, home, number = request["step_id"], Path(request["home"]), request["attempt"]
    plan = json.loads(request["goal"])[step_id]
    with Path("story").open("a") as file:
        file.write(f"{step_id} {number}\n")
    (home / f"began-{step_id}").touch()
    words = plan[min(number, len(plan)) - 1]
    while words == "wait" and not (home / "go").exists():
        time.sleep(0.02)
    ended = result("success" if words == "wait" else words)
    sys.stdout.write(json.dumps({"type": "result", **ended}) + "\n")


if __name__ == "__main__":
    main()
