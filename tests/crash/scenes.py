"""The protocols: what lies there before, the program that is killed, and what may be true after.

After every kill there is a recovery; then `after` goes on as a user would (submits again, decides
again), and says what is wrong. What is true of every queue at rest is in `invariants`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from agentorch.artifacts.decision_log import decisions
from agentorch.core.states import State
from agentorch.jobqueue.slots import hold
from agentorch.storage.paths import NEW
from tests.support.crash_programs import Site, job
from tests.support.invariants import document, places
from tests.support.strace import inject_argv, points

ID = "job-crash-1"
# Leaves a line of every run, and finds what an attempt before it left in the workspace.
SCRIPT = """
echo run >>"$HOME/ran-$AGENTORCH_STEP"
[ ! -e half-$AGENTORCH_STEP ] || echo dirty >>"$HOME/dirty"
touch half-$AGENTORCH_STEP
echo "$AGENTORCH_STEP" >>story
rm half-$AGENTORCH_STEP
"""
FAILS_ONCE = 'echo run >>"$HOME/ran"; [ "$(wc -l <"$HOME/ran")" -gt 1 ]'
REAL = {"ENABLE_REAL_CLI": "1"}

# what is wrong, given the ids that were answered
After = Callable[[Site, list[str]], Iterator[str]]


@dataclass(frozen=True)
class Scene:
    """A protocol that is killed."""

    name: str
    argv: tuple[str, ...]
    prepare: Callable[[Site], None]
    after: After
    stdin: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    repeats: bool = False  # a step that ended may run again: it ran outside of the pipeline


def lines(*documents: dict[str, Any]) -> str:
    """Jobs as JSON lines."""
    return "\n".join(json.dumps(one) for one in documents)


def nothing(_: Site) -> None:
    """An empty state directory."""


def kill_in_step(site: Site) -> None:
    """A runner that died while it had its job, and its first step had begun."""
    begun, _ = points(site.copy(), "runner", "--once", "--slot", "dead")
    started = next(p for p in begun if "steps/step1/.lock" in p.line)
    under = inject_argv(started, "signal=SIGKILL")
    assert site.run("runner", "--once", "--slot", "dead", under=under).code == -9
    assert places(site) == {ID: State.RUNNING}


# ---- submit -----------------------------------------------------------------------------------


def submitted(site: Site, answered: list[str]) -> Iterator[str]:
    """Each job is done after it was submitted again, and was run once."""
    yield from _resubmitted(site, answered, json.loads(SUBMIT_ONE.stdin))


def three_submitted(site: Site, answered: list[str]) -> Iterator[str]:
    for line in SUBMIT_THREE.stdin.splitlines():
        yield from _resubmitted(site, answered, json.loads(line))


def _resubmitted(site: Site, answered: list[str], one: dict[str, Any]) -> Iterator[str]:
    job_id = one["job_id"]
    before = places(site).get(job_id)
    if job_id in answered and before is not State.DONE:
        yield f"{job_id} was acknowledged and is {before}"
    again = site.run("submit", "-", stdin=json.dumps(one))
    if again.code != (0 if before is None else 2):
        yield f"{job_id} was {before}; submitted again: {again}"
    yield from site.recover()
    yield from _done_once(site, job_id)


def _done_once(site: Site, job_id: str) -> Iterator[str]:
    if places(site).get(job_id) is not State.DONE:
        yield f"{job_id} is {places(site).get(job_id)}, not done"
    for step in site.roots.artifacts(job_id).directory.glob("steps/*"):
        if len(list(step.glob("attempts/*/result.json"))) != 1:
            yield f"{job_id}: {step.name} was run twice"


def waits_for_approval(site: Site, answered: list[str]) -> Iterator[str]:
    """The job never runs before it is approved, submitted in one go or in two."""
    before = places(site).get(ID)
    if before is not (State.AWAITING_APPROVAL if answered else before):
        yield f"acknowledged and {before}"
    again = site.run("submit", "-", stdin=SUBMIT_APPROVAL.stdin)
    if again.code != (0 if before is None else 2):
        yield f"was {before}; submitted again: {again}"
    yield from site.recover()
    if places(site).get(ID) is not State.AWAITING_APPROVAL:
        yield f"{places(site).get(ID)} without an approval"
    if list(site.roots.artifacts(ID).directory.glob("steps/*")):
        yield "it was run without an approval"
    yield from _approved(site, [])


SUBMIT_ONE = Scene(
    "submit",
    ("submit", "-"),
    nothing,
    submitted,
    stdin=lines(job(ID)),
)
SUBMIT_THREE = Scene(
    "submit-three",
    ("submit", "-"),
    nothing,
    three_submitted,
    stdin=lines(job("job-crash-1"), job("job-crash-2", "true"), job("job-crash-3", "true")),
)
SUBMIT_APPROVAL = Scene(
    "submit-approval",
    ("submit", "-"),
    nothing,
    waits_for_approval,
    stdin=lines(job(ID, "true", policy={"requires_approval": True})),
)


def delivered(site: Site, answered: list[str]) -> Iterator[str]:
    """However often it is delivered, the key has one job, and that one runs once."""
    known = set(places(site))
    again = site.run(*DELIVER.argv, stdin=DELIVER.stdin)
    yield from redelivered(site, again.ids, known | set(answered))
    yield from site.recover()
    for job_id in again.ids:
        yield from _done_once(site, job_id)


def redelivered(site: Site, answer: list[str], known: set[str]) -> Iterator[str]:
    """The answer is the job that was known, if one was, and there is no other."""
    if len(answer) != 1 or not known <= set(answer):
        yield f"it was {known}, and delivered again {answer}"
    if set(places(site)) != set(answer):
        yield f"it was answered with {answer}, and there are {set(places(site))}"


DELIVER = Scene(
    "deliver",
    ("keyed.py", "0" * 64),
    nothing,
    delivered,
    stdin=json.dumps({name: value for name, value in job(ID).items() if name != "job_id"}),
)


# ---- run --------------------------------------------------------------------------------------


def queued(site: Site) -> None:
    """A job of two steps that waits."""
    site.submit(job(ID, SCRIPT, SCRIPT))


def abandoned(site: Site) -> None:
    """A dead runner's job."""
    queued(site)
    kill_in_step(site)


