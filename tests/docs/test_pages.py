"""The manual's pages: they compile, are complete, say what click says, and their examples run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from agentorch.commands import COMMANDS, module_of
from tests.support import console
from tests.support.manual import MAN, ROOT, Item, Page, bold, items, pages, rows

USUAL = ("NAME", "SYNOPSIS", "DESCRIPTION")
ORDER = (*USUAL, "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES", "SEE ALSO")
DOUBTS = ("a power cut breaks it (tune2fs -j)", "may not survive a power cut there")
REFERENCE = re.compile(r"\*(agentorch[a-z.-]*)\*\(([1-8])\)")
EVERY = pytest.mark.parametrize("page", pages().values(), ids=lambda page: page.title)


EXECUTABLES = {"agentorch": "main"} | {f"agentorch-{name}": module_of(name) for name in COMMANDS}


def command_pages() -> list[tuple[str, Page]]:
    """The modules of executables, each with its page."""
    told = [one for one in pages().values() if one.section in "18"]
    return [(EXECUTABLES[one.name], one) for one in told if one.name in EXECUTABLES]


# ---- their form -------------------------------------------------------------------------------


def man(path: Path) -> subprocess.CompletedProcess[str]:
    """What man(1) shows of a page, and what it warns of."""
    return subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", str(path)],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANPAGER": "cat"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


@EVERY
@pytest.mark.needs("scdoc", "man", "groff")
def test_a_page_is_read_without_a_warning(page: Page, tmp_path: Path) -> None:
    made = subprocess.run(
        ["scdoc"], input=page.text, capture_output=True, text=True, check=True, timeout=60
    )
    assert made.stderr == ""
    path = tmp_path / f"{page.name}.{page.section}"
    path.write_text(made.stdout, "utf-8")
    shown = man(path)
    assert shown.stderr == ""
    assert f"{page.name}({page.section})" in shown.stdout.splitlines()[0]


@pytest.mark.needs("scdoc", "man", "groff")
def test_an_installed_page_breaks_no_name_of_a_command(tmp_path: Path) -> None:
    place = {"DESTDIR": str(tmp_path), "PREFIX": "/usr", "PATH": os.environ["PATH"]}
    subprocess.run(["packaging/install"], cwd=ROOT, env=place, check=True, timeout=120)
    found = sorted(path.name for path in (tmp_path / "usr/share/man").glob("man*/*"))
    assert found == sorted(one.path.name.removesuffix(".scd") for one in pages().values())
    shown = man(tmp_path / "usr/share/man/man7/agentorch-deployment.7")
    assert "agentorch.target" in shown.stdout
    assert [line for line in shown.stdout.splitlines() if line.endswith("\N{HYPHEN}")] == []


@EVERY
def test_the_head_of_a_page(page: Page) -> None:
    assert page.text.splitlines()[0] == f'{page.title} "agentorch" "agentorch"'
    name = re.fullmatch(r"(\S+) - (.+)", page.part("NAME").strip())
    assert name is not None
    assert name[1] == page.name
    assert not name[2].endswith(".")


@EVERY
def test_the_headings_of_a_page(page: Page) -> None:
    known = [heading for heading in ORDER if heading in page.headings]
    assert [heading for heading in page.headings if heading in ORDER] == known
    assert page.headings[0] == "NAME"
    assert page.headings[-1] == "SEE ALSO"
    assert "DESCRIPTION" in page.headings
    assert page.section == "7" or "SYNOPSIS" in page.headings


@EVERY
def test_no_line_is_long(page: Page) -> None:
    assert [line for line in page.text.splitlines() if len(line) > 150] == []


@EVERY
def test_pages_that_it_names_exist(page: Page) -> None:
    told = {f"{name}({section})" for name, section in REFERENCE.findall(page.text)}
    assert told <= set(pages())
    assert page.title not in {f"{n}({s})" for n, s in REFERENCE.findall(page.part("SEE ALSO"))}


def test_the_first_page_names_all_others() -> None:
    first = pages()["agentorch(7)"]
    told = {f"{name}({section})" for name, section in REFERENCE.findall(first.part("SEE ALSO"))}
    assert told == set(pages()) - {first.title}


def files_of_ours(text: str) -> set[str]:
    found = re.findall(r"(?<![/a-z])((?:examples|contracts)/[\w./-]*\w)", text)
    return {path.rstrip("_") for path in found}


@EVERY
def test_files_of_ours_that_it_names_exist(page: Page) -> None:
    assert [path for path in files_of_ours(page.text) if not (ROOT / path).exists()] == []


def test_files_are_found_in_a_text() -> None:
    text = "_contracts/job.schema.json_ (_examples/agents/mistral/_), /usr/share/examples/x"
    assert files_of_ours(text) == {"contracts/job.schema.json", "examples/agents/mistral/"}


def test_the_parser_sees_what_scdoc_sees() -> None:
    text = "Text.\n\n*-a*, *--all*=_N_\n\tOne.++\nTwo\n\n```\n*no*\n\titem\n```\n\n*b\\**\n\tB.\n"
    assert items(text) == [Item("*-a*, *--all*=_N_", "One. Two"), Item("*b\\**", "B.")]
    assert [item.names for item in items(text)] == [["-a", "--all"], ["b*"]]
    assert rows("][ *A*\n:[ *B*\n|  a b\n:  c\n") == [["A", "B"], ["a b", "c"]]


# ---- commands ---------------------------------------------------------------------------------


def test_every_executable_has_a_page_and_every_page_an_executable() -> None:
    told = sorted(page.name for page in pages().values() if page.section in "18")
    assert told == sorted(EXECUTABLES)
    assert len(list(MAN.iterdir())) == len(pages())


def test_names_say_what_help_says() -> None:
    told = {page.name: page.part("NAME").strip().split(" - ", 1)[1] for _, page in command_pages()}
    assert told == {"agentorch": told["agentorch"]} | {
        f"agentorch-{name}": words for name, words in COMMANDS.items()
    }


def test_the_list_of_commands() -> None:
    listed = {item.names[0]: item.body for item in pages()["agentorch(1)"].items("COMMANDS")}
    assert listed == COMMANDS


def command_of(name: str) -> click.Command:
    found: click.Command = import_module(f"agentorch.commands.{name}").main
    return found


def options_of(command: click.Command) -> dict[tuple[str, ...], str]:
    """Each option's names, and the word for its value; empty for a flag."""
    context = command.make_context(command.name, [], resilient_parsing=True)
    options = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    return {
        tuple(sorted((*one.opts, *one.secondary_opts))): ""
        if one.is_flag
        else one.metavar or one.type.name.upper()
        for one in options
        if not one.hidden
    }


