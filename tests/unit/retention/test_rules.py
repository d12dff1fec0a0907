"""What goes and why: ages, sizes, free space."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from agentorch.core.job import Key
from agentorch.core.states import State
from agentorch.retention.rules import Ended, Part, Plan, Rules, least_age_s, plan, removals

NOW = datetime(2026, 1, 31, tzinfo=UTC)
DAY = 86400
ROOMY = 1 << 60


def ended(number: int, *, age_s: int, artifacts: int = 10, workspace: int = 100) -> Ended:
    at = NOW - timedelta(seconds=age_s)
    return Ended(
        Key(5, at - timedelta(hours=1), f"job-{number:06}"),
        State.DONE,
        at,
        workspace > 0,
        artifacts,
        workspace,
    )


def gone(jobs: list[Ended], rules: Rules, free_bytes: int = ROOMY) -> list[tuple[str, Part]]:
    found = removals(jobs, rules, NOW, free_bytes=free_bytes)
    return [(removal.job.key.job_id, removal.part) for removal in found]


def test_age_takes_the_workspace_first_and_then_the_job() -> None:
    jobs = [ended(1, age_s=8 * DAY), ended(2, age_s=3 * DAY), ended(3, age_s=DAY)]
    rules = Rules(artifacts_ttl_s=7 * DAY, workspaces_ttl_s=2 * DAY)
    assert gone(jobs, rules) == [("job-000001", Part.JOB), ("job-000002", Part.WORKSPACE)]


def test_an_age_is_over_at_its_second() -> None:
    rules = Rules(artifacts_ttl_s=DAY)
    assert gone([ended(1, age_s=DAY - 1), ended(2, age_s=DAY)], rules) == [("job-000002", Part.JOB)]


def test_zero_keeps_for_ever() -> None:
    assert gone([ended(1, age_s=9999 * DAY)], Rules()) == []
    assert least_age_s(Rules()) is None


def test_a_workspace_that_is_gone_is_not_removed_again() -> None:
    assert gone([ended(1, age_s=3 * DAY, workspace=0)], Rules(workspaces_ttl_s=DAY)) == []


def test_size_takes_the_oldest_workspaces_and_no_more_than_needed() -> None:
    jobs = [ended(n, age_s=n) for n in (1, 2, 3)]  # 330 bytes
    assert gone(jobs, Rules(max_bytes=330)) == []
    assert gone(jobs, Rules(max_bytes=329)) == [("job-000003", Part.WORKSPACE)]
    assert gone(jobs, Rules(max_bytes=200)) == [
        ("job-000003", Part.WORKSPACE),
        ("job-000002", Part.WORKSPACE),
    ]


def test_where_no_workspace_is_left_whole_jobs_go() -> None:
    jobs = [ended(n, age_s=n) for n in (1, 2, 3)]
    assert gone(jobs, Rules(max_bytes=25)) == [
        ("job-000003", Part.JOB),
        ("job-000002", Part.WORKSPACE),
        ("job-000001", Part.WORKSPACE),
    ]


def test_what_goes_by_age_counts_for_size_and_room() -> None:
    jobs = [ended(1, age_s=9 * DAY), ended(2, age_s=1)]
    rules = Rules(artifacts_ttl_s=7 * DAY, max_bytes=110, min_free_bytes=500)
    assert gone(jobs, rules, free_bytes=390) == [("job-000001", Part.JOB)]
    assert gone(jobs, rules, free_bytes=389)[1:] == [("job-000002", Part.WORKSPACE)]


def test_a_reason_names_its_numbers() -> None:
    (one,) = removals([ended(1, age_s=9)], Rules(artifacts_ttl_s=7), NOW, free_bytes=0)
    assert one.why == "ended 9 s ago, kept 7 s"
    (one,) = removals([ended(1, age_s=9)], Rules(max_bytes=50), NOW, free_bytes=0)
    assert (one.why, one.bytes) == ("ended jobs take more than 50 bytes", 100)


# ---- pins -------------------------------------------------------------------------------------


def pinned(job: Ended) -> Ended:
    return replace(job, is_pinned=True)


def planned(jobs: list[Ended], rules: Rules, free_bytes: int = ROOMY) -> Plan:
    return plan(jobs, rules, NOW, free_bytes=free_bytes)


def test_a_pin_outlasts_every_age() -> None:
    jobs = [pinned(ended(1, age_s=9999 * DAY)), ended(2, age_s=8 * DAY)]
    found = planned(jobs, Rules(artifacts_ttl_s=7 * DAY, workspaces_ttl_s=DAY))
    assert [one.job.key.job_id for one in found.goes] == ["job-000002"]
    (kept,) = found.kept
    assert (kept.job.key.job_id, kept.part) == ("job-000001", Part.JOB)
    assert kept.why == f"ended {9999 * DAY} s ago, kept {7 * DAY} s"
    assert found.unmet == ()


def test_what_is_pinned_counts_and_others_go_in_its_place() -> None:
    jobs = [pinned(ended(1, age_s=3)), ended(2, age_s=2), ended(3, age_s=1)]  # 330 bytes
    found = planned(jobs, Rules(max_bytes=250))
    assert [(one.job.key.job_id, one.part) for one in found.goes] == [
        ("job-000002", Part.WORKSPACE)
    ]
    assert [one.job.key.job_id for one in found.kept] == ["job-000001"]
    assert found.unmet == ()


def test_limits_that_pins_break_are_told() -> None:
    jobs = [pinned(ended(1, age_s=2)), ended(2, age_s=1)]
    found = planned(jobs, Rules(max_bytes=109, min_free_bytes=300), free_bytes=189)
    assert [one.part for one in found.goes] == [Part.JOB]
    assert found.unmet == (
        "pinned jobs take 110 bytes: more than RETENTION_MAX_BYTES=109 stay",
        "pinned jobs take 110 bytes: fewer than RETENTION_MIN_FREE_BYTES=300 are free",
    )
    assert planned(jobs, Rules(max_bytes=110, min_free_bytes=300), free_bytes=190).unmet == ()


def test_a_limit_that_nothing_could_meet_is_no_pins_fault() -> None:
    assert planned([ended(1, age_s=1)], Rules(min_free_bytes=500), free_bytes=0).unmet == ()


JOBS = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 9), st.integers(0, 9)), max_size=8
).map(
    lambda rows: [ended(n, age_s=a, artifacts=b, workspace=w) for n, (a, b, w) in enumerate(rows)]
)
NUMBER = st.integers(0, 40)


@given(JOBS, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER)
def test_the_rules_hold_afterwards(
    jobs: list[Ended], keep: int, work: int, most: int, least: int, free: int
) -> None:
    rules = Rules(keep, work, most, least)
    found = removals(jobs, rules, NOW, free_bytes=free)
    parts = {(removal.job.key, removal.part) for removal in found}
    assert len(parts) == len(found)
    whole = {key for key, part in parts if part is Part.JOB}
    bare = {key for key, part in parts if part is Part.WORKSPACE}
    left = [job for job in jobs if job.key not in whole]
    kept = sum(
        job.artifacts_bytes + (0 if job.key in bare else job.workspace_bytes) for job in left
    )
    assert not most or kept <= most
    freed = sum(job.bytes for job in jobs) - kept
    assert not least or free + freed >= least or not kept
    if not (most or least):
        assert all((NOW - job.ended_at).total_seconds() < keep for job in left) or not keep


@given(JOBS, st.sets(st.integers(0, 7)), NUMBER, NUMBER, NUMBER, NUMBER, NUMBER)
def test_pins_hold_and_nobody_pays_more_than_needed(
    jobs: list[Ended],
    pins: set[int],
    keep: int,
    work: int,
    most: int,
    least: int,
    free: int,
) -> None:
    jobs = [replace(job, is_pinned=number in pins) for number, job in enumerate(jobs)]
    rules = Rules(keep, work, most, least)
    found = planned(jobs, rules, free)
    assert not any(one.job.is_pinned for one in found.goes)
    assert all(one.job.key in {job.key for job in jobs if job.is_pinned} for one in found.kept)
    without = planned([job for job in jobs if not job.is_pinned], Rules(keep, work), free)
    assert {one.job.key for one in without.goes} <= {one.job.key for one in found.goes}
    left = sum(job.bytes for job in jobs) - sum(one.bytes for one in found.goes)
    over = bool(most) and left > most
    assert any("MAX_BYTES" in words for words in found.unmet) is over
    stays = sum(job.bytes for job in jobs if job.is_pinned)
    if over:
        assert left == stays > most
    if not pins:
        assert found == Plan(tuple(removals(jobs, rules, NOW, free_bytes=free)))
