"""One program run to its end: started, followed, bounded, stopped, its output kept.

Invariant: when `run` returns, no process of the program is left, daemonised ones included. Output
goes to regular files, which survive a restart of their reader; lines may have any length.

Start reading with `run`; `watch` decides when a program must be ended before its time.
"""
