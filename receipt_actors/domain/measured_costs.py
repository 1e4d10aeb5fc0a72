"""What a receipt has been measured to cost: the figures that ``receipt-actors plan`` uses where it is given no report.

They are those of one machine, named in ``MACHINE``; ``receipt-actors bench`` measures another, and ``plan --bench``
takes its report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from receipt_actors.domain.capacity import Call, Cost

MACHINE = "a virtual machine of 2 cores, CPython 3.11, services emulated on it, messages with 5 KB receipts"

#: CPU of one more request where batches are not full, with all that wakes up for it. The request alone takes a quarter
#: of that; but at 1,000 receipts a second in two processes a receipt took 1.9 requests and 1.08 ms, at full load 1.4
#: requests and 0.47 ms.
CPU_SECONDS_OF_CALL: Mapping[Call, float] = dict.fromkeys((Call.RECEIVE, Call.SEND, Call.DELETE, Call.CLAIM), 0.9e-3)

_FULL_BATCHES: Mapping[Call, float] = {Call.RECEIVE: 0.1, Call.SEND: 0.1, Call.DELETE: 0.1, Call.CLAIM: 0.04}

CURL = Cost(
    machine=MACHINE,
    cpu_seconds=0.47e-3,
    requests=_FULL_BATCHES,
    cpu_seconds_of_call=CPU_SECONDS_OF_CALL,
    process_bytes=96_000_000,
    in_flight_bytes=125_000,  # most of it a connection to Apple, with TLS
    client="curl",
    max_concurrency=5_000,
)
REQUESTS = replace(CURL, cpu_seconds=1.08e-3, in_flight_bytes=12_288, client="requests", max_concurrency=200)
