"""agentorch-budget, and what it says of tables with a typo."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from agentorch.ledger import ledger
from agentorch.ledger.budgets import AdmissionRequest, Caps, utc_day
from agentorch.storage import sqlite
from agentorch.storage.paths import Roots
from tests.support.ends import attempt
from tests.support.installation import Installation

CAPS = {
    "MAX_DAILY_COST_USD": "2",
    "MAX_DAILY_API_CALLS": "10",
    "PROJECT_BUDGETS": "shop=1,site=0.5",
}


def now() -> datetime:
    return datetime.now(UTC)


def roots(place: Installation) -> Roots:
    names = ("queue", "artifacts", "workspaces", "state.db")
    return Roots(*(place.state / name for name in names))


@pytest.fixture
def told(here: Installation) -> Installation:
    """A ledger with something of everything."""
    where = roots(here)
    caps = Caps(day_usd=2, attempt_usd=0.4)
    metrics = {"cost_usd": 0.6, "model_calls": 3, "unpriced_calls": 1}
    spent = attempt(1, agent="claude", project="shop", ended_at=now(), metrics=metrics)
    ledger.count_attempt(where, spent)
    ledger.admit(where, AdmissionRequest("job-2", "one", 1, "codex", "shop"), caps, now())
    met = {"agent": "claude", "outcome": "quota", "summary": "too much"}
    ledger.count_attempt(where, attempt(2, **met, credential="KEY", ended_at=now()))
    before = now() - timedelta(days=1)
    ledger.count_attempt(where, attempt(3, ended_at=before, metrics={"cost_usd": 7.0}))
    sqlite.KEPT.close()
    return here


def test_nothing_was_spent_where_nothing_ever_ran(here: Installation) -> None:
    assert here.run("budget").stdout == "day\t-\t0.00\t0.00\t-\t-\t0\t0\n"
    assert not here.state.exists()


def test_the_day_by_project_and_by_agent(told: Installation) -> None:
    told.environment |= CAPS
    done = told.run("budget")
    *lines, wall = done.stdout.splitlines()
    assert [line.split("\t") for line in lines] == [
        ["day", "-", "0.60", "0.40", "1.00", "2.00", "3 of 10", "1"],
        ["project", "shop", "0.60", "0.40", "0.00", "1.00", "3", "1"],
        ["project", "site", "0.00", "0.00", "0.50", "0.50", "0", "0"],
        ["agent", "claude", "0.60", "0.00", "-", "-", "3", "1"],
        ["agent", "codex", "0.00", "0.40", "-", "-", "0", "0"],
    ]
    assert wall.startswith("wall\tKEY\t")
    assert wall.endswith("\ttoo much")


def test_an_object_a_line(told: Installation) -> None:
    told.environment |= CAPS
    lines = [json.loads(line) for line in told.run("budget", "--json").stdout.splitlines()]
    assert lines[0] == {
        "day": utc_day(now()),
        "kind": "day",
        "name": "",
        "spent_usd": 0.6,
        "reserved_usd": 0.4,
        "cap_usd": 2.0,
        "left_usd": 1.0,
        "calls": 3,
        "reserved_calls": 1,
        "cap_calls": 10,
        "left_calls": 6,
        "unpriced_calls": 1,
    }
    assert (lines[-1]["kind"], lines[-1]["name"]) == ("wall", "KEY")


def test_another_day(told: Installation) -> None:
    before = utc_day(now() - timedelta(days=1))
    done = told.run("budget", "--day", before, MAX_DAILY_COST_USD="9")
    assert done.stdout.splitlines()[0] == "day\t-\t7.00\t0.00\t2.00\t9.00\t0\t0"
    for wrong in ("yesterday", "2026-02-30", "20260201T"):
        assert "is no day" in told.run("budget", "--day", wrong, code=2).stderr


def test_it_needs_no_write_access(told: Installation) -> None:
    before = {path: path.stat().st_mtime_ns for path in told.state.rglob("*")}
    told.run("budget")
    assert {path: path.stat().st_mtime_ns for path in told.state.rglob("*")} == before


def test_a_broken_ledger_is_said(here: Installation) -> None:
    here.state.mkdir()
    (here.state / "state.db").write_bytes(b"no database" * 400)
    assert "state.db" in here.run("budget", code=78).stderr


TYPO = '[[price]]\nmodels = ["m"]\ninptu = 3\noutput = 1\n'


def test_a_credential_that_is_no_text_is_no_broken_ledger(told: Installation) -> None:
    refused = told.run("budget", "--clear", "\udcff", code=2)
    assert "no limit of " in refused.stderr


def test_a_price_table_with_a_typo(here: Installation) -> None:
    table = here.top / "new.toml"
    table.write_text(TYPO)
    refused = here.run("budget", "--check", str(table), code=2)
    assert refused.stderr == f"agentorch-budget: {table}: price 1: inptu: unknown key\n"
    gone = here.run("budget", "--check", str(here.top / "gone"), code=2)
    assert "gone: No such file or directory" in gone.stderr
    (here.top / "prices.toml").write_text(TYPO)
    installed = here.run("budget", "--check", code=78)
    assert "prices.toml: price 1: inptu: unknown key" in installed.stderr
    (here.top / "prices.toml").write_text(TYPO.replace("inptu", "input"))
    assert here.run("budget", "--check").stdout.endswith(
        "prices.toml: 1 prices, asked before the built-in ones\n"
    )


def test_a_file_is_for_check_alone(here: Installation) -> None:
    assert "--check alone" in here.run("budget", "file", code=2).stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROJECT_BUDGETS", "shop"),
        ("PROJECT_BUDGETS", "shop=much"),
        ("PROJECT_BUDGETS", "shop=1,shop=2"),
        ("AGENT_BUDGETS", "no/name=1"),
        ("MAX_ATTEMPT_COST_USD", "-1"),
    ],
)
def test_a_cap_that_is_none_is_named(here: Installation, name: str, value: str) -> None:
    here.environment[name] = value
    assert f"{name}: " in here.run("budget", code=78).stderr
