"""Fixtures that these tests share with those of the pipeline."""

from tests.pipeline.conftest import stage, tree

__all__ = ["stage", "tree"]
