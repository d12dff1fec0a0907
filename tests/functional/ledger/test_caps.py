"""Jobs that run into caps: races, cuts in the middle, days, holds, walls."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from agentorch.broker import client
from agentorch.config.settings import load
from agentorch.scripted_model import Fault, Hang, ModelDouble
from tests.support.installation import Installation
from tests.support.money import asks, at, attempts, book, places, turn
from tests.support.polling import eventually
from tests.support.provider import Asked, event, events, provider

pytestmark = pytest.mark.needs("bwrap")
fast_clock = pytest.mark.needs("gcc")
DAY = 86400


# ---- races ------------------------------------------------------------------------------------


@fast_clock
def test_sixteen_runners_keep_to_a_dollar(till: Installation, double: ModelDouble) -> None:
    double.answers[:] = [turn(200)]
    caps = {"MAX_DAILY_COST_USD": "1", "MAX_ATTEMPT_COST_USD": "0.25"}
    with client.running(till.top / "broker", client.environment_of(load(till.environment))) as path:
        till.environment |= {"AGENTORCH_BROKER_SOCKET": str(path), **caps}
        for _ in range(16):
            till.submit(asks())
        runners = [till.start("runner", "--drain", "--slot", f"s{n}") for n in range(16)]
        assert [runner.wait(300) for runner in runners] == [0] * 16
        found = book(till)
        # four at a time; for the others there was nothing left to reserve, or what four had left
        assert found.spent_calls >= 4
        assert 0.8 <= found.spent_usd + 1e-6 <= 1.25
        told = places(till)
        assert told["done"] >= 4
        assert told == {"done": told["done"], "parked": 16 - told["done"]}
        soon = at(till, 70)
        later = [till.start("runner", "--drain", "--slot", f"s{n}", **soon) for n in range(4)]
        assert [runner.wait(300) for runner in later] == [0] * 4
    found = book(till)
    assert 1 <= found.spent_usd <= 1.25
    assert not found.reserved
    assert sum(places(till).values()) == 16


def test_a_project_that_has_spent_its_budget_does_not_hold_back_another(
    till: Installation, double: ModelDouble
) -> None:
    double.answers[:] = [turn(199)]
    till.environment |= {
        "PROJECT_BUDGETS": "shop=0.2,site=5",
        "PROJECT_ALIASES": f"shop={till.repository},site={till.repository}",
    }
    first, second = (till.submit(asks(), project_id="shop") for _ in range(2))
    other = till.submit(asks(), project_id="site")
    till.drain()
    assert till.status(first)["status"] == "success"
    assert till.status(other)["status"] == "success"
    told = till.status(second)
    assert told["queue_state"] == "parked"
    words = "the budget of project shop (PROJECT_BUDGETS) is used up: $0.20 of $0.20"
    assert told["state"]["parked"]["reason"].startswith(words)
    assert told["state"]["parked"]["until"].endswith("T00:00:00.000000Z")
    assert attempts(till, second) == []


def test_people_hear_that_a_budget_is_nearly_used_up(
    till: Installation, double: ModelDouble
) -> None:
    double.answers[:] = [turn(85)]
    for _ in range(3):
        till.submit(asks())
    said = till.drain(MAX_DAILY_COST_USD="0.1").stderr
    assert said.count("(MAX_DAILY_COST_USD) is nearly used up: $0.09 of $0.10 are spent") == 1


# ---- a run that is stopped in the middle ------------------------------------------------------

# Asks until it is refused, and leaves a line of each answer; goes on where it finds such lines.
WORKS = """#!/usr/bin/python3
import json, os, sys, urllib.request
if "--version" in sys.argv:
    sys.exit(print("9.9.9"))
print(json.dumps({"type": "system", "subtype": "init", "session_id": "s-1", "model": "m"}))
url, key = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", os.environ["ANTHROPIC_API_KEY"]
body = {"model": "claude-priced", "stream": True, "max_tokens": 9, "messages": []}
headers = {"x-api-key": key, "content-type": "application/json"}
done = 0
try:
    with open("story") as file:
        done = len(file.readlines())
except FileNotFoundError:
    pass
with open("arguments", "a") as file:
    file.write(" ".join(word for word in sys.argv if word.startswith("--res")) + "\\n")
while done < 4:
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        answer = urllib.request.urlopen(request).read()
        assert b"message_stop" in answer, "cut"
    except Exception as problem:
        print(json.dumps({"type": "result", "subtype": "success", "is_error": True,
                          "result": f"API Error: {problem}"}))
        sys.exit(1)
    done += 1
    with open("story", "a") as file:
        file.write(f"answer {done}\\n")
print(json.dumps({"type": "result", "subtype": "success", "is_error": False,
                  "num_turns": done, "result": "All told.", "session_id": "s-1"}))
