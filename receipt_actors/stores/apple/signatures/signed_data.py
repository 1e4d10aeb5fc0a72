"""Opens what verifies Apple's signatures: the ports ``SignedData`` and ``SignedDataCalls``.

``apple_library``          ``AppleSignedData``, on Apple's ``app-store-server-library``
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
from pathlib import Path
from typing import TYPE_CHECKING

from receipt_actors.errors import ConfigurationError
from receipt_actors.stores.apple.signatures.roots import read_roots

if TYPE_CHECKING:
    from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count, and for which apps."""

    roots: Sequence[bytes]  #: certificates, DER
    app_apple_ids: Collection[int] = ()  #: to which a notification of production must belong; none: to any


def read_trust(directory: Path | None, app_apple_ids: Collection[int] = ()) -> Trust:
    """Read the root certificates of a directory, or else Apple's own. Does not import Apple's library.

    Raises:
        ConfigurationError: the directory has not what it should have.
    """
    return Trust(read_roots(directory), tuple(app_apple_ids))


def open_signed_data(trust: Trust) -> AppleSignedData:
    """Open what verifies in this process, on the thread that calls.

    Raises:
        ConfigurationError: Apple's library can't be imported, or is of another version than it should be.
    """
    try:
        from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData
    except ImportError as error:  # where no wheel of the cryptography under it fits the machine
        wanted = "expected app-store-server-library from 3.1, below 4"
        raise ConfigurationError([f"signed transactions: found that {error}, {wanted}"]) from error
    return AppleSignedData(trust.roots, trust.app_apple_ids)
