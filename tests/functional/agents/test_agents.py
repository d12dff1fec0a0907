"""The agents that need no model: simulated, exec, third-party ones, and the registry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.agents import json_lines, registry
from agentorch.agents.base import Agent, Command, Request
from agentorch.agents.exec_ import AGENT
from agentorch.agents.exit_outcome import outcome_of_exit
from agentorch.agents.manifest import ManifestAgent, agent_of
from agentorch.agents.simulated import simulate
from agentorch.config.settings import Settings, load
from agentorch.core.errors import Invalid, Misconfigured
from agentorch.core.job import Outcome
from agentorch.core.process_end import Ending, Exit, Line
from agentorch.core.states import OutcomeClass
from agentorch.process.output import lines
from tests.support.cage import Cage

EXAMPLES = Path(__file__).parents[3] / "examples" / "agents"

REQUEST = Request(
    job_id="0123456789abcdef",
    step_id="02_implement",
    attempt=1,
    agent="codex",
    role="implementer",
    goal="Add a greeting",
    prompt="Everything before, and: implement it.",
    script="implement it.",
    work=Path("/w/work"),
    home=Path("/w/home"),
    artifacts=Path("/a"),
    project_id="site",
    tools=("Read", "Edit"),
    timeout_s=300,
)
DONE = Exit(Ending.EXITED, 0, None, 1.0)
FAILED = Exit(Ending.EXITED, 3, None, 1.0)


@pytest.fixture
def cage(tmp_path: Path) -> Iterator[Cage]:
    cage = Cage(tmp_path)
    yield cage
    cage.wish.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    directory = tmp_path / "agents.d"
    directory.mkdir()
    return load(
        {
            "AGENTORCH_STATE_DIR": str(tmp_path / "state"),
            "AGENTORCH_CONFIG_DIR": str(tmp_path),
            "WORKER_ENTRYPOINT_GROUP": "agentorch.test.agents",
        }
    )


# ---- ends that say it all ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit_", "kind", "code", "words"),
    [
        (Exit(Ending.TIMEOUT, None, 15, 60.4), OutcomeClass.TIMEOUT, "timeout", "after 60 s"),
        (Exit(Ending.TIMEOUT, 0, None, 60), OutcomeClass.TIMEOUT, "timeout", "time limit"),
        (Exit(Ending.STALLED, None, 9, 5), OutcomeClass.STALLED, "stalled", "no output"),
        (Exit(Ending.CANCELLED, None, 15, 5), OutcomeClass.CANCELLED, "cancelled", "cancelled"),
        (Exit(Ending.INTERRUPTED, None, 15, 5), OutcomeClass.INFRA, "interrupted", "again"),
        (Exit(Ending.DISK_FULL, None, 15, 5), OutcomeClass.INFRA, "disk_full", "disk"),
        (Exit(Ending.OUTPUT_LIMIT, 0, None, 5), OutcomeClass.AGENT_ERROR, "output_limit", "kept"),
        (Exit(Ending.SIGNALLED, None, 9, 5, oom=True), OutcomeClass.OOM, "oom", "memory"),
        *(
            (exit_, OutcomeClass.AGENT_ERROR, "agent_exit_nonzero", words)
            for exit_, words in (
                (Exit(Ending.SIGNALLED, None, 11, 5), "SIGSEGV"),
                (Exit(Ending.SIGNALLED, None, 40, 5), "signal 40"),
                (Exit(Ending.EXITED, 127, None, 5), "codex was not found"),
                (Exit(Ending.EXITED, 126, None, 5), "codex can't be executed"),
            )
        ),
    ],
)
def test_ends_that_say_it_all(exit_: Exit, kind: OutcomeClass, code: str, words: str) -> None:
    outcome = outcome_of_exit(exit_, "codex")
    assert outcome is not None
    assert (outcome.kind, outcome.error) == (kind, code)
    assert words in outcome.summary


@pytest.mark.parametrize("ending", list(Ending))
def test_every_ending_but_an_exit_is_decided(ending: Ending) -> None:
    number = 9 if ending is Ending.SIGNALLED else None
    decided = outcome_of_exit(Exit(ending, None if number else 0, number, 1.0))
    assert (decided is None) == (ending in (Ending.EXITED, Ending.LINGERED))
    assert decided is None or decided.kind is not OutcomeClass.SUCCESS


def test_an_exit_code_is_the_adapters() -> None:
    assert outcome_of_exit(DONE) is None
    assert outcome_of_exit(FAILED) is None


# ---- simulated --------------------------------------------------------------------------------


def test_simulation_is_deterministic() -> None:
    assert simulate(REQUEST) == simulate(REQUEST)
    assert simulate(REQUEST) == simulate(replace(REQUEST, attempt=2))


def test_simulated_change() -> None:
    done = simulate(REQUEST)
    assert list(done.files) == ["agentorch-simulated/02_implement.md"]
    assert b"Add a greeting" in done.files["agentorch-simulated/02_implement.md"]
    assert done.outcome.kind is OutcomeClass.SUCCESS
    assert "simulated" in done.outcome.summary
    assert done.outcome.report.startswith("# 02_implement: codex as implementer (simulated)\n")
    assert done.outcome.metrics == {}


def test_two_simulated_implementers_change_different_files() -> None:
    assert (
        not simulate(REQUEST).files.keys() & simulate(replace(REQUEST, step_id="04")).files.keys()
    )


@pytest.mark.parametrize("role", ["planner", "Code Reviewer", "reviewer"])
def test_who_plans_or_reviews_changes_nothing(role: str) -> None:
    assert simulate(replace(REQUEST, role=role)).files == {}


@pytest.mark.parametrize("name", [*registry.BUILT_IN])
def test_every_built_in_agent_can_be_simulated(settings: Settings, name: str) -> None:
    agent = registry.load(settings).get(name)
    assert agent.name == name
    assert agent.simulate(replace(REQUEST, agent=name)).outcome.kind is OutcomeClass.SUCCESS


# ---- exec -------------------------------------------------------------------------------------


def _run(cage: Cage, agent: Agent, request: Request) -> tuple[Outcome, Exit]:
    """The agent's real run, in `cage`, without a sandbox."""
    request = replace(request, work=cage.directory / "work", home=cage.directory / "home")
    command = agent.command(request)
    for name, content in command.files.items():
        path = request.home / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    launch = cage.launch("speaks", stdin=command.stdin)
    launch = replace(
        launch, argv=command.argv, environment={**launch.environment, **command.environment}
    )
    exit_ = cage.run(launch)
    printed = [*lines(cage.stdout, "stdout"), *lines(cage.stderr, "stderr")]
    return agent.outcome(exit_, iter(printed)), exit_


