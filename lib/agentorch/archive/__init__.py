"""A job as one tar: exported, checked, imported.

Invariant: the same job gives the same bytes; an import takes a whole job or nothing of it, whatever
the archive holds and wherever the import is killed.

Start reading with `layout`, then `export` and `import_`.
"""
