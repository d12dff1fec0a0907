"""A broker that runs."""

from tests.support.broker import start

__all__ = ["start"]
