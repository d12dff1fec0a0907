"""The default pipeline by the three vendors' CLIs, and what of a key can be found afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentorch.scripted_model import ModelDouble, Turn
from tests.agents.real_site import KEY, Site

MEDIAN = "return ordered.middle."
MENDED = "return (ordered[middle] + ordered[~middle]) / 2"
PLAN = Turn("# Plan\n\nTake the mean of the middle two in median.py.")
MEND = Turn(command=f"sed -i 's|{MEDIAN}$|{MENDED}|' median.py && python3 -m unittest")
APPROVED = Turn("It is right.\n\nVERDICT: approve\nREASONS:\n- the tests pass\n")
REFUSED = Turn("No test.\n\nVERDICT: request changes\nREASONS:\n- there is no test for it\n")
PROJECT = Path(__file__).parents[2] / "examples/demo/project"


@pytest.fixture
def project(site: Site) -> Site:
    """A site whose repository is the demo's, with its failing test."""
    for path in PROJECT.iterdir():
        site.write(path.name, path.read_text())
    site.commit()
    return site


def test_plan_implement_review(project: Site, double: ModelDouble) -> None:
    double.play([PLAN, MEND, Turn("Done; the tests pass."), APPROVED])
    status = project.job([])
    assert status["status"] == "success", status
    plan, implement, review = status["result"]["steps"]
    assert [step["agent"] for step in (plan, implement, review)] == ["opencode", "codex", "claude"]
    assert plan["change_status"] == "no_changes"
    assert implement["change_status"] == "changed"
    assert review["verdict"] == {"decision": "approve", "reasons": ["the tests pass"]}
    assert all(step["metrics"]["cost_usd"] > 0 for step in (plan, implement, review))
    asked = [one.body.decode() for one in double.asked]
    assert "Take the mean of the middle two" in asked[1], "the plan reached the implementer"
    assert MENDED in asked[-1], "the patch reached the reviewer"
    patch = project.artifacts(status["job_id"]) / "patch.diff"
    project.git("apply", str(patch))
    assert MENDED in (project.repository / "median.py").read_text()


def test_a_review_sends_the_work_back(project: Site, double: ModelDouble) -> None:
    write = Turn(command="echo '# tested' >> test_median.py")
    double.play([MEND, Turn("Done."), REFUSED, write, Turn("Tested."), APPROVED])
    steps: list[dict[str, Any]] = [
        {"step_id": "02_implement", "agent": "codex", "role": "implementer", "prompt": "Mend it."},
        {
            "step_id": "03_review",
            "agent": "claude",
            "role": "reviewer",
            "prompt": "Review it.",
            "input_artifacts": ["steps/02_implement/patch.diff"],
            "on_failure": "goto:02_implement",
        },
    ]
    status = project.job(steps)
    assert status["status"] == "success", status
    assert [step["attempts"] for step in status["result"]["steps"]] == [2, 2]
    assert "there is no test for it" in double.asked[3].body.decode()
    work = project.work(status["job_id"])
    assert "# tested" in (work / "test_median.py").read_text()


@pytest.mark.parametrize("cli", ["claude", "codex", "opencode"])
def test_a_key_is_nowhere_but_at_the_provider(site: Site, double: ModelDouble, cli: str) -> None:
    looks = "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; ls -la $HOME"
    double.play([Turn(command=looks), Turn("I looked around.")])
    result = site.step(cli)
    assert result["outcome"] == "success", result
    heard = [one for one in double.asked if KEY in json.dumps(one.headers)]
    assert heard, "the provider got the key"
    assert all(KEY not in one.body.decode() for one in double.asked), "the agent saw the key"
    for path in site.top.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert KEY.encode() not in path.read_bytes(), path
