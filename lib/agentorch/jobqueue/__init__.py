"""The queue: jobs in directories, moved by rename(2); one rename a transition.

    queue/{pending,running/SLOT,done,failed,awaiting_approval,held,parked/…}/KEY.json

Invariant: a job has one queue file, so it is in one state; a running job's owner is alive exactly
while the flock on its slot is held. KEY has the priority, the time of submission and the id, so
that names sort in the order of claims.

Start reading with `jobqueue`; then `slots`, `finish` and `reclaim`.
"""
