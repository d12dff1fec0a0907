"""Every name on disk, spelled once.

    QUEUE_ROOT/
        incoming/RANDOM                 submissions being written; flock held by the submitter
        incoming/import-RANDOM          the same of an import, which unpacks into .import-RANDOM
                                        below the other two roots
        pending/KEY.json                can be claimed now, and nothing else is in here
        running/SLOT/.lock              flock held by the slot's owner for its whole life
        running/SLOT/KEY.json           owned by that slot
        awaiting_approval/KEY.json      a human decides
        held/KEY.json                   held back by a human, or by the job's own budget
        parked/UNTIL-KEY.json           goes on by itself at that time (UTC)
        done/KEY.json  failed/KEY.json  ended
        outbox/{new,waiting,failed}/    what is to be told about ended jobs (see outbox)
        announcing.lock                 flock held while programs are told of waiting jobs
        idempotency/SHA256              symlink that spells the id which a key was first used for
    ARTIFACTS_ROOT/ID/
        job.json                        the queue file's other name (one inode for good)
        job.edited.json                 the job as it is by now, where it was edited
        .lock                           flock held while a decision is taken on the job
        decisions.jsonl                 every decision, appended
        cancel                          marker: the owner ends the job
        hold                            marker: its owner puts it into held/; says why
        keep                            marker: retention passes it by
        announced                       which programs have heard that it waits (see announced)
        callback.json                   on its way to the outbox
        manifest.json manifest.json.sig  hashes of all of it at the end, and their signature
        state.json                      the pipeline's progress; its status is the commit record
        base.json                       the commit and the tree that the workspace was made from
        context.json  result.json  report.md  patch.diff  logs.txt
        steps/STEP/.lock                flock held by the step's process and its sandbox
        steps/STEP/{result.json,report.md,patch.diff,logs.txt,raw_stdout.txt,raw_stderr.txt}
                                        the latest attempt's files (hard links)
        steps/STEP/.unit                the attempt has a unit of its own: there from before its
                                        start until its owner saw its end
        steps/STEP/attempts/N/          the same names, and:
            claim                       linked by the process that runs the attempt
            end.json                    how its unit ended, and what it used (systemd launcher)
            prompt.md                   what the agent was given
            allowance.json              what it may cost, and which cap says so
    WORKSPACES_ROOT/ID/
        work/                           what the agent sees
        workspace.json                  its base, its last trees, the visit that began last
        history.git/                    ours: trees of work/ before and after each attempt
        git.before/                     copies of work/.git, and of what else git keeps nowhere,
                                        as they were before the step
        scratch/                        half made or half removed, of no value to anybody
        home/AGENT/                     an agent's HOME, private to the job and the agent
        home/.visitor/                  the HOME of a shell, while it is open
        io/STEP/                        live stdin, stdout, stderr of the attempt
        unit/STEP/{environment,recorder.py}
                                        what a step's unit starts and ends with; there
                                        from before its start until its owner saw its end
        broker/STEP/                    the socket and grants of a broker that the step started
    STATE/schedules/ID.json             the last run of a schedule, and its jobs (see firing)
    STATE/schedules/.ID.lock            flock held while a run is decided on

Locking: a lock file is never deleted, flock(2) on it is the proof of life of its holder, and the
descriptor is closed in every child that is not meant to hold it. A queue file is moved only by the
owner of its slot, or out of pending/, awaiting_approval/, held/ and parked/ by whoever renames
first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agentorch.core.job import Key
from agentorch.core.states import State

# What a step leaves, in the order in which it is published: the result comes last.
STEP_FILES = (
    "report.md",
    "patch.diff",
    "logs.txt",
    "raw_stdout.txt",
    "raw_stderr.txt",
    "result.json",
)


# What the names of submissions begin with that come with all that a job has (agentorch-import).
IMPORT = "import-"

# Where a callback lies: to be told now, again later, given up.
NEW, WAITING, REFUSED = "new", "waiting", "failed"


_STAMP = "%Y%m%dT%H%M%SZ"
_STAMP_CHARS = len("20260101T000000Z")


def parked_name(key: Key, until: datetime) -> str:
    """Return the file name of a parked job: whole seconds, UTC."""
    return f"{until.astimezone(UTC).strftime(_STAMP)}-{key}"


def parked_key(name: str) -> tuple[datetime, Key] | None:
    """Return when a parked job goes on, and its key; None where the name spells none."""
    key = Key.parse(parked_key_name(name))
    try:
        until = datetime.strptime(name[:_STAMP_CHARS], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
    # a name that is spelled otherwise would never be found by its key
    return (until, key) if key is not None and parked_name(key, until) == name else None


def parked_key_name(name: str) -> str:
    """Return the key in a parked job's file name, as text that nobody has looked at."""
    return name[_STAMP_CHARS + 1 :]


