"""Until when a job is parked, the name that says so, and in which order they come back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.core import parking
from agentorch.core.job import Key
from agentorch.core.states import State
from agentorch.core.times import rfc3339
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.reclaim import wake
from agentorch.storage.paths import Roots, parked_key, parked_name

NOW = datetime(2026, 2, 28, 23, 59, 30, 250_000, tzinfo=UTC)
SPARE = timedelta(seconds=parking.SPARE_S)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2399, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
KEYS = st.builds(
    Key,
    priority=st.integers(0, 9),
    submitted_at=MOMENTS,
    job_id=st.from_regex(r"(?![.-])[A-Za-z0-9._-]{8,64}", fullmatch=True),
    taken=st.integers(0, 5),
)


def whole(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


@pytest.mark.parametrize(
    "details",
    [
        {"resets_at": rfc3339(NOW + timedelta(hours=3))},
        {"resets_at": "2026-03-01T03:59:30.25+01:00"},
        {"resets_at": (NOW + timedelta(hours=3)).timestamp()},
        {"retry_after_s": 3 * 3600},
    ],
    ids=["text", "text of another zone", "seconds since 1970", "seconds from now"],
)
def test_the_time_that_was_told_is_waited_for_however_it_was_told(details: dict[str, Any]) -> None:
    assert parking.resume_time(details, 7, NOW) == whole(NOW + timedelta(hours=3) + SPARE)


@pytest.mark.parametrize(
    "told",
    [
        None,
        "soon",
        "",
        "2026-02-30T00:00:00Z",
        rfc3339(NOW - timedelta(hours=1)),
        "9999-12-31T23:59:59Z",
        0,
        -1,
        10**30,
        float("nan"),
        float("inf"),
        True,
        [],
    ],
)
def test_what_is_no_time_to_wait_for_is_not_waited_for(told: object) -> None:
    waits = [
        parking.resume_time({"resets_at": told}, parks, NOW) - NOW for parks in (0, 1, 2, 3, 9, 999)
    ]
    minutes = [wait / timedelta(minutes=1) for wait in waits]
    assert minutes == pytest.approx([5, 5, 10, 20, 120, 120], abs=0.02)


def test_a_limit_that_was_over_before_we_heard_of_it_is_no_reason_to_wait_but_once() -> None:
    details = {"resets_at": rfc3339(NOW - timedelta(seconds=1))}
    assert parking.resume_time(details, 1, NOW) == whole(NOW + SPARE)
    assert parking.resume_time(details, 2, NOW) == whole(NOW + timedelta(minutes=10))


@pytest.mark.parametrize("told", [None, 0, -5, "90", float("nan"), 10**12, False])
def test_a_wait_that_is_none_is_not_waited(told: object) -> None:
    wait = parking.resume_time({"retry_after_s": told}, 1, NOW) - NOW
    assert wait / timedelta(minutes=1) == pytest.approx(5, abs=0.02)


@given(KEYS, MOMENTS)
def test_a_parked_name_tells_what_it_was_made_of(key: Key, until: datetime) -> None:
    assert parked_key(parked_name(key, until)) == (whole(until), key)


@given(st.lists(st.tuples(MOMENTS, KEYS), max_size=8))
def test_names_sort_by_the_time_at_which_they_go_on(parked: list[tuple[datetime, Key]]) -> None:
    names = sorted(parked_name(key, until) for until, key in parked)
    moments = [found[0] for found in map(parked_key, names) if found is not None]
    assert moments == sorted(whole(until) for until, _ in parked)


@given(st.builds(parked_name, KEYS, MOMENTS), st.integers(0, 60), st.sampled_from("-0Z .~x"))
def test_a_name_is_a_parked_jobs_only_where_it_is_spelled_like_one(
    name: str, place: int, letter: str
) -> None:
    altered = name[:place] + letter + name[place + 1 :]
    found = parked_key(altered)
    assert found is None or parked_name(found[1], found[0]) == altered


def test_due_ones_come_back_the_soonest_first_and_the_others_stay(tmp_path: Path) -> None:
    queue = Queue(Roots(tmp_path / "q", tmp_path / "a", tmp_path / "w", tmp_path / "db"))
    queue.prepare()
    for seconds, job_id in ((0, "job-of-now"), (-60, "job-before"), (1, "job-later")):
        key = Key(5, NOW, job_id)
        queue.paths.parked_file(key, whole(NOW) + timedelta(seconds=seconds)).touch()
    (queue.paths.state(State.PARKED) / "stranger").touch()
    assert wake(queue, whole(NOW)) == ["job-before", "job-of-now"]
    assert [key.job_id for _, key in queue.list_parked()] == ["job-later"]
    assert sorted(k.job_id for k, _ in queue.list_state(State.PENDING)) == [
        "job-before",
        "job-of-now",
    ]
