"""Confinement: a command line in, a confined command line out.

Each wrapper (bwrap, firejail, docker and podman, systemd-run) has a module whose functions build
its arguments as values; `confine` opens the descriptors that they need and starts nothing;
`occupants` finds the processes that are still inside; `probe` tries all of it for real. What a
wrapper can't enforce is refused, never assumed.

Start reading with `confinement`, then `bubblewrap`.
"""

from agentorch.sandbox.confine import confine
from agentorch.sandbox.confinement import BROKER, Confined, Confinement, Wrapper
from agentorch.sandbox.occupants import occupants, vacate
from agentorch.sandbox.probe import probe

__all__ = [
    "BROKER",
    "Confined",
    "Confinement",
    "Wrapper",
    "confine",
    "occupants",
    "probe",
    "vacate",
]
