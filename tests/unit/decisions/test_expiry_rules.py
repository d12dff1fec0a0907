"""When a job has waited for too long, and who is to hear of it again: pure decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agentorch.core.job import Expiry, Waiting
from agentorch.decisions.expiry_rules import Expired, due_this_minute, duration_text, expiry
from agentorch.notify.announce_rules import Announced, document_of, from_document
from agentorch.notify.hooks import end_problem, is_name, objection

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY_S = 86400
SILENT = Waiting()
FOR_EVER = Waiting(Expiry.WAIT, DAY_S)
REJECTS = Waiting(Expiry.REJECT, DAY_S)
CANCELS = Waiting(Expiry.CANCEL, 2 * DAY_S)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("own", "server", "waited_s", "then"),
    [
        (SILENT, FOR_EVER, 900 * DAY_S, None),
        (SILENT, REJECTS, DAY_S - 1, None),
        (SILENT, REJECTS, DAY_S, Expiry.REJECT),
        (FOR_EVER, REJECTS, 900 * DAY_S, None),
        (CANCELS, REJECTS, DAY_S, None),
        (CANCELS, REJECTS, 2 * DAY_S, Expiry.CANCEL),
        (REJECTS, FOR_EVER, DAY_S, Expiry.REJECT),
        (REJECTS, FOR_EVER, -DAY_S, None),
    ],
)
def test_the_job_s_word_counts_before_the_server_s(
    own: Waiting, server: Waiting, waited_s: float, then: Expiry | None
) -> None:
    found = expiry(own, server, ago(waited_s), NOW)
    assert (None if found is None else found.then) is then


def test_the_comment_says_how_long_nobody_decided_and_who_says_so() -> None:
    assert expiry(SILENT, REJECTS, ago(3.5 * DAY_S), NOW) == Expired(
        Expiry.REJECT, "nobody decided for 3 days (the server says reject after 86400 s)"
    )
    found = expiry(CANCELS, SILENT, ago(2 * DAY_S), NOW)
    assert found is not None
    assert found.comment.endswith("(the job says cancel after 172800 s)")


@pytest.mark.parametrize(
    ("duration_s", "words"),
    [(0, "0 seconds"), (1, "1 second"), (61, "1 minute"), (7200, "2 hours"), (86400, "1 day")],
)
def test_spoken(duration_s: float, words: str) -> None:
    assert duration_text(duration_s) == words


def test_of_very_many_each_has_its_turn() -> None:
    jobs = list(range(25))
    minutes = [due_this_minute(jobs, NOW + timedelta(minutes=n), most=10) for n in range(3)]
    assert sorted(job for turn in minutes for job in turn) == jobs
    assert max(len(turn) for turn in minutes) == 10
    assert due_this_minute(jobs, NOW, most=25) == jobs
    assert due_this_minute([], NOW) == []


# ---- who has heard ----------------------------------------------------------------------------


def test_who_has_heard_hears_no_more_until_the_next_time() -> None:
    known = Announced("asked-1").with_success("mail")
    assert known.due(["desktop", "mail"], NOW) == ["desktop"]
    read = from_document(document_of(known), "asked-1")
    assert read == known
    assert from_document(document_of(known), "asked-2").due(["mail"], NOW) == ["mail"]
    assert from_document(None, "asked-1").due(["mail"], NOW) == ["mail"]


def test_who_failed_is_told_again_more_and_more_seldom_and_given_up_after_a_day() -> None:
    known, now, delays = Announced("asked-1"), NOW, []
    while known.due(["mail"], now):
        known = known.with_failure("mail", "it exited with 1", now)
        again_at = known.failed["mail"].again_at
        if again_at is None:
            break
        assert known.due(["mail"], now) == []
        later = datetime.fromisoformat(again_at)
        delays.append((later - now).total_seconds())
        now = later
    assert delays == sorted(delays)
    assert delays[0] == 60
    assert DAY_S - 3 * 3600 < sum(delays) <= DAY_S
    assert known.failed["mail"].again_at is None
    assert known.due(["mail"], NOW + timedelta(days=99)) == []
    assert from_document(document_of(known), "asked-1") == known


def test_who_took_it_in_the_end_has_failed_no_more() -> None:
    known = Announced("asked-1").with_failure("mail", "it exited with 1", NOW).with_success("mail")
    assert known == Announced("asked-1", ("mail",))


# ---- which files are programs -----------------------------------------------------------------


def test_names() -> None:
    good = ("mail", "50-mail.sh", "a_b", "Mail")
    bad = (".mail", "mail~", "#mail#", "a b", "mail.dpkg-old", "mail.dpkg-new", "")
    assert [is_name(name) for name in good] == [True] * len(good)
    assert [is_name(name) for name in bad] == [False] * len(bad)


@pytest.mark.parametrize(
    ("mode", "owner", "uid", "runs"),
    [
        (0o755, 0, 990, True),
        (0o775, 0, 990, False),
        (0o757, 0, 990, False),
        (0o755, 1000, 990, False),
        (0o755, 990, 990, True),
        (0o775, 1000, 1000, True),
        (0o775, 0, 0, False),
        (0o755, 1000, 0, False),
    ],
)
def test_what_somebody_else_could_have_written_is_not_run(
    mode: int,
    owner: int,
    uid: int,
    runs: bool,  # noqa: FBT001  (a parameter of the test)
) -> None:
    assert (objection(mode, owner, uid) is None) is runs


def test_how_a_program_ended() -> None:
    assert end_problem(0) is None
    assert end_problem(3) == "it exited with 3"
    assert end_problem(-9) == "it was ended by signal 9"
