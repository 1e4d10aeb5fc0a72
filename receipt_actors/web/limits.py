"""How much a port takes on: it serves a few clients, however many connect."""

from __future__ import annotations

MAX_CONNECTIONS = 64  #: open at once; a further one takes the place of the slowest
LISTEN_BACKLOG = 256  #: connections that may wait to be accepted
ACCEPTED_AT_ONCE = 8  #: taken from there in one go; so many more are open for a moment before they are closed
MAX_HEAD_BYTES = 16 * 1024
MAX_UNREAD_BYTES = 64 * 1024  #: of a refused body, still read after the answer, so that the client can read that

REQUEST_SECONDS = 10.0  #: for a request to arrive completely
STALL_SECONDS = 20.0  #: in which a client has to read something of what was sent to it
CUT_OFF_SECONDS = 0.3  #: for connections that are cut off to be gone
