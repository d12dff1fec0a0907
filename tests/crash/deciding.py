"""The protocols of decisions on waiting, held and parked jobs, as `scenes` has the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from agentorch.artifacts.decision_log import decisions
from agentorch.artifacts.state import PENDING, JobState, Parked
from agentorch.core.pipeline import begin
from agentorch.core.states import State
from agentorch.core.times import rfc3339
from agentorch.jobqueue.finish import park
from agentorch.jobqueue.lookup import find
from agentorch.jobqueue.slots import hold
from tests.crash.scenes import FAILS_ONCE, ID, REAL, Scene, asking, awaiting
from tests.support.crash_programs import Site, job
from tests.support.invariants import document, places

FAR = datetime(2999, 1, 1, tzinfo=UTC)
EDITED = {"steps": [{"step_id": "step1", "agent": "exec", "role": "worker", "prompt": "echo 1"}]}
ASKS = """
name = "asks"
needs_git = false
command = ["sh", "-c", '''
if [ -e asked ]; then echo '{"type": "result", "status": "success"}'; exit; fi
touch asked; echo '{"type": "result", "status": "needs_human", "question": "Which?"}'
''']
"""


def queued(site: Site) -> None:
    """A job that can be claimed."""
    site.submit(job(ID))


def held(site: Site) -> None:
    """A held job."""
    queued(site)
    assert site.run("hold", ID).code == 0


def parked(site: Site) -> None:
    """A job that is parked for longer than any test."""
    queued(site)
    found = find(site.queue, ID)
    assert found.key is not None
    state = JobState(ID, PENDING, begin(found.job), started_at=rfc3339(FAR))
    with hold(site.queue, "before", wait=False) as slot:
        assert slot is not None
        assert slot.take(State.PENDING, found.key)
        park(slot, found.key, found.job, state, Parked(rfc3339(FAR), "quota", "used up"))


def asked(site: Site) -> None:
    """A job whose agent asks something, once."""
    agents = site.top / "agents.d"
    agents.mkdir(exist_ok=True)
    (agents / "asks.toml").write_text(ASKS)
    one = job(ID, "ask", "true")
    one["steps"][0]["agent"] = "asks"
    site.submit(one)
    assert site.recover() == []
    assert places(site) == {ID: State.AWAITING_APPROVAL}


def _on_record(site: Site, what: str) -> Iterator[str]:
    words = [line["what"] for line in decisions(site.roots.artifacts(ID))]
    if what not in words:
        yield f"nobody is on record for {what}: {words}"


def _ends(site: Site, *commands: tuple[str, ...]) -> Iterator[str]:
    """These commands are taken, and the job then ends well."""
    for name, *arguments in commands:
        again = site.run(name, *arguments, stdin=json.dumps(EDITED))
        if again.code != 0:
            yield f"{name}: {again}"
    yield from site.recover()
    if places(site) != {ID: State.DONE}:
        yield f"{places(site)}, not done"


def _held(site: Site, answered: list[str]) -> Iterator[str]:
    """It is held; or, where nothing was answered, as it was."""
    found = places(site).get(ID)
    if answered and found is not State.HELD:
        yield f"answered, and {found}"
    if found is State.HELD:
        yield from _on_record(site, "hold")
    if found is State.PARKED:
        yield from _ends(site, ("hold", ID), ("release", ID))
    elif found is State.HELD:
        yield from _ends(site, ("release", ID))
    else:
        yield from _ends(site)


def _released(site: Site, answered: list[str]) -> Iterator[str]:
    found = places(site).get(ID)
    if answered and found is not State.DONE:
        yield f"answered, and {found}"
    if found is State.DONE:
        yield from _on_record(site, "release")
    else:
        yield from _ends(site, ("release", ID))


def _rejected(site: Site, answered: list[str]) -> Iterator[str]:
    found = places(site).get(ID)
    if answered and found is not State.FAILED:
        yield f"answered, and {found}"
    if found is not State.FAILED and site.run("reject", ID).code != 0:
        yield "it can't be rejected again"
    result = document(site.roots.artifacts(ID).result) or {"error": None}
    if (result["error"] or {}).get("code") != "rejected":
        yield f"rejected, and its result says {result['error']}"


def _answered(site: Site, answered: list[str]) -> Iterator[str]:
    yield from _goes_on(site, answered, ("answer", ID, "that"))


def _accepted(site: Site, answered: list[str]) -> Iterator[str]:
    yield from _goes_on(site, answered, ("approve", "--accept", ID))
    if site.roots.artifacts(ID).step("step1").attempt(2).directory.exists():
        yield "it was accepted, and was run again"


def _goes_on(site: Site, answered: list[str], again: tuple[str, ...]) -> Iterator[str]:
    found = places(site).get(ID)
    if answered and found is not State.DONE:
        yield f"answered, and {found}"
    if found is State.DONE:
        yield from _on_record(site, again[0])
    else:
        yield from _ends(site, again)


def _edited(site: Site, answered: list[str]) -> Iterator[str]:
    """It is edited, whole, or not at all; and waits as it did."""
    if places(site).get(ID) is not State.AWAITING_APPROVAL:
        yield f"edited, and {places(site).get(ID)}"
    now = document(site.roots.artifacts(ID).edited_job)
    if answered and (now is None or now["steps"] != EDITED["steps"]):
        yield f"answered, and the job is {now}"
    if now is not None:
        yield from _on_record(site, "edit")
    yield from _ends(site, *([("edit", ID)] if now is None else []), ("approve", ID))


def _moved(site: Site, answered: list[str]) -> Iterator[str]:
    """It is found whatever its name says, and its priority can be given again."""
    found = site.run("status", ID)
    if found.code != 0 or json.loads(found.out)["queue_state"] != "held":
        yield f"not found: {found}"
    if answered and [key.priority for key, _ in site.queue.list_state(State.HELD)] != [1]:
        yield "answered, and its file has the old name"
    yield from _ends(site, ("priority", "1", ID), ("release", ID))


def to_accept(site: Site) -> None:
    """A job that asks because its last step failed."""
    one = job(ID, FAILS_ONCE)
    one["steps"][0]["on_failure"] = "ask_human"
    site.submit(one)
    assert site.recover() == []


SCENES = (
    Scene("hold", ("hold", ID), queued, _held),
    Scene("hold-parked", ("hold", ID), parked, _held),
    Scene("release", ("release", ID), held, _released),
    Scene("release-parked", ("release", ID), parked, _released),
    Scene("reject", ("reject", ID), awaiting, _rejected),
    Scene("reject-asked", ("reject", ID), asking, _rejected, variables=REAL),
    Scene("answer", ("answer", ID, "that"), asked, _answered, variables=REAL),
    Scene("accept", ("approve", "--accept", ID), to_accept, _accepted, variables=REAL),
    Scene("edit", ("edit", ID), awaiting, _edited, stdin=json.dumps(EDITED)),
    Scene("priority", ("priority", "1", ID), held, _moved),
)
