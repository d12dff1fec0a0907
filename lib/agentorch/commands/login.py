"""agentorch-login: logs an agent in with an account of its own."""

from __future__ import annotations

import click

from agentorch.agents.base import Capabilities
from agentorch.agents.registry import load
from agentorch.commands.base import load_settings, print_line, program
from agentorch.config.settings import Settings
from agentorch.core.errors import Exit, Refused
from agentorch.preflight import logins


@program()
@click.argument("agent")
@click.argument("arguments", metavar="[-- ARGUMENT...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--remove", is_flag=True, help="Remove the agent's login instead.")
def main(agent: str, arguments: tuple[str, ...], *, remove: bool) -> None:
    """Run the login of AGENT's own program on this terminal; ARGUMENTs replace its usual options.

    The login is kept in a HOME of its own, below the state directory, and is used by steps for
    whose model there is no key. As root it is made for the service user, where there is one.

    Exits with 0 when the login is there, 1 when it is not.
    """
    settings = load_settings()
    capabilities = _capabilities(settings, agent)
    if remove:
        if arguments:
            raise click.UsageError("--remove takes no arguments for the program")
        logins.remove(settings, agent)
        return
    code = logins.login(settings, agent, capabilities, arguments)
    there = logins.is_there(settings, agent, capabilities)
    print_line(_words(settings, agent, capabilities, code, there=there))
    click.get_current_context().exit(Exit.DONE if there and not code else Exit.NEGATIVE)


def _capabilities(settings: Settings, agent: str) -> Capabilities:
    """Those of an agent that has a login. Raises Invalid: unknown, and Refused: it has none."""
    capabilities = load(settings).get(agent).capabilities
    if capabilities is None or not capabilities.login_argv:
        raise Refused(f"agent {agent!r} has no login of its own")
    return capabilities


def _words(
    settings: Settings, agent: str, capabilities: Capabilities, code: int, *, there: bool
) -> str:
    home, binary = logins.home_of(settings, agent), capabilities.binary
    if code:
        still = "; the login of before is still there" if there else ""
        return f"{binary!r} ended with exit code {code}{still}"
    if there:
        return f"the login of {agent!r} is there, in {home}"
    return f"{binary!r} left no login: there is no {home / capabilities.login_files[0]}"
