"""The credentials of an agent: a key for its provider, or a login of its own.

Keys are the broker's. Where it is a unit of its own, they can't be seen from here, and only it can
say what is there. No key is ever part of what is returned.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agentorch.agents.base import Capabilities
from agentorch.broker.keys import Keys, names
from agentorch.broker.providers import Provider, load
from agentorch.config.settings import Settings
from agentorch.preflight import logins


class Key(StrEnum):
    """The state of a key, as far as this process can see."""

    THERE = "there"
    MISSING = "missing"
    HIDDEN = "hidden"
    UNNEEDED = "unneeded"


@dataclass(frozen=True)
class Credential:
    """The credential of an agent. `words` describe it, or say what to do where there is none."""

    key: Key
    login: bool
    words: str

    @property
    def is_missing(self) -> bool:
        """There is neither a key nor a login; with a hidden key, nobody here can tell."""
        return self.key is Key.MISSING and not self.login

    @property
    def is_login(self) -> bool:
        """The agent uses its login: as far as can be seen, there is no key."""
        return self.login and self.key in (Key.MISSING, Key.HIDDEN)


def credential(
    settings: Settings,
    agent: str,
    capabilities: Capabilities,
    provider: str | None,
    project_id: str | None = None,
) -> Credential:
    """Return what this agent has for a provider's models in this project. Nothing is started.

    Raises Misconfigured where providers.toml or the file of keys is not as it should be.
    """
    login = logins.is_there(settings, agent, capabilities)
    if provider is None:
        return Credential(Key.UNNEEDED, login, "needs no key")
    known = load(settings.providers, settings.environment).get(provider)
    if known is None:
        words = f"there is no provider {provider!r}: describe it in {settings.providers}"
        return Credential(Key.MISSING, login=False, words=words)
    key = _key(settings, agent, known, project_id)
    return Credential(key, login, _words(settings, agent, capabilities, known, key, login=login))


def _key(settings: Settings, agent: str, provider: Provider, project_id: str | None) -> Key:
    variable = provider.key_variable
    if not variable:
        return Key.UNNEEDED
    if settings.broker_socket is None and _has_variable(settings, variable, agent, project_id):
        return Key.THERE
    if not _is_readable(settings.keys_file):
        return Key.HIDDEN
    if Keys.load(settings, {}).find(variable, agent, project_id) is not None:
        return Key.THERE
    return Key.MISSING if settings.broker_socket is None else Key.HIDDEN


def _has_variable(settings: Settings, variable: str, agent: str, project_id: str | None) -> bool:
    return any(settings.environment.get(name) for name in names(variable, agent, project_id))


def _is_readable(path: Path) -> bool:
    """Return whether a file can be read, or is known not to be there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except PermissionError:
        return False
    return os.access(path, os.R_OK)


def _words(
    settings: Settings,
    agent: str,
    capabilities: Capabilities,
    provider: Provider,
    key: Key,
    *,
    login: bool,
) -> str:
    if key is Key.UNNEEDED:
        return f"{provider.name} wants no key"
    if key is Key.THERE:
        return f"key {provider.key_variable} is there"
    if login:
        return "is logged in"
    if key is Key.HIDDEN:
        return f"key {provider.key_variable}: the broker alone can see whether it is there"
    or_login = f", or log in: agentorch-login {agent}" if capabilities.login_argv else ""
    return f"has no key: put {provider.key_variable}=… into {settings.keys_file}{or_login}"
