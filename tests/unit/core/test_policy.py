"""A job can only tighten, and an agent gets its own variables and nobody else's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentorch.core.job import Network, Policy
from agentorch.core.policy import (
    Effective,
    EnvironmentRules,
    ServerPolicy,
    effective,
    environment_for,
)

BINARIES = st.lists(st.sampled_from(["claude", "codex", "git", "python", "sh"]), unique=True)
SERVERS = st.builds(ServerPolicy, st.booleans(), st.sampled_from(Network), BINARIES.map(tuple))
JOBS = st.builds(Policy, st.booleans(), st.sampled_from(Network), BINARIES.map(tuple))
NAMES = ["PATH", "HOME", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "LANG", "TZ", "PROXY", "EDITOR"]
SOME_NAMES = st.lists(st.sampled_from(NAMES), unique=True).map(tuple)
RULES = st.builds(EnvironmentRules, SOME_NAMES, SOME_NAMES, st.booleans())
ENVIRONMENTS = st.dictionaries(st.sampled_from(NAMES), st.text("abc/:", min_size=1))
KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")
DEFAULTS = EnvironmentRules((*KEYS, "PATH", "HOME"), KEYS)
SERVER = {
    "ANTHROPIC_API_KEY": "a",
    "OPENAI_API_KEY": "o",
    "PATH": "/opt/bin:/usr/bin",
    "HOME": "/root",
    "WEBHOOK_TOKEN": "t",
}


@given(SERVERS, JOBS)
def test_never_looser_than_either(server: ServerPolicy, job: Policy) -> None:
    result = effective(server, job)
    assert result.sandbox >= max(server.sandbox, job.sandbox)
    assert result.network is Network.DENY or (server.network is job.network is Network.ALLOW)
    assert result.binaries <= set(server.binaries)
    assert not job.allowed_binaries or result.binaries <= set(job.allowed_binaries)


@given(SERVERS, JOBS)
def test_no_stricter_than_both_together(server: ServerPolicy, job: Policy) -> None:
    result = effective(server, job)
    assert result.sandbox == (server.sandbox or job.sandbox)
    assert set(server.binaries) & set(job.allowed_binaries or server.binaries) == result.binaries


def test_a_job_with_other_binaries_than_the_server_gets_none() -> None:
    server = ServerPolicy(sandbox=True, network=Network.ALLOW, binaries=("git",))
    job = Policy(sandbox=False, network=Network.ALLOW, allowed_binaries=("bash",))
    assert effective(server, job) == Effective(True, Network.ALLOW, frozenset())  # noqa: FBT003


def test_only_its_own_keys() -> None:
    result = environment_for(DEFAULTS, SERVER, home="/h", passes=["ANTHROPIC_API_KEY"])
    assert result == {
        "ANTHROPIC_API_KEY": "a",
        "PATH": "/opt/bin:/usr/bin",
        "HOME": "/h",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "TMPDIR": "/tmp",
    }


def test_a_key_that_the_allowlist_lacks_is_not_passed() -> None:
    rules = EnvironmentRules(("PATH",), KEYS)
    assert "OPENAI_API_KEY" not in environment_for(rules, SERVER, home="/h", passes=KEYS)


def test_clear_leaves_path_alone() -> None:
    rules = EnvironmentRules((*DEFAULTS.allowlist, "EDITOR"), KEYS, clear=True)
    server = {**SERVER, "EDITOR": "vi"}
    result = environment_for(rules, server, home="/h", passes=KEYS, given={"TOKEN": "x"})
    assert set(result) == {"PATH", "HOME", "LANG", "TERM", "TMPDIR", "TOKEN"}
    assert result["PATH"] == "/opt/bin:/usr/bin"


def test_path_that_is_not_allowed_is_the_default_one() -> None:
    result = environment_for(EnvironmentRules((), ()), SERVER, home="/h")
    assert result["PATH"] == "/usr/local/bin:/usr/bin:/bin"


def test_what_the_adapter_sets_is_set_as_it_is() -> None:
    result = environment_for(DEFAULTS, SERVER, home="/h", given={"LANG": "de_DE", "X": "1"})
    assert (result["LANG"], result["X"]) == ("de_DE", "1")


def test_the_time_zone_is_passed_on_where_there_is_one() -> None:
    assert environment_for(DEFAULTS, {"TZ": "UTC"}, home="/h")["TZ"] == "UTC"
    assert "TZ" not in environment_for(DEFAULTS, {}, home="/h")


@given(RULES, ENVIRONMENTS, SOME_NAMES)
def test_nothing_leaks(
    rules: EnvironmentRules, server: dict[str, str], passes: tuple[str, ...]
) -> None:
    result = environment_for(rules, server, home="/private", passes=passes)
    assert result["HOME"] == "/private"
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "PROXY", "EDITOR"):
        mine = name not in rules.sensitive or name in passes
        expected = name in server and name in rules.allowlist and mine and not rules.clear
        assert (name in result) == expected
