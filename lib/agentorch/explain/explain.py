"""The sentences that explain why a job waits or why it failed. Pure: facts in, explanation out.

The first line answers the question. Below it come the facts that the answer rests on, then the
evidence, then the commands to run next. `gather` reads the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from agentorch.core.job import Expiry
from agentorch.core.states import OutcomeClass, State
from agentorch.core.times import span
from agentorch.explain.advice import BUDGET, JOBS, RELEASE, ROOM, Action, Advice, advice
from agentorch.explain.facts import AttemptFacts, Explanation, Facts, Hold, SlotFacts, Why

MAX_SLOTS = 8
# Error codes of jobs that a person ended: who, when and why says more than the error message.
DECIDED = frozenset({"rejected", "cancelled", "unlocked"})


def explain_job(facts: Facts) -> Explanation:
    """Return the explanation of why the job is where it is."""
    if facts.state is None:
        return _explain_submitting(facts)
    return _BY_STATE[facts.state](facts)


# ---- waiting ----------------------------------------------------------------------------------


def _explain_submitting(facts: Facts) -> Explanation:
    action = Action("agentorch-reclaim", "puts it into the queue if its submitter is dead")
    return _explanation(
        facts,
        Why.SUBMITTING,
        "it is being submitted, or its submitter died before it was queued",
        actions=(action,),
    )


def _explain_pending(facts: Facts) -> Explanation:
    count = facts.jobs_ahead
    place = f"{_jobs_text(count)} ahead of it" if count else "no job is ahead of it"
    if facts.low_disks:
        return _explain_low_disk(facts, (place,))
    alive = [slot for slot in facts.slots if slot.is_alive]
    if not alive:
        return _explain_no_runner(facts, place)
    answer = "it waits for a free slot" if count else "it is the next to be claimed"
    return _explanation(facts, Why.QUEUED, answer, (place, *_slot_lines(facts)))


def _explain_no_runner(facts: Facts, place: str) -> Explanation:
    actions = (
        Action(
            "systemctl status agentorch.target",
            "shows whether the slots are enabled; without systemd, run:",
        ),
        Action("agentorch-runner", "works on it in the foreground"),
    )
    asleep = (
        "systemd starts a slot within a second: where it does not, the slots are disabled or fail"
    )
    answer = "no runner is alive to claim it"
    return _explanation(
        facts, Why.NO_RUNNER, answer, (place, *_slot_lines(facts), asleep), actions=actions
    )


def _explain_low_disk(facts: Facts, details: tuple[str, ...]) -> Explanation:
    answer = "too little disk space is free to start a step"
    return _explanation(facts, Why.DISK_LOW, answer, (*facts.low_disks, *details), actions=(ROOM,))


def _slot_lines(facts: Facts) -> Iterator[str]:
    busy = [slot for slot in facts.slots if slot.is_alive or slot.job_id]
    for slot in busy[:MAX_SLOTS]:
        step = f", step {slot.step_id}" if slot.step_id else ""
        work = f"works on {slot.job_id}{step}" if slot.job_id else "is idle"
        yield f"slot {slot.name} {work}{'' if slot.is_alive else '; its owner is dead'}"
    if len(busy) > MAX_SLOTS:
        yield f"and {len(busy) - MAX_SLOTS} more slots"


def _explain_running(facts: Facts) -> Explanation:
    slot = facts.slot or SlotFacts("?", is_alive=True)
    details = (
        facts.current.title,
        *_begin_lines(facts, facts.current.began),
        *_pending_hold_lines(facts),
    )
    if not slot.is_alive:
        return _explain_lost_owner(facts, slot, details)
    if not slot.is_runners:
        answer = f"a person's command works on it (slot {slot.name!r}), and puts it back afterwards"
        return _explanation(facts, Why.BY_HAND, answer)
    if facts.is_cancelled:
        answer = "it is being cancelled: its processes are being stopped"
        return _explanation(facts, Why.CANCELLING, answer, details)
    if facts.low_disks and facts.current.status != "running":
        return _explain_low_disk(facts, details)
    if facts.current.status == "retrying":
        return _explain_retrying(facts)
    return _explanation(facts, Why.RUNNING, f"slot {slot.name} works on it", details)


def _explain_retrying(facts: Facts) -> Explanation:
    last = facts.current
    answer = f"step {last.step_id} will be tried again after a pause (at most 30 s)"
    return _explanation(facts, Why.RETRYING, answer, _outcome_lines(last), last.evidence)


def _explain_lost_owner(facts: Facts, slot: SlotFacts, details: tuple[str, ...]) -> Explanation:
    still = "its step still runs in its own unit, and the next owner will wait for it"
    on = (still,) if facts.runs_on else ()
    now = "agentorch-reclaim --stale-after-sec 0"
    action = Action(now, "puts it back into the queue now; a timer does so within a minute")
    answer = f"its owner is dead: no process holds slot {slot.name}"
    evidence = facts.current.evidence
    return _explanation(facts, Why.OWNER_LOST, answer, (*details, *on), evidence, (action,))


def _pending_hold_lines(facts: Facts) -> tuple[str, ...]:
    if facts.hold is None:
        return ()
    return (f"it will be held when this step has ended, {_holder(facts.hold)}",)


def _explain_awaiting(facts: Facts) -> Explanation:
    if not facts.has_begun:
        answer = "it must be approved before it starts"
        shows = Action("agentorch-report {job} -o report.html", "shows what it is to do")
        actions = (shows, _approve("starts it"), _reject())
        return _explanation(
            facts, Why.APPROVE_START, answer, _decision_lines(facts), actions=actions
        )
    if facts.current.question:
        return _explain_question(facts)
    if facts.current.kind is OutcomeClass.SUCCESS:
        return _explain_approval(facts)
    return _explain_decision(facts)


def _explain_question(facts: Facts) -> Explanation:
    answer = f"the agent of step {facts.current.step_id} asks a question"
    question = tuple(facts.current.question.splitlines())
    actions = (
        Action("agentorch-answer {job} TEXT", "answers the question, and the step goes on"),
        *_accept(),
    )
    return _explanation(facts, Why.QUESTION, answer, _decision_lines(facts), question, actions)


def _explain_approval(facts: Facts) -> Explanation:
    answer = f"the result of step {facts.current.step_id} must be approved"
    actions = (
        Action("agentorch-report {job} -o report.html", "shows what it did"),
        _approve("accepts it, and goes on with the next step"),
        Action(
            "agentorch-retry {job} --comment TEXT", "runs the step again, with TEXT as the reason"
        ),
        _reject(),
    )
    return _explanation(facts, Why.APPROVE_STEP, answer, _decision_lines(facts), actions=actions)


def _explain_decision(facts: Facts) -> Explanation:
    last = facts.current
    known = advice(last.kind or OutcomeClass.NEEDS_HUMAN, last.code)
    answer = f"a person must decide about step {last.step_id}: {known.meaning}"
    by_hand = tuple(one for one in known.actions if "retry" not in one.command)
    actions = (*by_hand, _approve("runs the step again"), *_accept())
    return _explanation(
        facts,
        Why.DECIDE,
        answer,
        (*_outcome_lines(last), *_decision_lines(facts)),
        last.evidence,
        actions,
    )


def _approve(words: str) -> Action:
    return Action("agentorch-approve {job}", words)


def _accept() -> tuple[Action, Action]:
    words = "accepts the step as it is, and goes on with the next one"
    return Action("agentorch-approve {job} --accept", words), _reject()


def _reject() -> Action:
    return Action("agentorch-reject {job}", "ends it as failed")


def _decision_lines(facts: Facts) -> tuple[str, ...]:
    expires: tuple[str, ...] = ()
    if facts.expires is not None:
        then, when = facts.expires
        words = {Expiry.REJECT: "rejected", Expiry.CANCEL: "cancelled"}.get(then, str(then))
        expires = (f"without a decision it will be {words} at {_moment_text(when, facts.now)}",)
    shown = (
        (f"the hash of what is to be decided on is {facts.shown_hash}",) if facts.shown_hash else ()
    )
    return (*_begin_lines(facts, facts.since or facts.submitted_at), *expires, *shown)


def _explain_held(facts: Facts) -> Explanation:
    hold = facts.hold
    if hold is None or hold.who is not None:
        details = () if hold is None else (_holder(hold), *_begin_lines(facts, hold.when))
        return _explanation(facts, Why.HELD, "it is held", details, actions=(RELEASE,))
    actions = (
        BUDGET,
        Action("agentorch-edit {job}", "changes its cost limit, policy.max_cost_usd"),
        RELEASE,
    )
    answer = "it was held automatically, because waiting would not help"
    details = (f"reason: {hold.reason}", *_begin_lines(facts, hold.when))
    return _explanation(facts, Why.HELD_BY_ITSELF, answer, details, actions=actions)


def _holder(hold: Hold) -> str:
    reason = f": {hold.reason}" if hold.reason else ""
    return f"by {hold.who or 'itself'}{reason}"


def _explain_parked(facts: Facts) -> Explanation:
    park, last = facts.park, facts.current
    if park is None or park.until <= facts.now:
        answer = "the time to go on has come: a runner or a timer queues it again within a minute"
        action = Action("agentorch-reclaim", "queues it again now")
        return _explanation(facts, Why.DUE, answer, actions=(action,))
    why, answer, more = _PARKED.get(park.kind, (Why.PARKED, "it will go on at a later time", ()))
    kept = "the work of its step is kept, and this does not count as a failed try"
    reason = f"reason: {park.reason}" if park.reason else "no reason is recorded"
    details = (f"until {_moment_text(park.until, facts.now)}", reason, last.title, kept)
    return _explanation(facts, why, answer, details, actions=(*more, _EARLIER))


_EARLIER = replace(RELEASE, words="tries it now; if that is too early, it is parked again")
_PARKED: Mapping[str, tuple[Why, str, tuple[Action, ...]]] = {
    OutcomeClass.QUOTA: (Why.QUOTA, "a usage limit of its provider is reached", ()),
    OutcomeClass.BUDGET: (
        Why.BUDGET,
        "a budget of the day is used up",
        (BUDGET,),
    ),
}


# ---- ended ------------------------------------------------------------------------------------


def _explain_done(facts: Facts) -> Explanation:
    ran, steps = facts.steps_run
    cost = f", ${facts.cost_usd:.2f}" if facts.cost_usd else ""
    ago = f", {span(_seconds_between(facts.since, facts.now))} ago" if facts.since else ""
    return _explanation(facts, Why.DONE, f"{ran} of {steps} steps ran{cost}{ago}")


def _explain_failed(facts: Facts) -> Explanation:
    last = facts.current
    code, message = facts.error or ("unknown", "no reason is recorded")
    if code in JOBS:
        reason = facts.last_decision if code in DECIDED and facts.last_decision else message
        return _explain_outcome(facts, code, JOBS[code], (reason,), ())
    if last.kind is None:
        known = Advice("it ended, and no attempt says why", (_ALL_LOGS,))
        return _explain_outcome(facts, code, known, (message,), ())
    known = advice(last.kind, last.code)
    usual = message.startswith(f"step {last.step_id} ended as")
    details = _outcome_lines(last) if usual else (*_outcome_lines(last), message)
    return _explain_outcome(facts, last.kind, known, details, last.evidence)


_ALL_LOGS = Action("agentorch-logs {job}", "shows all of its logs")


def _explain_outcome(
    facts: Facts, why: str, known: Advice, details: tuple[str, ...], evidence: tuple[str, ...]
) -> Explanation:
    when = f"{facts.since:%Y-%m-%d %H:%M:%S} UTC" if facts.since is not None else ""
    ended = (f"it ended {when}",) if when else ()
    return _explanation(facts, why, known.meaning, (*details, *ended), evidence, known.actions)


def _outcome_lines(last: AttemptFacts) -> tuple[str, ...]:
    """Return the line of an attempt's outcome: its class, its code, its summary."""
    code = f", {last.code}" if last.code and last.code != last.kind else ""
    return (f"{last.title}: {last.kind}{code}: {last.summary}",)


