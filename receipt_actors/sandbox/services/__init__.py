"""Simulated SQS, DynamoDB and App Store for load: correct, and so cheap that they are not what is measured.

- ``protocol``: a hand-written HTTP/1.1 protocol on asyncio;
- ``queues``, ``sqs``, ``sqs_messages``: queues and their state, and SQS's JSON protocol over them;
- ``dynamodb``, ``partiql``: tables of one string key, and DynamoDB's protocol over them;
- ``app_store``: Apple's verifyReceipt for sample receipts, with answers made beforehand;
- ``load``: the messages of a benchmark, and what must become of each;
- ``control``, ``audit``: what a benchmark asks beside, and whether all became what it must;
- ``certificates``: a certificate authority to throw away, since Apple is spoken to over TLS;
- ``process``, ``__main__``: a process that serves SQS and DynamoDB, or the App Store.

What each service sees is counted, and each message's receive and delete are timed, from outside of the program under
test. Anybody's client of AWS can speak to them (``AWS_ENDPOINT_URL``); signatures are not checked.
"""
