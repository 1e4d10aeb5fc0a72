"""The runtime's own words in the log. An application's log handler that raises must not end an actor, or all."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

logger = logging.getLogger("receipt_actors.otp")


def log(level: int, message: str, *args: object, **kwargs: Any) -> None:
    """Log as ``Logger.log`` does; what a filter or a handler raises is printed to stderr and goes no further."""
    try:
        logger.log(level, message, *args, **kwargs)
    except BaseException:
        if logging.raiseExceptions and sys.stderr is not None:
            traceback.print_exc()
