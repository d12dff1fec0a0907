"""Whole jobs of agents that cost money."""

from tests.support.money import double, till

__all__ = ["double", "till"]
