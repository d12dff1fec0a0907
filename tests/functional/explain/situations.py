"""Jobs in every state and after every end, made by the real programs, for agentorch-explain.

Most are run by an agent that prints what it finds in its workspace: a result of our protocol. What
a live or a dead owner leaves is made of the files that it would leave, and of a lock that we hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agentorch.core.job import Key
from agentorch.core.states import OutcomeClass, State
from agentorch.decisions.hold import hold
from agentorch.jobqueue.jobqueue import Queue, current_job
from agentorch.storage.paths import Roots
from tests.support.installation import Installation, step

DAY = timedelta(days=1)
ALICE = {"uid": 1000, "name": "alice"}
WAITS = {"sandbox": True, "network": "deny", "allowed_binaries": [], "requires_approval": True}
AGENT = "#!/bin/sh\ncat said 2>/dev/null || true\n"
# A class of which a program can't tell itself is told by a pattern of the administrator's.
TAUGHT = (OutcomeClass.OOM, OutcomeClass.CHANGES)
RULE = '[[end]]\nagents = ["fake"]\npattern = "as {kind}"\nclass = "{kind}"\nerror = "{code}"\n'


@dataclass(frozen=True)
class Jobs:
    """An installation with a fake agent, and the jobs that were made in it."""

    here: Installation

    @property
    def queue(self) -> Queue:
        state = self.here.state
        roots = Roots(
            state / "queue", state / "artifacts", state / "workspaces", state / "state.db"
        )
        return Queue(roots)

    def install(self) -> None:
        """The agents, and the patterns of how one of them ends."""
        agents, ends = self.here.top / "agents.d", self.here.top / "ends.d"
        agents.mkdir()
        ends.mkdir()
        for name in ("fake", "forbidden", "gone"):
            program = agents / f"{name}-agent"
            program.write_text(AGENT)
            program.chmod(0o755)
            manifest = f'command = ["{program}"]\nneeds_git = false\nread_only = ["{agents}"]\n'
            (agents / f"{name}.toml").write_text(manifest)
        codes = {OutcomeClass.CHANGES: "changes_requested"}
        rules = [RULE.format(kind=kind, code=codes.get(kind, kind)) for kind in TAUGHT]
        (ends / "fake.toml").write_text("\n".join(rules))

    def write(self, name: str, *steps: dict[str, Any], **fields: Any) -> Path:
        """A file with a job."""
        document = {"goal": "a goal", "steps": steps, "job_id": f"explain-{name}", **fields}
        path = self.here.top / f"job-{name}.json"
        path.write_text(json.dumps(document))
        return path

    def submit(self, name: str, *steps: dict[str, Any], **fields: Any) -> str:
        return self.here.run("submit", str(self.write(name, *steps, **fields))).stdout.strip()

    def says(self, name: str, result: dict[str, Any], agent: str = "fake", **fields: Any) -> Path:
        """A job whose agent prints this result."""
        source = self.here.top / f"source-{name}"
        source.mkdir()
        said = {"type": "result", "status": "failed", "summary": "it did not work", **result}
        (source / "said").write_text(f"{json.dumps(said)}\n" if result else "")
        fake = {"agent": agent, "max_retries": 0, "retry_backoff_sec": 0, "prompt": "work"}
        one = {"step_id": "one", "role": "worker", **fake, **fields}
        return self.write(name, one, workdir=str(source))

    def fails(self, name: str, kind: str, code: str, words: str, **more: Any) -> Path:
        """A job whose agent says that it failed so."""
        error = {"code": code, "message": words, "class": kind, **more}
        return self.says(name, {"summary": words, "error": error})

    def ends(self, name: str, kind: OutcomeClass) -> Path:
        """A job of which a pattern says how it failed."""
        error = {"code": "unclassified", "message": "?", "evidence": ["before", f"as {kind}"]}
        return self.says(name, {"error": error})

    def path_of(self, job_id: str) -> tuple[State, Key, Path]:
        """Where the queue file of a job is."""
        place = self.queue.find(current_job(self.queue.roots.artifacts(job_id)))
        assert place is not None
        state, key, slot = place
        return state, key, self.queue.file_of(state, key, slot)

    def move(self, job_id: str, target: str) -> None:
        """Moves the queue file below the queue, as whoever may would."""
        _, _, path = self.path_of(job_id)
        (self.here.state / "queue" / target).parent.mkdir(exist_ok=True)
        path.rename(self.here.state / "queue" / target)

    def to_slot(self, job_id: str, slot: str, taken: int = 0) -> None:
        """Puts a job into a slot; nobody owns that, unless we do (`owned`)."""
        _, key, _ = self.path_of(job_id)
        (self.here.state / "queue/running" / slot).mkdir(exist_ok=True)
        (self.here.state / "queue/running" / slot / ".lock").touch()
        self.move(job_id, f"running/{slot}/{Key(key.priority, key.submitted_at, job_id, taken)}")

    def park(self, job_id: str, until: datetime, kind: str, reason: str) -> None:
        _, key, _ = self.path_of(job_id)
        parked = {"until": until.isoformat(), "kind": kind, "reason": reason}
        self.told(job_id, parked=parked, status="parked")
        self.move(job_id, f"parked/{until:%Y%m%dT%H%M%SZ}-{key}")

    def told(self, job_id: str, **changes: Any) -> None:
        """Changes what state.json says."""
        path = self.here.artifacts(job_id) / "state.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))

    def hold(self, job_id: str, who: dict[str, Any] | None, reason: str) -> None:
        marker = {"who": who, "reason": reason, "when": datetime.now(UTC).isoformat()}
        (self.here.artifacts(job_id) / "hold").write_text(json.dumps(marker))

    @contextlib.contextmanager
    def owned(self, slot: str) -> Iterator[None]:
        """We are the owner of a slot."""
        directory = self.here.state / "queue/running" / slot
        directory.mkdir(exist_ok=True)
        descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o640)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(descriptor)

    def explained(self, job_id: str, **variables: str) -> tuple[str, dict[str, Any]]:
        """What agentorch-explain says of a job, as text and as JSON."""
        (found,) = self.all_explained([job_id], **variables)
        return found

    def all_explained(
        self, ids: list[str], **variables: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        text = self.here.run("explain", *ids, given="", code=0, **variables).stdout
        texts = re.findall(r"^explain-.*\n(?:  .*\n)*", text, re.M)
        told = self.here.run("explain", "--json", *ids, given="", code=0, **variables).stdout
        assert "".join(texts) == text
        yield from zip(texts, map(json.loads, told.splitlines()), strict=True)


def ended(jobs: Jobs) -> list[str]:
    """Submits the jobs that a runner then works on; their ids."""
    made = [
        jobs.write("agent_error", step("one", "echo building; echo no such file >&2; exit 3")),
        jobs.says(
            "unclassified",
            {"error": {"code": "unclassified", "message": "ow", "evidence": ["ow", "ouch"]}},
        ),
        jobs.says("parse_error", {}),
        jobs.write("timeout", step("one", "echo at it; sleep 9", timeout_sec=1)),
        jobs.write("stalled", step("one", "echo one; sleep 60")),
        jobs.ends("oom", OutcomeClass.OOM),
        jobs.fails("auth", "auth", "auth_failed", "401: key refused"),
        jobs.fails("credit_empty", "auth", "credit_empty", "there is no credit left"),
        jobs.says("policy", {}, agent="forbidden"),
        jobs.fails("max_cost", "budget", "max_cost", "$1.0012 of $1 are used up"),
        jobs.fails("unpriced", "budget", "unpriced", "'new-model' has no price"),
        jobs.write("patch", step("one", "true", apply_patches_from=["steps/zero/patch.diff"])),
        jobs.write("secrets", step("one", f"echo ghp_{'a1B2' * 9} > token")),
        jobs.fails("infra", "infra", "overloaded", "529: overloaded"),
        jobs.ends("changes_requested", OutcomeClass.CHANGES),
        jobs.write("visits", step("one", "exit 1", on_failure="goto:one")),
        jobs.write("done", step("one", "true"), step("two", "true")),
        jobs.says("question", {"status": "needs_human", "question": "Which one?\nA or B?"}),
        jobs.write("decide", step("one", "echo hm; exit 1", on_failure="ask_human")),
        jobs.write("approve_step", step("one", "true", approve_after=True), step("two", "true")),
        jobs.write("retrying", step("one", "echo no luck; exit 1")),
        jobs.write("running", step("one", "exit 1")),
        jobs.write("held_later", step("one", "exit 1")),
        jobs.write("cancelling", step("one", "exit 1")),
        jobs.write("owner_lost", step("one", "exit 1")),
        jobs.write("budget", step("one", "exit 1")),
        jobs.write("held_by_itself", step("one", "exit 1")),
        jobs.write("due", step("one", "exit 1")),
        jobs.write("parked", step("one", "exit 1")),
        jobs.says("unknown_agent", {}, agent="gone"),
        jobs.fails(
            "quota",
            "quota",
            "rate_limited",
            "the plan's limit is reached",
            resets_at=(datetime.now(UTC) + DAY).isoformat(),
        ),
    ]
    ids = jobs.here.run("submit", *map(str, made)).stdout.split()
    (jobs.here.top / "agents.d/gone.toml").unlink()
    jobs.here.drain(ALLOWED_BINARIES="sh,fake-agent,gone-agent", RUNNER_MAX_IDLE_SEC="3")
    return ids


def all_explained(jobs: Jobs) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every case: its name, and what is said of it."""
    jobs.install()
    made = ended(jobs)
    in_hand = _in_slots(jobs)
    _waiting(jobs)
    rest = [job_id for job_id in made if job_id.removeprefix("explain-") not in in_hand]
    for job_id, found in zip(rest, jobs.all_explained(rest), strict=True):
        yield (job_id.removeprefix("explain-"), *found)
    yield from _owned(jobs, in_hand)
    yield from _decided(jobs)
    yield from _queued(jobs)


