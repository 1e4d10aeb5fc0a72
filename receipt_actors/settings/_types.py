"""The types of the settings: each refuses what could not work, and knows in words what it expects.

A refusal that needs words of its own is a ``ValueError`` that says what was expected and what to do; ``_faults`` adds
where the value came from, and the words of ``Expected`` to all others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from receipt_actors.domain.addresses import Address, is_loopback
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.receipts import ProductType
from receipt_actors.domain.values import is_queue_name

_BUNDLE_ID = re.compile(r"[A-Za-z0-9.-]+")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")
_EMF_NAMESPACE = re.compile(r"(?!AWS/)[A-Za-z0-9_./#-][A-Za-z0-9_./#:-]{0,254}")
MAX_EMF_DIMENSIONS = 29  #: CloudWatch takes 30, and SourceQueue is one
#: What CloudWatch takes for a dimension's name and value; a name may not begin with a colon.
_EMF_DIMENSION = re.compile(r"[A-Za-z0-9_./#-][A-Za-z0-9_./#:-]{0,249}=[!-+\--~][ -+\--~]{0,250}")
ANY = "*"  #: alone in ``bundle_ids`` or ``product_ids``: accept any


@dataclass(frozen=True, slots=True)
class Expected:
    """Annotates a type with what a value of it looks like, in words."""

    text: str


def _split_commas(value: object) -> object:
    """Turn ``"a, b"`` into ``["a", "b"]``; what is a list already stays as it is."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _plain_words(name: str) -> str:
    return re.sub("[ _-]+", "-", name).casefold()


