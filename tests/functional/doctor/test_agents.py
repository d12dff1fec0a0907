"""agentorch-doctor --agents: what it says of each agent, with programs of every kind on PATH."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentorch.agents.base import Capabilities
from agentorch.config.settings import Settings, load
from agentorch.core.abilities import ANYTHING, Abilities, Choice, Flag, Number, Option
from agentorch.core.errors import Misconfigured
from agentorch.doctor import agents as doctoragents
from agentorch.preflight.credentials import Credential, Key, credential
from tests.support.installation import Installation

CANARY = "sk-ant-" + "canary-0123456789abcdef"
CLAUDE = Capabilities(
    binary="claude",
    version_argv=("claude", "--version"),
    login_files=(".claude/.credentials.json", ".claude.json"),
    login_argv=("claude", "auth", "login"),
    provider="anthropic",
)


def fake(here: Installation, script: str, name: str = "claude") -> str:
    """A PATH with a program of this name, before the system's own."""
    directory = here.top / "opt/bin"
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{directory}:/usr/bin:/bin"


def checks(here: Installation, code: int = 0, **variables: str) -> dict[str, dict[str, Any]]:
    given = {"ALLOWED_BINARIES": "claude,zcode,sh", **variables}
    done = here.run("doctor", "--agents", "--json", given="", code=code, **given)
    assert CANARY not in done.stdout + done.stderr
    return {one["check"]: one for one in map(json.loads, done.stdout.splitlines())}


# ---- the command ------------------------------------------------------------------------------


@pytest.mark.needs("bwrap")
def test_an_agent_that_has_all_it_needs(here: Installation) -> None:
    path = fake(here, "echo 3.1.4 '(Claude Code)'")
    found = checks(here, PATH=path, ANTHROPIC_API_KEY=CANARY, AGENT_MODELS="claude=claude-x")
    claude = found["agent claude"]
    assert claude["state"] == "ok"
    words = claude["words"].split("; ")
    assert words[0].startswith(f"{here.top}/opt/bin/claude 3.1.4 (")
    assert words[1:3] == ["key ANTHROPIC_API_KEY is there", "starts in the sandbox"]
    assert words[3].startswith("models claude-*")
    assert words[3].endswith("(claude-x by default)")
    assert "max_cost_usd 0.01..1000" in words[4]
    assert words[5] == "tools Read, Grep, Glob, Edit, Write, Bash"
    assert not here.state.exists()


def test_a_line_for_every_agent_and_none_for_the_rest(here: Installation) -> None:
    found = checks(here, PATH="/usr/bin:/bin")
    built_in = ("anthropic", "claude", "codex", "exec", "kimi", "openai", "opencode")
    assert {f"agent {name}" for name in built_in} <= set(found)
    assert all(name.startswith("agent") for name in found)
    assert found["agent exec"]["state"] == "ok"


def test_what_is_missing_is_a_warning_with_its_remedy(here: Installation) -> None:
    words = checks(here, PATH="/usr/bin:/bin", ALLOWED_BINARIES="sh")["agent claude"]["words"]
    assert "does not allow 'claude' (allowed: sh; see ALLOWED_BINARIES)" in words
    assert "'claude' is not on PATH (/usr/bin:/bin): npm install" in words
    assert f"put ANTHROPIC_API_KEY=… into {here.top}/keys.env" in words
    assert "or log in: agentorch-login claude" in words


@pytest.mark.parametrize(
    ("script", "variables", "expected"),
    [
        ("echo 0.1.0", {}, "'claude' is 0.1.0, and the adapter needs "),
        ("echo 90.0", {"MIN_BINARY_VERSIONS": "claude=99.1"}, "MIN_BINARY_VERSIONS asks for 99.1"),
        ("exit 3", {}, "'claude' did not tell its version (claude --version)"),
        ("echo no number", {}, "printed no version"),
    ],
)
def test_versions(
    here: Installation, script: str, variables: dict[str, str], expected: str
) -> None:
    path = fake(here, script)
    found = checks(here, 0, PATH=path, ANTHROPIC_API_KEY=CANARY, **variables)["agent claude"]
    assert (found["state"], expected in found["words"]) == ("warning", True), found