# ---- text ------------------------------------------------------------------------------------


def _explanation(
    facts: Facts,
    why: str,
    answer: str,
    details: tuple[str, ...] = (),
    evidence: tuple[str, ...] = (),
    actions: tuple[Action, ...] = (),
) -> Explanation:
    names = {"job": facts.job_id, "step": facts.current.step_id, "agent": facts.current.agent}
    filled = tuple(
        Action(one.command.format(**names), one.words.format(**names)) for one in actions
    )
    state = facts.state.value if facts.state is not None else "not queued"
    return Explanation(facts.job_id, state, str(why), answer, details, evidence, filled)


def _jobs_text(count: int) -> str:
    return "1 job is" if count == 1 else f"{count} jobs are"


def _begin_lines(facts: Facts, when: datetime | None) -> tuple[str, ...]:
    if when is None:
        return ()
    ago = span(_seconds_between(when, facts.now))
    return (f"since {when:%Y-%m-%d %H:%M:%S} UTC, for {ago}",)


def _moment_text(when: datetime, now: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC, in {span(_seconds_between(now, when))}"


def _seconds_between(start: datetime | None, end: datetime) -> float:
    return 0.0 if start is None else max(0.0, (end - start) / timedelta(seconds=1))


_BY_STATE: Mapping[State, Callable[[Facts], Explanation]] = {
    State.PENDING: _explain_pending,
    State.RUNNING: _explain_running,
    State.AWAITING_APPROVAL: _explain_awaiting,
    State.HELD: _explain_held,
    State.PARKED: _explain_parked,
    State.DONE: _explain_done,
    State.FAILED: _explain_failed,
}
