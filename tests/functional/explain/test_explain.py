"""agentorch-explain: a text for every class of an end, and for every reason of waiting."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path

import click
import pytest

from agentorch.commands import COMMANDS
from agentorch.core.states import OutcomeClass, State
from agentorch.explain.advice import ADVICE, JOBS, Advice
from agentorch.explain.facts import Why
from tests.functional.explain.situations import Jobs, all_explained
from tests.support.installation import Installation, step
from tests.support.manual import pages

GOLDEN = Path(__file__).parent / "explained"
# What differs between two runs: moments, lengths of time, hashes, what is free of a disk.
_VARIES = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+Z)?"), "DATE"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s|min|h|d)( \d+ (s|min|h))?(?=$| ago|; )", re.M), "SPAN"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "HASH"),
    (re.compile(r"\d+ bytes are free"), "N bytes are free"),
    (re.compile(r"by root at"), "by USER at"),
    (re.compile(r"after \d+ s:"), "after N s:"),
)


def settled(text: str, here: Installation) -> str:
    """The text without what differs between two runs."""
    text = text.replace(str(here.top), "TOP")
    for pattern, word in _VARIES:
        text = pattern.sub(word, text)
    return text


@pytest.mark.needs("git", "bwrap")
def test_every_state_and_every_end_is_explained(here: Installation) -> None:
    found = {name: (text, told) for name, text, told in all_explained(Jobs(here))}
    for name, (text, _) in found.items():
        assert settled(text, here) == (GOLDEN / f"{name}.txt").read_text("utf-8"), name
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(found)
    told = {(one["state"], one["why"]) for _, one in found.values()}
    assert {why for _, why in told} >= set(Why)
    failed = {why for state, why in told if state == State.FAILED}
    # a limit parks, a question waits, and what succeeded has not failed
    waits = {OutcomeClass.SUCCESS, OutcomeClass.NEEDS_HUMAN, OutcomeClass.QUOTA}
    assert failed >= (set(OutcomeClass) - waits) | set(JOBS)
    for text, one in found.values():
        first = f"{one['job_id']}: {one['state'].replace('_', ' ')}: {one['answer']}\n"
        assert settled(text, here).startswith(settled(first, here))  # a second may be between
        assert all(step["words"] for step in one["next"])


# ---- the tables -------------------------------------------------------------------------------


def told_codes(kind: OutcomeClass) -> set[str]:
    """The codes that agentorch-result(5) has of a class."""
    told = pages()["agentorch-result(5)"].part("OUTCOMES")
    entry = re.search(rf"^\*{kind}\*\n((?:\t.*\n)+)", told, re.M)
    assert entry is not None, kind
    return set(re.findall(r"\*([a-z]+(?:_[a-z]+)*)\*", entry[1].partition("Code")[2]))


def test_every_class_has_its_advice() -> None:
    assert set(ADVICE) == set(OutcomeClass)
    assert all(None in known for known in ADVICE.values())


@pytest.mark.parametrize("kind", [kind for kind in OutcomeClass if kind != "success"])
def test_a_code_with_advice_is_one_of_its_class(kind: OutcomeClass) -> None:
    assert {code for code in ADVICE[kind] if code} <= told_codes(kind)


def everything() -> list[Advice]:
    return [one for known in ADVICE.values() for one in known.values()] + list(JOBS.values())


def test_commands_to_run_next_exist_with_their_options() -> None:
    texts = [one.command for known in everything() for one in known.actions]
    texts += re.findall(r"^  \$ (.*?)  #", "\n".join(p.read_text() for p in GOLDEN.glob("*")), re.M)
    for command in filter(None, texts):
        name, *words = command.split()
        if name in ("systemctl", "journalctl"):
            continue
        known = import_module(f"agentorch.commands.{name.removeprefix('agentorch-')}").main
        assert isinstance(known, click.Command)
        assert name.removeprefix("agentorch-") in COMMANDS
        options = {option for one in known.params for option in one.opts}
        assert {word for word in words if word.startswith("-")} <= options, command


# ---- what it asks of its surroundings ---------------------------------------------------------


def test_it_makes_nothing(here: Installation) -> None:
    job_id = here.submit(step("one", "true"))
    before = sorted(here.state.rglob("*"))
    told = json.loads(here.run("explain", "--json", job_id).stdout)
    assert told["why"] == Why.NO_RUNNER
    assert sorted(here.state.rglob("*")) == before


def test_ids_come_from_standard_input(here: Installation) -> None:
    ids = [here.submit(step("one", "true")) for _ in range(2)]
    done = here.run("explain", "--json", given="".join(f"{one}\n" for one in ids))
    assert [json.loads(line)["job_id"] for line in done.stdout.splitlines()] == ids


def test_an_unknown_job_is_a_negative_answer(here: Installation) -> None:
    done = here.run("explain", "nobody", code=1)
    assert (done.stdout, done.stderr) == ("", "agentorch-explain: no job 'nobody'\n")