def test_exec_succeeds(cage: Cage) -> None:
    script = 'echo "$AGENTORCH_JOB $AGENTORCH_STEP $AGENTORCH_GOAL"; cat; touch made; echo fine'
    outcome, _ = _run(cage, AGENT, replace(REQUEST, script=script))
    assert (outcome.kind, outcome.summary) == (OutcomeClass.SUCCESS, "exit code 0: fine")
    assert "0123456789abcdef 02_implement Add a greeting\nfine\n" in outcome.report
    assert (cage.directory / "work" / "made").exists()


@pytest.mark.parametrize(
    ("script", "code", "last"),
    [
        ("echo first; false; echo never", 1, "first"),
        ("exit 75", 75, ""),
        ("printf 'no newline'; exit 4", 4, "no newline"),
        ("nonexistent-command", 127, "not found"),
        ('echo "$unset"', 2, "unset"),
    ],
)
def test_exec_fails(cage: Cage, script: str, code: int, last: str) -> None:
    outcome, _ = _run(cage, AGENT, replace(REQUEST, script=script))
    assert (outcome.kind, outcome.error) == (OutcomeClass.AGENT_ERROR, "agent_exit_nonzero")
    assert outcome.summary.startswith(f"exit code {code}")
    assert last in outcome.summary
    assert outcome.details["exit_code"] == code


def test_exec_report_is_safe_and_short() -> None:
    printed = [Line("stdout", "```"), Line("stdout", "\x1b[31m<b>"), Line("stdout", "x" * 9000)]
    outcome = AGENT.outcome(DONE, iter(printed * 1000))
    assert "\x1b" not in outcome.report
    assert "\n````\n" in outcome.report
    assert len(outcome.report) < 100 * 2100


def test_exec_that_was_stopped_shows_its_output() -> None:
    outcome = AGENT.outcome(Exit(Ending.TIMEOUT, None, 15, 9.0), iter([Line("stdout", "halfway")]))
    assert outcome.kind is OutcomeClass.TIMEOUT
    assert "halfway" in outcome.report


