"""agentorch-budget: show what is spent, reserved and left."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from pathlib import Path

import click

from agentorch.broker import prices
from agentorch.commands.base import load_settings, print_json, print_line, program
from agentorch.config.settings import Settings
from agentorch.core.errors import Invalid, Misconfigured, Refused
from agentorch.ledger import ledger
from agentorch.ledger.budgets import utc_day
from agentorch.ledger.caps import server_caps
from agentorch.ledger.money import SpendingBook
from agentorch.ledger.spending import Row, budget_documents, budget_rows

HEADINGS = ("", "NAME", "SPENT", "RESERVED", "LEFT", "CAP", "CALLS", "UNPRICED")


@program()
@click.option("--day", metavar="YYYY-MM-DD", help="Another UTC day; default: today.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@click.option("--check", is_flag=True, help="Check a price table instead: FILE, or the installed.")
@click.option(
    "--clear",
    metavar="CREDENTIAL",
    help="Use a credential again whose limit was reached, and wait no more.",
)
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
def main(
    *, day: str | None, as_json: bool, check: bool, clear: str | None, file: Path | None
) -> None:
    """Print what is spent, reserved and left: for the day, by project and by agent.

    Below are the credentials that are blocked because a usage limit of their provider is reached.
    Reservations belong to running attempts; they count until these have ended.
    """
    settings = load_settings()
    if file is not None and not check:
        raise click.UsageError("a FILE is for --check alone")
    if check:
        _check(settings, file)
    elif clear is not None:
        _clear(settings, clear)
    else:
        _show(_book(settings, day), as_json=as_json)


def _book(settings: Settings, day: str | None) -> SpendingBook:
    now = datetime.now(UTC)
    wanted = utc_day(now) if day is None else _day(day)
    return ledger.read_book(settings.roots.state_db, server_caps(settings), wanted, now)


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise click.BadParameter(f"{text!r} is no day: YYYY-MM-DD", param_hint="--day") from None


def _check(settings: Settings, file: Path | None) -> None:
    """Check the tables of prices: a file that is given is input, an installed one is
    configuration.
    """
    if file is None:
        path, found = settings.prices, prices.entries(settings.prices, optional=True)
    else:
        try:
            path, found = file, prices.entries(file)
        except Misconfigured as problem:
            raise Invalid(problem.problems) from problem
    click.echo(f"{path}: {len(found)} prices, asked before the built-in ones")


def _clear(settings: Settings, credential: str) -> None:
    # no name has what SQLite can't take, and complains about as if the file were broken
    if not (credential.isprintable() and ledger.clear_credential(settings.roots, credential)):
        raise Refused(f"no limit of {credential!r} is known")
    click.echo(credential)
    print_line(
        f"{credential} is used again; jobs that wait for it go on at their time (agentorch-release)"
    )


# ---- what is shown ----------------------------------------------------------------------------


def _show(book: SpendingBook, *, as_json: bool) -> None:
    if as_json:
        for document in budget_documents(book):
            print_json(document)
        return
    lines = [_cells(row) for row in budget_rows(book)]
    if sys.stdout.isatty():
        _print_table(book.day, lines)
    else:
        for cells in lines:
            click.echo("\t".join(cell or "-" for cell in cells))
    for wall in book.breakers:
        click.echo(f"wall\t{wall.credential}\t{wall.until}\t{wall.reason}")


def _cells(row: Row) -> tuple[str, ...]:
    calls = str(row.calls) if row.cap_calls is None else f"{row.calls} of {row.cap_calls}"
    money = (row.spent_usd, row.reserved_usd, row.left_usd, row.cap_usd)
    return (row.kind, row.name, *map(_usd, money), calls, str(row.unpriced_calls))


def _usd(amount: float | None) -> str:
    return "" if amount is None else f"{amount:.2f}"


def _print_table(day: str, lines: list[tuple[str, ...]]) -> None:
    # imported here: only a terminal needs it
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=f"{day} UTC, US dollars", box=None, pad_edge=False, header_style="bold")
    for name in HEADINGS:
        table.add_column(name, justify="left" if name in HEADINGS[:2] else "right")
    for cells in lines:
        table.add_row(*map(Text, cells))
    Console().print(table)
