"""How long a test waits for what happens when all is well."""

from __future__ import annotations

PATIENCE_SECONDS = 300.0  #: for what must happen in the end; a machine at load 20 gives a test a tenth of its time