def test_exec_goal_with_a_zero_byte_can_be_a_variable() -> None:
    command = AGENT.command(replace(REQUEST, goal="a\0b\ud800"))
    assert command.environment["AGENTORCH_GOAL"] == "ab?"


# ---- the protocol of third-party agents -------------------------------------------------------

SUCCESS = {"type": "result", "status": "success", "summary": "done"}
WALL = {"code": "limit", "message": "no more today", "class": "quota"}


def _outcome(*events: object, exit_: Exit = DONE) -> Outcome:
    texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return json_lines.outcome("third", exit_, (Line("stdout", text) for text in texts))


def test_request() -> None:
    document = json.loads(json_lines.request_bytes(REQUEST))
    assert document == {
        "version": 1,
        "job_id": "0123456789abcdef",
        "step_id": "02_implement",
        "attempt": 1,
        "agent": "codex",
        "role": "implementer",
        "goal": "Add a greeting",
        "prompt": "Everything before, and: implement it.",
        "work": "/w/work",
        "home": "/w/home",
        "artifacts": "/a",
        "project_id": "site",
        "allowed_tools": ["Read", "Edit"],
        "timeout_sec": 300,
        "system": "",
        "body": "",
        "model": None,
        "options": {},
        "reads_only": False,
    }
    assert json_lines.request_bytes(REQUEST).count(b"\n") == 1


def test_success_with_everything() -> None:
    outcome = _outcome(
        "starting up",
        {"type": "progress", "text": "thinking"},
        {"type": "text", "text": "First. "},
        {"type": "usage", "tokens_in": 100, "tokens_out": 5, "cost_usd": 0.25},
        {"type": "text", "text": "Second."},
        {"type": "usage", "tokens_in": 10, "cost_usd": 1, "tokens_out": None},
        {"type": "unknown", "x": 1},
        SUCCESS,
    )
    assert (outcome.kind, outcome.summary, outcome.error) == (OutcomeClass.SUCCESS, "done", None)
    assert outcome.report == "First. Second."
    assert outcome.metrics == {"tokens_in": 110, "tokens_out": 5, "cost_usd": 1.25}


def test_the_results_own_report_wins() -> None:
    assert _outcome({"type": "text", "text": "a"}, {**SUCCESS, "report": "b"}).report == "b"


def test_failed() -> None:
    error = {"code": "api_error", "message": "no answer\nat all"}
    outcome = _outcome({"type": "result", "status": "failed", "error": error})
    assert (outcome.kind, outcome.error) == (OutcomeClass.AGENT_ERROR, "api_error")
    assert outcome.summary == "no answer at all"
    assert _outcome({"type": "result", "status": "failed"}).error == "agent_failed"


def test_needs_human() -> None:
    outcome = _outcome({"type": "result", "status": "needs_human", "question": "Which colour?"})
    assert (outcome.kind, outcome.question) == (OutcomeClass.NEEDS_HUMAN, "Which colour?")


def test_the_exit_code_outranks_the_result() -> None:
    outcome = _outcome(SUCCESS, exit_=FAILED)
    assert (outcome.kind, outcome.error) == (OutcomeClass.AGENT_ERROR, "agent_exit_nonzero")


