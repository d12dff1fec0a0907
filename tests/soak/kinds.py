"""The kinds of jobs that are submitted in a month, and what people do about those that wait."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

from agentorch.core.states import State
from agentorch.core.times import rfc3339
from agentorch.jobqueue.jobqueue import current_document
from agentorch.storage.json_files import read_json
from tests.support.installation import step

if TYPE_CHECKING:
    from tests.soak.month import Month

Document = dict[str, Any]
POLICY: Document = {"sandbox": True, "network": "deny", "allowed_binaries": []}
JOB_USD, MORE_USD = 0.3, 2.0


# ---- what is submitted ------------------------------------------------------------------------


def ok(_: Month, __: str) -> Document:
    return {"steps": [step("a", "echo a >> notes; sleep 0.2"), step("b", "echo b >> notes")]}


def flaky(_: Month, __: str) -> Document:
    once = '[ -e "$HOME/once" ] || { : >"$HOME/once"; exit 1; }'
    return {"steps": [step("a", once, max_retries=1)]}


def broken(_: Month, __: str) -> Document:
    return {"steps": [step("a", "echo half >> notes; exit 1")]}


def plan(_: Month, __: str) -> Document:
    return {"steps": [{**step("a", "echo plan"), "approve_after": True}, step("b", "true")]}


def gate(month: Month, _: str) -> Document:
    then = month.chance.choice(["reject", "cancel"])
    waiting = {"then": then, "after_sec": 2 * 86400}
    policy = POLICY | {"requires_approval": True, "waiting": waiting}
    return {"steps": [step("a", "true")], "policy": policy}


def question(_: Month, __: str) -> Document:
    return _walled({"a": ["ask:Which one?", "success"]})


def parked(month: Month, _: str) -> Document:
    until = month.clock.now() + timedelta(hours=month.chance.uniform(1, 60))
    return _walled({"a": [f"quota:{rfc3339(until)}", "success"], "b": ["success"]})


def paid(month: Month, job_id: str) -> Document:
    return {"steps": [_asks("a", job_id, month.chance.randrange(200, 1900)), step("b", "true")]}


def lab(month: Month, job_id: str) -> Document:
    return {"project_id": "lab", **paid(month, job_id)}


def capped(month: Month, job_id: str) -> Document:
    """Its first step takes more than all that the job may cost: the second one has to wait."""
    first = _asks("a", job_id, month.chance.randrange(320, 500))
    policy = POLICY | {"max_cost_usd": JOB_USD}
    return {"steps": [first, _asks("b", job_id, 100)], "policy": policy}


def walled(month: Month, job_id: str) -> Document:
    until = month.clock.now() + timedelta(hours=month.chance.uniform(1, 30))
    stamp = until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    tokens = month.chance.randrange(10, 500)
    return {"steps": [_asks("a", job_id, tokens, f"wall={stamp}"), step("b", "true")]}


def _asks(step_id: str, job_id: str, tokens: int, more: str = "") -> Document:
    prompt = f"job={job_id} tokens={tokens} {more}".strip()
    return step(step_id, prompt, agent="openai", role="reviewer", model="priced-1", timeout_sec=60)


def _walled(outcomes: dict[str, list[str]]) -> Document:
    return {
        "goal": json.dumps(outcomes),
        "steps": [step(one, "go on", agent="wall") for one in outcomes],
    }


KINDS: dict[str, Callable[[Month, str], Document]] = {
    "ok": ok,
    "flaky": flaky,
    "broken": broken,
    "plan": plan,
    "gate": gate,
    "question": question,
    "parked": parked,
    "paid": paid,
    "lab": lab,
    "capped": capped,
    "walled": walled,
}


# ---- what people do ---------------------------------------------------------------------------


def of_asking(month: Month, job_id: str) -> None:
    """Somebody decides on a job that asks."""
    if month.chance.random() < 0.25:
        month.decided(job_id, "reject", "--comment", "no")
    elif job_id.endswith("question"):
        month.decided(job_id, "answer", "The second.")
    else:
        month.decided(job_id, "approve", "--comment", "fine")


def of_held(month: Month, job_id: str) -> None:
    """What is held is released; what its own budget holds, mostly with more of it."""
    hold = read_json(month.roots.artifacts(job_id).hold) or {"who": {}}
    if hold["who"] is None:
        month.seen.happened["held by its own budget"] += 1
        if month.chance.random() < 0.75:
            edit(month, job_id, MORE_USD)
    month.decided(job_id, "release")


def of_parked(month: Month, job_id: str) -> None:
    """Somebody can't wait, wants more of it meanwhile, or no longer wants it."""
    choice = month.chance.choice(["release", "cancel", "edit"])
    if choice == "edit":
        edit(month, job_id)
    else:
        month.decided(job_id, choice)


def edit(month: Month, job_id: str, more_usd: float = 0.0) -> None:
    """Another step at the end of a job, and so much more money than it may have cost by now."""
    paths = month.roots.artifacts(job_id)
    document, state = current_document(paths), read_json(paths.state)
    steps = document["steps"]
    if steps[-1]["step_id"] != "more":
        steps = [*steps, step("more", "echo more >> notes")]
    names = [one["step_id"] for one in steps]
    over = 0 if state is None else names.index(state["current_step"])
    given: Document = {"steps": steps[over:]}
    if more_usd:
        # an attempt that was killed may have used up all that there was, so the same is not enough
        given["policy"] = {"max_cost_usd": document["policy"]["max_cost_usd"] + more_usd}
    if steps == document["steps"] and not more_usd:
        return  # nothing would be changed, nor be on record
    month.decided(job_id, "edit", given=json.dumps(given))


DECISIONS: dict[State, Callable[[Month, str], None]] = {
    State.AWAITING_APPROVAL: of_asking,
    State.FAILED: lambda month, job_id: month.decided(job_id, "retry"),
    State.PENDING: lambda month, job_id: month.decided(job_id, "hold"),
    State.HELD: of_held,
    State.PARKED: of_parked,
}
