"""The pipeline's table, walked at random: it ends, it is bounded, a resume changes nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.artifacts.state import JobState
from agentorch.core import pipeline
from agentorch.core.job import Handoff, Job, Step
from agentorch.core.pipeline import AskHuman, Decision, Finish, Phase, Progress, RunStep
from agentorch.core.states import REACTIONS, STATUSES, OutcomeClass, Reaction, Status

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def job(*steps: Step, handoff: Handoff = Handoff.MANUAL) -> Job:
    return Job("j" * 8, "2026-01-01T00:00:00Z", NOW, "goal", steps, artifact_handoff=handoff)


def step(step_id: str, on_failure: str = "stop", retries: int = 0, backoff: float = 2) -> Step:
    return Step(
        step_id,
        "exec",
        "role",
        "true",
        max_retries=retries,
        retry_backoff_s=backoff,
        on_failure=on_failure,
    )


def after(work: Job, progress: Progress, kind: OutcomeClass) -> tuple[Progress, Decision]:
    number = progress.step(progress.current).attempt + 1
    return pipeline.decision_after(
        work, pipeline.start_attempt(progress, number), kind, max_attempts=3
    )


def test_every_class_has_a_reaction_and_a_status() -> None:
    assert set(REACTIONS) == set(STATUSES) == set(OutcomeClass)


def test_steps_run_in_order_and_the_last_success_ends_the_job() -> None:
    work = job(step("a"), step("b"))
    progress, decision = after(work, pipeline.begin(work), OutcomeClass.SUCCESS)
    assert (progress.current, decision) == ("b", RunStep())
    progress, decision = after(work, progress, OutcomeClass.SUCCESS)
    assert decision == Finish(Status.SUCCESS)


def test_a_retry_waits_longer_each_time_and_never_more_than_half_a_minute() -> None:
    assert [pipeline.backoff_s(step("a", backoff=2), n) for n in range(1, 7)] == [
        2,
        4,
        8,
        16,
        30,
        30,
    ]


@pytest.mark.parametrize(
    ("retries", "limit", "tries"), [(0, 3, 1), (1, 3, 2), (9, 3, 3), (9, 1, 1)]
)
def test_tries_are_bounded_by_the_job_and_by_the_server(
    retries: int, limit: int, tries: int
) -> None:
    work = job(step("a", retries=retries))
    progress, count = pipeline.begin(work), 0
    decision: Decision = RunStep()
    while isinstance(decision, RunStep):
        count += 1
        progress = pipeline.start_attempt(progress, count)
        progress, decision = pipeline.decision_after(
            work, progress, OutcomeClass.AGENT_ERROR, limit
        )
    assert count == tries
    assert decision == Finish(Status.FAILED, "step_failed", "step a ended as agent_error")


@pytest.mark.parametrize(
    "kind", [k for k, reaction in REACTIONS.items() if reaction in (Reaction.FINAL, Reaction.ASK)]
)
def test_what_a_retry_cannot_mend_is_not_retried(kind: OutcomeClass) -> None:
    work = job(step("a", retries=5))
    _, decision = after(work, pipeline.begin(work), kind)
    assert not isinstance(decision, RunStep)


def test_continue_after_a_middle_step_lets_the_job_succeed_but_not_after_the_last() -> None:
    work = job(step("a", "continue"), step("b", "continue"))
    progress, decision = after(work, pipeline.begin(work), OutcomeClass.TIMEOUT)
    assert decision == RunStep()
    _, ended = after(work, progress, OutcomeClass.SUCCESS)
    assert ended == Finish(Status.SUCCESS)
    _, ended = after(work, progress, OutcomeClass.TIMEOUT)
    assert isinstance(ended, Finish)
    assert ended.status is Status.TIMEOUT


def test_ask_human_and_needs_human_override_on_failure() -> None:
    work = job(step("a", "continue"), step("b", "ask_human"))
    progress, decision = after(work, pipeline.begin(work), OutcomeClass.NEEDS_HUMAN)
    assert isinstance(decision, AskHuman)
    progress, _ = after(work, pipeline.begin(work), OutcomeClass.SUCCESS)
    _, decision = after(work, progress, OutcomeClass.AGENT_ERROR)
    assert isinstance(decision, AskHuman)


def test_goto_jumps_back_until_its_limit() -> None:
    work = job(step("a"), step("b", "goto:a"))
    progress, rounds = pipeline.begin(work), 0
    decision: Decision = RunStep()
    while isinstance(decision, RunStep):
        kind = OutcomeClass.SUCCESS if progress.current == "a" else OutcomeClass.AGENT_ERROR
        rounds += kind is OutcomeClass.SUCCESS
        progress, decision = after(work, progress, kind)
    assert rounds == pipeline.MAX_VISITS
    assert decision == Finish(Status.FAILED, "step_failed", "step a was visited 5 times")


def test_a_reviewer_that_requests_changes_has_them_made_a_bounded_number_of_times() -> None:
    work = job(step("plan"), step("implement"), step("review", "goto:implement", retries=3))
    progress, walked = pipeline.begin(work), []
    decision: Decision = RunStep()
    while isinstance(decision, RunStep):
        walked.append(progress.current)
        reviews = progress.current == "review"
        kind = OutcomeClass.CHANGES if reviews else OutcomeClass.SUCCESS
        progress, decision = after(work, progress, kind)
    assert walked == ["plan", *["implement", "review"] * pipeline.MAX_VISITS]
    assert decision == Finish(
        Status.FAILED, "step_failed", f"step implement was visited {pipeline.MAX_VISITS} times"
    )


def test_goto_jumps_forward() -> None:
    work = job(step("a", "goto:c"), step("b"), step("c"))
    progress, decision = after(work, pipeline.begin(work), OutcomeClass.AGENT_ERROR)
    assert (progress.current, decision) == ("c", RunStep())


def test_an_interrupted_attempt_uses_up_no_try() -> None:
    work = job(step("a", retries=1))
    progress = pipeline.begin(work)
    for number in range(1, 8):
        progress = pipeline.progress_after_interruption(pipeline.start_attempt(progress, number))
    progress, decision = after(work, progress, OutcomeClass.AGENT_ERROR)
    assert decision == RunStep(2)
    assert progress.step("a").attempt == 8


def test_a_decision_goes_on_where_the_job_stopped_with_fresh_limits() -> None:
    work = job(step("a"), step("b"), step("c"))
    progress, _ = after(work, pipeline.begin(work), OutcomeClass.SUCCESS)
    progress, _ = after(work, progress, OutcomeClass.NEEDS_HUMAN)
    resumed = pipeline.progress_after_decision(work, progress)
    assert resumed.current == "b"
    assert resumed.step("a").status is Status.SUCCESS
    assert (resumed.step("b").tries, resumed.step("b").visits, resumed.step("b").base) == (0, 1, 1)
    back = pipeline.progress_after_decision(work, resumed, "a")
    assert (back.current, back.step("a").status, back.step("b").status) == (
        "a",
        "pending",
        "pending",
    )
    with pytest.raises(KeyError):
        pipeline.progress_after_decision(work, progress, "zz")


def test_a_step_that_is_visited_again_starts_from_what_is_there_then() -> None:
    work = job(step("a"), step("b", "goto:a"))
    progress, _ = after(work, pipeline.begin(work), OutcomeClass.SUCCESS)
    progress, _ = after(work, progress, OutcomeClass.AGENT_ERROR)
    assert progress.step("a").base == 2


@pytest.mark.parametrize(
    ("handoff", "latest", "expected"),
    [
        (Handoff.MANUAL, "a", (["x.md"], ["steps/a/patch.diff", "p/q.diff"])),
        (Handoff.PATCH_FIRST, "a", (["steps/a/patch.diff"], [])),
        (Handoff.PATCH_FIRST, None, ([], [])),
        (Handoff.WORKSPACE_FIRST, "a", ([], [])),
    ],
)
def test_handoff(
    handoff: Handoff, latest: str | None, expected: tuple[list[str], list[str]]
) -> None:
    asked = replace(step("b"), input_artifacts=("x.md",), apply_patches_from=("a", "p/q.diff"))
    assert pipeline.handoff(job(step("a"), asked, handoff=handoff), asked, latest) == expected


IDS = ("a", "b", "c", "d")


@st.composite
def pipelines(draw: st.DrawFn) -> Job:
    count = draw(st.integers(1, len(IDS)))
    failures = st.sampled_from(
        ["stop", "continue", "ask_human", *(f"goto:{i}" for i in IDS[:count])]
    )
    return job(
        *(step(name, draw(failures), draw(st.integers(0, 10))) for name in IDS[:count]),
    )


@given(pipelines(), st.lists(st.sampled_from(list(OutcomeClass)), min_size=1), st.integers(1, 5))
def test_every_walk_ends_and_a_resume_at_any_point_is_no_difference(
    work: Job, kinds: list[OutcomeClass], limit: int
) -> None:
    straight, resumed = pipeline.begin(work), pipeline.begin(work)
    decision: Decision = RunStep()
    count = 0
    while isinstance(decision, RunStep):
        kind = kinds[count % len(kinds)]
        count += 1
        assert count <= len(IDS) * (pipeline.MAX_VISITS + len(IDS)) * limit * len(IDS)
        straight = pipeline.start_attempt(straight, count)
        # through the disk and back, as a new owner reads it
        resumed = _through_disk(work, pipeline.start_attempt(_through_disk(work, resumed), count))
        straight, decision = pipeline.decision_after(work, straight, kind, limit)
        resumed, same = pipeline.decision_after(work, resumed, kind, limit)
        assert (resumed, same) == (straight, decision)
    for known in straight.steps.values():
        assert known.tries <= limit
        assert known.status is not Phase.RUNNING


def _through_disk(work: Job, progress: Progress) -> Progress:
    document = JobState(work.job_id, "running", progress).to_document(work)
    return JobState.from_document(document).progress


def test_a_step_that_begins_anew_begins_before_what_was_parked_in_it() -> None:
    work = job(step("a"))
    progress, decision = after(work, pipeline.begin(work), OutcomeClass.QUOTA)
    assert isinstance(decision, pipeline.Park)
    going_on = progress.step("a")
    assert (going_on.base, going_on.first, going_on.resumes, going_on.tries) == (2, 1, 1, 0)
    progress, _ = after(work, progress, OutcomeClass.POLICY)
    anew = pipeline.progress_after_decision(work, progress).step("a")
    assert (anew.base, anew.first, anew.resumes) == (1, 0, 0)


# ---- parked, approved, accepted, continued ----------------------------------------------------

ENDS = st.sampled_from(
    [*((kind, None) for kind in OutcomeClass), (OutcomeClass.BUDGET, "budget_exceeded")]
)
WORDS = st.sampled_from(["decided", "accepted", "continued", "from the first"])


@st.composite
def approved_pipelines(draw: st.DrawFn) -> Job:
    work = draw(pipelines())
    steps = (replace(one, approve_after=draw(st.booleans())) for one in work.steps)
    return replace(work, steps=tuple(steps))


def gone_on(work: Job, progress: Progress, word: str) -> tuple[Progress, Decision]:
    """What a human's word makes of a job that asked."""
    match word:
        case "accepted":
            return pipeline.behind(work, pipeline.progress_after_acceptance(progress))
        case "continued":
            return pipeline.progress_for_continuation(progress), RunStep()
        case "decided":
            return pipeline.progress_after_decision(work, progress), RunStep()
        case _:
            return pipeline.progress_after_decision(
                work, progress, work.steps[0].step_id
            ), RunStep()


