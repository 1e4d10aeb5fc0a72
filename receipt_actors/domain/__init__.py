"""What a receipt is worth: pure decisions, no thread, no clock, no network.

``messages`` what comes in, ``app_store`` what Apple's answer means, ``policy`` what this installation accepts,
``verdicts`` which transactions to claim and what to answer, ``ledger`` who owns a transaction, ``batching`` and
``breaker`` the rules of sending, ``ports`` what the actors need of the outside world, ``reasons`` every reason by name.
"""
