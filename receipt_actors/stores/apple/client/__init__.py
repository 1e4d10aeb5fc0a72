"""Apple's verifyReceipt over HTTP: two adapters behind the ports ``AppStore`` and ``AppStoreTransfers``.

``requests_client``  ``VerifyReceiptClient``, on requests: a thread waits for each answer
``curl_client``      ``CurlVerifyReceiptClient``, on libcurl's multi interface: one thread for thousands of answers;
                     needs the extra ``fast`` (pycurl)
``endpoints``        what both ask, and where
``answers``          what both make of an answer

Both promise the same: every failure is an ``AppStoreUnavailable`` whose reason names the cause and quotes at
most ``MAX_EXCERPT_CHARACTERS`` of an answer, never the receipt or the shared secret; no call outlasts its time-outs,
however slowly a server drips; no answer larger than ``MAX_ANSWER_BYTES`` is held, nor more of all large ones together
than ``answer_room`` has room for; TLS 1.2 or newer, always verified.

- They may be used from any number of threads.
- Redirects are not followed: a POST that carries a secret goes where the settings say, and nowhere else.
- No cookie is kept.
- ``exclude-old-transactions`` is not sent, so that Apple's answer holds all that was bought: leaving renewals out would
  save bytes, and could hide the very transaction that a player asks about.
- Proxies (``HTTPS_PROXY``, ``NO_PROXY``) and a private CA bundle (``REQUESTS_CA_BUNDLE``) are taken from the process
  environment once, when the client is made; what can't be used of them is a ``ConfigurationError`` then.

What verifies Apple's signatures is here as well, and asks nobody: ``signed_data``.
"""
