"""The tables of a job's life agree with each other."""

from __future__ import annotations

import pytest

from agentorch.artifacts.state import FINAL_STATES
from agentorch.core.states import (
    ENDED,
    REACTIONS,
    STATUSES,
    TRANSITIONS,
    OutcomeClass,
    Reaction,
    State,
    Status,
    reaction,
)


def test_every_state_has_its_row_and_is_reached() -> None:
    assert set(TRANSITIONS) == set(State)
    reached = {target for row in TRANSITIONS.values() for target in row.values()}
    assert reached == set(State)


def test_wherever_a_status_ends_a_job_an_event_leads() -> None:
    assert set(FINAL_STATES.values()) <= set(TRANSITIONS[State.RUNNING].values())
    assert set(FINAL_STATES.values()) - ENDED == {State.AWAITING_APPROVAL}


def test_every_outcome_has_a_reaction_and_a_status_of_a_result() -> None:
    assert set(REACTIONS) == set(STATUSES) == set(OutcomeClass)
    assert set(STATUSES.values()) <= {*FINAL_STATES, Status.RETRYABLE}
    assert Status.RUNNING not in FINAL_STATES


@pytest.mark.parametrize("code", [None, "max_cost", "max_turns", "unpriced", "anything"])
def test_a_step_that_used_up_what_is_its_own_is_not_begun_again_and_again(code: str | None) -> None:
    assert reaction(OutcomeClass.BUDGET, code) is Reaction.FINAL
    assert reaction(OutcomeClass.BUDGET, "budget_exceeded") is Reaction.PARK
