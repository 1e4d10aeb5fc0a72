"""Simulated SQS, DynamoDB and App Store for load: correct, and so cheap that they are not what is measured.

- ``aws``: what the JSON protocols of both services share;
- ``sqs``: SQS's protocol over ``sandbox.queues``;
- ``dynamodb``, ``expressions``: tables of one string key, and DynamoDB's protocol over them;
- ``app_store``: Apple's answers of ``sandbox.store``, encoded beforehand;
- ``load``: the messages of a benchmark, and what must become of each;
- ``control``, ``audit``: what a benchmark asks beside, and whether all became what it must;
- ``certificates``: a certificate authority to throw away, for TLS to the App Store;
- ``process``, ``__main__``: a process that serves SQS and DynamoDB, or the App Store.

What each service sees is counted, and each message's receive and delete are timed, from outside of the program under
test. Any client of AWS can speak to them (``AWS_ENDPOINT_URL``); signatures are not checked.
"""