@given(
    approved_pipelines(),
    st.lists(ENDS, min_size=1, max_size=60),
    st.lists(WORDS, max_size=6),
    st.integers(1, 5),
)
def test_walks_that_are_parked_and_decided_on_are_the_same_after_any_resume(
    work: Job, ends: list[tuple[OutcomeClass, str | None]], words: list[str], limit: int
) -> None:
    straight, resumed = pipeline.begin(work), pipeline.begin(work)
    decision: Decision = RunStep()
    left = list(words)
    for number, (kind, code) in enumerate(ends, 1):
        straight = pipeline.start_attempt(straight, number)
        resumed = _through_disk(work, pipeline.start_attempt(_through_disk(work, resumed), number))
        before = straight.step(straight.current)
        straight, decision = pipeline.decision_after(work, straight, kind, limit, code)
        resumed, same = pipeline.decision_after(work, resumed, kind, limit, code)
        assert (resumed, same) == (straight, decision)
        if isinstance(decision, pipeline.Park):
            parked = straight.step(straight.current)
            assert (parked.tries, parked.resumes) == (before.tries, number)
            assert parked.first == (before.first or before.base)
            assert parked.parks == before.parks + 1
        if isinstance(decision, AskHuman) and left:
            word = left.pop()
            straight, decision = gone_on(work, straight, word)
            resumed, same = gone_on(work, _through_disk(work, resumed), word)
            assert (resumed, same) == (straight, decision)
        _is_sound(work, straight, number)
        if isinstance(decision, AskHuman | Finish):
            return


