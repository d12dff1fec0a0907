"""A delivery that comes again starts no second job; nothing acknowledged is lost."""

from __future__ import annotations

import http.client
import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentorch.core.states import State
from tests.support.webhook import SCOPED, TOKEN, Door, Site, opened


def pending(site: Site) -> set[str]:
    return {key.job_id for key, _ in site.queue.list_state(State.PENDING)}


@pytest.mark.parametrize("header", ["Idempotency_Key", "X_GitHub_Delivery", "X_Gitea_Delivery"])
def test_a_redelivery_gets_the_first_answer(door: Door, header: str) -> None:
    first = door.post({"goal": "x"}, **{header: "72d3162e"})
    again = door.post({"goal": "x"}, **{header: "72d3162e"})
    assert (again.status, again.content) == (first.status, first.content) == (200, first.content)


def test_the_same_body_is_another_job(door: Door) -> None:
    assert door.queued() != door.queued()


def test_a_key_is_one_for_each_token_and_project(door: Door) -> None:
    asked = [(TOKEN, None), (TOKEN, "one"), (TOKEN, "two"), (SCOPED, "one")]
    answers = [
        door.post({"goal": "x", "project_id": project}, token, Idempotency_Key="same")
        for token, project in asked
    ]
    assert len({answer.document["job_id"] for answer in answers}) == 4


def test_a_bad_key_is_refused(door: Door) -> None:
    assert door.post({"goal": "x"}, Idempotency_Key="x" * 256).status == 400


def test_an_id_that_is_somebody_elses_is_not_the_keys(door: Door) -> None:
    job_id = door.queued()
    for _ in range(2):
        assert door.post({"goal": "x", "job_id": job_id}, Idempotency_Key="mine").status == 409
    assert door.post({"goal": "x"}, Idempotency_Key="mine").status == 200


def test_a_key_whose_submitter_died_early_is_completed(door: Door) -> None:
    queue = door.site.queue
    queue.prepare()
    before = set(queue.paths.keys.iterdir())
    first = door.post({"goal": "x"}, Idempotency_Key="early").document["job_id"]
    (made,) = set(queue.paths.keys.iterdir()) - before
    made.unlink()
    made.symlink_to("id-of-a-job-that-never-was")
    again = door.post({"goal": "x"}, Idempotency_Key="early").document["job_id"]
    assert again == "id-of-a-job-that-never-was" != first
    assert again in pending(door.site)


def test_many_deliveries_at_once_make_one_job(site: Site) -> None:
    with opened(site) as door, ThreadPoolExecutor(8) as pool:
        for number in range(10):
            key = f"key-{number}"
            tries = [pool.submit(door.post, {"goal": "x"}, Idempotency_Key=key) for _ in range(8)]
            answers = [one.result() for one in tries]
            assert {answer.status for answer in answers} == {200}
            assert len({answer.document["job_id"] for answer in answers}) == 1
        assert len(pending(site)) == 10


def test_what_was_acknowledged_is_there_after_a_kill(site: Site) -> None:
    """Killed under load, again and again: every id that got its 200 is queued, keys included."""
    acknowledged: set[str] = set()
    for turn in range(4):
        with opened(site) as door:
            ended = threading.Event()

            def hammer(name: str, door: Door = door, ended: threading.Event = ended) -> set[str]:
                seen = set()
                for number in range(1000):
                    try:
                        answer = door.post({"goal": "x"}, Idempotency_Key=f"{name}-{number}")
                    except (OSError, http.client.HTTPException):
                        break
                    assert answer.status == 200
                    seen.add(answer.document["job_id"])
                    if len(seen) == 15:
                        ended.set()
                return seen

            with ThreadPoolExecutor(6) as pool:
                hammers = [pool.submit(hammer, f"{turn}-{number}") for number in range(6)]
                assert ended.wait(30)
                door.process.send_signal(signal.SIGKILL)
                # who waits in its backlog is not to wait for the next one
                door.held.close()
                for one in hammers:
                    acknowledged |= one.result()
    assert len(acknowledged) > 4 * 15
    site.queue.recover_incoming()
    assert acknowledged <= pending(site)
    for job_id in acknowledged:
        json.loads(site.queue.roots.artifacts(job_id).job.read_bytes())