def _in_slots(jobs: Jobs) -> dict[str, str]:
    """Jobs as a runner has them: their names, with the slots."""
    slots = {"retrying": "1", "running": "2", "held_later": "3", "cancelling": "4"}
    for name, slot in slots.items():
        jobs.to_slot(f"explain-{name}", slot)
        state = json.loads((jobs.here.artifacts(f"explain-{name}") / "state.json").read_bytes())
        one = state["steps"]["one"] | {"status": "retrying" if name == "retrying" else "running"}
        jobs.told(f"explain-{name}", status="running", steps={"one": one})
    jobs.hold("explain-held_later", ALICE, "wait for me")
    (jobs.here.artifacts("explain-cancelling") / "cancel").touch()
    jobs.to_slot("explain-owner_lost", "5")
    jobs.told("explain-owner_lost", status="running")
    return slots


def _waiting(jobs: Jobs) -> None:
    now = datetime.now(UTC)
    jobs.park("explain-budget", now + DAY, "budget", "$5 of MAX_DAILY_COST_USD are used up")
    jobs.park("explain-due", now - DAY, "quota", "the plan's limit is reached")
    jobs.park("explain-parked", now + DAY, "", "")
    jobs.told("explain-parked", parked=None)  # state.json is older than the move: a crash
    jobs.hold("explain-held_by_itself", None, "$2 of the job's max_cost_usd=2 are used up")
    _, key, _ = jobs.path_of("explain-held_by_itself")
    jobs.told("explain-held_by_itself", status="pending")
    jobs.move("explain-held_by_itself", f"held/{key}")


