"""How each vendor's program can end, through whole jobs: the class, the code, and what follows.

The programs of the zoo play what the real ones printed. The jobs run side by side, once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.agents.vendors import VENDORS, Act, Vendors, living, outcome, step

pytestmark = pytest.mark.needs("bwrap")

ODD = "odd: the licence server says no (L-42)"


@dataclass(frozen=True)
class End:
    """What the programs do, by vendor; the class and the code; how often it may be tried again."""

    acts: Mapping[str, tuple[Act, ...]]
    outcome: str
    error: str | None
    retries: int = 0
    timeout_s: int = 60


def recorded(claude: str, codex: str, opencode: str) -> Mapping[str, tuple[Act, ...]]:
    names = {"claude": claude, "codex": codex, "opencode": opencode}
    return {vendor: (["play", name],) for vendor, name in names.items() if name}


def all_do(*acts: Act) -> Mapping[str, tuple[Act, ...]]:
    return dict.fromkeys(VENDORS, acts)


ENDS = {
    "done": End(recorded("done", "done", "edited"), "success", None, 2),
    "recovered": End(
        recorded("429-recovered", "429-recovered", "limit-then-answer"), "success", None
    ),
    "key refused": End(recorded("401", "401", "auth-openai"), "auth", "auth_failed", 2),
    "no key": End(recorded("no-key", "no-key", "forbidden"), "auth", "auth_failed"),
    "credit empty": End(recorded("credit", "credit", "credit-openai"), "auth", "credit_empty", 2),
    "too many requests": End(recorded("429", "429", "limit"), "quota", "rate_limited", 2),
    "usage limit": End(
        recorded("429-login", "usage-limit", "limit-after"), "quota", "rate_limited", 2
    ),
    "overloaded": End(recorded("529", "503", "overloaded"), "infra", "overloaded", 2),
    "provider fails": End(recorded("500", "502", "error-500"), "infra", "provider_error"),
    "no network": End(
        recorded("refused", "refused", "refused-connection"), "infra", "network_unreachable"
    ),
    "sandbox broken": End(recorded("", "sandbox-broken", ""), "infra", "sandbox_broken"),
    "context too long": End(
        recorded("context", "context", "context-chat"), "agent_error", "context_too_long", 2
    ),
    "max turns": End(recorded("max-turns", "", ""), "budget", "max_turns", 2),
    "max cost": End(recorded("max-cost", "", ""), "budget", "max_cost", 2),
    "budget of the broker": End(
        recorded("broker-budget", "broker-budget", "broker-budget"), "budget", "max_cost", 2
    ),
    "quota of the broker": End(
        recorded("broker-quota", "broker-quota", "broker-quota"), "quota", "rate_limited", 2
    ),
    "permission refused": End(
        recorded("denied", "403", "refused-question"), "policy", "permission_denied", 2
    ),
    "model unknown": End(
        recorded("404-model", "404-model", "model-openai"), "policy", "model_unknown", 2
    ),
    "malformed": End(all_do(["noise", 3000]), "parse_error", "malformed_output"),
    "truncated": End(all_do(["half"]), "parse_error", "truncated_output"),
    "no result": End(all_do(["begin"]), "parse_error", "no_result", 2),
    "exit 1 with a result": End(
        all_do(["answer"], ["leave", 1]), "agent_error", "agent_exit_nonzero"
    ),
    "killed": End(recorded("kill", "kill", "killed"), "agent_error", "agent_exit_nonzero"),
    "hangs": End(all_do(["begin"], ["hang"]), "timeout", "timeout", 2, 2),
    "nobody knows": End(
        all_do(["raw", f"{ODD}\n", 2], ["leave", 3]), "agent_error", "unclassified"
    ),
}
EACH = [(vendor, name) for name, end in ENDS.items() for vendor in end.acts]
AGAIN = frozenset({"agent_error", "parse_error", "infra", "timeout"})
QUEUES = {"success": "done", "quota": "parked"}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendors]:
    here = Vendors(tmp_path_factory.mktemp("ends"))
    with here.broker():
        yield here
    here.close()


@pytest.fixture(scope="module")
def jobs(zoo: Vendors) -> Mapping[tuple[str, str], str]:
    """The job of each end by vendor and name, at its end."""
    steps = [_step(vendor, ENDS[name]) for vendor, name in EACH]
    ids = zoo.submit_all(steps)
    zoo.drain_all()
    return dict(zip(EACH, ids, strict=True))


def _step(vendor: str, end: End) -> dict[str, Any]:
    fields = {"max_retries": end.retries, "timeout_sec": end.timeout_s}
    return step(vendor, *end.acts[vendor], **fields)


@pytest.mark.parametrize(("vendor", "name"), EACH)
def test_an_end_has_its_class_and_what_follows_from_it(
    zoo: Vendors, jobs: Mapping[tuple[str, str], str], vendor: str, name: str
) -> None:
    job_id, end = jobs[vendor, name], ENDS[name]
    result = zoo.result(job_id)
    assert outcome(result) == (end.outcome, end.error), result
    assert result["attempts"] == (end.retries + 1 if end.outcome in AGAIN else 1)
    assert zoo.queue_of(job_id) == QUEUES.get(end.outcome, "failed")
    assert result["summary"]
    assert living(job_id) == []


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_limit_that_ends_says_when(
    zoo: Vendors, jobs: Mapping[tuple[str, str], str], vendor: str
) -> None:
    details = zoo.result(jobs[vendor, "usage limit"])["error"]["details"]
    assert {"resets_at", "retry_after_s"} & set(details), details


@pytest.mark.parametrize("vendor", VENDORS)
def test_what_nobody_knows_is_told_with_its_evidence(
    zoo: Vendors, jobs: Mapping[tuple[str, str], str], vendor: str
) -> None:
    error = zoo.result(jobs[vendor, "nobody knows"])["error"]
    assert any(ODD in line for line in error["details"]["evidence"])
    assert error["details"]["exit_code"] == 3


# ---- an administrator's patterns --------------------------------------------------------------

RULE = """
[[end]]
pattern = 'licence server says no \\(L-\\d+\\)'
class = "infra"
error = "no_licence"
words = "all licences are in use"
"""


def with_rules(zoo: Vendors, text: str) -> dict[str, str]:
    """The variables of a server that has these patterns besides."""
    directory = zoo.top / "other"
    (directory / "ends.d").mkdir(parents=True, exist_ok=True)
    (directory / "ends.d" / "site.toml").write_text(text)
    return {"AGENTORCH_CONFIG_DIR": str(directory)}


def test_an_administrator_names_what_nobody_knew(zoo: Vendors) -> None:
    variables = with_rules(zoo, RULE)
    end = ENDS["nobody knows"]
    ids = zoo.submit_all(_step(vendor, end) for vendor in VENDORS)
    zoo.drain_all(1, **variables)
    for job_id in ids:
        result = zoo.result(job_id)
        assert outcome(result) == ("infra", "no_licence")
        assert result["summary"] == "all licences are in use"
    told = zoo.run("doctor", "--json", code=None, **variables).stdout.splitlines()
    (line,) = (json.loads(one) for one in told if '"ends"' in one)
    assert line["state"] == "ok"
    assert line["words"].startswith("1 patterns")


def test_patterns_that_are_broken_are_named_before_anything_runs(zoo: Vendors) -> None:
    broken = '[[end]]\npattern = "("\nclass = "infra"\nerror = "x"\n[[end]]\nclass = "odd"\n'
    variables = with_rules(zoo, broken)
    ids = zoo.submit_all(step(vendor, ["answer"], max_retries=2) for vendor in VENDORS)
    zoo.drain_all(1, **variables)
    for vendor, job_id in zip(VENDORS, ids, strict=True):
        result = zoo.result(job_id)
        assert outcome(result) == ("policy", "preflight")
        assert "site.toml: end 1: " in result["summary"]
        assert result["attempts"] == 1
        assert not (zoo.home(job_id, vendor) / "ran").exists()
    done = zoo.run("doctor", "--json", code=1, **variables)
    (line,) = (json.loads(one) for one in done.stdout.splitlines() if '"ends"' in one)
    assert line["state"] == "problem"
    assert all(place in line["words"] for place in ("site.toml: end 1: ", "site.toml: end 2: "))
