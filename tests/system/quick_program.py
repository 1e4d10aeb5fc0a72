"""The program, told of metrics and outages after a second: a test has no minute."""

from __future__ import annotations

import sys
from functools import partial

from receipt_actors.cli import main
from receipt_actors.telemetry import alerts, embedded_metrics

if __name__ == "__main__":
    vars(embedded_metrics)["MetricsLog"] = partial(embedded_metrics.MetricsLog, interval_seconds=1.0)
    vars(alerts)["OUTAGE_SECONDS"] = 1.0
    sys.exit(main())
