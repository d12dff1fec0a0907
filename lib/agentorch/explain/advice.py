"""What it means that an attempt or a job ended so, and what to do about it: tables. Pure words.

By outcome class, and by error code where that says more. `{job}`, `{step}` and `{agent}` stand for
names. A command can be run as it stands; what has none is for a person to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from agentorch.core.states import OutcomeClass


@dataclass(frozen=True)
class Do:
    """Something to do: a command, and what it does; without one, words alone."""

    command: str
    words: str


@dataclass(frozen=True)
class Advice:
    """What an end means, in words, and what to do next."""

    means: str
    do: tuple[Do, ...] = ()


RETRY = Do(
    "agentorch-retry {job}", "runs step {step} again, from the workspace as it was before it"
)
LOGS = Do("agentorch-logs {job} --step {step}", "shows all that it printed")
DOCTOR = Do("agentorch-doctor {agent}", "says what it finds wrong with {agent}")
BUDGET = Do("agentorch-budget", "shows what is spent, reserved and left")
RELEASE = Do("agentorch-release {job}", "lets it go on now")
ROOM = Do(
    "agentorch-gc --dry-run", "shows what could be removed; RETENTION_MIN_FREE_BYTES keeps room"
)


def _by_hand(words: str) -> Do:
    return Do("", words)


_ANEW = "submit it anew with "

_AGENT = {
    None: Advice("the agent failed", (LOGS, RETRY)),
    "agent_exit_nonzero": Advice("its program ended with a failure", (LOGS, RETRY)),
    "context_too_long": Advice(
        "its prompt and context are too long for the model",
        (_by_hand(_ANEW + "fewer input_artifacts, a shorter prompt, or another model"),),
    ),
    "output_limit": Advice("it printed more than is kept of an agent", (LOGS, RETRY)),
    "unclassified": Advice(
        "the agent failed, and no pattern fits its last words",
        (
            LOGS,
            _by_hand("teach the pattern in /etc/agentorch/ends.d/: agentorch-agent(5)"),
            RETRY,
        ),
    ),
}
_AUTH = {
    None: Advice(
        "there is no key or login for it, or its provider refuses it",
        (
            DOCTOR,
            Do("agentorch-login {agent}", "logs it in; or put a key into /etc/agentorch/keys.env"),
            RETRY,
        ),
    ),
    "credit_empty": Advice(
        "there is no credit left on its provider's account",
        (_by_hand("fill up the account"), RETRY),
    ),
}
_POLICY = {
    None: Advice(
        "the server or its provider does not allow it",
        (_by_hand("change what the policy names in agentorch.env, or submit it anew"), RETRY),
    ),
    "preflight": Advice(
        "what it needs is missing, too old, or does not work here", (DOCTOR, RETRY)
    ),
    "permission_denied": Advice(
        "its own rules kept it from what it wanted to do",
        (LOGS, _by_hand(_ANEW + "the tools that it needs in allowed_tools")),
    ),
    "model_unknown": Advice(
        "its provider has no such model",
        (_by_hand(_ANEW + "another model, or set AGENT_MODELS"), RETRY),
    ),
}
_BUDGETS = {
    None: Advice("a budget is used up", (BUDGET, RETRY)),
    "max_cost": Advice(
        "it used up what it may cost: its max_cost_usd, or the cap of an attempt",
        (
            BUDGET,
            _by_hand("raise MAX_ATTEMPT_COST_USD, or " + _ANEW + "a larger options.max_cost_usd"),
            RETRY,
        ),
    ),
    "unpriced": Advice(
        "its model has no price, so its cap could not be held",
        (_by_hand("give it a price in /etc/agentorch/prices.toml: agentorch-broker(8)"), RETRY),
    ),
    "max_turns": Advice(
        "it used up its max_turns", (LOGS, _by_hand(_ANEW + "a larger options.max_turns"))
    ),
}
_PATCHES = {
    None: Advice(
        "a patch that it begins with does not fit, or its change is no patch",
        (
            LOGS,
            Do("agentorch-diff {job}", "shows the job's patch so far"),
            _by_hand("mend apply_patches_from, or the source, and submit it anew"),
        ),
    ),
    "missing_patch": Advice(
        "a patch that it is to begin with was never left",
        (_by_hand(_ANEW + "apply_patches_from that names steps before it"),),
    ),
    "invalid_patch_path": Advice(
        "a path in its apply_patches_from leads out of the job",
        (_by_hand(_ANEW + "paths of this job's steps"),),
    ),
}
_INFRA = {
    None: Advice("something here, or its provider, failed: not the agent", (LOGS, RETRY)),
    "overloaded": Advice("its provider is too busy", (RETRY,)),
    "provider_error": Advice("its provider answered with an error of its own", (LOGS, RETRY)),
    "network_unreachable": Advice("its provider is not reached", (DOCTOR, RETRY)),
    "broker_unreachable": Advice(
        "the broker is not reached",
        (Do("systemctl status agentorch-broker.socket agentorch-broker", "says why"), RETRY),
    ),
    "disk_full": Advice("the disk was nearly full", (ROOM, RETRY)),
    "interrupted": Advice("its runner was told to leave meanwhile", (RETRY,)),
    "source_missing": Advice(
        "there is no source to make its workspace from",
        (_by_hand("mend workdir or PROJECT_ALIASES"), RETRY),
    ),
    "source_unreadable": Advice(
        "the source of its workspace can't be read",
        (_by_hand("let the service user agentorch read it"), RETRY),
    ),
    "base_gone": Advice(
        "the source no longer has the commit that it began with",
        (_by_hand("bring the commit back into HEAD's history, or submit it anew"), RETRY),
    ),
}
ADVICE: Mapping[OutcomeClass, Mapping[str | None, Advice]] = {
    OutcomeClass.SUCCESS: {None: Advice("it is done")},
    OutcomeClass.AGENT_ERROR: _AGENT,
    OutcomeClass.PARSE_ERROR: {
        None: Advice("its answer is missing, cut, or not in its format", (LOGS, DOCTOR, RETRY)),
    },
    OutcomeClass.TIMEOUT: {
        None: Advice(
            "its time was over",
            (LOGS, RETRY, _by_hand(_ANEW + "a larger timeout_sec, or in smaller steps")),
        ),
    },
    OutcomeClass.STALLED: {
        None: Advice(
            "it neither printed, computed, read nor wrote for RUNNER_MAX_IDLE_SEC", (LOGS, RETRY)
        ),
        "no_output": Advice("it printed nothing from its start on", (DOCTOR, RETRY)),
    },
    OutcomeClass.OOM: {
        None: Advice(
            "the kernel killed it: it needed more memory than it may have",
            (_by_hand("raise AGENTORCH_STEP_MEMORY_MAX, or the job's policy.resources"), RETRY),
        ),
    },
    OutcomeClass.CANCELLED: {None: Advice("somebody ended it", (RETRY,))},
    OutcomeClass.QUOTA: {None: Advice("its provider's usage limit is reached", (RELEASE,))},
    OutcomeClass.AUTH: _AUTH,
    OutcomeClass.POLICY: _POLICY,
    OutcomeClass.BUDGET: _BUDGETS,
    OutcomeClass.PATCH: _PATCHES,
    OutcomeClass.SECRETS: {
        None: Advice(
            "a secret is in what it left",
            (LOGS, _by_hand("revoke it where it is real, and keep it from the source"), RETRY),
        ),
    },
    OutcomeClass.INFRA: _INFRA,
    OutcomeClass.NEEDS_HUMAN: {
        None: Advice("it needs a human", (LOGS,)),
        "non_git_workdir": Advice(
            "its agent works in git repositories, and the workdir is none",
            (_by_hand("run git init there, or set NON_GIT_WORKDIR_STATUS=failed"),),
        ),
    },
    OutcomeClass.CHANGES: {
        None: Advice(
            "its reviewer asks for changes",
            (
                Do("agentorch-diff {job}", "shows what was reviewed"),
                RETRY,
                Do(
                    "agentorch-retry {job} --from STEP",
                    "goes back to the step that is to change it",
                ),
            ),
        ),
    },
}

# Ends of a job that are not those of an attempt, by the code of its error.
JOBS: Mapping[str, Advice] = {
    "rejected": Advice(
        "it was rejected", (replace(RETRY, words="takes it up again at step {step}"),)
    ),
    "cancelled": Advice(
        "it was cancelled", (replace(RETRY, words="takes it up again at step {step}"),)
    ),
    "unlocked": Advice(
        "its owner had died, and somebody gave it up",
        (replace(RETRY, words="takes it up again at step {step}"),),
    ),
    "infra": Advice(
        "its runners died with it too often",
        (
            Do("journalctl AGENTORCH_JOB={job}", "shows how; a runner out of memory, most often"),
            replace(RETRY, words="takes it up again at step {step}"),
        ),
    ),
    "unknown_agent": Advice(
        "it has a step of an agent that is not installed here",
        (
            Do("agentorch-doctor --agents", "lists those that are"),
            _by_hand("put its manifest into /etc/agentorch/agents.d/"),
            replace(RETRY, words="takes it up again at step {step}"),
        ),
    ),
}


def advice(kind: OutcomeClass, code: str | None) -> Advice:
    """What the end of an attempt means, and what to do."""
    known = ADVICE[kind]
    return known.get(code, known[None])