def test_figures_of_a_stopped_run_are_kept() -> None:
    usage = {"type": "usage", "tokens_in": 7}
    text = {"type": "text", "text": "so far"}
    outcome = _outcome(usage, text, exit_=Exit(Ending.TIMEOUT, None, 15, 9.0))
    assert (outcome.kind, outcome.metrics) == (OutcomeClass.TIMEOUT, {"tokens_in": 7})
    assert outcome.report == "so far"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("nothing but words", "without a result line: nothing but words"),
        ("{not json", "without a result line"),
        ("[" * 100_000, "without a result line"),
        ('{"a":' * 100_000, "without a result line"),
        ({"type": "result"}, "result.status"),
        ({"type": "result", "status": ["success"]}, "result.status"),
        ({"type": "result", "status": "done"}, "result.status: 'done'"),
        ({**SUCCESS, "summary": 1}, "result.summary"),
        ({**SUCCESS, "report": {}}, "result.report"),
        ({**SUCCESS, "error": "bad"}, "result.error"),
        (
            {"type": "result", "status": "failed", "error": WALL | {"resets_at": "soon"}},
            "result.error.resets_at",
        ),
        (
            {"type": "result", "status": "failed", "error": WALL | {"resets_at": 1795392000}},
            "result.error.resets_at",
        ),
        ({**SUCCESS, "error": {"code": "Bad Code", "message": ""}}, "result.error"),
        ({"type": "usage", "tokens_in": -1}, "usage.tokens_in"),
        ({"type": "usage", "tokens_in": 1.5}, "usage.tokens_in"),
        ({"type": "usage", "tokens_out": True}, "usage.tokens_out"),
        ({"type": "usage", "tokens_out": 10**400}, "usage.tokens_out"),
        ('{"type": "usage", "cost_usd": NaN}', "usage.cost_usd"),
        ('{"type": "usage", "cost_usd": 1e999}', "usage.cost_usd"),
        ({"type": "usage", "cost_usd": "1"}, "usage.cost_usd"),
        ({"type": "usage", "cost_usd": -0.1}, "usage.cost_usd"),
    ],
)
def test_unreadable(event: object, words: str) -> None:
    after = () if "without a result" in words else (SUCCESS,)  # it makes up for nothing
    outcome = _outcome(event, *after)
    assert (outcome.kind, outcome.error) == (OutcomeClass.PARSE_ERROR, "parse_error")
    assert words in outcome.summary


def test_no_output_at_all() -> None:
    assert _outcome().summary == "third ended without a result line"


def test_results_on_stderr_do_not_count() -> None:
    outcome = json_lines.outcome("third", DONE, iter([Line("stderr", json.dumps(SUCCESS))]))
    assert outcome.kind is OutcomeClass.PARSE_ERROR


def test_what_cant_be_shown_is_taken_out() -> None:
    outcome = _outcome({**SUCCESS, "summary": "\x1b[1ma\u0000\ud800", "report": "b\x1b[2J\ud800"})
    assert (outcome.summary, outcome.report) == ("a?", "b?")


def test_a_report_is_bounded() -> None:
    outcome = _outcome(*[{"type": "text", "text": "z" * 300_000}] * 5, SUCCESS)
    assert len(outcome.report) == json_lines.REPORT_CHARS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda some: st.lists(some) | st.dictionaries(st.text(), some),
    max_leaves=4,
)
KEYS = st.sampled_from(
    ["type", "text", "status", "summary", "report", "error", "question", "tokens_in", "cost_usd"]
)
TYPES = st.sampled_from(["result", "usage", "text", "progress", "success", "failed"])


@given(st.lists(st.dictionaries(KEYS, TYPES | JSON)))
def test_whatever_is_printed_becomes_an_outcome(events: list[object]) -> None:
    outcome = _outcome(*events)
    outcome.summary.encode()
    outcome.report.encode()
    assert all(amount >= 0 for amount in outcome.metrics.values())


# ---- manifests --------------------------------------------------------------------------------

PATH = Path("/etc/agentorch/agents.d/mine.toml")


def test_manifest_with_everything() -> None:
    agent = agent_of(
        {
            "name": "other",
            "command": ["/opt/mine/run", "--json"],
            "description": "Mine",
            "binary": "mine",
            "version_argv": ["/opt/mine/run", "--version"],
            "install": "buy it",
            "needs_network": True,
            "needs_git": False,
            "passes": ["MINE_KEY"],
            "read_only": ["/opt/mine"],
        },
        PATH,
    )
    assert (agent.name, agent.description) == ("other", "Mine")
    assert agent.command(REQUEST) == Command(
        ("/opt/mine/run", "--json"), json_lines.request_bytes(REQUEST), passes=("MINE_KEY",)
    )
    needs = agent.capabilities
    assert (needs.binary, needs.version_argv) == ("mine", ("/opt/mine/run", "--version"))
    assert (needs.needs_network, needs.needs_git, needs.install) == (True, False, "buy it")
    assert needs.read_only == (Path("/opt/mine/run"), Path("/opt/mine"))


