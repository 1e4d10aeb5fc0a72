"""How much it takes to carry a load, and what limits it first: the formula behind ``receipt-actors plan``. Pure.

With *u* for the utilisation that is aimed at, and *r* for the part of the peak rate that one process has:

processes
    The least number at which none has more than *u* of what it carries at most: of the rate at which its core was
    measured to be used up (``1 / CPU of a receipt``), of the requests to Apple that it may have under way
    (``r x Apple's time``), of the ``MAX_IN_FLIGHT`` messages that it carries (``r x time in house``).
tasks
    One process for each vCPU, and spare tasks, so that the loss of one is no loss of answers in time. Settings are
    those with which the others carry the load alone.
in flight (Little's law)
    ``rate x time in house``, the time being Apple's, the ledger's, a send's and a delete's, and what entries wait.
entries a request
    A batcher sends what is no full batch once every ``pace``, at most, and only while one of its ``slots`` is free; so
    ``entries = max(1, r x pace, r x seconds / slots)``, at most what the service allows. Requests a second are
    ``r / entries``: the more a process has to do, the fuller its batches, the cheaper a receipt.
CPU of a receipt
    ``base + requests for a receipt x cost of a request``, where the base is what a receipt was measured to cost without
    its requests to AWS. So a core that is busy says little of how much more it could do: with half the load, batches
    are half as full, and it is busy for more than half of the time. Scale by the backlog.
roles
    Each task renews its lease some times while it lasts, by a read and a write of one item that grows with the tasks.
what limits first
    For each limit of ``service_limits`` the rate at which it is reached, all else being as planned; the lowest first.
    Of what is in flight and of connections only *u* of the limit counts as there, for both come in bursts. FIFO queues
    without high throughput take 300 requests of a kind each second, full or not: few big tasks get further than many
    small ones.
"""

from receipt_actors.domain.capacity._planning import plan_capacity
from receipt_actors.domain.capacity._process import MAX_IN_FLIGHT, entries_per_request
from receipt_actors.domain.capacity._roles import roles_taken
from receipt_actors.domain.capacity._values import (
    MAX_ENTRIES,
    Call,
    Capacity,
    Client,
    Cost,
    LimitReached,
    Load,
    Requests,
    RolesTaken,
    Setup,
    TaskSettings,
)

__all__ = [
    "MAX_ENTRIES",
    "MAX_IN_FLIGHT",
    "Call",
    "Capacity",
    "Client",
    "Cost",
    "LimitReached",
    "Load",
    "Requests",
    "RolesTaken",
    "Setup",
    "TaskSettings",
    "entries_per_request",
    "plan_capacity",
    "roles_taken",
]
