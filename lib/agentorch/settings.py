"""The configuration: CONTRACT section 10, read once, every malformed variable named.

The environment wins over the environment file: `AGENTORCH_ENV_FILE`, else
/etc/agentorch/agentorch.env where it can be read. Behind `load` there are values only.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from agentorch import envfile
from agentorch.errors import Misconfigured
from agentorch.hosts import is_listed_host
from agentorch.job import Handoff, Network
from agentorch.paths import Roots

SERVICE_USER = "agentorch"
SYSTEM_STATE = Path("/var/lib/agentorch")

Version = tuple[int, ...]


@dataclass(frozen=True)
class Settings:
    """Every setting, with its default. Seconds end in _s, bytes in _bytes, dollars in _usd."""

    state_directory: Path
    roots: Roots
    state_db: Path
    launcher: str = "auto"
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
    min_binary_versions: Mapping[str, Version] = field(default_factory=dict)
    env_allowlist: tuple[str, ...] = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "PATH", "HOME")
    sensitive_env_vars: tuple[str, ...] = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")
    project_aliases: Mapping[str, Path] = field(default_factory=dict)
    default_artifact_handoff: Handoff = Handoff.MANUAL
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
    def agents_directory(self) -> Path:
        """Manifests of third-party agents."""
        return self.configuration / "agents.d"

    @property
    def ends_directory(self) -> Path:
        """The administrator's patterns of how agents end, before the built-in ones."""
        return self.configuration / "ends.d"

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
    def versions(self) -> Path:
        """What the agents' programs said of their versions, and when."""
        return self.state_directory / "versions.json"

    @property
    def logins(self) -> Path:
        """A HOME an agent, with the login that agentorch-login made."""
        return self.state_directory / "logins"


# ---- one value --------------------------------------------------------------------------------
# Each reader returns the value or raises ValueError with what was expected.


def _text(text: str) -> str:
    return text


def _boolean(text: str) -> bool:
    match text.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off" | "":
            return False
    raise ValueError("expected 1, true, yes, on, 0, false, no or off")


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,18}", text.strip(), re.ASCII) or int(text) < least:
            raise ValueError(f"expected a whole number, {least} or more")
        return int(text)

    return read


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text.strip(), re.ASCII) or not float(text):
        raise ValueError("expected a number of seconds above 0")
    return float(text)


def _amount(text: str) -> float:
    if not re.fullmatch(r"\d{1,12}(\.\d{1,6})?", text.strip(), re.ASCII):
        raise ValueError("expected an amount of US dollars, 0 or more")
    return float(text)


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"expected {' or '.join(words)}")
        return text

    return read


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _hosts(text: str) -> tuple[str, ...]:
    hosts = _words(text)
    for host in hosts:
        if not is_listed_host(host):
            raise ValueError(f"{host!r}: expected NAME, NAME:PORT or *.NAME")
    return hosts


def _arguments(text: str) -> tuple[str, ...]:
    import shlex  # noqa: PLC0415  (only where wrapper arguments are set: commands start faster)

    return tuple(shlex.split(text))


def _absolute(text: str) -> Path:
    if not text.startswith("/") or "\0" in text:
        raise ValueError("expected an absolute path")
    return Path(text)


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = []
    for word in _words(text):
        name, equals, value = word.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ValueError(f"{word!r}: expected name=value")
        pairs.append((name.strip(), value.strip()))
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError("a name stands there twice")
    return pairs


def _aliases(text: str) -> Mapping[str, Path]:
    aliases = {}
    for name, value in _pairs(text):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
            raise ValueError(f"{name!r} is not a project id")
        aliases[name] = _absolute(value)
    return MappingProxyType(aliases)


def version(text: str) -> Version:
    """`1.2.3` as (1, 2, 3); ValueError where it is not numbers and dots."""
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9}){0,5}", text, re.ASCII):
        raise ValueError(f"{text!r}: expected a version like 1.2.3")
    return tuple(int(number) for number in text.split("."))


def _versions(text: str) -> Mapping[str, Version]:
    return MappingProxyType({name: version(value) for name, value in _pairs(text)})


def _log_level(text: str) -> str:
    return _one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")(text.upper())


