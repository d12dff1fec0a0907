"""The configuration: CONTRACT section 10, read once, every malformed variable named.

The environment wins over the environment file: `AGENTORCH_ENV_FILE`, else
/etc/agentorch/agentorch.env where it can be read. Behind `load` there are values only.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from agentorch.config import environment_file, variables
from agentorch.core.errors import Misconfigured
from agentorch.core.job import WAITING_S, Expiry, Handoff, Network, Waiting
from agentorch.core.resources import UNLIMITED, Resources
from agentorch.storage.paths import Roots, SchedulePaths

SERVICE_USER = "agentorch"
SYSTEM_STATE = Path("/var/lib/agentorch")


@dataclass(frozen=True)
class Settings:
    """Every setting, with its default. Seconds end in _s, bytes in _bytes, dollars in _usd."""

    state_directory: Path
    roots: Roots
    launcher: str = "fork"
    slots: int = 1
    step_resources: Resources = UNLIMITED
    total_resources: Resources = UNLIMITED
    configuration: Path = Path("/etc/agentorch")
    broker_socket: Path | None = None
    real_cli: bool = False
    self_test: bool = True
    sandbox: bool = True
    sandbox_wrapper: str = "bwrap"
    sandbox_wrapper_args: tuple[str, ...] = ()
    sandbox_clear_env: bool = False
    network: Network = Network.DENY
    allowed_hosts: tuple[str, ...] = ()
    allowed_models: tuple[str, ...] = ()
    agent_models: Mapping[str, str] = field(default_factory=dict)
    allowed_binaries: tuple[str, ...] = ("opencode", "claude", "codex", "git", "python")
    min_binary_versions: Mapping[str, variables.Version] = field(default_factory=dict)
    env_allowlist: tuple[str, ...] = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "PATH", "HOME")
    sensitive_env_vars: tuple[str, ...] = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")
    project_aliases: Mapping[str, Path] = field(default_factory=dict)
    default_artifact_handoff: Handoff = Handoff.MANUAL
    webhook_tokens: Mapping[str, frozenset[str] | None] = field(default_factory=dict, repr=False)
    webhook_decision_tokens: Mapping[str, variables.Decider] = field(
        default_factory=dict, repr=False
    )
    webhook_rate_limit_window_s: int = 60
    webhook_rate_limit_max_requests: int = 30
    webhook_trusted_proxies: tuple[str, ...] = ()
    max_webhook_body_bytes: int = 262144
    callback_secrets: tuple[bytes, ...] = field(default=(), repr=False)
    callback_allowed_hosts: tuple[str, ...] = ()
    waiting_policy: Expiry = Expiry.WAIT
    waiting_max_s: int = WAITING_S
    max_daily_api_calls: int = 0
    max_daily_cost_usd: float = 0
    project_budgets: Mapping[str, float] = field(default_factory=dict)
    agent_budgets: Mapping[str, float] = field(default_factory=dict)
    max_attempt_cost_usd: float = 5
    retention_interval_s: int = 300
    artifacts_ttl_s: int = 604800
    workspaces_ttl_s: int = 172800
    retention_max_bytes: int = 0
    retention_min_free_bytes: int = 0
    allowed_signers: Path | None = None
    metrics_file: Path = Path("/var/lib/prometheus/node-exporter/agentorch.prom")
    runner_poll_interval_s: float = 1
    runner_max_idle_s: int = 120
    runner_reclaim_after_s: int = 600
    runner_max_attempts_per_step: int = 3
    max_input_artifacts_files: int = 10
    max_input_artifact_chars: int = 12000
    max_input_artifacts_chars: int = 40000
    max_subprocess_output_chars: int = 200000
    non_git_workdir_status: str = "needs_human"
    min_free_disk_bytes: int = 64 * 1024 * 1024
    worker_entrypoint_group: str = "multi_agent_cli_orchestrator.workers"
    log_level: str = "INFO"
    log_json: bool = False
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def waiting(self) -> Waiting:
        """Return how long a job waits for a human that says nothing of it itself, and what then."""
        return Waiting(self.waiting_policy, self.waiting_max_s)

    @property
    def agents_directory(self) -> Path:
        """Manifests of third-party agents."""
        return self.configuration / "agents.d"

    @property
    def ends_directory(self) -> Path:
        """The administrator's patterns of how agents end, before the built-in ones."""
        return self.configuration / "ends.d"

    @property
    def notify_directory(self) -> Path:
        """The administrator's programs that are run for jobs that wait for a human."""
        return self.configuration / "notify.d"

    @property
    def prompts_directory(self) -> Path:
        """The administrator's system prompts, instead of the built-in ones."""
        return self.configuration / "prompts"

    @property
    def prices(self) -> Path:
        """The administrator's price table, over the built-in one."""
        return self.configuration / "prices.toml"

    @property
    def providers(self) -> Path:
        """Model providers beside the built-in ones."""
        return self.configuration / "providers.toml"

    @property
    def keys_file(self) -> Path:
        """The agents' keys, where no credential of the unit has them; the broker's alone."""
        return self.configuration / "keys.env"

    @property
    def schedules_directory(self) -> Path:
        """Schedules, a file each."""
        return self.configuration / "schedules"

    @property
    def schedules(self) -> SchedulePaths:
        """Return what is known of their runs."""
        return SchedulePaths(self.state_directory / "schedules")

    @property
    def versions(self) -> Path:
        """Return what the agents' programs said of their versions, and when."""
        return self.state_directory / "versions.json"

    @property
    def programs(self) -> Path:
        """The hashes of agents' programs, so that each is read once."""
        return self.state_directory / "programs.json"

    @property
    def logins(self) -> Path:
        """A HOME an agent, with the login that agentorch-login made."""
        return self.state_directory / "logins"


