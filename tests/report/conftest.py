"""Whole jobs by the real programs, as in tests/jobs."""

from tests.jobs.conftest import here

__all__ = ["here"]