"""


def works(till: Installation, url: str) -> None:
    """A program of the vendor's name, before the system's own on PATH."""
    program = till.top / "bin/claude"
    program.parent.mkdir()
    program.write_text(WORKS)
    program.chmod(0o755)
    till.environment |= {
        "PATH": f"{program.parent}:/usr/bin:/bin",
        "ANTHROPIC_API_KEY": "sk-ant-canary",
        "ANTHROPIC_BASE_URL": url,
        "AGENTORCH_SELF_TEST": "0",
    }


def tells(asked: Asked) -> bytes:
    """An answer for a fifth of a dollar, whose cost is told at its beginning."""
    started = {"model": "claude-priced", "usage": {"input_tokens": 200, "output_tokens": 1}}
    return event({"type": "message_start", "message": started}, "message_start")


STOP = event({"type": "message_stop"}, "message_stop")


@fast_clock
def test_a_run_is_stopped_in_the_middle_and_goes_on_the_next_day(till: Installation) -> None:
    begun = event(
        {
            "type": "message_start",
            "message": {
                "model": "claude-priced",
                "usage": {"input_tokens": 200, "output_tokens": 1},
            },
        }
    )
    with provider(events(begun, STOP)) as one:
        works(till, one.url)
        till.environment["MAX_DAILY_COST_USD"] = "0.5"
        job_id = till.submit(asks(agent="claude", role="implementer", model="claude-priced"))
        till.drain()
        told = till.status(job_id)
        assert told["queue_state"] == "parked"
        assert told["state"]["parked"]["kind"] == "budget"
        first = till.artifacts(job_id) / "steps/one/attempts/1"
        result = json.loads((first / "result.json").read_text())
        assert (result["outcome"], result["error"]["code"]) == ("budget", "budget_exceeded")
        assert result["metrics"]["cost_usd"] == pytest.approx(0.6)
        assert result["credential"] == "ANTHROPIC_API_KEY"
        assert "+answer 2\n" in (first / "patch.diff").read_text()
        assert "answer 3" not in (first / "patch.diff").read_text()
        allowance = json.loads((first / "allowance.json").read_text())
        assert allowance == {"max_cost_usd": 0.5, "cap": "day"}
        # nothing helps before midnight
        assert till.drain().returncode == 0
        assert len(one.asked) == 3
        till.drain(**at(till, DAY))
    told = till.status(job_id)
    assert told["status"] == "success", told["state"]
    assert len(one.asked) == 5
    patch = (till.artifacts(job_id) / "patch.diff").read_text()
    assert [f"+answer {n}\n" in patch for n in (1, 2, 3, 4)] == [True] * 4
    assert "+--resume\n" in patch  # its session went on, too
    assert told["state"]["steps"]["one"]["tries"] == 1
    assert book(till).spent_usd == pytest.approx(0.6)


def test_a_job_that_has_spent_its_own_budget_is_held(till: Installation) -> None:
    begun = event(
        {
            "type": "message_start",
            "message": {
                "model": "claude-priced",
                "usage": {"input_tokens": 200, "output_tokens": 1},
            },
        }
    )
    with provider(events(begun, STOP)) as one:
        works(till, one.url)
        step = asks(agent="claude", role="implementer", model="claude-priced")
        job_id = till.submit(step, policy={"max_cost_usd": 0.3})
        till.drain()
    told = till.status(job_id)
    assert told["queue_state"] == "held"
    marker = json.loads((till.artifacts(job_id) / "hold").read_text())
    assert marker["who"] is None
    assert marker["reason"].startswith("the job's budget (policy.max_cost_usd) is used up: $0.40")
    assert not book(till).reserved


@pytest.mark.parametrize("fields", [{"options": {"max_cost_usd": 0.3}}, {}])
def test_a_steps_own_cap_is_for_its_on_failure(
    till: Installation, fields: dict[str, object]
) -> None:
    begun = event(
        {
            "type": "message_start",
            "message": {
                "model": "claude-priced",
                "usage": {"input_tokens": 200, "output_tokens": 1},
            },
        }
    )
    with provider(events(begun, STOP)) as one:
        works(till, one.url)
        till.environment |= {"MAX_DAILY_COST_USD": "50", "MAX_ATTEMPT_COST_USD": "0.3"}
        step = asks(agent="claude", role="implementer", model="claude-priced", **fields)
        job_id = till.submit(step)
        till.drain()
    told = till.status(job_id)
    assert told["status"] == "failed"
    assert told["result"]["steps"][0]["error"]["code"] == "max_cost"


def test_what_has_no_price_does_not_run_under_a_cap(
    till: Installation, double: ModelDouble
) -> None:
    job_id = till.submit(asks(model="unheard-of"))
    till.drain(MAX_DAILY_COST_USD="5")
    result = till.status(job_id)["result"]["steps"][0]
    assert (result["outcome"], result["error"]["code"]) == ("budget", "unpriced")
    assert not double.asked
    # without one it is counted, and no figure is made up
    till.submit(asks(model="unheard-of"))
    till.drain()
    (one,) = book(till).spent
    assert (one.usd, one.calls, one.unpriced_calls) == (0, 1, 1)


def test_a_simulated_job_and_a_command_wait_for_no_money(till: Installation) -> None:
    caps = {"MAX_DAILY_COST_USD": "0.01", "MAX_DAILY_API_CALLS": "1"}
    till.submit(asks())
    till.drain(**caps)
    ids = [till.submit({"step_id": "a", "agent": "exec", "role": "r", "prompt": "true"})]
    till.drain(**caps)
    ids.append(till.submit(asks()))
    till.drain(**caps, ENABLE_REAL_CLI="0")
    assert [till.status(job_id)["status"] for job_id in ids] == ["success", "success"]


def test_a_killed_step_has_cost_what_was_reserved(till: Installation, double: ModelDouble) -> None:
    double.answers[:] = [Hang()]
    caps = {"MAX_DAILY_COST_USD": "1", "MAX_ATTEMPT_COST_USD": "0.4"}
    job_id = till.submit(asks())
    runner = till.start("runner", "--drain", **caps)
    eventually(lambda: double.asked)
    (child,) = Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split()
    assert book_of_now(till, "reserved_usd") == pytest.approx(0.4)
    os.kill(int(child), signal.SIGKILL)
    assert runner.wait(60) == 0
    assert till.status(job_id)["status"] == "failed"
    assert book(till).spent_usd == pytest.approx(0.4)
    assert not book(till).reserved


def test_a_killed_runner_leaves_no_reservation_behind(
    till: Installation, double: ModelDouble
) -> None:
    double.answers[:] = [Hang()]
    caps = {"MAX_DAILY_COST_USD": "1", "MAX_ATTEMPT_COST_USD": "0.4"}
    till.submit(asks())
    runner = till.start("runner", "--drain", **caps)
    eventually(lambda: double.asked)
    runner.kill()
    runner.communicate()
    double.answers[:] = [turn(10)]
    till.drain(**caps)
    found = book(till)
    assert found.spent_usd == pytest.approx(0.41)
    assert not found.reserved


def book_of_now(till: Installation, name: str) -> float:
    """A figure of agentorch-budget's line about the day."""
    (first, *_) = till.run("budget", "--json").stdout.splitlines()
    return float(json.loads(first)[name])