# Variable, field of Settings, reader. A field of None is checked here and used by another part.
Variable = tuple[str, str | None, Callable[[str], object]]
VARIABLES: tuple[Variable, ...] = (
    ("AGENTORCH_LAUNCHER", None, variables.one_of("auto", "fork", "systemd")),
    ("AGENTORCH_SLOTS", "slots", variables.between(0, 64)),
    ("AGENTORCH_CONFIG_DIR", "configuration", variables.absolute),
    ("AGENTORCH_SELF_TEST", "self_test", variables.boolean),
    ("AGENTORCH_BROKER_SOCKET", "broker_socket", variables.absolute),
    ("AGENTORCH_MIN_FREE_BYTES", "min_free_disk_bytes", variables.whole(0)),
    ("ENABLE_REAL_CLI", "real_cli", variables.boolean),
    ("SANDBOX", "sandbox", variables.boolean),
    ("SANDBOX_WRAPPER", "sandbox_wrapper", variables.text),
    ("SANDBOX_WRAPPER_ARGS", "sandbox_wrapper_args", variables.arguments),
    ("SANDBOX_CLEAR_ENV", "sandbox_clear_env", variables.boolean),
    ("NETWORK_POLICY", "network", lambda text: Network(variables.one_of("deny", "allow")(text))),
    ("ALLOWED_HOSTS", "allowed_hosts", variables.hosts),
    ("ALLOWED_MODELS", "allowed_models", variables.words),
    ("AGENT_MODELS", "agent_models", lambda text: MappingProxyType(dict(variables.pairs(text)))),
    ("ALLOWED_BINARIES", "allowed_binaries", variables.words),
    ("MIN_BINARY_VERSIONS", "min_binary_versions", variables.versions),
    ("ENV_ALLOWLIST", "env_allowlist", variables.words),
    ("SENSITIVE_ENV_VARS", "sensitive_env_vars", variables.words),
    ("PROJECT_ALIASES", "project_aliases", variables.aliases),
    (
        "DEFAULT_ARTIFACT_HANDOFF",
        "default_artifact_handoff",
        lambda text: Handoff(variables.one_of("manual", "patch_first", "workspace_first")(text)),
    ),
    ("RUNNER_POLL_INTERVAL_SEC", "runner_poll_interval_s", variables.seconds),
    ("RUNNER_MAX_IDLE_SEC", "runner_max_idle_s", variables.whole(0)),
    ("RUNNER_RECLAIM_AFTER_SEC", "runner_reclaim_after_s", variables.whole(0)),
    ("RUNNER_MAX_ATTEMPTS_PER_STEP", "runner_max_attempts_per_step", variables.whole(1)),
    ("MAX_INPUT_ARTIFACTS_FILES", "max_input_artifacts_files", variables.whole(0)),
    ("MAX_INPUT_ARTIFACT_CHARS", "max_input_artifact_chars", variables.whole(0)),
    ("MAX_INPUT_ARTIFACTS_CHARS", "max_input_artifacts_chars", variables.whole(0)),
    ("MAX_SUBPROCESS_OUTPUT_CHARS", "max_subprocess_output_chars", variables.whole(0)),
    ("NON_GIT_WORKDIR_STATUS", "non_git_workdir_status", variables.one_of("needs_human", "failed")),
    ("WORKER_ENTRYPOINT_GROUP", "worker_entrypoint_group", variables.text),
    ("LOG_LEVEL", "log_level", variables.log_level),
    ("LOG_JSON", "log_json", variables.boolean),
    ("WEBHOOK_DECISION_TOKENS", "webhook_decision_tokens", variables.deciders),
    ("WEBHOOK_RATE_LIMIT_WINDOW_SEC", "webhook_rate_limit_window_s", variables.whole(1)),
    ("WEBHOOK_RATE_LIMIT_MAX_REQUESTS", "webhook_rate_limit_max_requests", variables.whole(0)),
    ("WEBHOOK_TRUSTED_PROXIES", "webhook_trusted_proxies", variables.addresses),
    ("MAX_WEBHOOK_BODY_BYTES", "max_webhook_body_bytes", variables.whole(1)),
    ("CALLBACK_SECRETS", "callback_secrets", variables.secrets),
    ("CALLBACK_ALLOWED_HOSTS", "callback_allowed_hosts", variables.receivers),
    ("WAITING_POLICY", "waiting_policy", variables.expiry),
    ("WAITING_MAX_SEC", "waiting_max_s", variables.between(60, 31536000)),
    ("MAX_DAILY_API_CALLS", "max_daily_api_calls", variables.whole(0)),
    ("MAX_DAILY_COST_USD", "max_daily_cost_usd", variables.amount),
    ("PROJECT_BUDGETS", "project_budgets", variables.amounts),
    ("AGENT_BUDGETS", "agent_budgets", variables.amounts),
    ("MAX_ATTEMPT_COST_USD", "max_attempt_cost_usd", variables.amount),
    ("RETENTION_INTERVAL_SEC", "retention_interval_s", variables.whole(1)),
    ("ARTIFACTS_TTL_SEC", "artifacts_ttl_s", variables.whole(0)),
    ("WORKSPACES_TTL_SEC", "workspaces_ttl_s", variables.whole(0)),
    ("RETENTION_MAX_BYTES", "retention_max_bytes", variables.size_bytes),
    ("RETENTION_MIN_FREE_BYTES", "retention_min_free_bytes", variables.size_bytes),
    ("AGENTORCH_SIGNING_KEY", None, variables.absolute),
    ("AGENTORCH_ALLOWED_SIGNERS", "allowed_signers", variables.absolute),
    ("AGENTORCH_METRICS_FILE", "metrics_file", variables.absolute),
)

