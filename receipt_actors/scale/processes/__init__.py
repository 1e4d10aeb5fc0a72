"""One command in several processes: a parent that supervises workers, each of which runs one ``ReceiptSystem``.

The parent is an actor system of its own (``group`` has its tree). The actor ``Worker`` owns a worker process, a fresh
Python interpreter, as an Erlang process owns a port: one does not outlive the other. They talk over a socket pair.
"""
