"""The configuration: environment files, variables, TOML tables, prompt files; one frozen Settings.

A malformed variable is an error that names it, never a silent default. `settings` has the table of
all variables, `variables` the readers of their forms. Read are `/etc/agentorch/agentorch.env` (or
$AGENTORCH_ENV_FILE) and the environment, which wins; nothing is written.

Start reading with `settings`.
"""
