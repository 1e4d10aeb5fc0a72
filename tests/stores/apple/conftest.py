"""Fixtures that these tests share with those of the pipeline and of the backends."""

from tests.backends.conftest import simulated_server
from tests.pipeline.conftest import stage, tree

__all__ = ["simulated_server", "stage", "tree"]
