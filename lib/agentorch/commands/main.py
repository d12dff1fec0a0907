"""agentorch: every executable as `agentorch NAME`."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import cast

import click

from agentorch import __version__
from agentorch.commands import ALIASES, COMMANDS, module_of


class Commands(click.Group):
    """A group that imports a command's module when it is called, and none to list them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a name; None where the table has no such name."""
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        return cast("click.Command", import_module(f"agentorch.commands.{module_of(name)}").main)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; says what is near where there is none."""
        near = difflib.get_close_matches(args[0], [*COMMANDS, *ALIASES], 1)
        if near and near[0] != args[0]:
            ctx.fail(f"No such command {args[0]!r} (did you mean {near[0]!r}?).")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table, without an import of what it lists."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """Run `agentorch NAME`: drop a job, and every step runs in its own sandbox.

    Every command is an executable of its own, too: agentorch-NAME.
    """