# ---- walls ------------------------------------------------------------------------------------


@fast_clock
def test_a_wall_parks_all_who_use_the_key_and_they_go_on_by_themselves(
    till: Installation, double: ModelDouble
) -> None:
    before = till.submit(asks())
    till.drain()
    assert till.status(before)["status"] == "success"
    double.play([Fault(429, "rate_limit_error", retry_after="3600")])
    ids = [till.submit(asks()) for _ in range(3)]
    till.drain()
    assert places(till) == {"done": 1, "parked": 3}
    # the first met it; nobody else asked
    assert len(double.asked) == 1
    assert [attempts(till, job_id) for job_id in ids] == [["1"], [], []]
    for job_id in ids[1:]:
        parked = till.status(job_id)["state"]["parked"]
        assert parked["kind"] == "quota"
        assert parked["reason"].startswith("the usage limit of OPENAI_API_KEY is reached: openai: ")
    wall = json.loads(till.run("budget", "--json").stdout.splitlines()[-1])
    assert (wall["kind"], wall["name"]) == ("wall", "OPENAI_API_KEY")
    double.play([turn(10)])
    till.drain()
    assert not double.asked
    till.drain(**at(till, 3700))
    assert places(till) == {"done": 4}, till.status(ids[0])["result"]["steps"]
    tried = [till.status(job_id)["state"]["steps"]["one"] for job_id in ids]
    assert [(one["tries"], one["attempt"]) for one in tried] == [(1, 2), (1, 1), (1, 1)]


@fast_clock
def test_a_wall_is_cleared_by_hand(till: Installation, double: ModelDouble) -> None:
    till.submit(asks())
    double.play([turn(10), Fault(429, "rate_limit_error", retry_after="36000"), turn(10)])
    till.drain()
    till.submit(asks())
    till.drain()
    assert till.run("budget", "--clear", "OPENAI_API_KEY").stdout == "OPENAI_API_KEY\n"
    refused = till.run("budget", "--clear", "OPENAI_API_KEY", code=2)
    assert "no limit of 'OPENAI_API_KEY' is known" in refused.stderr
    other = till.submit(asks())
    till.drain()
    assert till.status(other)["status"] == "success"
