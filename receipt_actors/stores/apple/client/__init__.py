"""Apple's verifyReceipt and App Store Server API over HTTP, behind the ports of ``stores.apple``.

``verify_receipt_client``  verifyReceipt
``server_api_client``      the App Store Server API
``endpoints``              where both are asked, by way of which proxy, and who may vouch for the server
``answers``                what both make of an answer
``receipt_ids``            the transaction id in an app receipt

Each client runs on either ``transport``. Every failure is an ``AppStoreUnavailable`` whose reason names the cause and
quotes at most ``MAX_EXCERPT_CHARACTERS`` of an answer, never the receipt, the shared secret or a token.

- Redirects are not followed: a POST that carries a secret goes where the settings say, and nowhere else.
- No cookie is kept.
- ``exclude-old-transactions`` is not sent, so that Apple's answer holds all that was bought: leaving renewals out would
  save bytes, and could hide the very transaction that a player asks about.
- Proxies (``HTTPS_PROXY``, ``NO_PROXY``) and a private CA bundle (``REQUESTS_CA_BUNDLE``) are taken from the process
  environment once, when the client is made; what can't be used of them is a ``ConfigurationError`` then.
"""
