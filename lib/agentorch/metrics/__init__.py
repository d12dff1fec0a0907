"""The Prometheus text of the queue's metrics, from the ledger's counters and the directories.

Invariant: a scrape costs the same after ten ended jobs and after a million, and writes nothing.
`samples` turns counters into metric families and is pure; `gauges` reads what is measured at the
scrape; the families themselves are a table in `ledger.metric_families`.

Start reading with `exposition`.
"""
