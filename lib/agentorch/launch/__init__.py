"""Launchers: where an attempt is started. `fork` is a child of the runner, `systemd` a unit.

A launcher has four verbs: submit, list, cancel, usage. The attempt's name is its identity; a number
that a launcher gives is not trusted, and result.json outranks whatever it answers.

Start reading with `base`.
"""
