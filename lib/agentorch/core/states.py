"""The tables of states: where a job can be, what can happen to it there, how a step can end.

A job's state is the directory that its one queue file is in. Nothing here reads a clock or a file.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """A job's state: the name of its directory below the queue."""

    PENDING = "pending"
    RUNNING = "running"
    AWAITING_APPROVAL = "awaiting_approval"
    HELD = "held"
    PARKED = "parked"
    DONE = "done"
    FAILED = "failed"


class Event(StrEnum):
    """An event that moves a job from one state to another."""

    CLAIM = "claim"
    SUCCEED = "succeed"
    FAIL = "fail"
    ASK = "ask"
    PARK = "park"
    WAKE = "wake"
    HOLD = "hold"
    RELEASE = "release"
    GIVE_BACK = "give back"
    RECLAIM = "reclaim"
    UNLOCK = "unlock"
    APPROVE = "approve"
    REJECT = "reject"
    CANCEL = "cancel"
    RETRY = "retry"


# Cancelling or holding a running job writes a marker; the job's owner then makes the move, a hold
# when its step has ended.
TRANSITIONS: dict[State, dict[Event, State]] = {
    State.PENDING: {
        Event.CLAIM: State.RUNNING,
        Event.HOLD: State.HELD,
        Event.CANCEL: State.FAILED,
    },
    State.RUNNING: {
        Event.SUCCEED: State.DONE,
        Event.FAIL: State.FAILED,
        Event.ASK: State.AWAITING_APPROVAL,
        Event.PARK: State.PARKED,
        Event.HOLD: State.HELD,
        Event.GIVE_BACK: State.PENDING,
        Event.RECLAIM: State.PENDING,
        Event.UNLOCK: State.FAILED,
        Event.CANCEL: State.FAILED,
    },
    State.AWAITING_APPROVAL: {
        Event.APPROVE: State.PENDING,
        Event.REJECT: State.FAILED,
        Event.RETRY: State.PENDING,
        Event.CANCEL: State.FAILED,
    },
    State.HELD: {
        Event.RELEASE: State.PENDING,
        Event.CANCEL: State.FAILED,
    },
    State.PARKED: {
        Event.WAKE: State.PENDING,
        Event.RELEASE: State.PENDING,
        Event.HOLD: State.HELD,
        Event.CANCEL: State.FAILED,
    },
    State.DONE: {
        Event.RETRY: State.PENDING,
    },
    State.FAILED: {
        Event.RETRY: State.PENDING,
    },
}

ENDED = frozenset({State.DONE, State.FAILED})


class Status(StrEnum):
    """The status of a result (contracts/result.schema.json)."""

    SUCCESS = "success"
    FAILED = "failed"
    RETRYABLE = "retryable"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    NEEDS_HUMAN = "needs_human"
    RUNNING = "running"


class OutcomeClass(StrEnum):
    """The class of an attempt's outcome: the one word that the pipeline decides by."""

    SUCCESS = "success"
    AGENT_ERROR = "agent_error"
    PARSE_ERROR = "parse_error"
    TIMEOUT = "timeout"
    STALLED = "stalled"
    OOM = "oom"
    CANCELLED = "cancelled"
    QUOTA = "quota"
    AUTH = "auth"
    POLICY = "policy"
    BUDGET = "budget"
    PATCH = "patch"
    SECRETS = "secrets"
    INFRA = "infra"
    NEEDS_HUMAN = "needs_human"
    CHANGES = "changes_requested"


class Reaction(StrEnum):
    """The reaction of the pipeline to an outcome class."""

    ADVANCE = "advance"
    RETRY = "retry"
    FINAL = "final"
    ASK = "ask"
    PARK = "park"
    END = "end"


# RETRY: again while retries are left, then as FINAL. FINAL: the step's on_failure decides.
# ASK: a human decides, whatever on_failure says. PARK: later again, where it stopped; no try is
# used up. END: the job ends here.
REACTIONS: dict[OutcomeClass, Reaction] = {
    OutcomeClass.SUCCESS: Reaction.ADVANCE,
    OutcomeClass.AGENT_ERROR: Reaction.RETRY,
    OutcomeClass.PARSE_ERROR: Reaction.RETRY,
    OutcomeClass.TIMEOUT: Reaction.RETRY,
    OutcomeClass.STALLED: Reaction.RETRY,
    OutcomeClass.OOM: Reaction.RETRY,
    OutcomeClass.INFRA: Reaction.RETRY,
    OutcomeClass.CANCELLED: Reaction.END,
    OutcomeClass.QUOTA: Reaction.PARK,
    OutcomeClass.AUTH: Reaction.FINAL,
    OutcomeClass.POLICY: Reaction.FINAL,
    OutcomeClass.BUDGET: Reaction.PARK,
    OutcomeClass.PATCH: Reaction.FINAL,
    OutcomeClass.SECRETS: Reaction.FINAL,
    OutcomeClass.NEEDS_HUMAN: Reaction.ASK,
    OutcomeClass.CHANGES: Reaction.FINAL,
}

# The error code of class budget that another day may help: a cap of the server's or the job's.
# Any other is the step's own (max_cost, max_turns, unpriced): it would come to the same again.
CAP_OF_OTHERS = "budget_exceeded"


def reaction(kind: OutcomeClass, code: str | None) -> Reaction:
    """Return what the pipeline does about an outcome of this class, with this error code. Pure."""
    if kind is OutcomeClass.BUDGET and code != CAP_OF_OTHERS:
        return Reaction.FINAL
    return REACTIONS[kind]


# What a result says of an outcome; a retry that is still to come is RETRYABLE instead.
STATUSES: dict[OutcomeClass, Status] = {
    OutcomeClass.SUCCESS: Status.SUCCESS,
    OutcomeClass.AGENT_ERROR: Status.FAILED,
    OutcomeClass.PARSE_ERROR: Status.FAILED,
    OutcomeClass.TIMEOUT: Status.TIMEOUT,
    OutcomeClass.STALLED: Status.TIMEOUT,
    OutcomeClass.OOM: Status.FAILED,
    OutcomeClass.INFRA: Status.FAILED,
    OutcomeClass.CANCELLED: Status.CANCELLED,
    OutcomeClass.QUOTA: Status.RETRYABLE,
    OutcomeClass.AUTH: Status.FAILED,
    OutcomeClass.POLICY: Status.FAILED,
    OutcomeClass.BUDGET: Status.FAILED,
    OutcomeClass.PATCH: Status.FAILED,
    OutcomeClass.SECRETS: Status.FAILED,
    OutcomeClass.NEEDS_HUMAN: Status.NEEDS_HUMAN,
    OutcomeClass.CHANGES: Status.FAILED,
}