def ran(site: Site, _: list[str]) -> Iterator[str]:
    """The job is done, and no attempt saw what an earlier one left."""
    if places(site) != {ID: State.DONE}:
        yield f"{places(site)}, not done"
    home = site.roots.workspace(ID).home("exec")
    if (home / "dirty").exists():
        yield "an attempt found what the one before it had left"
    story = site.roots.workspace(ID).work / "story"
    if home.exists() and story.read_text() != "step1\nstep2\n":
        yield f"the story is {story.read_text()!r}"
    for step in ("step1", "step2"):
        yield from _counted(site, step)


def _counted(site: Site, step: str) -> Iterator[str]:
    runs = site.roots.workspace(ID).home("exec") / f"ran-{step}"
    claims = list(site.roots.artifacts(ID).step(step).attempts.glob("*/claim"))
    if runs.exists() and len(runs.read_text().splitlines()) > len(claims):
        yield f"{step} ran {len(runs.read_text().splitlines())} times in {len(claims)} attempts"


def started(site: Site, _: list[str]) -> Iterator[str]:
    """Nothing is left of a start, and the next one is one like any other."""
    yield from (f"left: {path}" for path in site.roots.artifacts_root.iterdir())
    yield from site.recover()


START = Scene("start", ("runner", "--drain"), nothing, started)
RUN_SIMULATED = Scene("run", ("runner", "--drain"), queued, ran)
RUN_EXEC = Scene("run-exec", ("runner", "--drain"), queued, ran, variables=REAL)
CARRY_ON = Scene("carry-on", ("runner", "--drain", "--slot", "dead"), abandoned, ran)
STEP = Scene("step", ("step", ID, "step1"), queued, ran, variables=REAL, repeats=True)


def to_be_told(site: Site) -> None:
    """A job whose end somebody wants to hear of."""
    site.submit(job(ID, SCRIPT, callback_url="http://127.0.0.1:9/"))


def announced(site: Site, _: list[str]) -> Iterator[str]:
    """Its end is to be told, once."""
    if places(site) != {ID: State.DONE}:
        yield f"{places(site)}, not done"
    names = os.listdir(site.queue.paths.outbox(NEW))
    if names != [f"{ID}-1-success.json"]:
        yield f"in the outbox: {names}"


ANNOUNCE = Scene("announce", ("runner", "--drain"), to_be_told, announced)


# ---- decide -----------------------------------------------------------------------------------


def awaiting(site: Site) -> None:
    """A job that wants an approval before it starts."""
    site.submit(job(ID, policy={"requires_approval": True}))


def asking(site: Site) -> None:
    """A job whose step failed, and that asks what now."""
    to_ask(site)
    assert site.recover() == []
    assert places(site) == {ID: State.AWAITING_APPROVAL}


def to_ask(site: Site) -> None:
    """A job that will ask, unless its first attempt is interrupted."""
    one = job(ID, FAILS_ONCE, "true")
    one["steps"][0]["on_failure"] = "ask_human"
    site.submit(one)


