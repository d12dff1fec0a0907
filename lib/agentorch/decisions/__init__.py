"""Decisions of people about a job: approve, reject, answer, hold, edit, cancel, retry.

Invariant: a decision is taken under the lock of the job, is checked against its state and the hash
of what was shown, and is durable in decisions.jsonl before it acts, by one rename or one marker
file. Commands and the webhook decide through this package alone.

Start reading with `decide`.
"""
