"""The examples of configuration and of agents: each is read by what reads the real one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentorch.agents import failure_rules, manifest
from agentorch.agents.registry import load as load_agents
from agentorch.broker import prices, providers
from agentorch.broker.keys import Keys
from agentorch.broker.usage_meter import Usage
from agentorch.broker.wire_formats import Wire
from agentorch.config.prompt_files import system_prompt
from agentorch.config.settings import Settings, load
from agentorch.contracts import parse
from agentorch.contracts.accept import ServerRules, accept
from agentorch.core.abilities import Abilities
from agentorch.core.errors import Misconfigured
from agentorch.core.job import Outcome
from agentorch.core.states import OutcomeClass

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "examples/configuration"
MISTRAL = ROOT / "examples/agents/mistral"
SETTINGS: Settings = load(
    {"AGENTORCH_ENV_FILE": "/dev/null", "AGENTORCH_CONFIG_DIR": str(CONFIGURATION)}
)


def test_every_file_has_a_test() -> None:
    found = {path.relative_to(CONFIGURATION) for path in CONFIGURATION.rglob("*") if path.is_file()}
    names = ("agentorch.env", "providers.toml", "prices.toml", "keys.env", "ends.d/example.toml")
    assert found == {Path(name) for name in (*names, "prompts/reviewer.md")}


# ---- configuration ----------------------------------------------------------------------------


def test_providers() -> None:
    found = providers.load(SETTINGS.providers, {})
    assert set(found) == {"anthropic", "openai", "moonshot", "mistral"}
    assert found["mistral"].credentials("k") == {"Authorization": "Bearer k"}
    assert (found["openai"].key_variable, found["openai"].wires) == (
        "",
        (Wire.CHAT, Wire.RESPONSES),
    )
    named = {"MISTRAL_BASE_URL": "http://127.0.0.1:1/v1"}
    assert providers.load(SETTINGS.providers, named)["mistral"].host == "127.0.0.1"


@pytest.mark.parametrize(
    ("model", "usd"),
    [
        ("mistral-large-2411", 2.0),
        ("claude-sonnet-4-6", 2.7),
        ("local/any", 0.0),
        ("claude-haiku-4-5", 1.0),
        ("mistral-small", None),
    ],
)
def test_prices(model: str, usd: float | None) -> None:
    assert prices.load(SETTINGS.prices).cost(Usage(model, 1_000_000)) == usd


@pytest.mark.parametrize(
    ("agent", "project_id", "key"),
    [
        ("opencode", None, "for-every-agent"),
        ("codex", None, "for-codex"),
        ("opencode", "website", "for-the-project-website"),
        ("codex", "website", "for-codex-in-the-project-website"),
        ("codex", "shop", "for-codex"),
    ],
)
def test_keys(tmp_path: Path, agent: str, project_id: str | None, key: str) -> None:
    own = Path(shutil.copy(SETTINGS.keys_file, tmp_path))
    own.chmod(0o644)
    with pytest.raises(Misconfigured, match="0644: others can read it"):
        Keys(None, own, {}).check()
    own.chmod(0o600)
    assert Keys(None, own, {}).find("OPENAI_API_KEY", agent, project_id) == key


@pytest.mark.parametrize(
    ("line", "kind", "details"),
    [
        (
            "said team budget exceeded; retry in 90 seconds",
            OutcomeClass.QUOTA,
            {"retry_after_s": 90},
        ),
        ("stderr model is loading", OutcomeClass.INFRA, {}),
    ],
)
def test_ends(line: str, kind: OutcomeClass, details: dict[str, int]) -> None:
    said = Outcome(
        OutcomeClass.AGENT_ERROR,
        "?",
        error=failure_rules.UNCLASSIFIED,
        details={"evidence": [line]},
    )
    found = failure_rules.classify(said, "codex", failure_rules.rules(SETTINGS.ends_directory))
    assert found.kind is kind
    assert {name: found.details[name] for name in details} == details


def test_prompts() -> None:
    own = (CONFIGURATION / "prompts/reviewer.md").read_text("utf-8")
    told = system_prompt(SETTINGS.prompts_directory, "claude", "reviewer")
    assert told.startswith(own)
    assert "VERDICT: approve" in told
    assert own not in system_prompt(SETTINGS.prompts_directory, "claude", "planner")


# ---- jobs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples/jobs").glob("*.json")), ids=lambda path: path.name
)
def test_jobs_ask_for_nothing_that_their_agents_have_not(path: Path) -> None:
    built_in: dict[str, Abilities] = dict(load_agents(SETTINGS).abilities())
    job, _ = accept(parse.parse(path.read_bytes()), ServerRules(built_in, ()), datetime.now(UTC))
    assert job.steps


# ---- agents -----------------------------------------------------------------------------------


def test_the_agent_in_shell() -> None:
    agent = manifest.read(ROOT / "examples/agents/shell.toml")
    assert agent.name == "shell"


@pytest.fixture
def installed(tmp_path: Path) -> Callable[[str], str]:
    """What a Python says that finds the example as pip would leave it."""
    project = tomllib.loads((MISTRAL / "pyproject.toml").read_text("utf-8"))["project"]
    shutil.copy(MISTRAL / "agentorch_mistral.py", tmp_path)
    marks = tmp_path / "agentorch_mistral-1.dist-info"
    marks.mkdir()
    (marks / "METADATA").write_text("Metadata-Version: 2.1\nName: agentorch-mistral\nVersion: 1\n")
    points = project["entry-points"]
    (marks / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in names.items())
            for group, names in points.items()
        )
    )

    def run(code: str) -> str:
        environment = {
            "PYTHONPATH": f"{tmp_path}:{ROOT / 'lib'}",
            "AGENTORCH_ENV_FILE": "/dev/null",
            "AGENTORCH_CONFIG_DIR": str(CONFIGURATION),
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    return run


def test_the_agent_that_asks_an_api(installed: Callable[[str], str]) -> None:
    code = """
import json
from agentorch.agents.registry import load as agents
from agentorch.config.settings import load
found = agents(load())
agent = found.get("mistral")
print(json.dumps([agent.name, agent.provider(None), found.problems()]))
"""
    assert json.loads(installed(code)) == ["mistral", "mistral", []]