def failed(site: Site) -> None:
    """A job whose step failed; it will not the next time."""
    site.submit(job(ID, FAILS_ONCE, "true"))
    assert site.recover() == []
    assert places(site) == {ID: State.FAILED}


def _decided(
    site: Site, answered: list[str], what: str, back: State, target: State
) -> Iterator[str]:
    """The decision holds when it was answered; else it holds, or can be taken again."""
    found = places(site).get(ID)
    if found is not target and (answered or found is not back):
        yield f"{'answered' if answered else 'not answered'}, and the job is {found}"
    words = [line["what"] for line in decisions(site.roots.artifacts(ID))]
    if found is target and what not in words:
        yield f"the job is {found}, and nobody is on record for it: {words}"
    if found is back:
        again = site.run(what, ID)
        if again.code != 0:
            yield f"decided again: {again}"
        yield from site.recover()
        if places(site).get(ID) is not target:
            yield f"decided again, and the job is {places(site).get(ID)}"


def _approved(site: Site, answered: list[str]) -> Iterator[str]:
    yield from _decided(site, answered, "approve", State.AWAITING_APPROVAL, State.DONE)


def _asked(site: Site, _: list[str]) -> Iterator[str]:
    """An attempt that failed is not tried again before somebody said so."""
    if site.roots.artifacts(ID).step("step1").attempt(1).result.exists():
        yield from _approved(site, [])


def _retried(site: Site, answered: list[str]) -> Iterator[str]:
    yield from _decided(site, answered, "retry", State.FAILED, State.DONE)


def _cancelled(site: Site, answered: list[str]) -> Iterator[str]:
    if answered or places(site).get(ID) is not State.DONE:
        yield from _decided(site, answered, "cancel", State.AWAITING_APPROVAL, State.FAILED)
        state = document(site.roots.artifacts(ID).state)
        if state is None or state["status"] != "cancelled":
            yield f"cancelled, and state.json says {state and state['status']}"


def _unlocked(site: Site, answered: list[str]) -> Iterator[str]:
    """Failed, or (nothing was answered) carried on by the next runner."""
    found = places(site).get(ID)
    if found is not State.FAILED and (answered or found is not State.DONE):
        yield f"answered: {answered}, and the job is {found}"


def _reclaimed(site: Site, _: list[str]) -> Iterator[str]:
    if set(places(site).values()) != {State.DONE}:
        yield f"not all is done: {places(site)}"


def much_abandoned(site: Site) -> None:
    """A dead runner's job, another that only its rename is missing, and a dead submitter's."""
    queued(site)
    kill_in_step(site)
    half_submitted(site, "job-crash-2")
    ended = site.submit(job("job-crash-3", "true"))[0]
    assert site.run("runner", "--drain", "--slot", "other").code == 0
    key = next(key for key, _ in site.queue.list_state(State.DONE) if key.job_id == ended)
    with hold(site.queue, "dead2", wait=False) as slot:
        assert slot is not None
        assert slot.take(State.DONE, key)


def half_submitted(site: Site, job_id: str) -> None:
    """A submission whose id was owned when its submitter died."""
    stdin = lines(job(job_id, "true"))
    dry = site.copy()
    calls, _ = points(dry, "submit", "-", stdin=stdin)
    rename = next(p for p in calls if p.name == "rename" and "incoming" in p.line)
    assert site.run("submit", "-", stdin=stdin, under=inject_argv(rename, "signal=SIGKILL")).code


APPROVE = Scene("approve", ("approve", ID), awaiting, _approved)
CANCEL = Scene("cancel", ("cancel", ID), queued, _cancelled)
DECISIONS = (
    APPROVE,
    CANCEL,
    Scene("retry", ("retry", ID), failed, _retried, variables=REAL),
    Scene("approve-asked", ("approve", ID), asking, _approved, variables=REAL),
    Scene("cancel-awaiting", ("cancel", ID), awaiting, _cancelled),
    Scene("unlock", ("unlock", ID), abandoned, _unlocked),
)
RUN_ASKING = Scene("run-asking", ("runner", "--drain"), to_ask, _asked, variables=REAL)
RECLAIM = Scene("reclaim", ("reclaim", "--stale-after-sec", "0"), much_abandoned, _reclaimed)
RECOVER = Scene("runner", ("runner", "--drain"), nothing, _reclaimed)

SCENES = (
    SUBMIT_ONE,
    SUBMIT_THREE,
    SUBMIT_APPROVAL,
    DELIVER,
    START,
    RUN_SIMULATED,
    RUN_EXEC,
    RUN_ASKING,
    STEP,
    ANNOUNCE,
    *DECISIONS,
    RECLAIM,
)
