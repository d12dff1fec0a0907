"""The metrics of a queue in the Prometheus text format, and the file that node_exporter reads.

https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4)
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client.core import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest

from agentorch.config.settings import Settings
from agentorch.core.errors import Misconfigured
from agentorch.ledger import ledger, metric_families
from agentorch.ledger.budgets import utc_day
from agentorch.ledger.caps import server_caps
from agentorch.ledger.ledger import Counts
from agentorch.ledger.money import SpendingBook
from agentorch.metrics.gauges import budget_gauges, queue_gauges
from agentorch.metrics.samples import counted_family
from agentorch.storage import atomic


@dataclass(frozen=True)
class Exposition:
    """All metrics as text; `problem` says why the counters are missing, None where they are not."""

    text: bytes
    problem: str | None = None


def metrics_text(settings: Settings) -> bytes:
    """Return all metrics as Prometheus reads them. Raises TryAgain where the ledger is busy."""
    return read_metrics(settings, datetime.now(UTC)).text


def read_metrics(settings: Settings, now: datetime) -> Exposition:
    """Return all metrics at `now`. Writes nothing. Raises TryAgain where the ledger is busy.

    A ledger that is broken or unreadable is no failure: its counters are missing from the text.
    """
    counts: Counts | None = None
    book: SpendingBook | None = None
    problem: str | None = None
    path, today = settings.roots.state_db, utc_day(now)
    try:
        counts = ledger.read_counts(path)
        book = ledger.read_book(path, server_caps(settings), today, now)
    except Misconfigured as broken:
        problem = str(broken)
    counters = (
        []
        if counts is None
        else [counted_family(family, counts) for family in metric_families.COUNTED]
    )
    registry = CollectorRegistry(auto_describe=False)
    found = [*counters, *budget_gauges(book), *queue_gauges(settings, counts, now)]
    registry.register(_Collector(found))
    return Exposition(generate_latest(registry), problem)


class _Collector:
    """Metric families in the shape that prometheus_client collects them from."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def write_textfile(path: Path, text: bytes) -> bool:
    """Write the file for node_exporter's textfile collector, in one rename.

    Return False, and write nothing, where its directory does not exist. The file is readable for
    everybody, whatever the umask, because node_exporter runs as another user. It is not synced:
    after a power cut the timer writes it again. Raises Misconfigured where this user may not write
    there, TryAgain where the disk cannot take it now.
    """
    if not path.parent.is_dir():
        return False
    # node_exporter reads every name that ends in .prom: the temporary one must not
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with atomic.disk_trouble(path):
            _replace(path, temporary, text)
    except PermissionError as problem:
        words = f"AGENTORCH_METRICS_FILE: {path}: {problem.strerror}"
        raise Misconfigured(f"{words}: this user must be able to write to its directory") from None
    return True


def _replace(path: Path, temporary: Path, text: bytes) -> None:
    try:
        with temporary.open("xb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
