"""What a receipt is worth: pure decisions, no thread, no clock, no network.

``messages`` what comes in and goes out, ``receipts`` what Apple says, ``policy`` what this installation accepts,
``verdicts`` which transactions to claim and what to answer, ``ledger`` who owns a transaction, ``admission`` how much
may come in, ``sending`` the rules of requests, ``ports`` what the actors need of the outside world, ``reasons`` every
reason by name.
"""
