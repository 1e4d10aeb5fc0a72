"""Apple's verifyReceipt and App Store Server API over HTTP.

Every failure is an ``AppStoreUnavailable``, which never quotes the receipt, the shared secret or a token.
"""
