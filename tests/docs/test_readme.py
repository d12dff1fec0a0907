"""The README: its commands are run, its tables compared with the code."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.docs import console

from agentorch.agents.ends import rules
from agentorch.agents.registry import BUILT_IN
from agentorch.agents.registry import load as load_agents
from agentorch.broker import providers
from agentorch.commands import COMMANDS
from agentorch.doctoragents import spell
from agentorch.errors import Exit
from agentorch.job import Outcome
from agentorch.settings import VARIABLES, Settings, load
from agentorch.states import REACTIONS, OutcomeClass, Reaction
from agentorch.systemprompts import BUILT_IN as PROMPTS
from agentorch.verdict import judged, verdict_request

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
DOUBTS = ("a power cut breaks it (tune2fs -j)", "may not survive a power cut there")
EMPTY = load({"AGENTORCH_ENV_FILE": "/dev/null"})
NOWHERE = Path("/nonexistent")
RESULT: dict[str, Any] = json.loads((ROOT / "contracts/result.schema.json").read_text("utf-8"))
SCHEMA: dict[str, Any] = json.loads((ROOT / "contracts/job.schema.json").read_text("utf-8"))


def environment(top: Path) -> dict[str, str]:
    """A new user's, with the programs of this checkout and nothing of the machine's settings."""
    return {
        "PATH": f"{ROOT / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "lib"),
        "AGENTORCH_ENV_FILE": "/dev/null",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        **{f"GIT_{who}_NAME": "reader" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "reader@localhost" for who in ("AUTHOR", "COMMITTER")},
        "HOME": str(top),
        "TMPDIR": str(top),
    }


def rows(heading: str) -> list[list[str]]:
    """The table below this heading: its lines' cells, without the head of the table."""
    text = README.split(f"\n{heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def without_doubts(output: str) -> str:
    """Without what a runner says where the machine's filesystem may forget in a power cut."""
    lines = output.splitlines()
    return "\n".join(line for line in lines if not line.endswith(DOUBTS))


# ---- what it shows ----------------------------------------------------------------------------


def test_every_command_prints_what_is_shown(tmp_path: Path) -> None:
    shown = console.blocks(README)
    printed = console.run(shown, ROOT, environment(tmp_path))
    assert len(printed) == len(shown)
    for one, raw in zip(shown, printed, strict=True):
        output = without_doubts(raw)
        assert console.matches(one.output, output), f"$ {one.command}\n{output}"


@pytest.mark.parametrize(
    ("expected", "printed", "matching"),
    [
        ("", "", True),
        ("", "more", False),
        ("one …", "one 1.5 s", True),
        ("one …", "one\ntwo", False),
        ("a\n…\nb", "a\n1\n2\nb", True),
        ("a\n…\nb", "a\nb", True),
        ("a.c", "abc", False),
    ],
)
def test_the_comparison_can_fail(expected: str, printed: str, *, matching: bool) -> None:
    assert console.matches(expected, printed) is matching


def test_a_command_may_go_on_and_see_the_exit_code_of_the_one_before(tmp_path: Path) -> None:
    text = "```console\n$ false ||\n>     false\n$ echo $?\n1\n```\n"
    shown = console.blocks(text)
    assert [one.command for one in shown] == ["false ||\n    false", "echo $?"]
    assert console.run(shown, tmp_path, environment(tmp_path)) == ["", "1"]


# ---- what it says -----------------------------------------------------------------------------


def test_exit_codes() -> None:
    assert [int(code) for code, _ in rows("## Exit codes")] == [int(code) for code in Exit]


def job_fields() -> dict[str, Any]:
    fields = dict(SCHEMA["properties"])
    policy = fields.pop("policy")["properties"]
    return fields | {f"policy.{name}": field for name, field in policy.items()}


@pytest.mark.parametrize(
    ("heading", "fields"),
    [
        ("## The job file", job_fields()),
        ("A step:", SCHEMA["$defs"]["step"]["properties"]),
    ],
)
def test_fields_and_their_defaults(heading: str, fields: dict[str, Any]) -> None:
    table = {names(field)[0]: default for field, _, default in rows(heading)}
    assert set(table) == set(fields)
    for name, field in fields.items():
        if "default" in field:
            assert json.loads(names(table[name])[0]) == field["default"], name


def test_variables_and_their_defaults() -> None:
    table = rows("## Configuration")
    told = {name for cell, _, _ in table for name in names(cell)}
    known = {name for name, _, _ in VARIABLES}
    places = {"AGENTORCH_STATE_DIR", "QUEUE_ROOT", "ARTIFACTS_ROOT", "WORKSPACES_ROOT"}
    keys = {one.key_variable for one in providers.load(NOWHERE, {}).values()}
    assert told - known == places | keys | providers.url_variables(NOWHERE)
    without_effect = {name for name, attribute, _ in VARIABLES if attribute is None}
    later = {"AGENTORCH_LAUNCHER", "DEFAULT_ARTIFACT_HANDOFF"}
    assert known - told == without_effect | later
    defaults = {
        name: default
        for cell, words, _ in table
        for name, default in zip(names(cell), names(words), strict=False)
        if name in known
    }
    assert load({"AGENTORCH_ENV_FILE": "/dev/null", **defaults}) == changed_nothing(defaults)


def changed_nothing(defaults: dict[str, str]) -> Settings:
    """The settings of an empty environment, but for the record of the environment itself."""
    alone = {"AGENTORCH_ENV_FILE": "/dev/null"}
    return replace(load(alone), environment={**alone, **defaults})


def test_only_commands_that_exist() -> None:
    told = set(re.findall(r"\bagentorch-([a-z]+)\b", README))
    assert told <= set(COMMANDS)


def test_files_that_it_names_exist() -> None:
    told = set(re.findall(r"(?:\$|`)((?:examples|tests|contracts)/[\w./-]+)", README))
    assert told
    assert [path for path in told if not (ROOT / path).exists()] == []


# ---- agents -----------------------------------------------------------------------------------


def unescaped(cell: str) -> list[str]:
    return names(cell.replace("\\|", "|"))


def test_the_agents_and_what_they_need() -> None:
    table = {names(agent)[0]: cells for agent, *cells in rows("## Agents")}
    assert set(table) == set(BUILT_IN)
    known = providers.load(NOWHERE, {})
    for name, (program, least, provider, key, install) in table.items():
        agent = load_agents(EMPTY).get(name)
        assert agent.capabilities is not None
        asked = agent.provider(None)
        assert names(program) == [agent.capabilities.binary]
        assert least == agent.capabilities.minimum
        assert names(provider) == ([] if asked is None else [asked])
        assert names(key) == ([] if asked is None else [known[asked].key_variable])
        assert all(words in agent.capabilities.install for words in names(install))
        assert ("ripgrep" in install) is ("rg" in agent.capabilities.requires)


def test_what_a_step_may_ask_of_an_agent() -> None:
    table = {names(agent)[0]: cells for agent, *cells in rows("What a step may ask of them:")}
    asking = {name for name in BUILT_IN if load_agents(EMPTY).get(name).provider(None)}
    assert set(table) == asking
    same = unescaped(table["claude"][2])
    for name, (models, options, tools) in table.items():
        abilities = load_agents(EMPTY).abilities()[name]
        assert unescaped(models) == list(abilities.models or [])
        offered = [f"{option} {spell(kind)}".strip() for option, kind in abilities.options.items()]
        assert unescaped(options) == offered
        assert (abilities.tools is None) is tools.startswith("none")
        assert abilities.tools is None or list(abilities.tools) == same


def test_agents_that_have_a_login() -> None:
    told = re.search(r"at the end\. ([^.]*)\s+have no login here", README)
    assert told is not None
    without = {
        name
        for name in BUILT_IN
        if (capabilities := load_agents(EMPTY).get(name).capabilities)
        and capabilities.provider
        and not capabilities.login_argv
    }
    assert set(names(told[1])) == without


# ---- ends -------------------------------------------------------------------------------------

FOLLOWS = {
    Reaction.ADVANCE: "the next step",
    Reaction.RETRY: "another try",
    Reaction.ASK: "a human",
    Reaction.FINAL: "`on_failure`",
    Reaction.END: "the end of the job",
}


def test_every_outcome_and_what_follows() -> None:
    table = {names(kind)[0]: follows for kind, _, _, follows in rows("### How a step ends")}
    assert table == {str(kind): FOLLOWS[reaction] for kind, reaction in REACTIONS.items()}


def test_the_codes_of_an_outcome() -> None:
    table = {names(kind)[0]: set(names(codes)) for kind, _, codes, _ in rows("### How a step ends")}
    for rule in rules():
        assert rule.error in table[rule.kind], rule.error


def test_the_verdict_block_is_one() -> None:
    shown = re.search(r"```\n(VERDICT: .*?)```", README, re.DOTALL)
    assert shown is not None
    assert shown[1].strip() in verdict_request()
    ended = judged(Outcome(OutcomeClass.SUCCESS, "", report=shown[1]), "reviewer")
    assert ended.kind is OutcomeClass.CHANGES


def test_the_roles_that_have_a_prompt() -> None:
    assert {path.stem for path in PROMPTS.iterdir()} == {
        "planner",
        "implementer",
        "reviewer",
        "agent",
    }


def test_fields_of_a_result() -> None:
    told = {names(field)[0] for field, _ in rows("### result.json")}
    assert told <= set(RESULT["properties"])
    metrics = {name for field, what in rows("### result.json") for name in names(what)}
    assert set(RESULT["properties"]["metrics"]["properties"]) <= metrics
