"""The disk: every path, durable writes, locks, trees that an agent may have written, SQLite, tar.

Invariant: nothing appears half-written, and what a function here calls durable survives a power
cut. A name on disk is spelled once, in `paths`, whose docstrings draw the trees of `queue/`,
`artifacts/` and `workspaces/`. Below a directory that an agent could write to, no symbolic link is
ever followed (`beneath`, `untrusted_tree`, `copy_tree`).

Start reading with `paths`, then `atomic` and `locks`.
"""
