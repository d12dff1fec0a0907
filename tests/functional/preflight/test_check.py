"""What is said before a real attempt, with real programs that print versions, hang, or fail."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from agentorch.agents.base import Capabilities
from agentorch.core.job import Network
from agentorch.core.policy import Effective
from agentorch.core.states import OutcomeClass
from agentorch.preflight import check, versions

SHELL = "/usr/bin:/bin"


def ground(
    directory: Path,
    *,
    binaries: frozenset[str] = frozenset({"zcode"}),
    network: Network = Network.DENY,
    minimum: dict[str, tuple[int, ...]] | None = None,
    is_git: bool = True,
    status: str = "needs_human",
) -> check.Ground:
    return check.Ground(
        Effective(sandbox=True, network=network, binaries=binaries),
        {"PATH": f"{directory}:{SHELL}"},
        minimum or {},
        source_is_git=is_git,
        non_git_status=status,
    )


def program(directory: Path, script: str) -> Capabilities:
    path = directory / "zcode"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Capabilities("zcode", ("zcode", "--version"), install="npm install -g zcode")


def words(problems: tuple[check.Problem, ...]) -> list[str]:
    return [problem.words for problem in problems]


def test_all_is_well(tmp_path: Path) -> None:
    assert check.check(program(tmp_path, "exit 9"), ground(tmp_path)) == ()


def test_not_allowed(tmp_path: Path) -> None:
    there = ground(tmp_path, binaries=frozenset({"git", "claude"}))
    problem = check.check(program(tmp_path, ""), there)[0]
    assert (problem.kind, problem.error) == (OutcomeClass.POLICY, "policy")
    assert problem.words == (
        "the policy does not allow 'zcode' (allowed: claude, git; see ALLOWED_BINARIES)"
    )


def test_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    missing = Capabilities("zcode", install="npm install -g zcode")
    problem = check.check(missing, ground(tmp_path))[0]
    assert problem.error == "preflight"
    assert problem.words.startswith("'zcode' is not on PATH")
    assert problem.words.endswith(": npm install -g zcode")


def test_what_it_can_not_do_without_is_there_too(tmp_path: Path) -> None:
    agent = replace(program(tmp_path, "exit 9"), requires=("sh", "searcher"))
    problem = check.check(agent, ground(tmp_path))[0]
    assert problem.error == "preflight"
    assert problem.words.startswith("'searcher' is not on PATH")
    assert problem.words.endswith(": npm install -g zcode")
    (tmp_path / "searcher").symlink_to("/bin/true")
    assert check.check(agent, ground(tmp_path)) == ()


def test_not_in_the_current_directory(tmp_path: Path) -> None:
    program(tmp_path, "")
    here = check.Ground(
        Effective(sandbox=True, network=Network.DENY, binaries=frozenset({"zcode"})),
        {"PATH": f":.:{os.path.relpath(tmp_path)}"},
        {},
        source_is_git=True,
    )
    assert "is not on PATH" in check.check(Capabilities("zcode"), here)[0].words


def test_the_network(tmp_path: Path) -> None:
    program(tmp_path, "")
    agent = Capabilities("zcode", needs_network=True)
    assert "needs the network" in check.check(agent, ground(tmp_path))[0].words
    assert check.check(agent, ground(tmp_path, network=Network.ALLOW)) == ()


@pytest.mark.parametrize(
    ("status", "kind"),
    [("needs_human", OutcomeClass.NEEDS_HUMAN), ("failed", OutcomeClass.POLICY)],
)
def test_no_repository(tmp_path: Path, status: str, kind: OutcomeClass) -> None:
    agent = program(tmp_path, "")
    problem = check.check(agent, ground(tmp_path, is_git=False, status=status))[0]
    assert (problem.kind, problem.error) == (kind, "non_git_workdir")
    without = Capabilities("zcode", needs_git=False)
    assert check.check(without, ground(tmp_path, is_git=False)) == ()


@pytest.mark.parametrize(
    ("script", "least", "expected"),
    [
        ("echo zcode-cli 1.10.0", (1, 9), None),
        ("echo zcode-cli 1.9.3 >&2", (1, 10), "'zcode' is 1.9.3, and MIN_BINARY_VERSIONS asks"),
        ("echo v2", (2, 0, 0), None),
        ("echo hello", (1,), "printed no version"),
        ("echo 3.0; exit 1", (1,), "did not tell its version"),
        ("cat; echo 1.2.3", (1, 2, 3), None),
        ("echo 1.2.3; sleep 1000 &", (1, 2, 3), None),
    ],
)
def test_versions(
    tmp_path: Path, script: str, least: tuple[int, ...], expected: str | None
) -> None:
    agent = program(tmp_path, script)
    said = words(check.check(agent, ground(tmp_path, minimum={"zcode": least})))
    assert [expected] == [expected for text in said if expected and expected in text] or (
        expected is None and not said
    )


@pytest.mark.parametrize(
    ("adapter", "asked", "expected"),
    [
        ("2.1.0", None, "'zcode' is 1.2, and the adapter needs 2.1.0 at least: npm install -g"),
        ("2.1", (2, 0), "'zcode' is 1.2, and the adapter needs 2.1 at least: npm install -g"),
        ("2.1", (2, 2), "'zcode' is 1.2, and MIN_BINARY_VERSIONS asks for 2.2: npm install -g"),
        ("2.1", (2, 1), "'zcode' is 1.2, and MIN_BINARY_VERSIONS asks for 2.1: npm install -g"),
        ("1.2.0", None, None),
        ("0.9", (1, 0), None),
        ("", None, None),
    ],
)
def test_the_adapter_has_a_least_version_too(
    tmp_path: Path, adapter: str, asked: tuple[int, ...] | None, expected: str | None
) -> None:
    agent = replace(program(tmp_path, "echo 1.2"), minimum=adapter)
    minimum = {} if asked is None else {"zcode": asked}
    said = words(check.check(agent, ground(tmp_path, minimum=minimum)))
    assert [one[: len(expected or "")] for one in said] == ([expected] if expected else [])


def test_a_version_is_asked_with_a_home_of_its_own(tmp_path: Path) -> None:
    agent = program(tmp_path, "touch $HOME/x && echo $HOME >&2; test $HOME != /root && echo 1.2")
    environment = {"PATH": f"{tmp_path}:{SHELL}", "HOME": str(tmp_path / "home")}
    said = versions.print_version(agent.version_argv, environment)
    assert said is not None
    home, version = said.split()
    assert version == "1.2"
    assert not Path(home).exists()
    assert not (tmp_path / "home").exists()


def test_what_a_program_said_is_kept_until_it_is_another_or_an_hour_is_over(tmp_path: Path) -> None:
    agent = program(tmp_path, f"echo x >>{tmp_path}/asked; echo 1.2")
    environment, kept = {"PATH": f"{tmp_path}:{SHELL}"}, tmp_path / "versions.json"

    def asked() -> int:
        assert versions.kept_version(agent.version_argv, environment, kept) == "1.2\n"
        return len((tmp_path / "asked").read_text().split())

    assert [asked(), asked()] == [1, 1]
    status = (tmp_path / "zcode").stat()
    program(tmp_path, f"echo x >>{tmp_path}/asked; echo 1.2")
    # npm gives every version's files the same times
    os.utime(tmp_path / "zcode", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [asked(), asked()] == [2, 2]
    old = json.loads(kept.read_text())
    old["zcode --version"]["when"] -= versions.KEPT_S
    kept.write_text(json.dumps(old))
    assert [asked(), asked()] == [3, 3]
    for broken in ("", "[]", '{"zcode --version": 5}', '{"zcode --version": {"when": "x"}}'):
        kept.write_text(broken)
        asked()
    assert asked() == 7


def test_a_program_that_fails_is_asked_again_and_nowhere_to_keep_is_no_trouble(
    tmp_path: Path,
) -> None:
    agent = program(tmp_path, "echo 1.2; exit 1")
    environment, kept = {"PATH": f"{tmp_path}:{SHELL}"}, tmp_path / "versions.json"
    assert versions.kept_version(agent.version_argv, environment, kept) is None
    assert not kept.exists()
    program(tmp_path, "echo 1.3")
    nowhere = tmp_path / "nowhere" / "versions.json"
    assert versions.kept_version(agent.version_argv, environment, nowhere) == "1.3\n"
    assert versions.kept_version(("no-such-program",), environment, kept) is None


def test_a_version_that_never_comes(tmp_path: Path) -> None:
    program(tmp_path, "trap '' TERM; sleep 1000 & echo $! >$(dirname $0)/child; wait")
    environment = {"PATH": f"{tmp_path}:{SHELL}"}
    assert versions.print_version(("zcode",), environment, timeout_s=0.3) is None
    child = Path("/proc") / (tmp_path / "child").read_text().strip()
    assert not (child / "exe").exists()


def test_not_a_program(tmp_path: Path) -> None:
    agent = program(tmp_path, "")
    (tmp_path / "zcode").write_bytes(b"\x7fELF but not really")
    said = words(check.check(agent, ground(tmp_path, minimum={"zcode": (1,)})))
    assert "did not tell its version" in said[0]


def test_every_problem_at_once(tmp_path: Path) -> None:
    agent = Capabilities("zcode", needs_network=True)
    there = ground(tmp_path, binaries=frozenset(), is_git=False)
    assert len(check.check(agent, there)) == 4


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("git version 2.39.5", (2, 39, 5)),
        ("codex-cli 0.30", (0, 30)),
        ("2 files, release 1.4.2-beta.3", (1, 4, 2)),
        ("opencode v7", (7,)),
        ("", None),
        ("none", None),
    ],
)
def test_first_version(text: str, version: tuple[int, ...] | None) -> None:
    assert versions.first_version(text) == version


@pytest.mark.parametrize(
    ("found", "least", "enough"),
    [
        ((1, 10), (1, 9), True),
        ((1, 9), (1, 10), False),
        ((1, 2), (1, 2, 0), True),
        ((1, 2), (1, 2, 1), False),
        ((2,), (1, 99, 99), True),
    ],
)
def test_is_at_least(found: tuple[int, ...], least: tuple[int, ...], enough: bool) -> None:  # noqa: FBT001
    assert versions.is_at_least(found, least) is enough
