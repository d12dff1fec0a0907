"""A job's work tree and its git history: made, compared, patched, put back.

    workspaces/ID/work/          what the agent sees; its .git is made by us and never read again
    workspaces/ID/history.git    ours: the trees before and after each attempt
    workspaces/ID/workspace.json the commit record of the workspace

Invariant: git on the host reads nothing that an agent could have written: configuration, hooks,
attributes and index are ours. A patch is applied to a pristine base, and the trees are compared,
before it is published.

Start reading with `workspace`, then `history`.
"""
