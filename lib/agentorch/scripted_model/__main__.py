"""python -m agentorch.scripted_model FILE: plays a script on a port of loopback, until it is ended.

FILE is a JSON array of turns: {"text": …, "command": …, "before_s": …}. The first line printed is
the base URL.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from agentorch.scripted_model.script import Turn
from agentorch.scripted_model.server import ModelDouble


def main() -> None:
    """Serve."""
    turns = [Turn(**turn) for turn in json.loads(Path(sys.argv[1]).read_text("utf-8"))]
    double = ModelDouble(turns)
    print(double.url, flush=True)  # noqa: T201  (a program)
    double.serve()


if __name__ == "__main__":
    main()