@pytest.mark.needs("bwrap")
def test_an_agent_that_would_run_but_for_the_sandbox_is_a_problem(here: Installation) -> None:
    hidden = here.top / "elsewhere"
    hidden.write_text("#!/bin/sh\necho 3.1.4\n")
    hidden.chmod(0o755)
    path = fake(here, f"exec {hidden}")
    found = checks(here, PATH=path, ANTHROPIC_API_KEY=CANARY, code=1)["agent claude"]
    assert found["state"] == "problem"
    assert "does not start in the sandbox: " in found["words"]
    assert "not found" in found["words"]


def test_a_third_partys_agent_and_a_broken_one(here: Installation) -> None:
    agents = here.top / "agents.d"
    agents.mkdir()
    (agents / "zcode.toml").write_text('command = ["zcode"]\nversion_argv = ["zcode", "-V"]\n')
    (agents / "broken.toml").write_text("command = 5\n")
    found = checks(here, code=1, PATH=fake(here, "echo zcode 7.5", "zcode"))
    assert found["agent zcode"]["state"] == "ok"
    assert "/opt/bin/zcode 7.5; needs no key; " in found["agent zcode"]["words"]
    assert found["agents"]["state"] == "problem"
    assert "broken.toml" in found["agents"]["words"]


def test_keys_that_others_can_read_are_a_problem(here: Installation) -> None:
    (here.top / "keys.env").write_text(f"ANTHROPIC_API_KEY={CANARY}\n")
    (here.top / "keys.env").chmod(0o644)
    found = checks(here, code=1, PATH="/usr/bin:/bin")["agent claude"]
    assert (found["state"], "others can read it" in found["words"]) == ("problem", True)


def test_simulation_is_said_first(here: Installation) -> None:
    found = checks(here, ENABLE_REAL_CLI="0", PATH="/usr/bin:/bin")
    assert next(iter(found)) == "agents"
    assert "ENABLE_REAL_CLI=0" in found["agents"]["words"]


# ---- keys and logins --------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(
        {
            "AGENTORCH_ENV_FILE": "/dev/null",
            "AGENTORCH_STATE_DIR": str(tmp_path / "state"),
            "AGENTORCH_CONFIG_DIR": str(tmp_path),
        }
    )


