"""What the machines share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_crash_reports() -> Iterator[None]:
    """Crashes are the point here; thousands of reports of them are not."""
    logger = logging.getLogger("receipt_actors.otp")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
