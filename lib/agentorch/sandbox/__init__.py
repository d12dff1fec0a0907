"""What a step may see and do: a command line in, a confined command line out.

Each wrapper has a module whose functions build its arguments as values; `confine` opens what they
need and starts nothing; `occupants` says who is still inside; `probe` tries it all for real.
"""

from agentorch.sandbox.confine import confined
from agentorch.sandbox.occupants import occupants, vacate
from agentorch.sandbox.probe import probe
from agentorch.sandbox.values import BROKER, Confined, Confinement, Wrapper

__all__ = [
    "BROKER",
    "Confined",
    "Confinement",
    "Wrapper",
    "confined",
    "occupants",
    "probe",
    "vacate",
]
