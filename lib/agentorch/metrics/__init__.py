"""The Prometheus text, from the ledger's counters and the queue's directories.

Reading costs the same with ten ended jobs and with a million. The families are a table in
`ledger.metric_families`.
"""
