"""The adapters behind the ports: ``aws`` (SQS, DynamoDB), ``app_store`` (Apple), ``embedded`` (SQLite).

They block, are called from I/O threads, several at once, and raise only what ``errors`` lists. Nothing here retries or
decides: the gateways do. Importing this package imports none of them: an embedded installation never loads boto3.
"""
