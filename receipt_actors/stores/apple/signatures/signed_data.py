"""Opens what verifies Apple's signatures: the ports ``SignedData`` and ``SignedDataCalls``.

``apple_library``          ``AppleSignedData``, on Apple's ``app-store-server-library`` (the extra ``storekit2``)
``chains``                 its chains of certificates, which are remembered
``roots``                  the root certificates: of a directory, or Apple's own in ``apple_roots``
``signed_data_processes``  ``SignedDataProcesses``: the same in processes beside this one
``signed_data_worker``     what those run

What is trusted: a signature of Apple's (ES256) by a leaf that is marked for the App Store, issued by an intermediate
that is marked likewise, issued by a trusted root; all three valid when it was signed. Whether Apple has revoked one of
them since is not asked: nothing here needs the network.

Importing this does not import Apple's library: who has no signed transactions does without it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from receipt_actors.errors import ConfigurationError
from receipt_actors.stores.apple.signatures.roots import read_roots

if TYPE_CHECKING:
    from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData

INSTALL = "pip install 'receipt-actors[storekit2]'"


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count, and for which apps."""

    roots: Sequence[bytes]  #: certificates, DER
    app_apple_ids: Collection[int] = ()  #: to which a notification of production must belong; none: to any


def read_trust(directory: Path | None, app_apple_ids: Collection[int] = ()) -> Trust:
    """Read the root certificates of a directory, or else Apple's own. Does not import Apple's library.

    Raises:
        ConfigurationError: Apple's library is not installed, or the directory has not what it should have.
    """
    if find_spec("appstoreserverlibrary") is None:
        raise _unusable("app-store-server-library is not installed")
    return Trust(read_roots(directory), tuple(app_apple_ids))


def open_signed_data(trust: Trust) -> AppleSignedData:
    """Open what verifies in this process, on the thread that calls.

    Raises:
        ConfigurationError: Apple's library is not installed, or another version than it should be.
    """
    try:
        from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData
    except ImportError as error:
        raise _unusable(str(error)) from error
    return AppleSignedData(trust.roots, trust.app_apple_ids)


def _unusable(fault: str) -> ConfigurationError:
    return ConfigurationError(
        [f"signed transactions: found that {fault}, expected app-store-server-library from 3.1, below 4; {INSTALL}"]
    )
