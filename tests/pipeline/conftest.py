"""Fixtures of the actors' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pipeline.stand_ins import Stage
from tests.pipeline.trees import Tree, tree_of


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture
def tree() -> Iterator[Tree]:
    yield from tree_of()
