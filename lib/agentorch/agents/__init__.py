"""The agents: one adapter for each, its command line and the meaning of its output.

An adapter is pure: `command` turns a request into argv, stdin, environment names and files;
`outcome` turns exit status and output lines into a result. Nothing here starts a program or reads
a clock. Each CLI has a package of its own (adapter, events, outcome); third parties come by
`manifest` (TOML and an executable) or `entry_points` (Python).

Start reading with `base`, then `claude`.
"""