def put(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


def claude(settings: Settings, project_id: str | None = None) -> Credential:
    return credential(settings, "claude", CLAUDE, "anthropic", project_id)


def test_nothing_is_there(settings: Settings, tmp_path: Path) -> None:
    found = claude(settings)
    assert (found.key, found.login, found.is_missing) == (Key.MISSING, False, True)
    assert found.words == (
        f"has no key: put ANTHROPIC_API_KEY=… into {tmp_path}/keys.env,"
        " or log in: agentorch-login claude"
    )
    alone = credential(settings, "x", replace(CLAUDE, login_argv=()), "anthropic")
    assert alone.words.endswith("keys.env")


@pytest.mark.parametrize(
    ("name", "project_id", "key"),
    [
        ("ANTHROPIC_API_KEY", None, Key.THERE),
        ("ANTHROPIC_API_KEY.claude", None, Key.THERE),
        ("ANTHROPIC_API_KEY.opencode", None, Key.MISSING),
        ("ANTHROPIC_API_KEY@shop", "shop", Key.THERE),
        ("ANTHROPIC_API_KEY@shop", "other", Key.MISSING),
        ("ANTHROPIC_API_KEY@shop", None, Key.MISSING),
        ("ANTHROPIC_API_KEY.claude@shop", "shop", Key.THERE),
        ("OPENAI_API_KEY", None, Key.MISSING),
    ],
)
def test_a_key_by_agent_and_project(
    settings: Settings, tmp_path: Path, name: str, project_id: str | None, key: Key
) -> None:
    in_environment = replace(settings, environment={**settings.environment, name: CANARY})
    assert claude(in_environment, project_id).key is key
    put(tmp_path, f"credentials/{name}", CANARY)
    directory = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    by_unit = replace(settings, environment={**settings.environment, **directory})
    assert claude(by_unit, project_id).key is key
    put(tmp_path, "keys.env", f"{name}={CANARY}\n")
    found = claude(settings, project_id)
    assert found.key is key
    assert CANARY not in repr(found)


def test_keys_of_a_broker_of_its_own_are_hidden(settings: Settings, tmp_path: Path) -> None:
    environment = {**settings.environment, "ANTHROPIC_API_KEY": CANARY}
    elsewhere = replace(settings, broker_socket=Path("/run/x"), environment=environment)
    found = claude(elsewhere)
    assert (found.key, found.is_missing) == (Key.HIDDEN, False)
    assert "the broker alone can see" in found.words
    put(tmp_path, "keys.env", f"ANTHROPIC_API_KEY={CANARY}\n")
    assert claude(elsewhere).key is Key.THERE


def test_providers(settings: Settings, tmp_path: Path) -> None:
    assert credential(settings, "exec", CLAUDE, None).key is Key.UNNEEDED
    unknown = credential(settings, "claude", CLAUDE, "local")
    assert unknown.is_missing
    assert unknown.words == (
        f"there is no provider 'local': describe it in {tmp_path}/providers.toml"
    )
    (tmp_path / "providers.toml").write_text(
        '[local]\nbase_url = "http://127.0.0.1:1/v1"\nkey_variable = ""\nwires = ["chat"]\n'
    )
    local = credential(settings, "claude", CLAUDE, "local")
    assert (local.key, local.words) == (Key.UNNEEDED, "local wants no key")
    (tmp_path / "providers.toml").write_text("[local]\n")
    with pytest.raises(Misconfigured, match=r"providers\.toml"):
        claude(settings)


def test_a_login_is_its_first_file(settings: Settings) -> None:
    home = settings.logins / "claude"
    put(home, ".claude.json", "{}")
    assert not claude(settings).login
    put(home, ".claude/.credentials.json", "")
    assert not claude(settings).login
    put(home, ".claude/.credentials.json", CANARY)
    found = claude(settings)
    assert (found.key, found.login, found.is_missing) == (Key.MISSING, True, False)
    assert found.words == "is logged in"
    (home / ".claude/.credentials.json").unlink()
    os.symlink("/etc/passwd", home / ".claude/.credentials.json")
    assert not claude(settings).login


# ---- words ------------------------------------------------------------------------------------


def test_what_a_step_may_ask_for() -> None:
    assert doctoragents.abilities_text(ANYTHING, None) == "models any; options none; tools any"
    options: dict[str, Option] = {
        "effort": Choice(("low", "high")),
        "max_turns": Number(1, 1000000),
        "max_cost_usd": Number(0.01, 2.5, whole=False),
        "resume": Flag(),
    }
    some = Abilities(tools=("Read", "Bash"), models=("a-*", "b"), options=options)
    assert doctoragents.abilities_text(some, "b") == (
        "models a-*, b (b by default); options effort low|high, max_turns 1..1000000,"
        " max_cost_usd 0.01..2.5, resume; tools Read, Bash"
    )


@pytest.mark.parametrize(
    ("lacks", "key", "trouble", "state"),
    [
        ([], Key.THERE, "", "ok"),
        ([], Key.HIDDEN, None, "ok"),
        ([], Key.THERE, "broken", "problem"),
        (["not allowed"], Key.THERE, "broken", "warning"),
        ([], Key.MISSING, "broken", "warning"),
    ],
)
def test_the_state_of_a_line(lacks: list[str], key: Key, trouble: str | None, state: str) -> None:
    has = Credential(key, login=False, words="")
    assert doctoragents.check_state(lacks, has, trouble) == state