def _some_and_unique(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise PydanticCustomError("empty", "nothing listed")
    return tuple(dict.fromkeys(values))


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:  # ~someone, who has no home here
        raise ValueError(f"expected a path; {error}") from None


def _queue_name(name: str) -> str:
    """Accept the names of SQS's queues: 1 to 80 letters, digits, ``-`` and ``_``, ``.fifo`` at the end of some."""
    if "://" in name or name.startswith("arn:"):
        kind, last_part = ("an ARN", name.rpartition(":")[2]) if name.startswith("arn:") else ("a URL", Path(name).name)
        raise ValueError(f"expected a name, not {kind}; try {last_part!r}")
    if not is_queue_name(name):
        raise ValueError("expected 1 to 80 letters, digits, - and _, with .fifo at the end of a FIFO queue's name")
    return name


def _any_or_ids(ids: tuple[str, ...]) -> tuple[str, ...]:
    if ANY in "".join(ids) and ids != (ANY,):
        raise ValueError(f"expected ids, or {ANY} alone to accept any; there are no other wildcards")
    return ids


def _bundle_ids(ids: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what no app can have: every receipt would be refused as another app's."""
    for bundle_id in ids:
        if bundle_id != ANY and not _BUNDLE_ID.fullmatch(bundle_id):
            raise ValueError(
                f"expected bundle ids of letters, digits, - and . only, as Apple has them; {bundle_id!r} is none"
            )
    return ids


_PRODUCT_TYPES = {_plain_words(each): str(each) for each in ProductType}


def _any_or_product_types(names: tuple[str, ...]) -> tuple[str, ...]:
    """Accept Apple's names, however they are written: ``Non-Consumable``, ``non consumable``."""
    if names == (ANY,):
        return names
    known = tuple(_PRODUCT_TYPES[_plain_words(name)] for name in names if _plain_words(name) in _PRODUCT_TYPES)
    if len(known) < len(names):
        raise PydanticCustomError("product_type", "no product type")
    return tuple(dict.fromkeys(known))


def _app_store_url(url: str) -> str:
    """Accept https, and http to this machine only: receipts and the shared secret must not travel in the clear."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # reading the port checks it
    except ValueError as error:
        raise ValueError(f"expected an https URL; {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("expected an https URL with a host, such as https://buy.itunes.apple.com/verifyReceipt")
    if parts.username is not None:
        raise ValueError("expected a URL without a user name or password")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("expected https: plain http, which shows receipts to the network, is for 127.0.0.1 only")
    return url


def _admin_address(text: str) -> str:
    try:
        return str(Address.parse(text))
    except ValueError as error:
        raise ValueError(f"expected HOST:PORT, such as 127.0.0.1:9464; {error}") from None


def _admin_token(token: SecretStr | None) -> SecretStr | None:
    """Accept what a header can carry, and nobody can guess."""
    if token is not None and not _TOKEN.fullmatch(token.get_secret_value()):
        raise ValueError(
            "expected 16 or more letters, digits and characters of -._~+/=, such as `openssl rand -hex 16` prints"
        )
    return token


def _count_or_auto(value: object) -> object:
    if value == "auto":
        return value
    try:
        count = int(value) if isinstance(value, str | int) else 0
    except ValueError:
        count = 0
    if count < 1:
        raise PydanticCustomError("count", "no count")
    return count


def _emf_namespace(name: str) -> str:
    if not _EMF_NAMESPACE.fullmatch(name):
        raise PydanticCustomError("emf_namespace", "no namespace")
    return name


def _emf_dimensions(pairs: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if pairs is None:
        return None
    names = [pair.partition("=")[0] for pair in pairs]
    if (
        len(pairs) > MAX_EMF_DIMENSIONS
        or not all(map(_EMF_DIMENSION.fullmatch, pairs))
        or len({*names, "SourceQueue"}) < len(names) + 1
    ):
        raise PydanticCustomError("emf_dimensions", "no dimensions")
    return pairs


_A_QUEUE = Expected("the name of an SQS queue")
QueueName = Annotated[str, AfterValidator(_queue_name), _A_QUEUE]
OptionalQueueName = Annotated[QueueName | None, _A_QUEUE]
QueueNames = Annotated[
    tuple[QueueName, ...],
    BeforeValidator(_split_commas),
    AfterValidator(_some_and_unique),
    Expected("names of SQS queues, comma separated"),
]
Environments = Annotated[
    tuple[Environment, ...],
    BeforeValidator(_split_commas),
    AfterValidator(_some_and_unique),
    Expected("Production, Sandbox or both, comma separated"),
]
Ids = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(_split_commas),
    AfterValidator(_some_and_unique),
    AfterValidator(_any_or_ids),
]
BundleIds = Annotated[Ids, AfterValidator(_bundle_ids)]
ProductTypes = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(_split_commas),
    AfterValidator(_some_and_unique),
    AfterValidator(_any_or_product_types),
    Expected(f"{', '.join(ProductType)}, comma separated, or {ANY} to accept any"),
]
TableName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_.-]{3,255}$"),
    Expected("the name of a DynamoDB table: 3 to 255 letters, digits, _, - and ."),
]
Url = Annotated[str, AfterValidator(_app_store_url), Expected("an https URL")]
Processes = Annotated[
    int | Literal["auto"], BeforeValidator(_count_or_auto), Expected("an integer, 1 or more, or auto")
]
AdminAddress = Annotated[
    Annotated[str, AfterValidator(_admin_address)] | None, Expected("HOST:PORT, such as 127.0.0.1:9464")
]
AdminToken = Annotated[
    SecretStr | None, AfterValidator(_admin_token), Expected("16 or more letters, digits and -._~+/=")
]
FilePath = Annotated[Path, AfterValidator(_expand_home)]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]
EmfNamespace = Annotated[
    str,
    AfterValidator(_emf_namespace),
    Expected("the name of a CloudWatch namespace, not AWS's own: up to 255 letters, digits and . - _ / # :"),
]
EmfDimensions = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(_split_commas),
    AfterValidator(_emf_dimensions),
    Expected("NAME=VALUE, comma separated, such as Stage=production; at most 29, without SourceQueue"),
]