@dataclass(frozen=True)
class QueuePaths:
    """The queue's directories."""

    root: Path

    @property
    def incoming(self) -> Path:
        return self.root / "incoming"

    @property
    def running(self) -> Path:
        return self.root / "running"

    @property
    def keys(self) -> Path:
        return self.root / "idempotency"

    def key(self, digest: str) -> Path:
        """Return the entry of an idempotency key, named by the digest of its scope and itself."""
        return self.keys / digest

    def state(self, state: State) -> Path:
        """Return the directory of a state; of `running`, the one that holds the slots."""
        return self.root / state.value

    def outbox(self, where: str) -> Path:
        """Return a directory of the outbox: new, waiting or failed."""
        return self.root / "outbox" / where

    @property
    def outbox_lock(self) -> Path:
        return self.root / "outbox" / ".lock"

    @property
    def announcing_lock(self) -> Path:
        return self.root / "announcing.lock"

    def slot(self, slot: str) -> Path:
        return self.running / slot

    def slot_lock(self, slot: str) -> Path:
        return self.slot(slot) / ".lock"

    def file(self, state: State, key: Key, slot: str | None = None) -> Path:
        """Return the queue file of a key in a state; `slot` goes with running, and only with it."""
        directory = self.slot(slot) if slot is not None else self.state(state)
        return directory / str(key)

    def parked_file(self, key: Key, until: datetime) -> Path:
        """Return the queue file of a parked job; names sort by the time at which they go on."""
        return self.state(State.PARKED) / parked_name(key, until)


@dataclass(frozen=True)
class _Below:
    directory: Path


class _Left(_Below):
    """The files of an attempt, and of a job at its end."""

    @property
    def result(self) -> Path:
        return self.directory / "result.json"

    @property
    def report(self) -> Path:
        return self.directory / "report.md"

    @property
    def patch(self) -> Path:
        return self.directory / "patch.diff"

    @property
    def logs(self) -> Path:
        return self.directory / "logs.txt"


class AttemptPaths(_Left):
    """One execution of a step."""

    @property
    def claim(self) -> Path:
        return self.directory / "claim"

    @property
    def end(self) -> Path:
        return self.directory / "end.json"

    @property
    def allowance(self) -> Path:
        return self.directory / "allowance.json"

    @property
    def prompt(self) -> Path:
        return self.directory / "prompt.md"

    @property
    def raw_stdout(self) -> Path:
        return self.directory / "raw_stdout.txt"

    @property
    def raw_stderr(self) -> Path:
        return self.directory / "raw_stderr.txt"


class StepPaths(_Below):
    """A step's directory below the job's artifacts."""

    @property
    def lock(self) -> Path:
        return self.directory / ".lock"

    @property
    def unit(self) -> Path:
        return self.directory / ".unit"

    @property
    def attempts(self) -> Path:
        return self.directory / "attempts"

    def attempt(self, number: int) -> AttemptPaths:
        return AttemptPaths(self.attempts / str(number))

    @property
    def latest(self) -> AttemptPaths:
        """The published files of the latest attempt."""
        return AttemptPaths(self.directory)


