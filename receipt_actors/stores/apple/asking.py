"""The ways to have Apple asked about an app receipt; the App Store gateway is given one for each source queue.

verifyReceipt gets the receipt itself. The App Store Server API is asked for a transaction by its id, which is read from
the receipt before; where that is known, the answer is signed, and has to be verified.

A way keeps nothing: it says what is asked, where first, how, and what the answer means. How many are asked at once, how
often, again, and for whom, is the gateway's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import Environment
from receipt_actors.stores.apple import server_api as server_api_answers
from receipt_actors.stores.apple import verify_receipt as verify_receipt_answers
from receipt_actors.stores.apple.ports import AppStore, AppStoreTransfers, ServerApi, ServerApiTransfers
from receipt_actors.stores.apple.server_api import Answer

Done: TypeAlias = Callable[[Mapping[str, object] | Exception], object]


@dataclass(frozen=True, slots=True)
class Way:
    """How Apple is asked; see the module."""

    ask: Callable[[str, Environment], Mapping[str, object]]  #: blocks, and raises ``AppStoreUnavailable``
    interpret: Callable[[Mapping[str, object], Environment], Answer]  #: total
    first: Environment  #: who is asked first
    what_to_check: str  #: what an operator looks at when Apple refuses our requests
    environments: frozenset[Environment]  #: where policy lets a redirect lead, beside production
    begin: Callable[[str, Environment, Done], object] | None = None  #: the same as ``ask``, without a thread that waits
    question_of: Callable[[str], str | None] | None = None  #: works out what to ask; None: the receipt itself is asked


def by_verify_receipt(
    app_store: AppStore,
    policy: Policy,
    *,
    shared_secret: str | None = None,
    of_source: str = "",
) -> Way:
    """Ask verifyReceipt: production first, always, says Apple; without a thread that waits, where the client can.

    ``shared_secret`` is the one of this source's app, where that is not the client's; ``of_source`` is where it stands.
    """
    own: dict[str, Any] = {} if shared_secret is None else {"shared_secret": shared_secret}
    return Way(
        ask=partial(app_store.verify_receipt, **own),
        interpret=verify_receipt_answers.interpret,
        first=Environment.PRODUCTION,
        what_to_check=f"{of_source}shared_secret and the URLs",
        environments=policy.environments,
        begin=partial(app_store.begin, **own) if isinstance(app_store, AppStoreTransfers) else None,
    )


def by_server_api(server_api: ServerApi, policy: Policy, *, bundle_id: str | None = None, of_source: str = "") -> Way:
    """Ask the App Store Server API: production first, unless nothing of it counts here.

    An app that is not in the store yet may not ask production, and Apple answers 401 if it does. ``bundle_id`` is the
    app that is asked for, where that is not the client's; ``of_source`` is where it stands.
    """
    is_production = Environment.PRODUCTION in policy.environments
    own: dict[str, Any] = {} if bundle_id is None else {"bundle_id": bundle_id}
    return Way(
        ask=partial(server_api.get_transaction_info, **own),
        interpret=server_api_answers.interpret,
        first=Environment.PRODUCTION if is_production else Environment.SANDBOX,
        what_to_check=f"server_api_key, its id, its issuer and {of_source}bundle_ids",
        environments=policy.environments,
        begin=partial(server_api.begin, **own) if isinstance(server_api, ServerApiTransfers) else None,
        question_of=server_api.transaction_id_of,
    )
