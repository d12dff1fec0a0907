"""The ledger (state.db): reservations, spending, and the counters of the metrics.

Invariant: the most that an attempt may cost is reserved before it begins and settled at its end, in
one transaction with its count. So no number of runners exceeds a cap, and counters never shrink.
The rules (`budgets`, `counts`) are pure; `money` and `ledger` are the tables of the SQLite file.

Start reading with `budgets`, then `ledger`.
"""
