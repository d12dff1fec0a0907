"""Tables of what an outcome means and what to do about it. Pure.

The key is the outcome class, and the error code where that says more. `{job}`, `{step}` and
`{agent}` are replaced by names. A command can be run as it stands; an action without a command is
for a person to carry out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from agentorch.core.states import OutcomeClass


@dataclass(frozen=True)
class Action:
    """Something to do next: a command with what it does, or words alone (`command` is empty)."""

    command: str
    words: str


@dataclass(frozen=True)
class Advice:
    """The meaning of an outcome, and the actions to take next."""

    meaning: str
    actions: tuple[Action, ...] = ()


RETRY = Action(
    "agentorch-retry {job}", "runs step {step} again, in the workspace as it was before that step"
)
LOGS = Action("agentorch-logs {job} --step {step}", "shows the whole output of the step")
DOCTOR = Action("agentorch-doctor {agent}", "checks {agent} and says what is wrong")
BUDGET = Action("agentorch-budget", "shows what is spent, reserved and left")
RELEASE = Action("agentorch-release {job}", "lets the job go on now")
ROOM = Action(
    "agentorch-gc --dry-run", "shows what can be removed; RETENTION_MIN_FREE_BYTES keeps space free"
)


def _manual_action(words: str) -> Action:
    return Action("", words)


_AGAIN = "submit the job again with "

_AGENT = {
    None: Advice("the agent failed", (LOGS, RETRY)),
    "agent_exit_nonzero": Advice("the agent's program exited with an error", (LOGS, RETRY)),
    "context_too_long": Advice(
        "the prompt and its context are too long for the model",
        (_manual_action(_AGAIN + "fewer input_artifacts, a shorter prompt, or another model"),),
    ),
    "output_limit": Advice("the agent printed more than the output limit allows", (LOGS, RETRY)),
    "unclassified": Advice(
        "the agent failed, and no pattern matches its last lines of output",
        (
            LOGS,
            _manual_action(
                "add a pattern for it to /etc/agentorch/ends.d/, see agentorch-agent(5)"
            ),
            RETRY,
        ),
    ),
}
_AUTH = {
    None: Advice(
        "the agent has no key or login, or its provider refused it",
        (
            DOCTOR,
            Action(
                "agentorch-login {agent}",
                "logs {agent} in; a key in /etc/agentorch/keys.env does as well",
            ),
            RETRY,
        ),
    ),
    "credit_empty": Advice(
        "the account at its provider has no credit left",
        (_manual_action("add credit to the account at the provider"), RETRY),
    ),
}
_POLICY = {
    None: Advice(
        "a policy of this server or of the provider does not allow it",
        (
            _manual_action(
                "change the setting in agentorch.env, or submit a job again that is allowed"
            ),
            RETRY,
        ),
    ),
    "preflight": Advice(
        "something that the agent needs is missing, too old, or does not work here", (DOCTOR, RETRY)
    ),
    "permission_denied": Advice(
        "the agent's own permission rules refused an action",
        (LOGS, _manual_action(_AGAIN + "the tools that it needs in allowed_tools")),
    ),
    "model_unknown": Advice(
        "the provider does not have the requested model",
        (_manual_action(_AGAIN + "another model, or set AGENT_MODELS"), RETRY),
    ),
}
_BUDGETS = {
    None: Advice("a budget is used up", (BUDGET, RETRY)),
    "max_cost": Advice(
        "the attempt reached its cost limit: the step's max_cost_usd, or MAX_ATTEMPT_COST_USD",
        (
            BUDGET,
            _manual_action(
                "raise MAX_ATTEMPT_COST_USD, or " + _AGAIN + "a larger options.max_cost_usd"
            ),
            RETRY,
        ),
    ),
    "unpriced": Advice(
        "the model has no price, so the cost limit could not be enforced",
        (
            _manual_action("add its price to /etc/agentorch/prices.toml, see agentorch-broker(8)"),
            RETRY,
        ),
    ),
    "max_turns": Advice(
        "the agent reached its limit of turns (max_turns)",
        (LOGS, _manual_action(_AGAIN + "a larger options.max_turns")),
    ),
}
_PATCHES = {
    None: Advice(
        "a patch that the step starts from does not apply, or its change is not a valid patch",
        (
            LOGS,
            Action("agentorch-diff {job}", "shows the job's patch so far"),
            _manual_action("correct apply_patches_from, or the source, and submit the job again"),
        ),
    ),
    "missing_patch": Advice(
        "a patch that the step is to start from does not exist",
        (_manual_action(_AGAIN + "an apply_patches_from that names earlier steps"),),
    ),
    "invalid_patch_path": Advice(
        "a path in the step's apply_patches_from leads outside the job",
        (_manual_action(_AGAIN + "paths of this job's steps"),),
    ),
}
_INFRA = {
    None: Advice("this machine or the provider failed, not the agent", (LOGS, RETRY)),
    "overloaded": Advice("the provider is overloaded", (RETRY,)),
    "provider_error": Advice("the provider answered with an internal error", (LOGS, RETRY)),
    "network_unreachable": Advice("the provider cannot be reached", (DOCTOR, RETRY)),
    "broker_unreachable": Advice(
        "the broker cannot be reached",
        (Action("systemctl status agentorch-broker.socket agentorch-broker", "shows why"), RETRY),
    ),
    "disk_full": Advice("the disk was nearly full", (ROOM, RETRY)),
    "interrupted": Advice("the runner was stopped while the step ran", (RETRY,)),
    "source_missing": Advice(
        "the source of its workspace does not exist",
        (_manual_action("correct workdir or PROJECT_ALIASES"), RETRY),
    ),
    "source_unreadable": Advice(
        "the source of its workspace cannot be read",
        (_manual_action("give the service user agentorch permission to read it"), RETRY),
    ),
    "base_gone": Advice(
        "the source no longer has the commit that the job started from",
        (
            _manual_action("bring the commit back into HEAD's history, or submit the job again"),
            RETRY,
        ),
    ),
}
ADVICE: Mapping[OutcomeClass, Mapping[str | None, Advice]] = {
    OutcomeClass.SUCCESS: {None: Advice("it succeeded")},
    OutcomeClass.AGENT_ERROR: _AGENT,
    OutcomeClass.PARSE_ERROR: {
        None: Advice(
            "the agent's answer is missing, incomplete, or not in the expected format",
            (LOGS, DOCTOR, RETRY),
        ),
    },
    OutcomeClass.TIMEOUT: {
        None: Advice(
            "the step reached its time limit",
            (LOGS, RETRY, _manual_action(_AGAIN + "a larger timeout_sec, or in smaller steps")),
        ),
    },
    OutcomeClass.STALLED: {
        None: Advice(
            "the step used no CPU time and no I/O, and printed nothing, for RUNNER_MAX_IDLE_SEC",
            (LOGS, RETRY),
        ),
        "no_output": Advice("the agent printed nothing since its start", (DOCTOR, RETRY)),
    },
    OutcomeClass.OOM: {
        None: Advice(
            "the kernel killed the step: it needed more memory than its limit allows",
            (
                _manual_action("raise AGENTORCH_STEP_MEMORY_MAX, or the job's policy.resources"),
                RETRY,
            ),
        ),
    },
    OutcomeClass.CANCELLED: {None: Advice("the step was cancelled", (RETRY,))},
    OutcomeClass.QUOTA: {None: Advice("a usage limit of its provider is reached", (RELEASE,))},
    OutcomeClass.AUTH: _AUTH,
    OutcomeClass.POLICY: _POLICY,
    OutcomeClass.BUDGET: _BUDGETS,
    OutcomeClass.PATCH: _PATCHES,
    OutcomeClass.SECRETS: {
        None: Advice(
            "the results of the step contain a secret",
            (
                LOGS,
                _manual_action("revoke the secret if it is real, and remove it from the source"),
                RETRY,
            ),
        ),
    },
    OutcomeClass.INFRA: _INFRA,
    OutcomeClass.NEEDS_HUMAN: {
        None: Advice("the step needs a decision by a person", (LOGS,)),
        "non_git_workdir": Advice(
            "the agent works only in git repositories, and the workdir is not one",
            (_manual_action("run git init there, or set NON_GIT_WORKDIR_STATUS=failed"),),
        ),
    },
    OutcomeClass.CHANGES: {
        None: Advice(
            "the reviewer requests changes",
            (
                Action("agentorch-diff {job}", "shows what was reviewed"),
                RETRY,
                Action(
                    "agentorch-retry {job} --from STEP",
                    "goes back to the step that is to make the changes",
                ),
            ),
        ),
    },
}

# The outcomes of a job that are not those of an attempt, by the code of the job's error.
JOBS: Mapping[str, Advice] = {
    "rejected": Advice(
        "it was rejected", (replace(RETRY, words="continues the job at step {step}"),)
    ),
    "cancelled": Advice(
        "it was cancelled", (replace(RETRY, words="continues the job at step {step}"),)
    ),
    "unlocked": Advice(
        "its owner had died, and a person unlocked it",
        (replace(RETRY, words="continues the job at step {step}"),),
    ),
    "infra": Advice(
        "its runners died too often while they worked on it",
        (
            Action(
                "journalctl AGENTORCH_JOB={job}", "shows how; most often a runner was out of memory"
            ),
            replace(RETRY, words="continues the job at step {step}"),
        ),
    ),
    "unknown_agent": Advice(
        "one of its steps names an agent that is not installed here",
        (
            Action("agentorch-doctor --agents", "lists the installed agents"),
            _manual_action("put the agent's manifest into /etc/agentorch/agents.d/"),
            replace(RETRY, words="continues the job at step {step}"),
        ),
    ),
}


def advice(kind: OutcomeClass, code: str | None) -> Advice:
    """Return the advice for an outcome; for an unknown code that of its class."""
    by_code = ADVICE[kind]
    return by_code.get(code, by_code[None])
