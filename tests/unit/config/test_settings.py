"""Every variable: its default, a good value, and what is said of a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentorch.config import environment_file, settings
from agentorch.core.errors import Misconfigured
from agentorch.core.job import Handoff, Network

HERE = {"AGENTORCH_STATE_DIR": "/s"}


def test_defaults_and_places() -> None:
    found = settings.load(HERE)
    assert found.roots.queue_root == Path("/s/queue")
    assert found.roots.state_db == Path("/s/state.db")
    assert (found.real_cli, found.sandbox, found.network) == (False, True, Network.DENY)
    assert found.allowed_binaries == ("opencode", "claude", "codex", "git", "python")


def test_values_are_read() -> None:
    found = settings.load(
        HERE
        | {
            "ENABLE_REAL_CLI": "Yes",
            "NETWORK_POLICY": "allow",
            "PROJECT_ALIASES": "shop=/srv/shop, blog=/srv/blog",
            "MIN_BINARY_VERSIONS": "git=2.30.1",
            "SANDBOX_WRAPPER_ARGS": "--rootfs '/srv/a b'",
            "DEFAULT_ARTIFACT_HANDOFF": "patch_first",
            "QUEUE_ROOT": "/q",
        }
    )
    assert found.real_cli
    assert found.network is Network.ALLOW
    assert found.project_aliases == {"shop": Path("/srv/shop"), "blog": Path("/srv/blog")}
    assert found.min_binary_versions == {"git": (2, 30, 1)}
    assert found.sandbox_wrapper_args == ("--rootfs", "/srv/a b")
    assert found.default_artifact_handoff is Handoff.PATCH_FIRST
    assert found.roots.queue_root == Path("/q")


BAD = {
    "ENABLE_REAL_CLI": "maybe",
    "SANDBOX": "2",
    "NETWORK_POLICY": "sometimes",
    "RUNNER_MAX_IDLE_SEC": "-1",
    "RUNNER_POLL_INTERVAL_SEC": "0",
    "RUNNER_MAX_ATTEMPTS_PER_STEP": "0",
    "MAX_INPUT_ARTIFACT_CHARS": "1e3",
    "MAX_DAILY_COST_USD": "NaN",
    "PROJECT_ALIASES": "shop=relative",
    "MIN_BINARY_VERSIONS": "git=new",
    "NON_GIT_WORKDIR_STATUS": "ignored",
    "SANDBOX_WRAPPER_ARGS": "'open",
    "LOG_LEVEL": "LOUD",
    "QUEUE_ROOT": "relative",
    "AGENTORCH_LAUNCHER": "rocket",
    "WEBHOOK_RATE_LIMIT_MAX_REQUESTS": "many",
    "ARTIFACTS_TTL_SEC": "1.5",
}


@pytest.mark.parametrize(("name", "value"), BAD.items())
def test_a_malformed_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(Misconfigured, match=f"^{name}: ") as caught:
        settings.load(HERE | {name: value})
    assert caught.value.exit_code == 78


def test_all_malformed_variables_are_named_at_once() -> None:
    with pytest.raises(Misconfigured) as caught:
        settings.load(HERE | BAD)
    assert len(caught.value.problems) == len(BAD)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agentorch.env"
    file.write_text("# a comment\n\nSANDBOX=0\nexport_me=1\nLOG_LEVEL=debug\n")
    found = settings.load(HERE | {"AGENTORCH_ENV_FILE": str(file), "LOG_LEVEL": "error"})
    assert (found.sandbox, found.log_level) == (False, "ERROR")


def test_a_named_file_that_is_missing_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="AGENTORCH_ENV_FILE"):
        settings.load({"AGENTORCH_ENV_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A=b", {"A": "b"}),
        (" A = b c  ", {"A": "b c"}),
        ('A=\'b # c\'\n;x\n#y\nB="d \\"e\\" \\$f"', {"A": "b # c", "B": 'd "e" $f'}),
        ("A=b\\\nc", {"A": "bc"}),
        ("A=", {"A": ""}),
        ("A='two\nlines'", {"A": "two\nlines"}),
        ("A=b'c'd", {"A": "bcd"}),
    ],
)
def test_the_file_is_read_as_systemd_reads_it(text: str, values: dict[str, str]) -> None:
    assert environment_file.parse(text, "f") == values


@pytest.mark.parametrize("text", ["A", "1A=b", "A b", "A='open", "ok=1\n=x"])
def test_a_malformed_line_is_named(text: str) -> None:
    with pytest.raises(Misconfigured, match=r"^f: line "):
        environment_file.parse(text, "f")
