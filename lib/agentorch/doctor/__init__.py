"""The checks of agentorch-doctor: each tries something for real and yields one line.

Invariant: nothing is changed or left behind, and the line of a problem says what to do about it.

Start reading with `host`.
"""