def test_manifest_with_defaults() -> None:
    agent = agent_of({"command": ["/usr/bin/mine"]}, PATH)
    assert (agent.name, agent.capabilities.binary) == ("mine", "mine")
    assert (agent.capabilities.needs_git, agent.capabilities.needs_network) == (True, False)
    assert agent.capabilities.read_only == ()


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({}, "command: expected"),
        ({"command": []}, "command: expected"),
        ({"command": "mine"}, "command: expected"),
        ({"command": ["./mine"]}, "command: expected an absolute path"),
        ({"command": ["mine", 1]}, "command: expected"),
        ({"command": ["mine"], "comand": 1}, "comand: unknown key"),
        ({"command": ["mine"], "name": "a b"}, "name: 'a b'"),
        ({"command": ["mine"], "needs_git": 1}, "needs_git: expected true or false"),
        ({"command": ["mine"], "passes": ["A=B"]}, "passes: expected names of variables"),
        ({"command": ["mine"], "read_only": ["x"]}, "read_only: expected absolute paths"),
        ({"command": ["mine"], "install": 1}, "install: expected a string"),
    ],
)
def test_bad_manifest(document: dict[str, object], problem: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        agent_of(document, PATH)
    assert str(refused.value).startswith(f"{PATH}: {problem}")


def test_all_problems_at_once() -> None:
    with pytest.raises(Misconfigured) as refused:
        agent_of({"x": 1, "needs_git": "yes"}, PATH)
    assert len(refused.value.problems) == 3


# ---- the registry -----------------------------------------------------------------------------


def _manifest(settings: Settings, name: str, text: str) -> None:
    (settings.agents_directory / name).write_text(text)


def test_names(settings: Settings) -> None:
    _manifest(settings, "mine.toml", 'command = ["/opt/mine"]')
    found = registry.load(settings)
    assert found.names() == (
        *("anthropic", "claude", "codex", "exec", "kimi", "mine", "openai", "opencode"),
    )
    assert found.problems() == ()
    assert isinstance(found.get("mine"), ManifestAgent)


def test_unknown_agent(settings: Settings) -> None:
    with pytest.raises(Invalid, match=r"'cluade' is unknown \(did you mean 'claude'\?"):
        registry.load(settings).get("cluade")


def test_a_broken_manifest_harms_nobody(settings: Settings) -> None:
    _manifest(settings, "broken.toml", "command = [")
    _manifest(settings, "latin.toml", "")
    (settings.agents_directory / "latin.toml").write_bytes(b"name = '\xe9'")
    (settings.agents_directory / "directory.toml").mkdir()
    _manifest(settings, "good.toml", 'command = ["/opt/mine"]')
    found = registry.load(settings)
    assert found.get("good").name == "good"
    assert "broken" not in found.names()
    assert len(found.problems()) == 3
    with pytest.raises(Invalid, match=r"broken\.toml"):
        found.get("broken")


def test_a_name_has_one_owner(settings: Settings) -> None:
    _manifest(settings, "claude.toml", 'command = ["/opt/fake"]')
    _manifest(settings, "a.toml", 'name = "mine"\ncommand = ["/opt/a"]')
    _manifest(settings, "b.toml", 'name = "mine"\ncommand = ["/opt/b"]')
    found = registry.load(settings)
    assert not isinstance(found.get("claude"), ManifestAgent)
    assert found.get("mine").command(REQUEST).argv == ("/opt/a",)
    assert [problem.split(": ")[1:] for problem in found.problems()] == [
        ["name", "'mine' is taken by another agent"],
        ["name", "'claude' is taken by another agent"],
    ]


def test_no_agents_directory(settings: Settings) -> None:
    settings.agents_directory.rmdir()
    assert registry.load(settings).names() == tuple(sorted(registry.BUILT_IN))


def test_built_in_agents_cost_no_search(settings: Settings) -> None:
    code = (
        "import sys; from agentorch.agents import registry\n"
        "from agentorch.config.settings import load\n"
        "registry.load(load()).get('exec')\n"
        "print([name for name in ('importlib.metadata', 'tomllib') if name in sys.modules])"
    )
    environment = {"PATH": os.environ["PATH"], "AGENTORCH_STATE_DIR": str(settings.state_directory)}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"


# ---- entry points -----------------------------------------------------------------------------

FOREIGN = """
from agentorch.agents.base import Command
from agentorch.agents.simulated import simulate
from agentorch.core.job import Outcome
from agentorch.core.states import OutcomeClass


class Good:
    name = "good"
    capabilities = None

    def command(self, request):
        return Command(("true",))

    def outcome(self, exit_, lines):
        return Outcome(OutcomeClass.SUCCESS, "good")

    def simulate(self, request):
        return simulate(request)


class Raising(Good):
    name = "raising"

    def command(self, request):
        raise KeyError("no such thing")

    outcome = simulate = command
    outcome = lambda self, exit_, lines: 1 // 0


class Poor:
    name = "poor"
    capabilities = "all"


ready = Good()
ready.name = "ready"


def exits():
    raise SystemExit(3)
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[None]:
    site = tmp_path / "site"
    information = site / "foreign-1.0.dist-info"
    information.mkdir(parents=True)
    (site / "foreign_agents.py").write_text(FOREIGN)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        textwrap.dedent("""\
            [agentorch.test.agents]
            good = foreign_agents:Good
            ready = foreign_agents:ready
            raising = foreign_agents:Raising
            poor = foreign_agents:Poor
            exits = foreign_agents:exits
            missing = foreign_agents:Missing
            nowhere = nonexistent_module:X
            misnamed = foreign_agents:Good
            exec = foreign_agents:Good
            """)
    )
    sys.path.insert(0, str(site))
    yield
    sys.path.remove(str(site))
    sys.modules.pop("foreign_agents", None)


@pytest.mark.usefixtures("foreign")
def test_entry_points(settings: Settings) -> None:
    found = registry.load(settings)
    assert found.get("exec") is AGENT
    assert found.get("good").outcome(DONE, ()).summary == "good"
    assert found.get("ready").name == "ready"
    assert {"good", "ready", "raising"} <= {*found.names()}
    problems = "\n".join(found.problems())
    for words in (
        "entry point exec = foreign_agents:Good: 'exec' is taken by another agent",
        "entry point exits = foreign_agents:exits: SystemExit: 3",
        "entry point misnamed = foreign_agents:Good: its name is 'good', expected 'misnamed'",
        "entry point missing = foreign_agents:Missing: AttributeError",
        "entry point nowhere = nonexistent_module:X: ModuleNotFoundError",
        "entry point poor = foreign_agents:Poor: has no command()",
        "entry point poor = foreign_agents:Poor: capabilities is 'all'",
    ):
        assert words in problems
    with pytest.raises(Misconfigured, match="SystemExit"):
        found.get("exits")


@pytest.mark.usefixtures("foreign")
def test_what_a_foreign_agent_raises_becomes_words(settings: Settings) -> None:
    agent = registry.load(settings).get("raising")
    with pytest.raises(Misconfigured, match="agent raising: command"):
        agent.command(REQUEST)
    outcome = agent.outcome(DONE, ())
    assert (outcome.kind, outcome.error) == (OutcomeClass.AGENT_ERROR, "exception")
    assert "ZeroDivisionError" in outcome.summary
    assert agent.simulate(REQUEST).outcome.error == "exception"


@pytest.mark.usefixtures("foreign")
def test_no_group_no_entry_points(settings: Settings) -> None:
    found = registry.load(replace(settings, worker_entrypoint_group=""))
    assert "good" not in found.names()
    assert found.problems() == ()


# ---- the example ------------------------------------------------------------------------------


def test_the_shell_example_is_short_and_works(cage: Cage, settings: Settings) -> None:
    program = EXAMPLES / "shell-agent"
    assert len(program.read_text().splitlines()) <= 20
    manifest = (EXAMPLES / "shell.toml").read_text()
    installed = "/etc/agentorch/agents.d/shell-agent"
    assert installed in manifest
    _manifest(settings, "shell.toml", manifest.replace(installed, str(program)))
    found = registry.load(settings)
    assert found.problems() == ()
    outcome, exit_ = _run(cage, found.get("shell"), replace(REQUEST, goal='a "quoted" goal'))
    assert exit_.code == 0
    assert (outcome.kind, outcome.summary) == (OutcomeClass.SUCCESS, "noted step 02_implement")
    assert outcome.report == "Appended a line to AGENT-NOTES.md for step 02_implement.\n"
    assert outcome.metrics == {"tokens_in": 0, "tokens_out": 0, "cost_usd": 0}
    notes = (cage.directory / "work" / "AGENT-NOTES.md").read_text()
    assert notes == "Step 02_implement was here, as implementer.\n"