class ArtifactPaths(_Left):
    """A job's artifact directory."""

    @property
    def job(self) -> Path:
        return self.directory / "job.json"

    @property
    def lock(self) -> Path:
        return self.directory / ".lock"

    @property
    def decisions(self) -> Path:
        return self.directory / "decisions.jsonl"

    @property
    def edited_job(self) -> Path:
        return self.directory / "job.edited.json"

    @property
    def hold(self) -> Path:
        return self.directory / "hold"

    @property
    def keep(self) -> Path:
        return self.directory / "keep"

    @property
    def announcements(self) -> Path:
        return self.directory / "announced"

    @property
    def cancel(self) -> Path:
        return self.directory / "cancel"

    @property
    def callback(self) -> Path:
        return self.directory / "callback.json"

    @property
    def state(self) -> Path:
        return self.directory / "state.json"

    @property
    def base(self) -> Path:
        return self.directory / "base.json"

    @property
    def manifest(self) -> Path:
        return self.directory / "manifest.json"

    @property
    def signature(self) -> Path:
        return self.directory / "manifest.json.sig"

    @property
    def context(self) -> Path:
        return self.directory / "context.json"

    def step(self, step_id: str) -> StepPaths:
        return StepPaths(self.directory / "steps" / step_id)

    def started_steps(self) -> list[StepPaths]:
        """Return the steps that have a directory, sorted."""
        return [StepPaths(directory) for directory in sorted(self.directory.glob("steps/*"))]


class UnitPaths(_Below):
    """The files of a step's unit, outside of the sandbox."""

    @property
    def environment(self) -> Path:
        return self.directory / "environment"

    @property
    def recorder(self) -> Path:
        return self.directory / "recorder.py"


@dataclass(frozen=True)
class WorkspacePaths:
    """A job's workspace; `elsewhere` where the work tree is a directory of the user's."""

    directory: Path
    elsewhere: Path | None = None

    @property
    def work(self) -> Path:
        return self.elsewhere or self.directory / "work"

    @property
    def record(self) -> Path:
        return self.directory / "workspace.json"

    @property
    def scratch(self) -> Path:
        return self.directory / "scratch"

    @property
    def history(self) -> Path:
        return self.directory / "history.git"

    @property
    def git_before(self) -> Path:
        return self.directory / "git.before"

    @property
    def homes(self) -> Path:
        return self.directory / "home"

    def home(self, agent: str) -> Path:
        return self.homes / agent

    @property
    def visitor_home(self) -> Path:
        return self.homes / ".visitor"

    @property
    def brokers(self) -> Path:
        return self.directory / "broker"

    def broker(self, step_id: str) -> Path:
        return self.brokers / step_id

    def io(self, step_id: str) -> Path:
        return self.directory / "io" / step_id

    def unit(self, step_id: str) -> UnitPaths:
        return UnitPaths(self.directory / "unit" / step_id)


class SchedulePaths(_Below):
    """The files about the runs of schedules: STATE/schedules/."""

    def record(self, schedule_id: str) -> Path:
        return self.directory / f"{schedule_id}.json"

    def lock(self, schedule_id: str) -> Path:
        """Held while a run of the schedule is decided on."""
        return self.directory / f".{schedule_id}.lock"


@dataclass(frozen=True)
class Roots:
    """The three roots of CONTRACT, section 3, and the ledger.

    And the private key that records of runs are signed with; None: they are not.
    """

    queue_root: Path
    artifacts_root: Path
    workspaces_root: Path
    state_db: Path
    signing_key: Path | None = None

    @property
    def queue(self) -> QueuePaths:
        return QueuePaths(self.queue_root)

    def artifacts(self, job_id: str) -> ArtifactPaths:
        return ArtifactPaths(self.artifacts_root / job_id)

    def workspace(self, job_id: str) -> WorkspacePaths:
        return WorkspacePaths(self.workspaces_root / job_id)

    def arriving(self, name: str) -> tuple[ArtifactPaths, WorkspacePaths]:
        """Return where an import unpacks, named as its file in incoming/: no id begins with a
        dot.
        """
        return self.artifacts(f".{name}"), self.workspace(f".{name}")
