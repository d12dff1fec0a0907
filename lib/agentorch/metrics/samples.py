"""Metric families with their samples, from values that were read before. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric
from prometheus_client.utils import floatToGoString

from agentorch.core.states import ENDED, Status
from agentorch.ledger import metric_families
from agentorch.ledger.counts import ABOVE, SUM
from agentorch.ledger.ledger import Counts
from agentorch.ledger.metric_families import Family, Kind

# The values of a family, by the values of its labels.
Values = Mapping[tuple[str, ...], float]

STATUSES = tuple(
    str(status) for status in Status if status not in (Status.RUNNING, Status.RETRYABLE)
)
# Label values that are known in advance. They are exposed as 0 from the start, because rate() does
# not see the first increase of a counter that appears only with it.
KNOWN_LABELS: Mapping[Family, tuple[tuple[str, ...], ...]] = {
    metric_families.JOBS: tuple((status,) for status in STATUSES),
    metric_families.STEPS: tuple((status,) for status in STATUSES),
    metric_families.QUEUE_JOBS: tuple((state.value,) for state in sorted(ENDED)),
}


def counted_family(family: Family, counts: Counts) -> Metric:
    """Return a family with the ledger's counts of it, and 0 for labels known in advance."""
    metric = empty_family(family)
    recorded = {labels for name, labels in counts if name == family.name}
    known = KNOWN_LABELS.get(family, () if family.labels else ((),))
    for values in sorted({*recorded, *known}):
        labels = dict(zip(family.labels, values, strict=True))
        for suffix, more, value in _samples(family, counts.get((family.name, values), {})):
            metric.add_sample(f"{family.name}{suffix}", {**labels, **more}, value)
    return metric


def _samples(
    family: Family, parts: Mapping[str, float]
) -> Iterator[tuple[str, dict[str, str], float]]:
    match family.kind:
        case Kind.HISTOGRAM:
            for bound in (*family.buckets, float(ABOVE)):
                yield "_bucket", {"le": bucket_label(bound)}, _count_up_to(bound, parts)
            yield "_sum", {}, parts.get(SUM, 0)
            yield "_count", {}, _count_up_to(float(ABOVE), parts)
        case Kind.SUMMARY:
            yield "_sum", {}, parts.get(SUM, 0)
            yield "_count", {}, parts.get("count", 0)
        case _:
            yield "", {}, parts.get("", 0)


def bucket_label(bound: float) -> str:
    """Return a bucket's upper bound as the value of its `le` label.

    node_exporter spells the bounds of a textfile in the same way, so both sources agree.
    """
    word: str = floatToGoString(bound)  # type: ignore[no-untyped-call]
    return word.removesuffix(".0")


def _count_up_to(bound: float, parts: Mapping[str, float]) -> float:
    """Return the number of observations up to a bound, from the counts of single buckets.

    It is right for buckets that had other bounds in an earlier version, too.
    """
    return sum(value for part, value in parts.items() if part != SUM and float(part) <= bound)


def gauge_family(family: Family, values: Values) -> Metric:
    """Return a family with these values."""
    metric = empty_family(family)
    for labels, value in values.items():
        metric.add_sample(family.name, dict(zip(family.labels, labels, strict=True)), value)
    return metric


def empty_family(family: Family) -> Metric:
    """Return a family without samples.

    prometheus_client appends the suffix `_total` to a counter's name, so it is removed here.
    """
    name = family.name.removesuffix("_total") if family.kind is Kind.COUNTER else family.name
    return Metric(name, family.words, family.kind.value)
