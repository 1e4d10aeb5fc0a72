"""``python -m receipt_actors`` is the command ``receipt-actors``."""

from __future__ import annotations

import sys

from receipt_actors.cli import main

if __name__ == "__main__":
    sys.exit(main())
