"""The retention of ended jobs: what is kept and for how long; the removal of the rest.

`rules` decides (pure), `collect` carries it out: a rename to a trash/ on the same file system, the
queue file last. Jobs that have not ended are never touched.
"""
