"""The metric families, each with its HELP line, its labels and its buckets.

Units are seconds, bytes and USD, as Prometheus recommends; the `orchestrator_` families are those
of the contract and keep its units. A test compares the manual with this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A family's type in the Prometheus text format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"


@dataclass(frozen=True)
class Family:
    """One metric family. `buckets` are a histogram's upper bounds, without +Inf."""

    name: str
    kind: Kind
    words: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


STEP_S = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
JOB_S = (1, 10, 60, 300, 900, 1800, 3600, 7200, 21600, 86400)
WAIT_S = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400)
MEMORY_BYTES = tuple(float(1 << power) for power in range(26, 36))
MODEL = ("agent", "model")

# ---- counted in the ledger: they never shrink, whatever retention removes ----------------------

JOBS = Family(
    "orchestrator_jobs_total",
    Kind.COUNTER,
    "Jobs that ended, or stopped to ask a human (needs_human), by the status of their result.",
    ("status",),
)
STEPS = Family(
    "orchestrator_steps_total",
    Kind.COUNTER,
    "Attempts of steps that ended, by the status of their result.",
    ("status",),
)
JOB_MS = Family(
    "orchestrator_job_duration_ms",
    Kind.SUMMARY,
    "Milliseconds from the first claim of a job to its end.",
)
ATTEMPTS = Family(
    "agentorch_attempts_total",
    Kind.COUNTER,
    "Attempts of steps that ended, by agent, outcome class and status.",
    ("agent", "outcome", "status"),
)
RETRIES = Family(
    "agentorch_retries_total",
    Kind.COUNTER,
    "Attempts made because an earlier one failed.",
    ("agent",),
)
ATTEMPT_S = Family(
    "agentorch_attempt_duration_seconds",
    Kind.HISTOGRAM,
    "Duration of attempts of steps.",
    ("agent",),
    STEP_S,
)
JOB_DURATION = Family(
    "agentorch_job_duration_seconds",
    Kind.HISTOGRAM,
    "Time from the first claim of a job to its end.",
    (),
    JOB_S,
)
JOB_WAIT = Family(
    "agentorch_job_wait_seconds",
    Kind.HISTOGRAM,
    "Time from the submission of a job to its first claim; observed at its first end or question.",
    (),
    WAIT_S,
)
RECLAIMS = Family(
    "agentorch_reclaims_total",
    Kind.COUNTER,
    "Jobs reclaimed from a dead owner; counted when the job next ends or asks a human.",
)
TOKENS_IN = Family(
    "agentorch_tokens_in_total",
    Kind.COUNTER,
    "Tokens that models read, the cached ones included.",
    MODEL,
)
TOKENS_OUT = Family("agentorch_tokens_out_total", Kind.COUNTER, "Tokens that models wrote.", MODEL)
TOKENS_CACHED = Family(
    "agentorch_tokens_cached_total",
    Kind.COUNTER,
    "Tokens that models read from the provider's cache.",
    MODEL,
)
COST_USD = Family(
    "agentorch_cost_usd_total", Kind.COUNTER, "Cost of model calls, in US dollars.", MODEL
)
MODEL_CALLS = Family(
    "agentorch_model_calls_total", Kind.COUNTER, "Model calls through the broker.", MODEL
)
UNPRICED_CALLS = Family(
    "agentorch_unpriced_calls_total",
    Kind.COUNTER,
    "Model calls without a known price, which are missing from the cost.",
    MODEL,
)
CPU_S = Family(
    "agentorch_cpu_seconds_total", Kind.COUNTER, "Processor time of attempts.", ("agent",)
)
MEMORY_PEAK = Family(
    "agentorch_memory_peak_bytes",
    Kind.HISTOGRAM,
    "Peak memory of all processes of an attempt together.",
    ("agent",),
    MEMORY_BYTES,
)
IO_BYTES = Family(
    "agentorch_io_bytes_total",
    Kind.COUNTER,
    "Bytes that attempts read from disks and wrote to them.",
    ("agent", "direction"),
)

COUNTED = (
    *(JOBS, STEPS, JOB_MS),
    *(ATTEMPTS, RETRIES, ATTEMPT_S, JOB_DURATION, JOB_WAIT, RECLAIMS),
    *(TOKENS_IN, TOKENS_OUT, TOKENS_CACHED, COST_USD, MODEL_CALLS, UNPRICED_CALLS),
    *(CPU_S, MEMORY_PEAK, IO_BYTES),
)

# ---- measured at the scrape --------------------------------------------------------------------

# done and failed come from the ledger, because listing ended jobs would take longer and longer
QUEUE_JOBS = Family(
    "orchestrator_queue_jobs", Kind.GAUGE, "Jobs in each state of the queue.", ("state",)
)
QUEUE_OLDEST = Family(
    "agentorch_queue_oldest_seconds",
    Kind.GAUGE,
    "Time since the oldest job in this state was submitted; 0 where there is no job.",
    ("state",),
)
SLOTS = Family("agentorch_slots", Kind.GAUGE, "Configured slots.")
SLOTS_LIVE = Family("agentorch_slots_live", Kind.GAUGE, "Slots with a live owner.")
FREE_BYTES = Family(
    "agentorch_free_bytes",
    Kind.GAUGE,
    "Free space on the filesystem of each root, for users other than root.",
    ("root",),
)
LEDGER_READABLE = Family(
    "agentorch_ledger_readable",
    Kind.GAUGE,
    "1 if the ledger can be read; with 0 all counters are missing, and nothing is counted.",
)
BUDGET_CAP = Family(
    "agentorch_budget_cap_usd",
    Kind.GAUGE,
    "Limit of spending on a UTC day, by cap: day, project:NAME, agent:NAME.",
    ("cap",),
)
BUDGET_SPENT = Family(
    "agentorch_budget_spent_usd",
    Kind.GAUGE,
    "Cost of the attempts that ended on this UTC day, by cap.",
    ("cap",),
)
BUDGET_RESERVED = Family(
    "agentorch_budget_reserved_usd",
    Kind.GAUGE,
    "Amount that running attempts may still cost, by cap.",
    ("cap",),
)
BUDGET_CALLS = Family(
    "agentorch_budget_calls",
    Kind.GAUGE,
    "Model calls on this UTC day: allowed (cap), spent and reserved.",
    ("of",),
)
WALLS = Family(
    "agentorch_walls",
    Kind.GAUGE,
    "Credentials that are blocked because a usage limit of their provider is reached.",
)
BUILD = Family("agentorch_build_info", Kind.GAUGE, "1, with the version.", ("version",))

MEASURED = (
    *(QUEUE_JOBS, QUEUE_OLDEST, SLOTS, SLOTS_LIVE, FREE_BYTES, LEDGER_READABLE),
    *(BUDGET_CAP, BUDGET_SPENT, BUDGET_RESERVED, BUDGET_CALLS, WALLS, BUILD),
)

FAMILIES = (*COUNTED, *MEASURED)