def _owned(jobs: Jobs, in_hand: dict[str, str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, slot in in_hand.items():
        with jobs.owned(slot):
            yield (name, *jobs.explained(f"explain-{name}"))
    jobs.to_slot("explain-running", "steps")
    with jobs.owned("steps"):
        yield ("by_hand", *jobs.explained("explain-running"))
    jobs.to_slot("explain-running", "2")


def _decided(jobs: Jobs) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What people, dead owners and time decide."""
    one = step("one", "true")
    start = jobs.submit("approve_start", one, policy={**WAITS, "waiting": {"then": "wait"}})
    yield ("approve_start", *jobs.explained(start))
    expires = jobs.submit("expires", one, policy=WAITS)
    late = {"WAITING_POLICY": "cancel", "WAITING_MAX_SEC": "86400"}
    yield ("expires", *jobs.explained(expires, **late))
    jobs.here.run("reject", start, "--comment", "too large", given="", code=0)
    yield ("rejected", *jobs.explained(start))
    for name in ("cancelled", "held", "submitting", "unlocked", "lost"):
        jobs.submit(name, one)
    jobs.here.run("cancel", "explain-cancelled")
    yield ("cancelled", *jobs.explained("explain-cancelled"))
    hold(jobs.queue, "explain-held", comment="not tonight", by=ALICE)
    yield ("held", *jobs.explained("explain-held"))
    jobs.path_of("explain-submitting")[2].unlink()
    yield ("submitting", *jobs.explained("explain-submitting"))
    jobs.to_slot("explain-unlocked", "6")
    jobs.here.run("unlock", "explain-unlocked")
    yield ("unlocked", *jobs.explained("explain-unlocked"))
    jobs.to_slot("explain-lost", "6", taken=4)
    jobs.here.run("reclaim", "--stale-after-sec", "0")
    yield ("lost_owners", *jobs.explained("explain-lost"))
    _grow_old(jobs, expires)
    jobs.here.run("reclaim", "--stale-after-sec", "0", given="", code=0, **late)
    yield ("expired", *jobs.explained(expires))


def _grow_old(jobs: Jobs, job_id: str) -> None:
    """The job was submitted two days ago."""
    state, key, path = jobs.path_of(job_id)
    old = Key(key.priority, key.submitted_at - 2 * DAY, job_id)
    job = jobs.here.artifacts(job_id) / "job.json"
    document = json.loads(job.read_bytes())
    job.write_text(json.dumps(document | {"submitted_at": old.submitted_at.isoformat()}))
    path.rename(path.with_name(str(old)))
    assert state is State.AWAITING_APPROVAL


def _queued(jobs: Jobs) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path in (jobs.here.state / "queue/pending").iterdir():
        path.unlink()
    for path in (jobs.here.state / "queue/running").glob("*/*.json"):
        path.unlink()
    first = jobs.submit("first", step("one", "true"))
    second = jobs.submit("second", step("one", "true"))
    yield ("no_runner", *jobs.explained(second))
    yield ("disk_low", *jobs.explained(first, AGENTORCH_MIN_FREE_BYTES="9999999999999999"))
    with jobs.owned("1"), jobs.owned("2"):
        yield ("next", *jobs.explained(first))
        jobs.to_slot(first, "1")
        third = jobs.submit("third", step("one", "true"))
        yield ("queued", *jobs.explained(third))
