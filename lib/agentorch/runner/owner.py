"""The owner of claimed jobs: the process that holds a slot, with what its jobs need of it."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from agentorch.agents.registry import Registry
from agentorch.config.settings import Settings
from agentorch.jobqueue.slots import Slot
from agentorch.launch.base import Launcher
from agentorch.runner.events import Events
from agentorch.storage.free_space import refuse_below
from agentorch.systemd.journal import Journal

LEAVE_NOW = (signal.SIGTERM, signal.SIGINT)
LEAVE_AFTER_JOB = (signal.SIGHUP,)


@dataclass(frozen=True)
class Owner:
    """The holder of a slot. `started` are the names of the attempts that this process started."""

    settings: Settings
    agents: Registry
    slot: Slot
    launcher: Launcher
    events: Events
    journal: Journal
    started: set[str] = field(default_factory=set)

    def is_leaving(self) -> bool:
        """Return whether a signal came that lets no further step begin."""
        return self.events.signals.came(*LEAVE_NOW)

    def check_room(self) -> None:
        """Raise TryAgain while too little of the disk is free to start anything."""
        roots = self.settings.roots
        for directory in (roots.queue_root, roots.workspaces_root):
            refuse_below(directory, self.settings.min_free_disk_bytes)
