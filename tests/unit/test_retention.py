"""What goes and why: ages, sizes, free space."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from agentorch.job import Key
from agentorch.retention import Ended, Part, Rules, least_age_s, removals
from agentorch.states import State

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
