"""The reasons of verdicts, moves and left messages. Names are stable: operators search for them."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a message was answered, refused, moved or left as it was."""

    # verdict OK
    CLAIMED = "claimed"  #: the transaction was free and is this submission's now
    ALREADY_OURS = "already_ours"  #: this very submission claimed it before; the same OK again
    REFUND_REVERSED = "refund_reversed"  #: Apple took the refund of this submission's transaction back

    # verdict INVALID, transaction id known
    CLAIMED_BY_ANOTHER_USER = "claimed_by_another_user"  #: another user's submission owns the transaction
    ALREADY_ANSWERED = "already_answered"  #: every transaction of the receipt belongs to other submissions of this user
    REFUNDED = "refunded"  #: Apple cancelled it (``cancellation_date``), or told of a refund
    EXPIRED = "expired"  #: a subscription that had ended when the message was sent (or status 21006)
    FOREIGN_BUNDLE = "foreign_bundle"  #: bought in an app that is not in ``bundle_ids``
    FOREIGN_PRODUCT = "foreign_product"  #: bought a product that is not in ``product_ids``
    ENVIRONMENT_REFUSED = "environment_refused"  #: a sandbox (or production) purchase where policy allows none

    FOREIGN_ACCOUNT = "foreign_account"  #: ``appAccountToken`` names another user, or (where required) none
    FAMILY_SHARED = "family_shared"  #: bought by somebody else of the family, and policy does not count that
    UPGRADED = "upgraded"  #: a subscription that the player has left for a better one
    PRODUCT_TYPE_REFUSED = "product_type_refused"  #: a type of product that is not in ``product_types``

    # final refusal by Apple, transaction id unknown: unanswerable, or INVALID with transaction_id "" (``unidentified``)
    NOT_AUTHENTIC = "not_authentic"  #: 21003
    ACCOUNT_NOT_FOUND = "account_not_found"  #: 21010
    SANDBOX_REFUSED = "sandbox_refused"  #: 21007 or 21008, and policy does not allow the other environment
    INTERNAL_DATA_ERROR = "internal_data_error"  #: 21100-21199, not retryable
    TRANSACTION_NOT_FOUND = "transaction_not_found"  #: the Server API knows no such transaction
    NO_TRANSACTION_ID = "no_transaction_id"  #: an old receipt in which no transaction id can be read

    # a signed transaction (JWS) that Apple did not sign; likewise final, and its transaction id is nobody's word
    JWS_MALFORMED = "jws_malformed"  #: not three parts of base64url, no JSON, nested too deep, too large
    JWS_ALGORITHM = "jws_algorithm"  #: ``alg`` is none, or anything but ES256
    JWS_CHAIN_LENGTH = "jws_chain_length"  #: not exactly three certificates
    JWS_CERTIFICATE = "jws_certificate"  #: one that cannot be read, or lacks Apple's extension
    JWS_FOREIGN_ROOT = "jws_foreign_root"  #: the chain does not end in a root certificate of Apple
    JWS_EXPIRED_CERTIFICATE = "jws_expired_certificate"  #: not valid when it was signed
    JWS_SIGNED_DATE = "jws_signed_date"  #: no date of signing
    JWS_SIGNATURE = "jws_signature"  #: the signature is not that of this header and payload
    JWS_ENVIRONMENT = "jws_environment"  #: Xcode or LocalTesting, which sign nothing

    # unanswerable: moved to the dead-letter queue
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    DUPLICATE_KEY = "duplicate_key"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    BAD_RECEIPT = "bad_receipt"  #: ``receipt`` is missing, no string, empty, or has characters that no encoding uses
    BAD_USER_ID = "bad_user_id"  #: ``user_id`` is missing or no integer within +-2^63
    BAD_POST_QUEUE = "bad_post_queue"  #: ``post_queue`` is missing or no queue name
    BAD_TRANSACTION_ID = "bad_transaction_id"  #: ``transaction_id`` is there and no non-empty string
    BAD_PRODUCT_ID = "bad_product_id"  #: ``product_id`` is there and no non-empty string
    BAD_SUBMISSION_ID = "bad_submission_id"  #: attribute ``submission_id`` has no text, or over 256 characters
    POST_QUEUE_NOT_ALLOWED = "post_queue_not_allowed"  #: it, or its claim's, is not in the allow-list ``post_queues``
    POST_QUEUE_REFUSED = "post_queue_refused"  #: allowed, but it does not exist or may not be written
    RECEIPT_MALFORMED = "receipt_malformed"  #: 21002, again and again
    UNKNOWN_STATUS = "unknown_status"  #: a status or an answer that nobody has documented, again and again
    NO_BUNDLE_ID = "no_bundle_id"  #: a valid receipt that does not say of which app it is
    NO_TRANSACTION = "no_transaction"  #: a valid receipt in which nothing was bought
    TOO_MANY_TRANSACTIONS = "too_many_transactions"  #: more than 100 to claim for one message
    TRANSACTION_NOT_IN_RECEIPT = "transaction_not_in_receipt"
    PRODUCT_NOT_IN_RECEIPT = "product_not_in_receipt"

    # neither answered nor moved: left to be redelivered
    BODY_MD5_MISMATCH = "body_md5_mismatch"  #: the copy that arrived is corrupt
    GAVE_UP_FOR_NOW = "gave_up_for_now"  #: a service kept failing; handed back with a growing visibility timeout
    MISCONFIGURED = "misconfigured"  #: 21000 or 21004: our own request or secret is wrong; never a verdict
    CRASHED = "crashed"  #: a bug: the validator crashed; handed back with a growing visibility timeout
    DRAINED = "drained"  #: handed back because the process stops, or stands by; at once, unless it was received often
    POST_QUEUE_UNAVAILABLE = "post_queue_unavailable"  #: its post queue is down, and as many as may wait for it do
    GROUP_HANDED_BACK = "group_handed_back"  #: of a FIFO queue: one before it in its group will come again, so must it
    NO_DEAD_LETTER_QUEUE = "no_dead_letter_queue"  #: unanswerable, and there is nowhere to move it
