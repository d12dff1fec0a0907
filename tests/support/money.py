"""Whole jobs of agents that cost money, with a model server of ours that says what it was asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from agentorch.core.times import moment_of
from agentorch.ledger import ledger
from agentorch.ledger.budgets import Caps, utc_day
from agentorch.ledger.money import SpendingBook
from agentorch.scripted_model import ModelDouble, Turn, Usage, playing
from tests.support.clock import Clock
from tests.support.installation import Installation

KEY = "sk-canary-" + "9f86d081884c7d659a2feaa0"
MODEL = "priced-1"
# A thousand dollars for a million tokens: a token of input costs a tenth of a cent.
PRICES = f"""
[[price]]
models = ["{MODEL}", "claude-priced*"]
input = 1000.0
output = 0.0
"""


def turn(tokens: int, text: str = "Done.") -> Turn:
    """An answer that costs a tenth of a cent a token."""
    return Turn(text, usage=Usage(input=tokens, output=0, cached=0))


def asks(**fields: Any) -> dict[str, Any]:
    """A step of an agent that asks a model once."""
    base = {"step_id": "one", "agent": "openai", "role": "reviewer", "prompt": "Do it."}
    times = {"max_retries": 0, "retry_backoff_sec": 0, "timeout_sec": 60}
    return {**base, **times, "model": MODEL, **fields}


def at(place: Installation, seconds: int) -> dict[str, str]:
    """The variables of a program whose clock goes so many seconds fast."""
    clock = Clock(place.top / f"clock-{seconds}").make()
    clock.put_off(seconds)
    return clock.variables()


def book(place: Installation, day: str | None = None) -> SpendingBook:
    """What the ledger has of a day; of that on which the first attempt ended, without a cap."""
    results = sorted(place.state.glob("artifacts/*/steps/*/attempts/*/result.json"))
    moments = [moment_of(json.loads(path.read_text())["finished_at"]) for path in results]
    return ledger.read_book(
        place.state / "state.db", Caps(), day or utc_day(min(moments)), min(moments)
    )


def places(place: Installation) -> dict[str, int]:
    """How many jobs lie in each state that has some."""
    found = {
        directory.name: len(list(directory.rglob("*.json")))
        for directory in (place.state / "queue").iterdir()
        if directory.name not in ("outbox", "incoming", "idempotency")
    }
    return {name: count for name, count in found.items() if count}


def attempts(place: Installation, job_id: str, step_id: str = "one") -> list[str]:
    """The numbers of a step's attempts."""
    directory = place.artifacts(job_id) / "steps" / step_id / "attempts"
    return sorted(path.name for path in directory.glob("*"))


@pytest.fixture
def double() -> Iterator[ModelDouble]:
    with playing([turn(10)]) as double:
        yield double


@pytest.fixture
def till(here: Installation, double: ModelDouble) -> Installation:
    """A place whose agents have a key and a price."""
    (here.top / "prices.toml").write_text(PRICES)
    more = {"ALLOWED_BINARIES": "python,sh,claude", "OPENAI_API_KEY": KEY}
    here.environment |= {**more, "OPENAI_BASE_URL": f"{double.url}/v1"}
    return here
