"""Puts what calls use on their grant's account, as it becomes known. Pure."""

from __future__ import annotations

from collections.abc import Callable

from agentorch.broker.account import Account, ModelAccount
from agentorch.broker.prices import Prices
from agentorch.broker.usage_meter import Usage
from agentorch.core.text import one_line

_MODEL_CHARS = 100


class Bill:
    """The bill of one call.

    `asked` is the model of the request, `unpriced` gets a model without price.
    """

    def __init__(
        self, account: Account, prices: Prices, asked: str, unpriced: Callable[[str], None]
    ) -> None:
        self.usage = Usage(model=asked)
        self.cost_usd: float | None = None
        self._account = account
        self._prices = prices
        self._unpriced = unpriced
        self._part: ModelAccount | None = None
        account.calls += 1

    @property
    def model(self) -> str:
        """The model's name, as one line."""
        return one_line(self.usage.model, _MODEL_CHARS) or "unknown"

    def note(self, usage: Usage) -> None:
        """Books what came to it since the last time."""
        if not usage.model:
            usage = Usage(**{**vars(usage), "model": self.usage.model})
        before, self.usage = self.usage, usage
        cost = self._prices.cost(usage)
        account, part = self._account, self._model_account(priced=cost is not None)
        account.tokens_in += usage.tokens_in - before.tokens_in
        account.tokens_cached += usage.cached - before.cached
        account.tokens_out += usage.tokens_out - before.tokens_out
        account.tokens_reasoning += usage.reasoning - before.reasoning
        part.tokens_in += usage.tokens_in - before.tokens_in
        part.tokens_out += usage.tokens_out - before.tokens_out
        if cost is not None:
            more = cost - (self.cost_usd or 0.0)
            account.cost_usd += more
            part.cost_usd = (part.cost_usd or 0.0) + more
            self.cost_usd = cost

    def close(self) -> None:
        """Close the bill: the answer is over. What never reported its usage can't be priced
        either.
        """
        if self._part is None:
            self._model_account(priced=False)

    def _model_account(self, *, priced: bool) -> ModelAccount:
        if self._part is None:
            self._part = self._account.model(self.model)
            self._part.calls += 1
            if not priced:
                self._account.unpriced_calls += 1
                self._unpriced(self.model)
        return self._part
