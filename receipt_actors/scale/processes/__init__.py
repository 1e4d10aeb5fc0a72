"""One command in several processes: a parent that supervises workers, each of which runs one ``ReceiptSystem``.

The parent is an actor system of its own (``group`` has its tree). A worker is a fresh Python interpreter that the actor
``Worker`` owns as an Erlang process owns a port: one does not outlive the other. They talk over a socket pair
(``channel``), in the messages of ``messages``. What a worker process does is the affair of whoever starts the group.
"""
