"""The checks of agentorch-doctor: each tries something for real and ends in one line.

A line about a problem says what to do about it. Nothing is changed.

Start reading with `host`.
"""
