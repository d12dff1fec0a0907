"""agentorch, the mail queue of coding agents.

The floors of this package, imports go down only:

    8  commands/                                parse, call once, print
    7  runner reclaim inspect                   what owns or reads whole jobs
    6  step                                     one attempt of one step
    5  launch/ sandbox/ agents/ process         what runs programs
    4  jobqueue artifacts approvals workspace   what keeps state on disk
    3  paths atomic inotify settings journal    how the disk and the environment are touched
    2  contracts                                what is accepted at a door
    1  pipeline context prompt redact policy    pure decisions: no os, no time
    0  errors states job                        pure words
"""

__version__ = "0.1.0"
