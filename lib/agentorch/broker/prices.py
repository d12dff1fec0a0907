"""The prices of calls, by a table of list prices (prices.toml). A price is never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from agentorch.broker.usage_meter import Usage
from agentorch.config.toml_tables import amount, read, unknown_keys, words
from agentorch.core.errors import Misconfigured

BUILT_IN = Path(__file__).with_name("prices.toml")
_RATES = frozenset({"input", "cached", "cache_write", "cache_write_1h", "output"})
_PER = 1_000_000


@dataclass(frozen=True)
class Rates:
    """US dollars for a million tokens."""

    input: float
    cached: float
    cache_write: float
    cache_write_1h: float
    output: float


@dataclass(frozen=True)
class Price:
    """The rates of some models; `long` are those of calls with more than `above` input tokens."""

    models: tuple[str, ...]
    rates: Rates
    above: float = float("inf")
    long: Rates | None = None


@dataclass(frozen=True)
class Prices:
    """The table, in the order in which it is asked."""

    prices: tuple[Price, ...]

    def has(self, model: str) -> bool:
        """Return whether the model has a price here."""
        return self.cost(Usage(model=model)) is not None

    def cost(self, usage: Usage) -> float | None:
        """US dollars; None where the model has no price here."""
        for price in self.prices:
            if any(fnmatchcase(usage.model, pattern) for pattern in price.models):
                is_long = price.long is not None and usage.tokens_in > price.above
                return _cost(usage, price.long if is_long and price.long else price.rates)
        return None


def _cost(usage: Usage, rates: Rates) -> float:
    new = max(0, usage.tokens_in - usage.cached - usage.cache_write)
    short = max(0, usage.cache_write - usage.cache_write_1h)
    return (
        new * rates.input
        + usage.cached * rates.cached
        + short * rates.cache_write
        + usage.cache_write_1h * rates.cache_write_1h
        + usage.tokens_out * rates.output
    ) / _PER


def load(own: Path) -> Prices:
    """Return the administrator's prices, where that file is there, before ours.

    Raises Misconfigured.
    """
    return Prices((*entries(own, optional=True), *entries(BUILT_IN)))


def entries(path: Path, *, optional: bool = False) -> list[Price]:
    """Return the entries of one file, none where an optional one is not there.

    Raises Misconfigured.
    """
    document = read(path, optional=optional)
    problems = [f"{path}: {key}: unknown key" for key in document if key != "price"]
    found = []
    told = document.get("price", [])
    for number, entry in enumerate(told if isinstance(told, list) else [told], 1):
        try:
            found.append(price_of(entry))
        except ValueError as problem:
            problems.append(f"{path}: price {number}: {problem}")
    if problems:
        raise Misconfigured(*problems)
    return found


def price_of(entry: object) -> Price:
    """Return an entry of the table. Raises ValueError. Pure."""
    if not isinstance(entry, dict):
        raise ValueError("expected a table")  # noqa: TRY004  (of a document, not of ours)
    unknown_keys(entry, _RATES | {"models", "long"})
    long = entry.get("long")
    if long is None:
        return Price(words(entry, "models"), _rates(entry))
    if not isinstance(long, dict):
        raise ValueError("long: expected a table")  # noqa: TRY004  (of a document, not of ours)
    unknown_keys(long, _RATES | {"above"})
    return Price(words(entry, "models"), _rates(entry), amount(long, "above"), _rates(long))


def _rates(entry: Mapping[str, Any]) -> Rates:
    new = amount(entry, "input")
    written = amount(entry, "cache_write", new)
    return Rates(
        input=new,
        cached=amount(entry, "cached", new),
        cache_write=written,
        cache_write_1h=amount(entry, "cache_write_1h", written),
        output=amount(entry, "output"),
    )
