"""Apple's verifyReceipt and App Store Server API over HTTP, behind the ports of ``stores.apple``.

``verify_receipt_client``  verifyReceipt, and what both make of an answer
``server_api_client``      the App Store Server API
``endpoints``              the URLs, proxies and authorities of both
``receipt_ids``            the transaction id in an app receipt

Each client runs on either ``transport``. Every failure is an ``AppStoreUnavailable`` whose reason names the cause and
quotes at most ``MAX_EXCERPT_CHARACTERS`` of an answer, never the receipt, the shared secret or a token.

``exclude-old-transactions`` is not sent to verifyReceipt: to leave renewals out could hide the very transaction that a
player asks about.
"""