# Variable, field of Settings, reader. A field of None is checked here and used by another part.
VARIABLES: tuple[tuple[str, str | None, Callable[[str], object]], ...] = (
    ("AGENTORCH_LAUNCHER", "launcher", _one_of("auto", "fork")),
    ("AGENTORCH_CONFIG_DIR", "configuration", _absolute),
    ("AGENTORCH_SELF_TEST", "self_test", _boolean),
    ("AGENTORCH_BROKER_SOCKET", "broker_socket", _absolute),
    ("AGENTORCH_MIN_FREE_BYTES", "min_free_disk_bytes", _whole(0)),
    ("ENABLE_REAL_CLI", "real_cli", _boolean),
    ("SANDBOX", "sandbox", _boolean),
    ("SANDBOX_WRAPPER", "sandbox_wrapper", _text),
    ("SANDBOX_WRAPPER_ARGS", "sandbox_wrapper_args", _arguments),
    ("SANDBOX_CLEAR_ENV", "sandbox_clear_env", _boolean),
    ("NETWORK_POLICY", "network", lambda text: Network(_one_of("deny", "allow")(text))),
    ("ALLOWED_HOSTS", "allowed_hosts", _hosts),
    ("ALLOWED_MODELS", "allowed_models", _words),
    ("AGENT_MODELS", "agent_models", lambda text: MappingProxyType(dict(_pairs(text)))),
    ("ALLOWED_BINARIES", "allowed_binaries", _words),
    ("MIN_BINARY_VERSIONS", "min_binary_versions", _versions),
    ("ENV_ALLOWLIST", "env_allowlist", _words),
    ("SENSITIVE_ENV_VARS", "sensitive_env_vars", _words),
    ("PROJECT_ALIASES", "project_aliases", _aliases),
    (
        "DEFAULT_ARTIFACT_HANDOFF",
        "default_artifact_handoff",
        lambda text: Handoff(_one_of("manual", "patch_first", "workspace_first")(text)),
    ),
    ("RUNNER_POLL_INTERVAL_SEC", "runner_poll_interval_s", _seconds),
    ("RUNNER_MAX_IDLE_SEC", "runner_max_idle_s", _whole(0)),
    ("RUNNER_RECLAIM_AFTER_SEC", "runner_reclaim_after_s", _whole(0)),
    ("RUNNER_MAX_ATTEMPTS_PER_STEP", "runner_max_attempts_per_step", _whole(1)),
    ("MAX_INPUT_ARTIFACTS_FILES", "max_input_artifacts_files", _whole(0)),
    ("MAX_INPUT_ARTIFACT_CHARS", "max_input_artifact_chars", _whole(0)),
    ("MAX_INPUT_ARTIFACTS_CHARS", "max_input_artifacts_chars", _whole(0)),
    ("MAX_SUBPROCESS_OUTPUT_CHARS", "max_subprocess_output_chars", _whole(0)),
    ("NON_GIT_WORKDIR_STATUS", "non_git_workdir_status", _one_of("needs_human", "failed")),
    ("WORKER_ENTRYPOINT_GROUP", "worker_entrypoint_group", _text),
    ("LOG_LEVEL", "log_level", _log_level),
    ("LOG_JSON", "log_json", _boolean),
    ("WEBHOOK_RATE_LIMIT_WINDOW_SEC", None, _whole(1)),
    ("WEBHOOK_RATE_LIMIT_MAX_REQUESTS", None, _whole(0)),
    ("MAX_WEBHOOK_BODY_BYTES", None, _whole(1)),
    ("MAX_DAILY_API_CALLS", None, _whole(0)),
    ("MAX_DAILY_COST_USD", None, _amount),
    ("RETENTION_INTERVAL_SEC", None, _whole(1)),
    ("ARTIFACTS_TTL_SEC", None, _whole(0)),
    ("WORKSPACES_TTL_SEC", None, _whole(0)),
)


# ---- the whole --------------------------------------------------------------------------------


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process; nothing is written.

    Raises Misconfigured with a line a problem: `VARIABLE: 'value': what was expected`.
    """
    environ = os.environ if environ is None else environ
    environment = {**envfile.read(environ), **environ}
    problems: list[str] = []
    values: dict[str, object] = {}
    for name, attribute, read in VARIABLES:
        if name not in environment:
            continue
        try:
            value = read(environment[name])
        except ValueError as problem:
            problems.append(f"{name}: {environment[name]!r}: {problem}")
            continue
        if attribute is not None:
            values[attribute] = value
    places = _places(environment, problems)
    if problems:
        raise Misconfigured(*problems)
    return Settings(**places, environment=MappingProxyType(environment), **values)  # type: ignore[arg-type]


def _places(environment: Mapping[str, str], problems: list[str]) -> dict[str, object]:
    def place(name: str, default: Path) -> Path:
        try:
            return _absolute(environment[name]) if environment.get(name) else default
        except ValueError as problem:
            problems.append(f"{name}: {environment[name]!r}: {problem}")
            return default

    state = place("STATE_DIRECTORY", place("AGENTORCH_STATE_DIR", default_state(environment)))
    roots = Roots(
        place("QUEUE_ROOT", state / "queue"),
        place("ARTIFACTS_ROOT", state / "artifacts"),
        place("WORKSPACES_ROOT", state / "workspaces"),
    )
    return {
        "state_directory": state,
        "roots": roots,
        "state_db": place("STATE_DB_PATH", state / "state.db"),
    }


def default_state(environment: Mapping[str, str]) -> Path:
    """The state directory where no variable names one: the system's for root and the service."""
    uid = os.geteuid()
    if uid == 0 or _name_of(uid) == SERVICE_USER:
        return SYSTEM_STATE
    home = environment.get("XDG_STATE_HOME") or f"{environment.get('HOME', '')}/.local/state"
    return Path(home) / "agentorch"


def _name_of(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a uid without a name is nobody special
        return None