# Variables that are a limit each: the field of Resources, and its reader.
LIMITS: tuple[tuple[str, str, Callable[[str], int]], ...] = (
    ("MEMORY_MAX", "memory_max_bytes", variables.size_bytes),
    ("MEMORY_HIGH", "memory_high_bytes", variables.size_bytes),
    ("CPU_QUOTA", "cpu_quota_percent", variables.percent),
    ("TASKS_MAX", "tasks_max", variables.whole(1)),
    ("IO_WEIGHT", "io_weight", variables.between(1, 10000)),
)
STEP_LIMITS = Resources(memory_max_bytes=4 << 30, tasks_max=1024, io_weight=100)
# The field of Settings, what its variables begin with, and what holds where none is set.
LIMITED = (
    ("step_resources", "AGENTORCH_STEP_", STEP_LIMITS),
    ("total_resources", "AGENTORCH_TOTAL_", UNLIMITED),
)
DEV_TOKEN = "dev-token"
# Variables whose values are secrets.
SECRET = frozenset(
    {"WEBHOOK_TOKENS", "WEBHOOK_TOKEN", "WEBHOOK_DECISION_TOKENS", "CALLBACK_SECRETS"}
)


# ---- the whole --------------------------------------------------------------------------------


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this process; nothing is written.

    Raises Misconfigured with a line a problem: `VARIABLE: 'value': what was expected`.
    """
    environ = os.environ if environ is None else environ
    environment = {**environment_file.read(environ), **environ}
    problems: list[str] = []
    values = _values(environment, VARIABLES, problems)
    limits = {
        field: replace(least, **_values(environment, _limits(prefix), problems))  # type: ignore[arg-type]
        for field, prefix, least in LIMITED
    }
    tokens = _tokens(environment, problems)
    places = _places(environment, problems)
    if problems:
        raise Misconfigured(*problems)
    return Settings(
        **places,  # type: ignore[arg-type]
        **limits,  # type: ignore[arg-type]
        launcher=_launcher(environment),
        webhook_tokens=tokens,
        environment=MappingProxyType(environment),
        **values,  # type: ignore[arg-type]
    )


def _values(
    environment: Mapping[str, str], table: Iterable[Variable], problems: list[str]
) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, attribute, read in table:
        if name not in environment:
            continue
        try:
            value = read(environment[name])
        except ValueError as problem:
            # what a token is stays unsaid
            shown = "" if name in SECRET else f" {environment[name]!r}:"
            problems.append(f"{name}:{shown} {problem}")
            continue
        if attribute is not None:
            values[attribute] = value
    return values


def _limits(prefix: str) -> Iterator[Variable]:
    for name, attribute, read in LIMITS:
        yield f"{prefix}{name}", attribute, read


def _launcher(environment: Mapping[str, str]) -> str:
    """`auto` is systemd in our own units, which say so, and fork elsewhere."""
    asked = environment.get("AGENTORCH_LAUNCHER", "auto")
    if asked != "auto":
        return asked
    return "systemd" if environment.get("AGENTORCH_UNIT") else "fork"


def _tokens(
    environment: Mapping[str, str], problems: list[str]
) -> Mapping[str, frozenset[str] | None]:
    """WEBHOOK_TOKENS, else the one WEBHOOK_TOKEN for all projects."""
    table = (("WEBHOOK_TOKENS", "tokens", variables.tokens),)
    found = _values(environment, table, problems) if environment.get("WEBHOOK_TOKENS") else {}
    one = environment.get("WEBHOOK_TOKEN", DEV_TOKEN)
    return found.get("tokens") or ({one: None} if one else {})  # type: ignore[return-value]


def _places(environment: Mapping[str, str], problems: list[str]) -> dict[str, object]:
    def place(name: str, default: Path) -> Path:
        try:
            return variables.absolute(environment[name]) if environment.get(name) else default
        except ValueError as problem:
            problems.append(f"{name}: {environment[name]!r}: {problem}")
            return default

    state = place("STATE_DIRECTORY", place("AGENTORCH_STATE_DIR", default_state(environment)))
    roots = Roots(
        place("QUEUE_ROOT", state / "queue"),
        place("ARTIFACTS_ROOT", state / "artifacts"),
        place("WORKSPACES_ROOT", state / "workspaces"),
        place("STATE_DB_PATH", state / "state.db"),
        _signing_key(environment),
    )
    return {
        "state_directory": state,
        "roots": roots,
    }


def _signing_key(environment: Mapping[str, str]) -> Path | None:
    """Its name was checked among the variables."""
    name = environment.get("AGENTORCH_SIGNING_KEY")
    return Path(name) if name else None


def default_state(environment: Mapping[str, str]) -> Path:
    """Return the state directory where no variable names one.

    It is the system's for root, the service, and who may look at it: the members of its group.
    """
    uid = os.geteuid()
    if uid == 0 or _name_of(uid) == SERVICE_USER or _is_member(SERVICE_USER):
        return SYSTEM_STATE
    home = environment.get("XDG_STATE_HOME") or f"{environment.get('HOME', '')}/.local/state"
    return Path(home) / "agentorch"


def _is_member(group: str) -> bool:
    try:
        return grp.getgrnam(group).gr_gid in os.getgroups()
    except KeyError:  # not installed as a service
        return False


def _name_of(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a uid without a name is nobody special
        return None
