"""A slot: claims jobs, drives their steps, waits for events.

Invariant: the slot's flock is held for the process's whole life, and everything that the runner
knows of a job is read from disk, so that the next owner goes on where this one died.

Start reading with `runner`, then `advance`.
"""
