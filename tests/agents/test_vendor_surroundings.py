"""What the vendors' programs are born with: no terminal, no variable, no key, a HOME of their own.

Here each step starts a broker of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.agents.vendors import KEY, VENDORS, Act, Vendors, outcome, step

pytestmark = pytest.mark.needs("bwrap")

# Whoever starts us may have any of these; an agent must have none.
OPERATOR = (
    *("CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR"),
    *("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_MODEL", "CODEX_API_KEY"),
    *("OPENAI_ORG_ID", "OPENCODE_CONFIG", "OPENCODE_PERMISSION", "MOONSHOT_API_KEY"),
    *("ALL_PROXY", "FTP_PROXY", "NODE_OPTIONS", "NODE_EXTRA_CA_CERTS", "AGENTORCH_OPERATOR"),
    *("GIT_AUTHOR_NAME", "GIT_SSH_COMMAND", "GIT_ASKPASS", "SSH_AUTH_SOCK", "SSH_AGENT_PID"),
    *("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "BASH_ENV", "PS4"),
    *("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "PYTHONSTARTUP", "EDITOR"),
)
MARK = "of-the-operator"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, dict[str, Any]]]:
    """What each vendor's program saw of where it ran, where each step starts its own broker."""
    here = Vendors(tmp_path_factory.mktemp("seen"))
    ids = here.submit_all(step(vendor, ["look"], ["answer"]) for vendor in VENDORS)
    here.drain_all(3, **dict.fromkeys(OPERATOR, f"/{MARK}"))
    for job_id in ids:
        assert here.result(job_id)["outcome"] == "success", here.result(job_id)
    homes = {vendor: here.home(job_id, vendor) for vendor, job_id in zip(VENDORS, ids, strict=True)}
    yield {
        vendor: json.loads((home / "seen.json").read_text()) | {"private": str(home)}
        for vendor, home in homes.items()
    }
    here.close()


@pytest.mark.parametrize("vendor", VENDORS)
def test_there_is_no_terminal_and_nothing_behind_the_prompt(
    seen: Mapping[str, dict[str, Any]], vendor: str
) -> None:
    found = seen[vendor]
    assert found["ttys"] == [False] * 3
    assert found["terminal"]
    assert found["regular"] == [True] * 3
    assert found["behind_the_prompt"] == ""
    assert found["descriptors"] == []


@pytest.mark.parametrize("vendor", VENDORS)
def test_nothing_is_of_the_operator_and_no_key_anywhere(
    seen: Mapping[str, dict[str, Any]], vendor: str
) -> None:
    found = seen[vendor]
    assert MARK not in json.dumps(found)
    assert KEY not in json.dumps(found)
    assert found["environment"]["HOME"] == found["private"]
    assert "zoo: " not in " ".join(found["argv"])


@pytest.mark.parametrize("vendor", VENDORS)
def test_home_has_only_what_the_adapter_put_there(
    seen: Mapping[str, dict[str, Any]], vendor: str
) -> None:
    home = Path(seen[vendor]["private"])
    names = {Path(path).relative_to(home).parts[0] for path in seen[vendor]["home"]}
    assert names - {"ran"} <= {".claude", ".codex", ".config", "tmp"}


def test_a_home_is_new_for_each_attempt_but_for_a_session_that_goes_on(tmp_path: Path) -> None:
    zoo = Vendors(tmp_path)
    acts: tuple[Act, ...] = (["second_time"], ["answer"])
    fresh, resumed = {"max_retries": 2}, {"max_retries": 2, "options": {"resume": True}}
    ids = zoo.submit_all(
        step(vendor, *acts, **fields) for fields in (fresh, resumed) for vendor in VENDORS
    )
    zoo.drain_all()
    found = [(zoo.result(job_id)["attempts"], outcome(zoo.result(job_id))[0]) for job_id in ids]
    assert found == [(3, "agent_error")] * 3 + [(2, "success")] * 3
    zoo.close()
