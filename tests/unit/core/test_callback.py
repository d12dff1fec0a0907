"""What is signed, and what follows from an answer: the pure part."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from agentorch.config.variables import secret_of
from agentorch.core.callback import (
    DELAYS_S,
    GIVE_UP_S,
    Again,
    Answer,
    Delivered,
    GivenUp,
    headers,
    next_delivery,
    webhook_id,
)

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def test_the_schemes_own_example() -> None:
    """The test vector of the scheme's reference libraries."""
    secret = secret_of("whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    message_id, stamp, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    made = headers([secret], message_id, stamp, body)
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_signature_a_secret() -> None:
    secrets = [b"a" * 24, b"b" * 24]
    made = headers(secrets, "msg_1", 7, b"{}")
    expected = [
        "v1," + base64.b64encode(hmac.digest(one, b"msg_1.7.{}", hashlib.sha256)).decode()
        for one in secrets
    ]
    assert made["webhook-signature"].split(" ") == expected
    assert "webhook-signature" not in headers([], "msg_1", 7, b"{}")


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_!!", "whsec_a2V5", SECRET[6:], "whsec_ä"])
def test_a_secret_has_its_form(text: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        secret_of(text)


def test_the_id_is_the_ends() -> None:
    ids = {webhook_id("job-1", end, status) for end in (1, 2) for status in ("failed", "success")}
    assert len(ids) == 4
    assert webhook_id("job-1", 1, "failed") == webhook_id("job-1", 1, "failed")


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_taken(status: int) -> None:
    assert next_delivery(Answer(status), 1, 0) == Delivered()


@pytest.mark.parametrize(
    "answer", [Answer(500), Answer(404), Answer(302), Answer(199), Answer(None, "no answer")]
)
def test_everything_else_is_told_again(answer: Answer) -> None:
    next_ = next_delivery(answer, 1, 0)
    assert isinstance(next_, Again)
    assert next_.after_s == DELAYS_S[0]


def test_one_that_wants_no_more_is_not_asked_again() -> None:
    assert isinstance(next_delivery(Answer(410), 1, 0), GivenUp)


def test_it_is_told_for_a_day_more_and_more_seldom() -> None:
    age_s, tries, delays = 0.0, 1, []
    while isinstance(next_ := next_delivery(Answer(500), tries, age_s), Again):
        delays.append(next_.after_s)
        age_s, tries = age_s + next_.after_s, tries + 1
    assert delays == sorted(delays)
    assert GIVE_UP_S - DELAYS_S[-1] < age_s <= GIVE_UP_S
    assert isinstance(next_, GivenUp)
    assert "answered 500" in next_.reason


def test_a_receiver_may_ask_for_time_but_not_for_ever() -> None:
    first = next_delivery(Answer(429, retry_after_s=300), 1, 0)
    second = next_delivery(Answer(429, retry_after_s=1e9), 1, 0)
    assert isinstance(first, Again)
    assert isinstance(second, Again)
    assert (first.after_s, second.after_s) == (300, 3600)
