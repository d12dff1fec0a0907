"""Why a job waits, or why it failed, in words: facts in, an explanation out. Pure.

What is asked at three in the morning is one question; so the first line answers it, what follows is
what that rests on, and then come the commands. `explain` gathers the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from agentorch.core.job import Expiry
from agentorch.core.states import OutcomeClass, State
from agentorch.core.times import span
from agentorch.explain.advice import BUDGET, JOBS, RELEASE, ROOM, Advice, Do, advice
from agentorch.explain.facts import Attempted, Explanation, Facts, Hold, SlotFacts, Why

MOST_SLOTS = 8
# Codes of ends that somebody decided on: who, when and why says more than the error does.
DECIDED = frozenset({"rejected", "cancelled", "unlocked"})


def explained(facts: Facts) -> Explanation:
    """Why the job is where it is."""
    if facts.state is None:
        return _submitting(facts)
    return _EXPLAINED[facts.state](facts)


# ---- waiting ----------------------------------------------------------------------------------


def _submitting(facts: Facts) -> Explanation:
    do = Do("agentorch-reclaim", "puts it into the queue where its submitter is dead")
    return _told(facts, Why.SUBMITTING, "it is being submitted, or its submitter died", do=(do,))


def _pending(facts: Facts) -> Explanation:
    count = facts.before
    place = f"{_jobs(count)} before it" if count else "no job is before it"
    if facts.low:
        return _low(facts, (place,))
    alive = [slot for slot in facts.slots if slot.is_alive]
    if not alive:
        return _no_runner(facts, place)
    answer = "it waits for a slot" if count else "it is the next to be taken"
    return _told(facts, Why.QUEUED, answer, (place, *_slots(facts)))


def _no_runner(facts: Facts, place: str) -> Explanation:
    do = (
        Do("systemctl status agentorch.target", "says whether slots are on; without systemd:"),
        Do("agentorch-runner", "works on it in the foreground"),
    )
    asleep = "a slot of systemd's wakes within a second: where it does not, it is off or fails"
    answer = "no runner is alive to take it"
    return _told(facts, Why.NO_RUNNER, answer, (place, *_slots(facts), asleep), do=do)


def _low(facts: Facts, details: tuple[str, ...]) -> Explanation:
    answer = "too little of the disk is free to start anything"
    return _told(facts, Why.DISK_LOW, answer, (*facts.low, *details), do=(ROOM,))


def _slots(facts: Facts) -> Iterator[str]:
    busy = [slot for slot in facts.slots if slot.is_alive or slot.job_id]
    for slot in busy[:MOST_SLOTS]:
        step = f", step {slot.step_id}" if slot.step_id else ""
        work = f"has {slot.job_id}{step}" if slot.job_id else "has no job"
        yield f"slot {slot.name} {work}{'' if slot.is_alive else '; its owner is dead'}"
    if len(busy) > MOST_SLOTS:
        yield f"and {len(busy) - MOST_SLOTS} more slots"


def _running(facts: Facts) -> Explanation:
    slot = facts.slot or SlotFacts("?", is_alive=True)
    details = (facts.current.words, *_since(facts, facts.current.began), *_held_later(facts))
    if not slot.is_alive:
        return _lost(facts, slot, details)
    if not slot.is_runners:
        answer = f"somebody works on it by hand (slot {slot.name!r}), and puts it back then"
        return _told(facts, Why.BY_HAND, answer)
    if facts.is_cancelled:
        answer = "it is being cancelled: its processes are ended now"
        return _told(facts, Why.CANCELLING, answer, details)
    if facts.low and facts.current.status != "running":
        return _low(facts, details)
    if facts.current.status == "retrying":
        return _retrying(facts)
    return _told(facts, Why.RUNNING, f"slot {slot.name} works on it", details)


def _retrying(facts: Facts) -> Explanation:
    last = facts.current
    answer = f"step {last.step_id} is tried again after a pause (30 s at most)"
    return _told(facts, Why.RETRYING, answer, _ended(last), last.evidence)


def _lost(facts: Facts, slot: SlotFacts, details: tuple[str, ...]) -> Explanation:
    on = ("its step runs on in a unit of its own, and will be waited for",) if facts.runs_on else ()
    now = "agentorch-reclaim --stale-after-sec 0"
    do = Do(now, "puts it back into the queue; a timer does within a minute")
    answer = f"its owner is dead: nobody holds slot {slot.name}"
    return _told(facts, Why.OWNER_LOST, answer, (*details, *on), do=(do,))


def _held_later(facts: Facts) -> tuple[str, ...]:
    if facts.hold is None:
        return ()
    return (f"it will be held when its step has ended: {_by(facts.hold)}",)


def _awaiting(facts: Facts) -> Explanation:
    if not facts.has_begun:
        answer = "it is to be approved before it starts"
        shows = Do("agentorch-report {job} -o report.html", "shows what it is to do")
        do = (shows, _approve("lets it start"), _reject())
        return _told(facts, Why.APPROVE_START, answer, _asked(facts), do=do)
    if facts.current.question:
        return _questioned(facts)
    if facts.current.kind is OutcomeClass.SUCCESS:
        return _to_approve(facts)
    return _undecided(facts)


def _questioned(facts: Facts) -> Explanation:
    answer = f"the agent of step {facts.current.step_id} asks a question"
    asked = tuple(facts.current.question.splitlines())
    do = (Do("agentorch-answer {job} TEXT", "lets the step go on with that"), *_accept())
    return _told(facts, Why.QUESTION, answer, _asked(facts), asked, do)


def _to_approve(facts: Facts) -> Explanation:
    answer = f"what step {facts.current.step_id} did is to be approved"
    do = (
        Do("agentorch-report {job} -o report.html", "shows what it did"),
        _approve("takes it, and goes on behind it"),
        Do("agentorch-retry {job} --comment TEXT", "runs it again, and tells it why"),
        _reject(),
    )
    return _told(facts, Why.APPROVE_STEP, answer, _asked(facts), do=do)


def _undecided(facts: Facts) -> Explanation:
    last = facts.current
    known = advice(last.kind or OutcomeClass.NEEDS_HUMAN, last.code)
    answer = f"a human is to decide: step {last.step_id}: {known.means}"
    by_hand = tuple(one for one in known.do if "retry" not in one.command)
    do = (*by_hand, _approve("runs the step again"), *_accept())
    return _told(facts, Why.DECIDE, answer, (*_ended(last), *_asked(facts)), last.evidence, do)


def _approve(words: str) -> Do:
    return Do("agentorch-approve {job}", words)


def _accept() -> tuple[Do, Do]:
    words = "takes the step as it is, and goes on behind it"
    return Do("agentorch-approve {job} --accept", words), _reject()


def _reject() -> Do:
    return Do("agentorch-reject {job}", "ends it as failed")


def _asked(facts: Facts) -> tuple[str, ...]:
    expires: tuple[str, ...] = ()
    if facts.expires is not None:
        then, when = facts.expires
        words = {Expiry.REJECT: "rejected", Expiry.CANCEL: "cancelled"}.get(then, str(then))
        expires = (f"where nobody decides, it is {words} {_moment(when, facts.now)}",)
    shown = (f"what there is to see has the hash {facts.shown}",) if facts.shown else ()
    return (*_since(facts, facts.since or facts.submitted_at), *expires, *shown)


def _held(facts: Facts) -> Explanation:
    hold = facts.hold
    if hold is None or hold.who is not None:
        details = () if hold is None else (_by(hold), *_since(facts, hold.when))
        return _told(facts, Why.HELD, "it is held back", details, do=(RELEASE,))
    do = (
        BUDGET,
        Do("agentorch-edit {job}", "changes what it may cost: policy.max_cost_usd"),
        RELEASE,
    )
    answer = "it is held back by itself: no later time would help"
    details = (f"why: {hold.reason}", *_since(facts, hold.when))
    return _told(facts, Why.HELD_BY_ITSELF, answer, details, do=do)


def _by(hold: Hold) -> str:
    reason = f": {hold.reason}" if hold.reason else ""
    return f"by {hold.who or 'itself'}{reason}"


def _parked(facts: Facts) -> Explanation:
    park, last = facts.park, facts.current
    if park is None or park.until <= facts.now:
        answer = "its time has come: a runner or a timer brings it back within a minute"
        do = Do("agentorch-reclaim", "brings it back now")
        return _told(facts, Why.DUE, answer, do=(do,))
    why, answer, more = _PARKED.get(park.kind, (Why.PARKED, "it goes on at a later time", ()))
    kept = "what its step did is kept, and no try is used up"
    reason = f"why: {park.reason}" if park.reason else "nobody recorded why"
    details = (f"until {_moment(park.until, facts.now)}", reason, last.words, kept)
    return _told(facts, why, answer, details, do=(*more, _EARLIER))


_EARLIER = replace(RELEASE, words="tries it now; it is parked again where that is too early")
_PARKED: Mapping[str, tuple[Why, str, tuple[Do, ...]]] = {
    OutcomeClass.QUOTA: (Why.QUOTA, "a usage limit of its provider's is reached", ()),
    OutcomeClass.BUDGET: (
        Why.BUDGET,
        "a budget is used up for the day",
        (BUDGET,),
    ),
}


# ---- ended ------------------------------------------------------------------------------------


def _done(facts: Facts) -> Explanation:
    ran, steps = facts.ran
    cost = f", ${facts.cost_usd:.2f}" if facts.cost_usd else ""
    ago = f", {span(_seconds(facts.since, facts.now))} ago" if facts.since else ""
    return _told(facts, Why.DONE, f"{ran} of {steps} steps ran{cost}{ago}")


def _failed(facts: Facts) -> Explanation:
    last = facts.current
    code, message = facts.error or ("unknown", "nobody recorded why")
    if code in JOBS:
        told = facts.decided if code in DECIDED and facts.decided else message
        return _by_advice(facts, code, JOBS[code], (told,), ())
    if last.kind is None:
        known = Advice("it ended without an attempt that tells why", (_ALL_LOGS,))
        return _by_advice(facts, code, known, (message,), ())
    known = advice(last.kind, last.code)
    usual = message.startswith(f"step {last.step_id} ended as")
    details = _ended(last) if usual else (*_ended(last), message)
    return _by_advice(facts, last.kind, known, details, last.evidence)


_ALL_LOGS = Do("agentorch-logs {job}", "shows all there is")


def _by_advice(
    facts: Facts, why: str, known: Advice, details: tuple[str, ...], evidence: tuple[str, ...]
) -> Explanation:
    when = f"{facts.since:%Y-%m-%d %H:%M:%S} UTC" if facts.since is not None else ""
    ended = (f"it ended {when}",) if when else ()
    return _told(facts, why, known.means, (*details, *ended), evidence, known.do)


def _ended(last: Attempted) -> tuple[str, ...]:
    """How the attempt ended, by its class and its code."""
    code = f", {last.code}" if last.code and last.code != last.kind else ""
    return (f"{last.words}: {last.kind}{code}: {last.summary}",)


# ---- words ------------------------------------------------------------------------------------


def _told(
    facts: Facts,
    why: str,
    answer: str,
    details: tuple[str, ...] = (),
    evidence: tuple[str, ...] = (),
    do: tuple[Do, ...] = (),
) -> Explanation:
    names = {"job": facts.job_id, "step": facts.current.step_id, "agent": facts.current.agent}
    filled = tuple(Do(one.command.format(**names), one.words.format(**names)) for one in do)
    state = facts.state.value if facts.state is not None else "not queued"
    return Explanation(facts.job_id, state, str(why), answer, details, evidence, filled)


def _jobs(count: int) -> str:
    return "1 job is" if count == 1 else f"{count} jobs are"


def _since(facts: Facts, when: datetime | None) -> tuple[str, ...]:
    if when is None:
        return ()
    ago = span(_seconds(when, facts.now))
    return (f"since {when:%Y-%m-%d %H:%M:%S} UTC, for {ago}",)


def _moment(when: datetime, now: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC, in {span(_seconds(now, when))}"


def _seconds(start: datetime | None, end: datetime) -> float:
    return 0.0 if start is None else max(0.0, (end - start) / timedelta(seconds=1))


_EXPLAINED: Mapping[State, Callable[[Facts], Explanation]] = {
    State.PENDING: _pending,
    State.RUNNING: _running,
    State.AWAITING_APPROVAL: _awaiting,
    State.HELD: _held,
    State.PARKED: _parked,
    State.DONE: _done,
    State.FAILED: _failed,
}
