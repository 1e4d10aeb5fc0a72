"""A simulated App Store, sample receipts for it, and a load that is checked answer by answer.

- ``receipts``: mint sample receipts of every kind, and read them back;
- ``app_store``: an HTTP server that judges them as Apple's verifyReceipt would, and fails on demand;
- ``load``: a scenario of several hundred messages with what must become of each, and the checker.

For tests, staging and the demo. Nothing here is used when real receipts are validated.
"""
