"""state.db: money reserved and spent, attempts and jobs counted, the counters of the metrics.

Invariant: what an attempt may cost at most is reserved before it begins and settled at its end, in
one transaction with its count; so no number of runners passes a cap, and counters never shrink.
The rules (`budgets`, `counts`) are pure; `money` and `ledger` are the tables of the SQLite file.

Start reading with `budgets`, then `ledger`.
"""
