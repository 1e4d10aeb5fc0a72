"""A simulated App Store, sample receipts for it, and a load that is checked answer by answer.

- ``receipts``, ``signed_transactions``: mint sample receipts of every kind, and read them back;
- ``store``: what the App Store knows and answers, without a network;
- ``app_store``: that store over HTTP, with latencies, refunds, notifications, and failures on demand;
- ``queues``: SQS's queues in memory;
- ``http_server``: what every simulation is served by;
- ``load``, ``check``: a scenario of several hundred messages with what must become of each, and the checker;
- ``services``: SQS, DynamoDB and the App Store as processes, so cheap that they are not what is measured;
- ``bench``: measures a program against them.

For tests, staging and the demo. Nothing here is used when real receipts are validated.
"""
