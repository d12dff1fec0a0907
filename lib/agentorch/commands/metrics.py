"""agentorch-metrics: write the metrics of the queue for Prometheus."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from agentorch.commands.base import load_settings, print_line, program
from agentorch.core.errors import Exit
from agentorch.metrics import exposition


@program()
@click.option("--stdout", "to_stdout", is_flag=True, help="Print them instead.")
@click.pass_context
def main(context: click.Context, *, to_stdout: bool) -> None:
    """Write AGENTORCH_METRICS_FILE for node_exporter's textfile collector, in one rename.

    Where its directory is not there, it says so, and that is all. Exits with 1 where the ledger is
    broken, and the counters are missing therefore.
    """
    settings = load_settings()
    found = exposition.read_metrics(settings, datetime.now(UTC))
    path = settings.metrics_file
    if to_stdout:
        click.echo(found.text, nl=False)
    elif not exposition.write_textfile(path, found.text):
        print_line(f"{path.parent} is not there: nothing is written (AGENTORCH_METRICS_FILE)")
    if found.problem is not None:
        print_line(found.problem)
        context.exit(Exit.NEGATIVE)
