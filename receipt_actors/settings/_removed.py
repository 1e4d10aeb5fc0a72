"""Settings that were removed, and what does their work now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: By name, what to do instead.
REMOVED: Final[Mapping[str, str]] = {
    "app_store_client": "transport says how Apple is asked: auto (libcurl where it can) or threads (was: requests)",
    "aws_client": "transport says how AWS is called, and Apple asked: auto or threads",
}
