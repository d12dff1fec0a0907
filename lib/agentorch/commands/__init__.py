"""One module an executable: parse, call once, print. This table is the one list of them.

NAME is `agentorch NAME` and bin/agentorch-NAME, and its module here exports `main`; the words are
those that the module's docstring, the help and the manual begin with. A test holds bin/ and
pyproject.toml against it.
"""

from __future__ import annotations

from keyword import iskeyword

COMMANDS = {
    "submit": "queues jobs; their ids are the answer",
    "status": "where a job is and how it ended, as JSON",
    "ls": "the jobs in the queue",
    "wait": "waits for jobs to end; the exit code tells how they did",
    "logs": "what the steps of a job printed",
    "diff": "the patch of a job or of one of its steps",
    "report": "print an HTML page about a job, or about all jobs",
    "explain": "why a job waits, or why it failed, and what to do",
    "shell": "opens a shell in a job's workspace, in its sandbox",
    "verify": "whether what jobs left is as it was when they ended",
    "approve": "lets jobs that wait for a human go on",
    "reject": "fails jobs that wait for a human",
    "answer": "answers the question that a job's agent asked",
    "hold": "holds jobs back until they are released",
    "release": "lets held and parked jobs go on",
    "edit": "changes the remaining steps of a waiting job",
    "priority": "moves waiting jobs forward or back in the queue",
    "cancel": "ends jobs that have not ended",
    "retry": "puts jobs that ended or wait back into the queue",
    "delete": "removes jobs that have ended, with all that they left",
    "export": "writes all that a job has into one tar",
    "import": "takes a job out of a tar that agentorch-export wrote",
    "unlock": "fails jobs whose owner is dead",
    "reclaim": "gives back what dead owners left",
    "gc": "removes what was kept long enough of jobs that have ended",
    "schedule": "submits jobs at times of their own",
    "announce": "tells the administrator's programs that a job waits for a human",
    "notify": "tells who wants to know about ended jobs",
    "budget": "show what is spent, reserved and left",
    "metrics": "write the metrics of the queue for Prometheus",
    "doctor": "check everything that jobs need, by trying it",
    "login": "logs an agent in with an account of its own",
    "runner": "holds a slot and works on jobs",
    "webhook": "accept jobs over HTTP, and report their state",
    "broker": "answers agents, with the keys that they don't have",
    "step": "runs one step, of a queued job or with no queue at all",
}


def module_of(name: str) -> str:
    """Return the module of a command; Python has no `import` but its own."""
    return f"{name}_" if iskeyword(name) else name


# Names that `agentorch` knows too (CONTRACT section 8); there is no executable of these.
ALIASES = {"recover": "reclaim"}
