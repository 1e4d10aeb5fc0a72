"""The client of the App Store Server API: against the simulated App Store, and servers that misbehave."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import AppStoreUnavailable, ConfigurationError
from receipt_actors.stores.apple.client.endpoints import endpoints_at
from receipt_actors.stores.apple.client.server_api_client import RENEWED_SECONDS, ServerApiClient, Token
from receipt_actors.stores.apple.client.verify_receipt_client import MAX_ANSWER_BYTES
from receipt_actors.stores.apple.ports import UNAUTHORIZED
from receipt_actors.transport.curl import CurlTransport
from tests.transport.places import running
from tests.transport.wire import Recorder, Reply

PRODUCTION, SANDBOX = Environment.PRODUCTION, Environment.SANDBOX
KEY = ec.generate_private_key(ec.SECP256R1())
KEY_ID, ISSUER_ID, BUNDLE_ID = "2X9R4HXF34", "57246542-96fe-1a63-e053-0824d011072a", "com.example.game"
FOUND = b'{"signedTransactionInfo": "a.b.c"}'


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> str:
    protection = serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection).decode()


class Clocks:
    def __init__(self) -> None:
        self.wall_seconds = time.time()
        self.monotonic_seconds = 0.0

    def advance(self, seconds: float) -> None:
        self.wall_seconds += seconds
        self.monotonic_seconds += seconds

    def token(self) -> Token:
        return Token(pem(KEY), KEY_ID, ISSUER_ID, BUNDLE_ID, lambda: self.wall_seconds, lambda: self.monotonic_seconds)


@contextmanager
def client_of(
    production_url: str,
    sandbox_url: str = "http://127.0.0.1:2",
    *,
    token: Token | None = None,
    connect_timeout_seconds: float = 5.0,
    read_timeout_seconds: float = 10.0,
) -> Iterator[ServerApiClient]:
    endpoints = endpoints_at(production_url, sandbox_url, connect_timeout_seconds, read_timeout_seconds)
    token = token or Clocks().token()
    with running(CurlTransport(4)) as transport:
        yield ServerApiClient(transport, endpoints, token)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with closing(Recorder()) as server:
        server.reply = Reply(body=FOUND)
        yield server


def tokens(recorder: Recorder) -> list[str]:
    return [asked.headers["authorization"].removeprefix("Bearer ") for asked in recorder.asked]


def unavailable(client: ServerApiClient) -> AppStoreUnavailable:
    with pytest.raises(AppStoreUnavailable) as raised:
        client.get_transaction_info("2000", PRODUCTION)
    return raised.value


# --- requests ---


def test_a_transaction_is_looked_up_where_it_is_asked_for(recorder: Recorder) -> None:
    with client_of(f"{recorder.url}/production/", f"{recorder.url}/sandbox") as client:
        assert client.get_transaction_info("2000", PRODUCTION) == {"signedTransactionInfo": "a.b.c"}
        assert client.get_transaction_info("2001", SANDBOX) == {"signedTransactionInfo": "a.b.c"}
    paths = [asked.target for asked in recorder.asked]
    assert paths == ["/production/inApps/v1/transactions/2000", "/sandbox/inApps/v1/transactions/2001"]


def test_each_app_of_an_account_is_asked_for_by_a_token_of_its_own(recorder: Recorder) -> None:
    clocks = Clocks()
    with client_of(recorder.url, token=clocks.token()) as client:
        for bundle_id in (None, "com.example.two", None, "com.example.two", "com.example.three"):
            client.get_transaction_info("2000", PRODUCTION, bundle_id=bundle_id)
        used = tokens(recorder)
        apps = [jwt.decode(token, KEY.public_key(), ["ES256"], audience="appstoreconnect-v1")["bid"] for token in used]
        assert apps == [BUNDLE_ID, "com.example.two", BUNDLE_ID, "com.example.two", "com.example.three"]
        assert (used[0], used[1]) == (used[2], used[3])
        recorder.reply = Reply(status=401)
        client.get_transaction_info("2000", PRODUCTION, bundle_id="com.example.two")
        recorder.reply = Reply(body=FOUND)
        client.get_transaction_info("2000", PRODUCTION)
    assert tokens(recorder)[-1] == used[0]


@pytest.mark.parametrize("wrong", ["", "a/b", "../x", "2000?x=1", "2000\r\nX: y", "9" * 65])
def test_what_is_no_id_is_not_asked_about(wrong: str, recorder: Recorder) -> None:
    with client_of(recorder.url) as client, pytest.raises(ValueError, match="transaction id"):
        client.get_transaction_info(wrong, PRODUCTION)
    assert recorder.asked == []


# --- tokens ---


def test_the_token_is_what_apple_asks_for(recorder: Recorder) -> None:
    with client_of(recorder.url) as client:
        client.get_transaction_info("2000", PRODUCTION)
    (token,) = tokens(recorder)
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "JWT", "kid": KEY_ID}
    claims = jwt.decode(token, KEY.public_key(), algorithms=["ES256"], audience="appstoreconnect-v1")
    assert (claims["iss"], claims["bid"]) == (ISSUER_ID, BUNDLE_ID)
    assert 60 < claims["exp"] - claims["iat"] <= 3600


def test_a_token_is_used_for_a_while_and_renewed_in_time(recorder: Recorder) -> None:
    clocks = Clocks()
    with client_of(recorder.url, token=clocks.token()) as client:
        for pause_seconds in (0, RENEWED_SECONDS - 1, 2, 1):
            clocks.advance(pause_seconds)
            client.get_transaction_info("2000", PRODUCTION)
            claims = jwt.decode(tokens(recorder)[-1], options={"verify_signature": False})
            assert claims["exp"] - clocks.wall_seconds > 60
    first, second, third, fourth = tokens(recorder)
    assert first == second
    assert third == fourth != first


def test_a_clock_that_was_set_spoils_one_token_only(recorder: Recorder) -> None:
    clocks = Clocks()
    clocks.wall_seconds += 24 * 60 * 60
    with client_of(recorder.url, token=clocks.token()) as client:
        client.get_transaction_info("2000", PRODUCTION)
        clocks.wall_seconds -= 24 * 60 * 60
        recorder.reply = Reply(401, b"Unauthenticated")
        assert client.get_transaction_info("2000", PRODUCTION) == {"errorCode": UNAUTHORIZED}
    first, again, anew = tokens(recorder)
    assert first == again != anew


def test_a_new_token_that_is_refused_is_not_made_again(recorder: Recorder) -> None:
    recorder.reply = Reply(401, b"Unauthenticated")
    with client_of(recorder.url) as client:
        assert client.get_transaction_info("2000", PRODUCTION) == {"errorCode": UNAUTHORIZED}
    assert len(recorder.asked) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no key",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(rsa.generate_private_key(65537, 2048)),
        pem(KEY, b"a password"),
        KEY.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode(),
        "ключ",
    ],
)
def test_a_key_that_is_none_is_a_fault_of_the_configuration(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected the text of the \.p8 file") as raised:
        Token(text, KEY_ID, ISSUER_ID, BUNDLE_ID)
    assert not text or text not in str(raised.value)


# --- answers ---


@pytest.mark.parametrize("code", [4000006, 4040010, 4040001, 4030000])
def test_an_error_that_apple_documents_is_an_answer(code: int, recorder: Recorder) -> None:
    body = {"errorCode": code, "errorMessage": "in words"}
    recorder.reply = Reply(code // 10_000, json.dumps(body).encode())
    with client_of(recorder.url) as client:
        assert client.get_transaction_info("2000", PRODUCTION) == body


@pytest.mark.parametrize(
    ("reply", "is_unknown"),
    [
        (Reply(500, b'{"errorCode": 5000000}'), False),
        (Reply(503, b"<html>busy</html>"), False),
        (Reply(429, b'{"errorCode": 4290000}'), False),
        (Reply(404, b""), True),
        (Reply(404, b"<html>not found</html>"), True),
        (Reply(404, b'{"errorCode": "4040010"}'), True),
        (Reply(404, b'{"errorCode": true}'), True),
        (Reply(400, b"[]"), True),
        (Reply(302, b"", {"Location": "http://127.0.0.1:1/"}), True),
        (Reply(204, b""), True),
        (Reply(200, b""), True),
        (Reply(200, b"<html>fine</html>"), True),
        (Reply(200, b"[1]"), True),
        (Reply(200, b'{"signedTransactionInfo": "a", "signedTransactionInfo": "b"}'), True),
        (Reply(200, b" " * (MAX_ANSWER_BYTES + 1)), True),
    ],
)
def test_whatever_may_pass_is_unavailable(reply: Reply, is_unknown: bool, recorder: Recorder) -> None:
    recorder.reply = reply
    with client_of(recorder.url) as client:
        error = unavailable(client)
    assert error.is_unknown_answer is is_unknown
    assert str(reply.status) in str(error)
    assert len(recorder.asked) == 1


def test_retry_after_is_a_time_in_milliseconds(recorder: Recorder) -> None:
    until_ms = round((time.time() + 90) * 1000)
    recorder.reply = Reply(429, b'{"errorCode": 4290000}', {"Retry-After": str(until_ms)})
    with client_of(recorder.url) as client:
        error = unavailable(client)
    assert error.retry_after_seconds is not None
    assert 80 < error.retry_after_seconds <= 90
    assert error.is_about_the_rate


def test_no_error_shows_the_token(recorder: Recorder) -> None:
    token = Clocks().token()
    text, _ = token.current()
    recorder.reply = Reply(500, f"you sent {text}".encode())
    with client_of(recorder.url, token=token) as client:
        error = str(unavailable(client))
    assert not any(part in error for part in text.split("."))
    assert "you sent" in error
