"""Callbacks by the real programs: a receiver that is well, dies, hangs, lies and comes back."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from agentorch.config.settings import load
from agentorch.core.job import Waiting
from agentorch.core.times import rfc3339
from agentorch.decisions import expire
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.outbox import Entry
from agentorch.storage import atomic
from tests.support.installation import Installation, step
from tests.support.polling import eventually
from tests.support.receiver import receiving

KEY = b"a secret of thirty-two bytes ..."
SECRETS = {"CALLBACK_SECRETS": "whsec_" + base64.b64encode(KEY).decode()}


@pytest.fixture
def here(tmp_path: Path) -> Any:
    installation = Installation(tmp_path)
    installation.environment["CALLBACK_ALLOWED_HOSTS"] = "127.0.0.1"
    installation.start_repository()
    yield installation
    installation.close()


def ended(here: Installation, url: str, script: str = "true", **fields: Any) -> str:
    """A job that has ended, whose end is to be told there."""
    job_id = here.submit(step("one", script), callback_url=url, **fields)
    here.drain()
    return job_id


def outbox(here: Installation) -> list[dict[str, Any]]:
    return [json.loads(line) for line in here.run("notify", "--list").stdout.splitlines()]


def due_now(here: Installation) -> None:
    """What waits has waited long enough."""
    past = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y%m%dT%H%M%SZ")
    for path in (here.state / "queue/outbox/waiting").iterdir():
        path.rename(path.with_name(past + path.name[len(past) :]))


def first_told(here: Installation, moment: str) -> None:
    """What waits has been known since then."""
    for path in (here.state / "queue/outbox/waiting").iterdir():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"created_at": moment}))


def test_an_end_is_told_signed_and_once(here: Installation) -> None:
    with receiving() as receiver:
        job_id = ended(here, receiver.url)
        said = here.run("notify", given="", code=0, **SECRETS)
        here.run("notify", given="", code=0, **SECRETS)
    (told,) = receiver.told
    result = json.loads((here.artifacts(job_id) / "result.json").read_text())
    assert json.loads(told.body) == result
    assert told.headers["content-type"] == "application/json"
    stamp = told.headers["webhook-timestamp"]
    assert abs(int(stamp) - time.time()) < 60
    signed = f"{told.headers['webhook-id']}.{stamp}.".encode() + told.body
    mac = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
    assert told.headers["webhook-signature"] == f"v1,{mac}"
    assert outbox(here) == []
    assert "hidden" not in said.stderr
    assert "delivered" in said.stderr


def test_every_end_is_told_and_that_a_human_is_needed(here: Installation) -> None:
    with receiving() as receiver:
        asks = ended(here, receiver.url, "exit 1", job_id="asks-a-human")
        waits = here.submit(
            {**step("one", "exit 1"), "on_failure": "ask_human"}, callback_url=receiver.url
        )
        here.drain()
        here.run("notify")
        here.run("retry", asks)
        here.run("cancel", waits)
        here.drain()
        here.run("notify")
    told = [json.loads(one.body) for one in receiver.told]
    assert sorted((one["job_id"] == asks, one["status"]) for one in told) == [
        (False, "cancelled"),
        (False, "needs_human"),
        (True, "failed"),
        (True, "failed"),
    ]
    assert len({one.headers["webhook-id"] for one in receiver.told}) == 4


def test_every_way_to_end_without_a_run_is_told(here: Installation) -> None:
    """To be parked or held is no end; nobody hears of that."""
    approval = {"requires_approval": True}
    expires = {**approval, "waiting": {"then": "reject", "after_sec": 60}}
    with receiving() as receiver:
        fields: dict[str, Any] = {"callback_url": receiver.url}
        for name, policy in (("rejected", approval), ("cancelled-waiting", approval)):
            here.submit(step("one", "true"), job_id=name, policy=policy, **fields)
        for name in ("cancelled-held", "cancelled-pending", "cancelled-parked"):
            here.submit(step("one", "true"), job_id=name, **fields)
        here.submit(step("one", "true"), job_id="expired-waiting", policy=expires, **fields)
        here.run("hold", "cancelled-held")
        (queued,) = (here.state / "queue/pending").glob("*cancelled-parked*")
        queued.rename(here.state / f"queue/parked/20990101T000000Z-{queued.name}")
        here.run("notify")
        assert receiver.told == []
        here.run("reject", "rejected")
        here.run(
            "cancel", *(f"cancelled-{how}" for how in ("waiting", "held", "pending", "parked"))
        )
        queue = Queue(load({**here.environment, "AGENTORCH_ENV_FILE": "/dev/null"}).roots)
        (over,) = expire.find_expired(queue, Waiting(), datetime.now(UTC) + timedelta(days=1))
        assert expire.end(queue, over) is None
        here.run("notify")
    told = [json.loads(one.body) for one in receiver.told]
    assert sorted((one["job_id"], one["status"], one["error"]["code"]) for one in told) == [
        ("cancelled-held", "cancelled", "cancelled"),
        ("cancelled-parked", "cancelled", "cancelled"),
        ("cancelled-pending", "cancelled", "cancelled"),
        ("cancelled-waiting", "cancelled", "cancelled"),
        ("expired-waiting", "failed", "rejected"),
        ("rejected", "failed", "rejected"),
    ]


def test_a_job_that_nobody_wants_to_hear_of_leaves_nothing(here: Installation) -> None:
    here.submit(step("one", "true"))
    here.drain()
    assert outbox(here) == []
    assert here.run("notify").stderr == ""


def dies(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.close()


def test_a_receiver_that_fails_and_comes_back(here: Installation) -> None:
    with receiving() as receiver:
        job_id = ended(here, receiver.url)
        receiver.status = 500
        here.run("notify")
        (waiting,) = outbox(here)
        assert waiting["where"] == "waiting"
        assert (waiting["tries"], waiting["reason"]) == (1, "answered 500")
        assert "hidden" in waiting["url"]
        here.run("notify")  # it is not due yet
        assert len(receiver.told) == 1
        receiver.by_hand = dies
        due_now(here)
        here.run("notify")
        (waiting,) = outbox(here)
        assert waiting["tries"] == 2
        assert waiting["reason"].startswith("can't be reached")
        port = receiver.port
    due_now(here)
    here.run("notify")  # nobody is there
    assert outbox(here)[0]["tries"] == 3
    with receiving(port) as receiver:
        due_now(here)
        here.run("notify")
        (told,) = receiver.told
    assert json.loads(told.body)["job_id"] == job_id
    assert outbox(here) == []


def test_after_a_day_it_is_given_up_until_somebody_says_so(here: Installation) -> None:
    with receiving() as receiver:
        job_id = ended(here, receiver.url)
        receiver.status = 503
        here.run("notify")
        first_told(here, "2020-01-01T00:00:00.000000Z")
        due_now(here)
        said = here.run("notify").stderr
        assert f"agentorch-notify --again {job_id}" in said
        (failed,) = outbox(here)
        assert failed["where"] == "failed"
        assert "answered 503, after 2 tries" in failed["reason"]
        here.run("notify")
        assert len(receiver.told) == 2
        receiver.status = 200
        assert here.run("notify", "--again", job_id).stdout == f"{job_id}\n"
        assert len(receiver.told) == 3
        assert len({one.headers["webhook-id"] for one in receiver.told}) == 1
        assert outbox(here) == []
        here.run("notify", "--again", job_id, code=2)


def test_one_that_hangs_holds_up_nobody(here: Installation) -> None:
    with receiving() as slow, receiving() as quick:
        slow.by_hand = lambda handler: time.sleep(8)
        for receiver in (slow, quick):
            here.submit(step("one", "true"), callback_url=receiver.url)
        here.drain()
        notify = here.start("notify")
        new = here.state / "queue/outbox/new"
        eventually(lambda: quick.told and slow.told and len(list(new.iterdir())) == 1)
        assert notify.poll() is None
        notify.kill()
        notify.wait()
    (left,) = outbox(here)
    assert (left["where"], left["tries"]) == ("new", 0)
    assert str(slow.port) in left["url"]


def test_many_that_hang_hold_up_nobody_either(here: Installation) -> None:
    """They wait on their own host; where it stays silent, the rest of them waits for later."""
    with receiving() as slow, receiving() as quick:
        slow.by_hand = lambda handler: time.sleep(60)
        here.run("submit", "-", given='{"goal": "x"}')
        for number in range(60):
            placed(here, f"job-{number:03}", slow.url)
        placed(here, "job-quick", quick.url)
        notify = here.start("notify")
        eventually(lambda: quick.told, seconds=15)
        assert notify.poll() is None
        assert len(slow.told) <= 8
        notify.kill()
        notify.wait()


def test_a_host_that_is_silent_is_not_asked_for_each(here: Installation) -> None:
    with receiving() as receiver:
        receiver.by_hand = dies
        here.run("submit", "-", given='{"goal": "x"}')
        for number in range(40):
            placed(here, f"job-{number:03}", receiver.url)
        here.run("notify")
        assert len(receiver.told) <= 12
    assert {(one["where"], one["tries"]) for one in outbox(here)} == {("waiting", 1)}


def placed(here: Installation, job_id: str, url: str) -> None:
    """An entry as an end leaves it."""
    entry = Entry(f"msg_{job_id}", job_id, None, url, rfc3339(datetime.now(UTC)), {"status": "x"})
    atomic.replace_json(here.state / f"queue/outbox/new/{job_id}-1-x.json", asdict(entry))


def test_a_redirect_is_not_followed(here: Installation) -> None:
    with receiving() as other, receiving() as receiver:
        receiver.status, receiver.headers = 307, {"Location": other.url}
        ended(here, receiver.url)
        here.run("notify")
        assert (len(receiver.told), len(other.told)) == (1, 0)
    assert outbox(here)[0]["reason"] == "answered 307"


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("127.0.0.1", "loopback"),
        # ways to spell it that the client itself refuses
        ("127.1", "can't be reached"),
        ("2130706433", "can't be reached"),
        ("localhost", "loopback"),
        ("[::1]", "loopback"),
        ("[::ffff:127.0.0.1]", "loopback"),
        ("10.1.2.3", "private"),
        ("169.254.169.254", "metadata"),
        ("[fe80::1]", "link-local"),
        ("0.0.0.0", "unspecified"),
    ],
)
def test_places_that_are_not_public_are_not_told(here: Installation, host: str, words: str) -> None:
    with receiving() as receiver:
        ended(here, f"http://{host}:{receiver.port}/")
        here.run("notify", CALLBACK_ALLOWED_HOSTS="elsewhere.example")
        assert receiver.told == []
    assert words in outbox(here)[0]["reason"]


@pytest.mark.parametrize("host", ["example..invalid", f"{'a' * 64}.invalid", "%00.invalid"])
def test_a_name_that_can_be_nobodys(here: Installation, host: str) -> None:
    """Looking it up is no bug of ours, and takes no time."""
    here.run("submit", "-", given='{"goal": "x"}')
    placed(here, "job-nowhere", f"http://{host}/")
    said = here.run("notify").stderr
    assert "Traceback" not in said
    assert outbox(here)[0]["reason"].startswith("can't be reached")


def test_where_a_secret_may_be_is_not_logged(here: Installation) -> None:
    """Chats give a URL whose path is the secret."""
    with receiving() as receiver:
        receiver.status = 500
        ended(here, f"http://127.0.0.1:{receiver.port}/services/T0/B0/hidden?key=hidden")
        said = here.run("notify").stderr
    assert f"http://127.0.0.1:{receiver.port}" in said
    assert "hidden" not in said
    here.run("submit", "-", given='{"goal": "x"}')
    placed(here, "job-odd", "http://127.0.0.1:9/hidden\n")
    placed(here, "job-v6", "http://[::1]:9/hidden")
    said = here.run("notify").stderr
    assert "http://[::1]:9" in said
    assert "hidden" not in said


@pytest.mark.parametrize(
    ("host", "listed"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("localhost", "LOCALHOST:{port}"),
        ("127.0.0.1", "127.0.0.1:{port}"),
    ],
)
def test_but_where_the_server_lists_them(here: Installation, host: str, listed: str) -> None:
    with receiving() as receiver:
        ended(here, f"http://{host}:{receiver.port}/")
        here.run("notify", CALLBACK_ALLOWED_HOSTS=listed.format(port=receiver.port))
        assert len(receiver.told) == 1


def test_another_port_is_another_place(here: Installation) -> None:
    with receiving() as receiver:
        ended(here, receiver.url)
        here.run("notify", CALLBACK_ALLOWED_HOSTS=f"127.0.0.1:{receiver.port - 1}")
        assert receiver.told == []


def test_no_variable_of_a_proxy_leads_it_elsewhere(here: Installation) -> None:
    with receiving() as proxy, receiving() as receiver:
        ended(here, receiver.url)
        here.run("notify", HTTP_PROXY=proxy.url, http_proxy=proxy.url)
        assert (len(proxy.told), len(receiver.told)) == (0, 1)


def test_many_at_once_are_all_told(here: Installation) -> None:
    with receiving() as receiver:
        document = {"goal": "g", "callback_url": receiver.url, "steps": [step("one", "true")]}
        given = "\n".join(json.dumps(document) for _ in range(12))
        ids = here.run("submit", "-", given=given).stdout.split()
        here.drain(ENABLE_REAL_CLI="0")
        here.run("notify")
        assert sorted(json.loads(one.body)["job_id"] for one in receiver.told) == sorted(ids)


def test_what_a_killed_notifier_left_does_not_start_it_again(here: Installation) -> None:
    """The path unit watches whether new/ is empty."""
    here.submit(step("one", "true"))
    left = here.state / "queue/outbox/new/.job-1-1-failed.json.0123456789ab"
    left.write_text("{")
    here.run("notify")
    assert not left.exists()
