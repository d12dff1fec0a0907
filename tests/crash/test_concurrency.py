"""Many at once: one id has one owner, one job one runner, whoever dies in between.

The chaos has a seed, which a failure tells: it repeats who is killed, not just when.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentorch.core.states import State
from tests.crash.scenes import ID, REAL, lines
from tests.crash.test_kill import Record
from tests.support.crash_programs import Ended, Site, job, site_in_memory
from tests.support.invariants import document, places, violations
from tests.support.polling import eventually
from tests.support.strace import Point, inject_argv

SUBMITTERS = 8
RUNNERS = 8
JOBS = 60
CHAOS_S = 20
COUNTING = 'echo "$AGENTORCH_ATTEMPT" >>"$HOME/ran"'


@pytest.fixture
def site() -> Iterator[Site]:
    with site_in_memory() as site:
        site.queue.prepare()
        yield site


def ended(process: subprocess.Popen[str]) -> Ended:
    """Waits for the end."""
    out, err = process.communicate()
    return Ended(process.returncode, out, err)


def test_of_many_submitters_of_one_id_one_wins(site: Site) -> None:
    path = site.top / "job.json"
    path.write_text(lines(job(ID, "true")))
    started = [site.start("submit", str(path)) for _ in range(SUBMITTERS)]
    all_ended = [ended(process) for process in started]
    assert sorted(e.code for e in all_ended) == [0] + [2] * (SUBMITTERS - 1), all_ended
    assert [e.ids for e in all_ended if e.code == 0] == [[ID]]
    assert site.recover() == []
    assert places(site) == {ID: State.DONE}
    assert violations(site) == []


def test_of_many_runners_each_job_has_one(site: Site) -> None:
    documents = [job(f"job-{n:06}", "true") for n in range(JOBS)]
    site.submit(*documents)
    started = [site.start("runner", "--drain", "--slot", f"s{n}") for n in range(RUNNERS)]
    all_ended = [ended(process) for process in started]
    assert [e.code for e in all_ended] == [0] * RUNNERS, all_ended
    claims = Counter(
        words[1].rstrip(":")
        for e in all_ended
        for words in map(str.split, e.err.splitlines())
        if words[2:3] == ["claimed"]
    )
    assert claims == {document["job_id"]: 1 for document in documents}
    assert set(places(site).values()) == {State.DONE}
    assert violations(site) == []


@pytest.mark.needs("strace")
def test_the_slower_of_two_submitters_is_the_second(site: Site) -> None:
    """One has seen that the id is free, and waits; the other takes it."""
    # strace waits before the call: long enough for the other to end
    slow = site.start("submit", "-", under=inject_argv(Point("link", 1), "delay_enter=3s"))
    give(slow, lines(job(ID, "true")))
    eventually(site.roots.artifacts(ID).directory.exists, 30)
    quick = site.run("submit", "-", stdin=lines(job(ID, "true")))
    assert (quick.code, ended(slow).code) == (0, 2)
    assert site.recover() == []
    assert places(site) == {ID: State.DONE}
    assert violations(site) == []


@pytest.mark.needs("strace")
def test_recovery_and_a_submitter_that_ends_just_now(site: Site) -> None:
    """Recovery opened the file in incoming/; when it has the lock, the file is in pending/."""
    under = inject_argv(Point("link", 1), "signal=SIGSTOP")
    submitter = site.start("submit", "-", under=under)
    give(submitter, lines(job(ID, "true")))
    eventually(
        lambda: [p for p in site.queue.paths.incoming.iterdir() if p.stat().st_nlink == 2], 30
    )
    incoming = next(site.queue.paths.incoming.iterdir())
    # strace waits before the call: long enough for the submitter to end
    recovery = site.start("reclaim", under=inject_argv(Point("flock", 1), "delay_enter=3s"))
    eventually(lambda: traced(recovery) and has_open(traced(recovery)[0], incoming), 30)
    os.kill(traced(submitter)[0], signal.SIGCONT)
    assert ended(submitter).ids == [ID]
    assert ended(recovery).code == 0
    assert site.recover() == []
    assert places(site) == {ID: State.DONE}
    assert violations(site) == []


def test_a_stopped_runner_keeps_its_job(site: Site) -> None:
    real = site.with_variables(**REAL)
    real.submit(job(ID, 'echo x >>"$HOME/ran"; until [ -e "$HOME/go" ]; do sleep 0.02; done'))
    runner = real.start("runner", "--drain")
    home = real.roots.workspace(ID).home("exec")
    eventually((home / "ran").exists, 30)
    runner.send_signal(signal.SIGSTOP)
    try:
        reclaimed = json.loads(real.run("reclaim", "--stale-after-sec", "0").out)
        assert reclaimed["reclaimed"] == 0
        assert real.run("runner", "--drain", "--slot", "other").code == 0
        assert real.run("unlock", ID).code == 2
        assert places(real) == {ID: State.RUNNING}
        (home / "go").touch()
    finally:
        runner.send_signal(signal.SIGCONT)
    assert ended(runner).code == 0
    assert (home / "ran").read_text() == "x\n"
    assert places(real) == {ID: State.DONE}
    assert violations(real) == []


# ---- chaos ------------------------------------------------------------------------------------


class Chaos:
    """Submitters and runners, killed at random and started again."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self.site = site
        self.chance = chance
        self.submitted = 0
        self.killed = 0
        self.acknowledged: list[str] = []
        self.runners = {f"s{n}": self._runner(f"s{n}") for n in range(4)}
        self.submitters = [self._submitter() for _ in range(2)]

    def _runner(self, slot: str) -> subprocess.Popen[str]:
        return self.site.start("runner", "--slot", slot, stderr=subprocess.DEVNULL)

    def _submitter(self) -> subprocess.Popen[str]:
        self.submitted += 5
        numbers = range(self.submitted - 5, self.submitted)
        process = self.site.start("submit", "-", stderr=subprocess.DEVNULL)
        give(process, lines(*(job(f"job-{n:06}", COUNTING) for n in numbers)))
        return process

    def strike(self) -> None:
        """Kills one, and starts anew what has ended."""
        slot = self.chance.choice([*self.runners, *self.runners, "submitter"])
        victim = self.runners.get(slot, self.submitters[0])
        victim.send_signal(signal.SIGKILL)
        self.killed += 1
        if slot in self.runners:
            ended(victim)
            self.runners[slot] = self._runner(slot)
        for submitter in [s for s in self.submitters if s.poll() is not None]:
            self.submitters.remove(submitter)
            self.acknowledged += ended(submitter).ids
            self.submitters.append(self._submitter())

    def stop(self) -> list[int]:
        """Ends all: the runners are told to leave; what they exited with."""
        self.acknowledged += [i for s in self.submitters for i in ended(s).ids]
        for runner in self.runners.values():
            runner.send_signal(signal.SIGTERM)
        return [ended(runner).code for runner in self.runners.values()]


