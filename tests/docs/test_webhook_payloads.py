"""The examples of what a webhook is sent are accepted at its door."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentorch.agents.registry import load as load_agents
from agentorch.config.settings import load
from agentorch.contracts import parse
from agentorch.contracts.accept import ServerRules, accept

ROOT = Path(__file__).parents[2]
PAYLOADS = sorted((ROOT / "examples/webhook_payloads").iterdir())
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SETTINGS = load({"AGENTORCH_ENV_FILE": "/dev/null"})


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: path.name)
def test_a_payload_is_accepted(path: Path) -> None:
    agents = load_agents(SETTINGS).abilities()
    door = ServerRules(agents, ("website",), source_type="webhook")
    job, _ = accept(parse.parse(path.read_bytes()), door, NOW)
    assert job.steps


def test_make_sends_one_that_any_server_takes() -> None:
    document = parse.parse((ROOT / "examples/webhook_payloads/simple.json").read_bytes())
    assert accept(document, ServerRules(load_agents(SETTINGS).abilities(), ()), NOW)
    assert "examples/webhook_payloads/simple.json" in (ROOT / "Makefile").read_text("utf-8")
