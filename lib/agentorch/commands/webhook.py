"""agentorch-webhook: accept jobs over HTTP, and report their state."""

from __future__ import annotations

import click

from agentorch.commands.base import load_settings, program
from agentorch.systemd import sockets
from agentorch.systemd.journal import Journal
from agentorch.webhook import tokens
from agentorch.webhook.application import Application
from agentorch.webhook.context import build_site
from agentorch.webhook.server import Server, log_through
from agentorch.webhook.sockets import is_local, open_sockets, parse_bind

USUAL_IDLE_S = 60.0


@program()
@click.option(
    "--bind",
    "binds",
    multiple=True,
    metavar="HOST:PORT|unix:PATH",
    help="Listen here; may be given more than once. Without it: on the sockets that it was passed.",
)
@click.option(
    "--idle-s",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=USUAL_IDLE_S,
    show_default=True,
    help="Leave when nobody was connected for so long; only on sockets that it was passed.",
)
def main(binds: tuple[str, ...], idle_s: float) -> None:
    """Take jobs by HTTP, and tell how they do.

    TERM or INT ends it, when what was asked by then is answered.
    """
    passed = [] if binds else sockets.passed_sockets()
    if not binds and not passed:
        raise click.UsageError("no socket was passed (see systemd.socket(5)): give --bind")
    places = [parse_bind(text) for text in binds]
    settings = load_settings()
    known = tokens.load_tokens(settings)
    journal = Journal("agentorch-webhook", settings)
    log_through(journal)
    with open_sockets(places) as ours:
        listening = [*passed, *ours]
        tokens.refuse_dev_token(known, local=all(is_local(one) for one in listening))
        application = Application(build_site(settings, known), journal)
        most_bytes = settings.max_webhook_body_bytes
        Server(application, listening, journal, most_bytes, idle_s if passed else None).run()
