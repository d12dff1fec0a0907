"""agentorch, the mail queue of coding agents.

Packages in layers; an import goes to a lower layer, never up and never sideways:

    10 commands
     9 webhook
     8 runner  retention  schedules  explain  metrics  report  doctor
     7 attempt  archive  notify  decisions
     6 jobqueue  preflight
     5 agents
     4 process  workspace  artifacts  ledger  broker  launch
     3 systemd  sandbox  scripted_model
     2 config
     1 storage  system  contracts
     0 core  redaction                            pure: no os, no time

`lint-imports` holds this (pyproject.toml has the contracts). The docstring of each package tells
what it owns, its invariant, and where to start reading.
"""

__version__ = "0.1.0"
