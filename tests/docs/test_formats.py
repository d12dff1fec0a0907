"""The pages of formats against the code: the job, the result, agents."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentorch.agents import failure_rules, json_lines, manifest
from agentorch.agents.base import Request
from agentorch.agents.registry import BUILT_IN
from agentorch.agents.registry import load as load_agents
from agentorch.artifacts.state import JobState
from agentorch.broker import providers
from agentorch.config.prompt_files import BUILT_IN as PROMPTS
from agentorch.config.settings import load
from agentorch.contracts.complete import complete
from agentorch.contracts.to_job import job_of
from agentorch.core.abilities import Option
from agentorch.core.job import Handoff, Outcome
from agentorch.core.pipeline import begin
from agentorch.core.resources import Resources
from agentorch.core.states import REACTIONS, STATUSES, Reaction
from agentorch.core.verdict import apply_verdict, verdict_request
from agentorch.doctor.agents import option_text
from agentorch.launch import unit_end, unit_recorder
from tests.support.manual import ROOT, Item, bold, pages

ALONE = {"AGENTORCH_ENV_FILE": "/dev/null"}
NOWHERE = Path("/nonexistent")
JOB: dict[str, Any] = json.loads((ROOT / "contracts/job.schema.json").read_text("utf-8"))
RESULT: dict[str, Any] = json.loads((ROOT / "contracts/result.schema.json").read_text("utf-8"))

AGENT_PAGE = pages()["agentorch-agent(5)"]
JOB_PAGE = pages()["agentorch-job(5)"]
RESULT_PAGE = pages()["agentorch-result(5)"]


# ---- the job ----------------------------------------------------------------------------------


def job_fields() -> dict[str, Any]:
    found = dict(JOB["properties"])
    policy = found.pop("policy")["properties"]
    return found | {f"policy.{name}": field for name, field in policy.items()}


def described(headings: str) -> dict[str, Item]:
    return {item.names[0]: item for item in JOB_PAGE.items(headings)}


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("FIELDS", job_fields()),
        ("STEPS", JOB["$defs"]["step"]["properties"]),
        ("LIMITS", JOB["properties"]["policy"]["properties"]["resources"]["properties"]),
    ],
)
def test_fields_of_a_job_and_their_defaults(heading: str, known: dict[str, Any]) -> None:
    told = described(heading)
    assert set(told) == set(known)
    for name, field in known.items():
        default = re.search(r"\(default \*(.+)\*\)", told[name].term)
        assert (default is not None) is ("default" in field), name
        if default is not None:
            assert json.loads(default[1]) == field["default"], name


def test_required_fields_and_bounds_of_a_step() -> None:
    told = described("STEPS")
    step = JOB["$defs"]["step"]
    assert {name for name, item in told.items() if "Required." in item.body} == set(
        step["required"]
    )
    for name, field in step["properties"].items():
        for bound in ("minimum", "maximum", "maxLength"):
            if bound in field and field["type"] in ("integer", "number", "string"):
                assert re.search(rf"\b{field[bound]}\b", told[name].body), (name, bound)


def test_defaults_of_a_policy() -> None:
    told = described("FIELDS")
    for name, value in JOB_DOCUMENT["policy"].items():
        item = told[f"policy.{name}"]
        assert f"default *{json.dumps(value)}*" in f"{item.term} {item.body}".replace(
            "Default:", "default"
        )


def test_limits_are_those_of_resources() -> None:
    assert set(described("LIMITS")) == {field.name for field in fields(Resources)}


# ---- the result -------------------------------------------------------------------------------


def test_fields_of_a_result() -> None:
    assert set(RESULT_PAGE.named("RESULT.JSON")) == set(RESULT["properties"])
    told = set(RESULT_PAGE.named("METRICS"))
    assert told >= {*RESULT["properties"]["metrics"]["properties"], *unit_end.USED}


def test_fields_of_the_end_of_a_unit(tmp_path: Path) -> None:
    assert set(RESULT_PAGE.named("END.JSON")) == set(unit_recorder.end(str(tmp_path)))


def test_fields_of_a_state() -> None:
    told = set(RESULT_PAGE.named("STATE.JSON"))
    job = job_of(JOB_DOCUMENT)
    assert told == set(JobState("j", "pending", begin(job)).to_document(job))


JOB_DOCUMENT = complete({"goal": "x"}, "manual", Handoff.MANUAL, datetime(2026, 1, 1, tzinfo=UTC))


def test_statuses() -> None:
    told = RESULT_PAGE.named("RESULT.JSON")["status"].body
    assert set(bold(told)) == set(RESULT["properties"]["status"]["enum"])


FOLLOWS = {
    Reaction.ADVANCE: "next step",
    Reaction.RETRY: "another try",
    Reaction.ASK: "a human",
    Reaction.PARK: "parked",
    Reaction.FINAL: "on_failure",
    Reaction.END: "end of the job",
}


def test_every_outcome_and_what_follows() -> None:
    told = {kind: (status, then) for kind, status, then in RESULT_PAGE.table("OUTCOMES")}
    assert told == {
        str(kind): (str(STATUSES[kind]), FOLLOWS[reaction]) for kind, reaction in REACTIONS.items()
    }


def test_the_codes_of_an_outcome() -> None:
    told = {name: set(bold(item.body)) for name, item in RESULT_PAGE.named("OUTCOMES").items()}
    assert set(told) == {str(kind) for kind in REACTIONS}
    for rule in failure_rules.rules():
        assert rule.error in told[rule.kind], rule.error


# ---- agents -----------------------------------------------------------------------------------


def test_the_agents() -> None:
    told = AGENT_PAGE.named("BUILT-IN AGENTS")
    assert set(told) == set(BUILT_IN)
    agents = load_agents(load(ALONE))
    known = providers.load(NOWHERE, {})
    for name, item in told.items():
        capabilities = agents.get(name).capabilities
        assert capabilities is not None
        provider = agents.get(name).provider(None)
        assert f"Program: *{capabilities.binary}*" in item.body
        assert (f"{capabilities.minimum} or newer" in item.body) is bool(capabilities.minimum)
        assert ("ripgrep" in item.body) is ("rg" in capabilities.requires)
        installs = re.findall(r"Install: \*(.+?)\*[.;]", item.body)
        assert all(words in capabilities.install for words in installs)
        if provider is not None:
            assert f"Provider: *{provider}*" in item.body
            assert f"Key: *{known[provider].key_variable}*" in item.body


def offered(name: str, option: Option) -> str:
    return f"{name} {option_text(option)}".strip()


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - {"exec"}))
def test_what_a_step_may_ask_of_an_agent(name: str) -> None:
    body = AGENT_PAGE.named("BUILT-IN AGENTS")[name].body
    told = dict(re.findall(r"\b(Models|Options|Tools): (.+?)\.(?= |$)(?! \.)", body))
    abilities = load_agents(load(ALONE)).abilities()[name]
    assert bold(told["Models"]) == list(abilities.models or [])
    assert bold(told["Options"]) == [offered(*one) for one in abilities.options.items()]
    assert bold(told["Tools"]) == list(abilities.tools or [])


def test_agents_that_have_a_login() -> None:
    told = re.search(r"no\skey\. (.+) have no login here", AGENT_PAGE.part("KEYS AND LOGINS"), re.S)
    assert told is not None
    agents = load_agents(load(ALONE))
    without = {
        name
        for name in BUILT_IN
        if (capabilities := agents.get(name).capabilities)
        and capabilities.provider
        and not capabilities.login_argv
    }
    assert set(bold(told[1])) == without


def test_the_keys_of_a_manifest() -> None:
    assert set(AGENT_PAGE.named("MANIFESTS")) == set(manifest._KEYS)


def test_the_keys_of_an_end() -> None:
    assert set(AGENT_PAGE.named("ENDS")) == failure_rules._KEYS


def test_what_an_executable_is_asked() -> None:
    request = Request("j", "s", 1, "a", "r", "g", "p", "", NOWHERE, NOWHERE, NOWHERE)
    asked = json.loads(json_lines.request_bytes(request))
    part = AGENT_PAGE.part("PROTOCOL").split("The request:")[1].split("The answer:")[0]
    assert set(bold(part)) - {"1", "true"} == set(asked)


def test_what_an_executable_may_answer() -> None:
    told = set(bold(AGENT_PAGE.part("PROTOCOL").split("The answer:")[1]))
    assert set(json_lines._AMOUNTS) <= told
    assert set(json_lines._STATUSES) <= told
    assert {str(kind) for kind in json_lines._CLASSES} <= told


def test_the_agent_in_shell_is_the_example() -> None:
    script = (ROOT / "examples/agents/shell-agent").read_text("utf-8")
    assert f"```\n{script}```\n" in AGENT_PAGE.part("EXAMPLES")
    assert len(script.splitlines()) <= 20


def test_the_agent_that_asks_an_api_is_the_example() -> None:
    whole = (ROOT / "examples/agents/mistral/agentorch_mistral.py").read_text("utf-8")
    code = whole.split('"""\n\n', 1)[1]
    told = re.findall(r"^```\n(.*?)^```$", AGENT_PAGE.part("PYTHON AGENTS"), re.M | re.S)
    assert told[0] == code
    assert told[1] in (ROOT / "examples/agents/mistral/pyproject.toml").read_text("utf-8")


def test_the_verdict_block_is_one() -> None:
    shown = re.search(r"```\n(VERDICT: .*?)```", AGENT_PAGE.text, re.DOTALL)
    assert shown is not None
    assert shown[1].strip() in verdict_request()
    assert (
        apply_verdict(Outcome(*SUCCESS, report=shown[1]), "reviewer").error == "changes_requested"
    )


SUCCESS = (next(kind for kind, then in REACTIONS.items() if then is Reaction.ADVANCE), "")


def test_the_roles_that_have_a_prompt() -> None:
    assert {path.stem for path in PROMPTS.iterdir()} == {
        "planner",
        "implementer",
        "reviewer",
        "agent",
    }
