"""contracts/openapi.json says what the webhook does: routes, keys, statuses, documents."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agentorch.webhook.decide import ALLOWED_KEYS, REQUIRED_KEYS
from agentorch.webhook.idempotency import HEADERS
from agentorch.webhook.query import DEFAULT_LIMIT, MAX_LIMIT
from agentorch.webhook.routes import ROUTES
from tests.support.webhook import DECIDER, Door

CONTRACTS = Path(__file__).parents[3] / "contracts"
OPENAPI: dict[str, Any] = json.loads((CONTRACTS / "openapi.json").read_text("utf-8"))
JOB: dict[str, Any] = json.loads((CONTRACTS / "job.schema.json").read_text("utf-8"))
SCHEMAS = OPENAPI["components"]["schemas"]
EVERYWHERE = {"400", "413", "431", "501", "503"}
WITH_A_TOKEN = {"401", "403", "429"}


def test_its_routes_are_the_table() -> None:
    told = {(method.upper(), path) for path, it in OPENAPI["paths"].items() for method in it}
    assert told == {(route.method, route.path.replace("...", "")) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_its_tokens_and_statuses(route: Any) -> None:
    told = OPENAPI["paths"][route.path.replace("...", "")][route.method.lower()]
    own = {"404"} if "{" in route.path else set()
    own |= {"409"} if route.method == "POST" else set()
    private = set() if route.open else WITH_A_TOKEN
    assert set(told["responses"]) == {"200"} | EVERYWHERE | private | own
    assert bool(told["security"]) != route.open
    names = {it["name"] for it in told.get("parameters", ()) if it["in"] == "path"}
    assert names == set(re.findall(r"{(\w+)", route.path))


def test_its_keys_and_bounds() -> None:
    told = OPENAPI["paths"]["/webhook"]["post"]["parameters"]
    assert [it["name"] for it in told] == list(HEADERS)
    limit = next(
        it for it in OPENAPI["paths"]["/jobs"]["get"]["parameters"] if it["name"] == "limit"
    )
    assert (limit["schema"]["maximum"], limit["schema"]["default"]) == (MAX_LIMIT, DEFAULT_LIMIT)


def test_a_submission_is_a_job_with_defaults() -> None:
    told = SCHEMAS["Submission"]["properties"]
    assert set(told) == set(JOB["properties"])
    assert {it["$ref"] for it in told.values()} == {
        f"job.schema.json#/properties/{name}" for name in JOB["properties"]
    }


def test_a_decision_has_the_keys_of_its_schema() -> None:
    known = json.loads((CONTRACTS / "decision.schema.json").read_text("utf-8"))["properties"]
    assert set(known) == set().union(*ALLOWED_KEYS.values())
    for decision, keys in ALLOWED_KEYS.items():
        told = SCHEMAS[decision.capitalize()]
        assert {name: it["$ref"] for name, it in told["properties"].items()} == {
            name: f"decision.schema.json#/properties/{name}" for name in keys
        }
        assert set(told.get("required", ())) == REQUIRED_KEYS.get(decision, frozenset())
        body = OPENAPI["paths"][f"/jobs/{{job_id}}/{decision}"]["post"]["requestBody"]
        assert body["required"] == (decision in REQUIRED_KEYS)


def problems(name: str, document: Any) -> list[str]:
    schema = {**SCHEMAS[name], "components": OPENAPI["components"]}
    return [error.message for error in Draft202012Validator(schema).iter_errors(document)]


def test_what_is_answered_is_what_it_says(door: Door) -> None:
    accepted = door.post({"goal": "x", "tags": ["a"]}).document
    assert problems("Accepted", accepted) == []
    assert problems("Status", door.ask("GET", accepted["status_url"]).document) == []
    page = door.ask("GET", "/jobs").document
    assert page["jobs"]
    assert problems("Page", page) == []
    waits = door.post({"goal": "x", "policy": {"requires_approval": True}}).document["job_id"]
    for decision, place in (("approve", 200), ("approve", 409)):
        answer = door.ask("POST", f"/jobs/{waits}/{decision}", b"{}", DECIDER)
        assert answer.status == place
        assert problems("Decided" if place == 200 else "Problem", answer.document) == []
    assert problems("Health", door.ask("GET", "/health").document) == []
    assert problems("Problem", door.ask("GET", "/nothing").document) == []