def options_told(page: Page) -> dict[tuple[str, ...], str]:
    found = {}
    for item in page.items("OPTIONS"):
        value = re.search(r"=_(.+)_$", item.term)
        found[tuple(sorted(item.names))] = value[1] if value else ""
    return found


@pytest.mark.parametrize(("name", "page"), command_pages(), ids=lambda one: str(one)[:20])
def test_options_are_those_of_the_command(name: str, page: Page) -> None:
    assert options_told(page) == options_of(command_of(name))


@pytest.mark.parametrize(("name", "page"), command_pages(), ids=lambda one: str(one)[:20])
def test_defaults_that_help_shows(name: str, page: Page) -> None:
    told = page.named("OPTIONS")
    for one in command_of(name).params:
        if isinstance(one, click.Option) and one.show_default and not one.hidden:
            assert f"Default: *{one.default}*" in told[one.opts[0]].body


@pytest.mark.parametrize(("name", "page"), command_pages(), ids=lambda one: str(one)[:20])
def test_arguments_are_in_the_synopsis(name: str, page: Page) -> None:
    told = set(re.findall(r"_([A-Z]+)_", page.part("SYNOPSIS")))
    for one in command_of(name).params:
        if isinstance(one, click.Argument):
            word = re.sub(r"[^A-Z]", "", (one.metavar or one.name or "").upper())
            assert word in told, word


@pytest.mark.parametrize(("name", "page"), command_pages(), ids=lambda one: str(one)[:20])
def test_every_option_that_a_command_page_names_is_one(name: str, page: Page) -> None:
    known = {word for names in options_of(command_of(name)) for word in names}
    prose = page.part("DESCRIPTION") + page.part("OPTIONS")
    told = {word for word in bold(prose) if re.fullmatch(r"--?[a-z-]+", word)}
    assert told <= known | {"--", "-"}


# ---- examples ---------------------------------------------------------------------------------


def shown() -> list[Page]:
    return [page for page in pages().values() if console.blocks(page.text)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository to work on, with the examples beside its files, and an empty state directory."""
    place = tmp_path / "project"
    shutil.copytree(ROOT / "examples/demo/project", place)
    (place / "examples").symlink_to(ROOT / "examples")
    script = "git init -q && echo /examples >>.git/info/exclude && git add . && git commit -q -m A"
    subprocess.run(["sh", "-c", script], cwd=place, env=environment(tmp_path), check=True)
    return place


def environment(top: Path) -> dict[str, str]:
    """A new user's, with the programs of this checkout and nothing of the machine's settings."""
    return {
        "PATH": f"{ROOT / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "lib"),
        "AGENTORCH_ENV_FILE": "/dev/null",
        "AGENTORCH_STATE_DIR": str(top / "state"),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        **{f"GIT_{who}_NAME": "reader" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "reader@localhost" for who in ("AUTHOR", "COMMITTER")},
        "HOME": str(top),
        "TMPDIR": str(top),
    }


@pytest.mark.needs("git", "bwrap")
@pytest.mark.parametrize("page", shown(), ids=lambda page: page.title)
def test_every_command_prints_what_is_shown(page: Page, project: Path, tmp_path: Path) -> None:
    blocks = console.blocks(page.text)
    printed = console.run(blocks, project, environment(tmp_path))
    assert len(printed) == len(blocks)
    for one, raw in zip(blocks, printed, strict=True):
        output = "\n".join(line for line in raw.splitlines() if not line.endswith(DOUBTS))
        assert console.matches(one.output, output), f"$ {one.command}\n{output}"


def test_most_pages_of_commands_show_something() -> None:
    silent = {page.name for _, page in command_pages()} - {page.name for page in shown()}
    assert silent <= SILENT


# what they do can be shown only with a dead owner, or as a service
SILENT = {"agentorch-unlock", "agentorch-broker"}
