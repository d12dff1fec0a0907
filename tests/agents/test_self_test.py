"""A CLI whose sandbox is broken exits with 0 all the same: it is found out before a job pays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentorch.scripted_model import Fault, ModelDouble, Turn
from tests.agents.real_site import Site
from tests.support.installation import Installation

# What Claude Code prints at its end, whatever its tools could do.
ENDED = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "num_turns": 2,
    "result": "I could not run it: no permissions to create a new namespace.",
    "session_id": "46005485-97ab-5041-b211-ecc1105cc23a",
    "permission_denials": [],
}


@pytest.fixture
def broken(here: Installation) -> Installation:
    """An installation whose Claude Code does nothing, and says so politely."""
    program = here.top / "cli" / "bin" / "claude"
    program.parent.mkdir(parents=True)
    program.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo 99.0.0 && exit\ncat >/dev/null\n'
        f"echo '{json.dumps(ENDED)}'\n"
    )
    program.chmod(0o755)
    here.environment |= {
        "PATH": f"{program.parent}:/usr/bin:/bin",
        "ALLOWED_BINARIES": "claude",
        "ANTHROPIC_API_KEY": "a-key-that-nobody-uses",
    }
    return here


def test_who_can_do_nothing_is_found_out_each_time(broken: Installation) -> None:
    step = {"step_id": "a", "agent": "claude", "role": "implementer", "prompt": "Edit."}
    for _ in range(2):
        job_id = broken.submit(step)
        broken.drain()
        result = broken.status(job_id)["result"]["steps"][0]
        assert (result["outcome"], result["error"]["code"]) == ("policy", "preflight")
        assert "can't run commands in the sandbox although it exits with 0" in result["summary"]
        assert result["attempts"] == 1
    assert not list((broken.state / "workspaces").glob(".selftest-*"))


def test_without_a_self_test_it_is_believed(broken: Installation) -> None:
    step = {"step_id": "a", "agent": "claude", "role": "implementer", "prompt": "Edit."}
    job_id = broken.submit(step)
    broken.drain(AGENTORCH_SELF_TEST="0")
    assert broken.status(job_id)["status"] == "success"


def test_a_probe_tries_the_sandbox_and_the_key(site: Site, double: ModelDouble) -> None:
    double.play([Turn("nobody asks")])
    said = site.run("doctor", "--probe", "claude").stdout.splitlines()
    assert said == [
        "ok       agent claude in the sandbox: edits a file with its shell",
        "ok       agent claude and its provider: anthropic accepts the key",
    ]
    assert double.asked == [], "no answer of a model was asked for"


def test_a_probe_tells_of_a_provider_that_is_not_there(site: Site) -> None:
    done = site.run("doctor", "--probe", "openai", code=1, OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    assert "problem  agent openai and its provider: openai: HTTP 502" in done.stdout


def test_what_was_found_to_work_is_remembered_for_this_program(
    site: Site, double: ModelDouble
) -> None:
    double.play([Fault(401, message="no")])
    site.step("claude")
    marks = list((site.top / "state/selftests").iterdir())
    assert len(marks) == 1
    site.step("claude")
    assert list((site.top / "state/selftests").iterdir()) == marks


def test_an_unknown_agent_is_not_probed(site: Site) -> None:
    done = site.run("doctor", "--probe", "cluade", code=2)
    assert "'cluade' is unknown (did you mean 'claude'?" in done.stderr
    assert "nothing to probe" in site.run("doctor", "--probe", "exec", code=2).stderr
    assert Path(site.top / "state").exists() is False, "a question makes no directories"
