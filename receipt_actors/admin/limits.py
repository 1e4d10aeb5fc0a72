"""How much the admin port takes on, beside what ``web.limits`` says of its connections."""

from __future__ import annotations

MAX_PAGES = 16  #: pages that are kept up to date at once
MAX_TRACES = 4  #: traces that run at once
MAX_CALLS = 16  #: calls to the system under way, each on a thread
REQUESTS_PER_SECOND = 100  #: that are served for long, of all connections together; more wait
BURST_REQUESTS = 200  #: that are served at once after a rest
LARGE_PATHS = frozenset({"/api/overview", "/api/history", "/metrics"})  #: whose answers take milliseconds to write
LARGE_WEIGHT = 3  #: requests that one of them counts as
LONGEST_TURN_SECONDS = 2.0  #: that a request waits
MAX_BODY_BYTES = 16 * 1024

ANSWER_SECONDS = 8.0  #: for the system to answer
STOP_SECONDS = 0.3  #: for answers under way, when the server stops
JOIN_SECONDS = 0.1  #: for each thread to end

LOOK_SECONDS = 1.0  #: between two looks at the system while a page is open
SAMPLE_LOOKS = 2  #: looks from one sample of the history to the next; without a page there is no look in between
FRESH_SECONDS = 0.5  #: a look that is not older is shared
HISTORY_SAMPLES = 300  #: ten minutes

MAX_TRACE_QUEUE = 200  #: events of a trace that its client has not taken yet; more are lost, and counted
KEEP_ALIVE_SECONDS = 10.0  #: after which a stream without events says that it is still there