def _is_sound(work: Job, progress: Progress, number: int) -> None:
    """What any attempt from here on may rely on."""
    for step_id, known in progress.steps.items():
        assert known.base <= number + 1
        assert known.resumes < max(known.base, 1)
        assert known.first <= known.resumes
        assert bool(known.first) == bool(known.resumes)
        assert not known.accepted or known.status is Status.SUCCESS, step_id
    assert progress.current in {one.step_id for one in work.steps}


def test_a_step_to_be_approved_asks_after_its_success_and_only_then() -> None:
    work = job(replace(step("a", "continue"), approve_after=True), step("b"))
    progress, decision = after(work, pipeline.begin(work), OutcomeClass.SUCCESS)
    assert isinstance(decision, AskHuman)
    assert (progress.current, progress.step("a").status) == ("a", Status.SUCCESS)
    progress, decision = pipeline.behind(work, pipeline.progress_after_acceptance(progress))
    assert (progress.current, decision) == ("b", RunStep())
    _, decision = after(work, pipeline.begin(work), OutcomeClass.AUTH)
    assert decision == RunStep()


def test_a_step_behind_a_retried_one_is_no_longer_taken_as_it_was() -> None:
    work = job(step("a"), step("b", "ask_human"), step("c"))
    progress, _ = after(work, pipeline.begin(work), OutcomeClass.SUCCESS)
    progress, _ = after(work, progress, OutcomeClass.AUTH)
    progress, _ = pipeline.behind(work, pipeline.progress_after_acceptance(progress))
    back = pipeline.progress_after_decision(work, progress, "a")
    assert (back.step("b").accepted, back.step("b").status) == (False, Phase.PENDING)
    assert pipeline.progress_after_decision(work, progress, "c").step("b").accepted