def test_chaos_loses_nothing(site: Site, record_property: Record) -> None:
    seed = os.urandom(4).hex()
    chaos = Chaos(site.with_variables(**REAL), random.Random(seed))
    until = time.monotonic() + CHAOS_S
    while time.monotonic() < until:
        time.sleep(chaos.chance.uniform(0.1, 0.5))
        chaos.strike()
    codes = chaos.stop()
    # one that has just been started does not hear a signal yet
    assert set(codes) <= {0, -signal.SIGTERM}, f"seed {seed}: {codes}"
    assert chaos.site.recover() == []
    found = places(chaos.site)
    record_property("jobs", len(found))
    record_property("killed", chaos.killed)
    assert set(chaos.acknowledged) <= set(found), f"seed {seed}: lost"
    wrong = violations(chaos.site)
    for job_id, state in found.items():
        wrong += overrun(chaos.site, job_id, state)
    assert not wrong, f"seed {seed}: " + "\n".join(wrong)


def overrun(site: Site, job_id: str, state: State) -> Iterator[str]:
    """No attempt ran twice, none after one that had succeeded; nothing failed but by its deaths."""
    attempts = site.roots.artifacts(job_id).step("step1").attempts
    proof = site.roots.workspace(job_id).home("exec") / "ran"
    # not there where every owner died before the agent had started
    ran = proof.read_text().split() if proof.exists() else []
    if state is State.DONE and not ran:
        yield f"{job_id}: done, and its agent never ran"
    if len(set(ran)) != len(ran):
        yield f"{job_id}: an attempt ran twice: {ran}"
    results = [document(path) for path in attempts.glob("*/result.json")]
    well = [result for result in results if result is not None and result["status"] == "success"]
    if state is State.DONE and len(well) != 1:
        yield f"{job_id}: {len(well)} attempts succeeded"
    end = document(site.roots.artifacts(job_id).result)
    if state is State.FAILED and (end is None or end["error"]["code"] != "infra"):
        yield f"{job_id}: failed: {end and end['error']}"


# ---- processes --------------------------------------------------------------------------------


def give(process: subprocess.Popen[str], stdin: str) -> None:
    """All of a process's stdin."""
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    process.stdin = None


def traced(strace: subprocess.Popen[str]) -> list[int]:
    """The children of a strace: the program that it follows."""
    children = Path(f"/proc/{strace.pid}/task/{strace.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if descriptor.readlink() == path:
                return True
    return False
