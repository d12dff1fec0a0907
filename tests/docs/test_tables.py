"""The manual's tables and lists against the code: each truth stands there once, and is one."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from agentorch.attempt.journal_lines import BURST, RATE_PER_S
from agentorch.broker import prices, providers
from agentorch.config.settings import LIMITED, LIMITS, VARIABLES, Settings, load
from agentorch.core.errors import Exit
from agentorch.core.states import TRANSITIONS
from agentorch.ledger.metric_families import FAMILIES
from agentorch.sandbox.wrapper_table import NEEDS_IMAGE, WRAPPERS
from agentorch.systemd.message_ids import Message
from agentorch.webhook.idempotency import HEADERS
from agentorch.webhook.query import DEFAULT_LIMIT, MAX_LIMIT
from agentorch.webhook.routes import ROUTES
from agentorch.webhook.server import MAX_HEADER_BYTES, REQUEST_S
from tests.docs.test_pages import environment
from tests.support.manual import ROOT, bold, pages

ALONE = {"AGENTORCH_ENV_FILE": "/dev/null"}
NOWHERE = Path("/nonexistent")

ENV_PAGE = pages()["agentorch.env(5)"]
QUEUE_PAGE = pages()["agentorch-queue(7)"]
RESULT_PAGE = pages()["agentorch-result(5)"]


def test_exit_codes() -> None:
    told = pages()["agentorch(7)"].named("EXIT STATUS")
    assert [int(code) for code in told] == [int(code) for code in Exit]


def test_transitions() -> None:
    told = {(start, event): end for start, event, end in QUEUE_PAGE.table("STATES")}
    events = {
        (str(start), str(event)): str(end)
        for start, moves in TRANSITIONS.items()
        for event, end in moves.items()
    }
    assert told == events


# ---- the configuration ------------------------------------------------------------------------

PARTS = [
    heading
    for heading in ENV_PAGE.headings[ENV_PAGE.headings.index("PLACES") :]
    if heading not in ("FILES", "EXAMPLES", "SEE ALSO")
]


def known_variables() -> set[str]:
    limits = {f"{prefix}{name}" for _, prefix, _ in LIMITED for name, _, _ in LIMITS}
    return {name for name, _, _ in VARIABLES} | limits


def elsewhere() -> set[str]:
    """Variables that settings.py reads by themselves, or the broker."""
    places = {"AGENTORCH_STATE_DIR", "QUEUE_ROOT", "ARTIFACTS_ROOT", "WORKSPACES_ROOT"}
    keys = {one.key_variable for one in providers.load(NOWHERE, {}).values()}
    tokens = {"WEBHOOK_TOKEN", "WEBHOOK_TOKENS", "STATE_DB_PATH"}
    return places | keys | providers.url_variables(NOWHERE) | tokens


def test_every_variable_is_told_once() -> None:
    assert set(ENV_PAGE.named(*PARTS)) == known_variables() | elsewhere()


def told_defaults() -> dict[str, str]:
    terms = [item.term for item in ENV_PAGE.items(*PARTS)]
    pairs = [pair for term in terms for pair in re.findall(r"\*([A-Z_]+)\*=([^ ]*?)(?:, |$)", term)]
    return dict(pairs)


def changed_nothing(defaults: dict[str, str]) -> Settings:
    """The settings of an empty environment, but for the record of the environment itself."""
    return replace(load(ALONE), environment={**ALONE, **defaults})


def test_defaults_of_variables() -> None:
    defaults = told_defaults()
    assert load({**ALONE, **defaults}) == changed_nothing(defaults)


def test_what_has_a_default_says_so() -> None:
    """A variable that is told without one has none that could be written down."""
    fields_of = {name: attribute for name, attribute, _ in VARIABLES if attribute is not None}
    nothing = load(ALONE)
    silent = set(fields_of) - set(told_defaults())
    assert {name for name in silent if getattr(nothing, fields_of[name])} == set()


# ---- the broker, the journal, the disk --------------------------------------------------------


def test_the_keys_of_providers_and_prices() -> None:
    told = set(pages()["agentorch-broker(8)"].named("PROVIDERS AND PRICES"))
    assert told == providers._KEYS | prices._RATES | {"models", "long"}


def test_requests_of_the_webhook() -> None:
    told = {name for name in pages()["agentorch-webhook(8)"].named("REQUESTS") if " " in name}
    paths = {(one.method, one.path.replace("{path...}", "PATH")) for one in ROUTES}
    assert told == {f"{method} {path.replace('{job_id}', 'ID')}" for method, path in paths}


def test_statuses_of_the_webhook() -> None:
    told = {name for name in pages()["agentorch-webhook(8)"].named("REQUESTS") if name.isdigit()}
    api = json.loads((ROOT / "contracts/openapi.json").read_text("utf-8"))
    answers = {
        status
        for methods in api["paths"].values()
        for operation in methods.values()
        for status in operation["responses"]
    }
    # what never reaches an endpoint is in no path's list
    assert answers - {"200"} <= told <= answers | {"404", "405", "431", "501"}


def test_headers_that_carry_a_key() -> None:
    told = bold(pages()["agentorch-webhook(8)"].part("REDELIVERY"))
    assert tuple(told) == HEADERS


def test_bounds_of_a_listing_and_of_a_request() -> None:
    page = pages()["agentorch-webhook(8)"]
    listing = page.named("REQUESTS")["GET /jobs"].body
    assert f"1 to {MAX_LIMIT}, {DEFAULT_LIMIT} by default" in listing
    assert f"{MAX_HEADER_BYTES // 1024} KiB" in page.named("REQUESTS")["431"].body
    assert f"complete {REQUEST_S:g} seconds after" in page.part("DESCRIPTION")


def test_metric_families() -> None:
    told = {
        item.names[0]: (item.term.partition("*{")[2].rstrip("}").replace(" ", ""), item.body)
        for item in pages()["agentorch-metrics(8)"].items("COUNTED", "MEASURED")
    }
    assert told == {
        one.name: (",".join(one.labels), f"{one.kind.capitalize()}. {one.words}")
        for one in FAMILIES
    }


def test_units() -> None:
    told = pages()["agentorch-deployment(7)"].named("UNITS")
    assert set(told) == {path.name for path in (ROOT / "units/system").iterdir()}


def test_wrappers_and_what_they_enforce() -> None:
    told = pages()["agentorch-security(7)"].named("SANDBOX")
    assert set(told) - {"another command"} == set(WRAPPERS) - {"bwrap"}
    for name in set(told) - {"another command"}:
        can = WRAPPERS[name]
        assert (can.network, can.filesystem, can.processes, can.broker) == (True, True, True, False)
    assert "docker and podman need an image" in told["docker"].body
    assert {"docker", "podman"} == NEEDS_IMAGE


def test_fields_of_the_catalog_are_told() -> None:
    catalog = (ROOT / "units/agentorch.catalog").read_text("utf-8")
    named = set(re.findall(r"AGENTORCH_[A-Z]+", catalog))
    assert named
    assert named <= set(pages()["agentorch-journal(7)"].named("FIELDS"))


def test_limits_of_an_agents_lines() -> None:
    told = pages()["agentorch-journal(7)"].part("DESCRIPTION")
    assert f"{RATE_PER_S} lines a second and {BURST} at once" in told


def test_events_and_their_ids() -> None:
    told = {
        item.names[0]: item.names[1] for item in pages()["agentorch-journal(7)"].items("EVENTS")
    }
    assert told == {one.name: one.value for one in Message}


@pytest.mark.needs("git")
def test_every_file_of_a_state_directory_is_told(tmp_path: Path) -> None:
    script = (
        "agentorch-submit --goal x >/dev/null; agentorch-runner --drain 2>/dev/null; "
        "agentorch-submit --goal y | agentorch-cancel >/dev/null; cd state; "
        "find . -path '*/work/*' -prune -o -path '*/*.git/*' -prune -o -print"
    )
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert {"./queue/done", "./workspaces"} <= set(done.stdout.split())
    told = QUEUE_PAGE.text + RESULT_PAGE.part("SYNOPSIS")
    found = {re.sub(r"^5-.*json$", "KEY.json", Path(one).name) for one in done.stdout.split()}
    ours = {name for name in found if not re.fullmatch(r"[0-9a-f]{32}|\d|\d\d_[a-z]+|", name)}
    assert {name for name in ours if name not in told} == set()
