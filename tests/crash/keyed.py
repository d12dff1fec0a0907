"""Submits the job on stdin under the idempotency key that is the argument, as the webhook does.

One thread and one request: the program that is killed where the webhook itself can't be followed.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import click

from agentorch.commands.base import open_queue, program
from agentorch.contracts.accept import ServerRules, accept
from agentorch.core.abilities import ANYTHING


@program()
@click.argument("digest")
def main(digest: str) -> None:
    """Answers with the id of the key's job."""
    door = ServerRules({"exec": ANYTHING}, (), source_type="webhook")
    job, document = accept(json.loads(sys.stdin.read()), door, datetime.now(UTC))
    queue = open_queue()
    queue.prepare()
    first, _ = queue.submit_once(job, document, digest)
    click.echo(first.job_id)


if __name__ == "__main__":
    main()
