"""A state directory of the test's own for every test of the executables."""

from tests.support.installation import here

__all__ = ["here"]
