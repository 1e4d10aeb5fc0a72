"""The states that a process goes through, one way only; ``_process`` says what happens in each."""

from __future__ import annotations

import enum
from typing import Final


class State(enum.Enum):
    """Where a process is in its life."""

    STARTING = "starting"  #: ``init`` runs
    RUNNING = "running"  #: it handles messages
    TERMINATING = "terminating"  #: ``terminate`` runs
    EXITED = "exited"


# Each is looked at several times a message, and a global is found faster than an attribute of a class.
STARTING: Final = State.STARTING
RUNNING: Final = State.RUNNING
TERMINATING: Final = State.TERMINATING
EXITED: Final = State.EXITED
