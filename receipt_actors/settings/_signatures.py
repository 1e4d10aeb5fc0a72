"""What it takes to verify what Apple signs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from receipt_actors.settings._base import SomeSettings
from receipt_actors.settings._types import Expected, FilePath

INSTALL_STOREKIT2 = "pip install 'receipt-actors[storekit2]'"


def verifies_signatures() -> bool:
    """Tell whether what Apple signs can be verified here. Imports nothing."""
    return find_spec("appstoreserverlibrary") is not None


class SignatureSettings(SomeSettings, frozen=True):
    """What it takes to verify what Apple signs."""

    apple_roots: Annotated[FilePath | None, Expected("a folder of certificates (.cer, .der, .pem)")] = Field(
        default=None,
        description="Folder of the root certificates that signed transactions and notifications have to lead to. Left "
        "out: Apple's own, which are built in.",
    )
    signature_processes: int = Field(
        default=1,
        ge=0,
        le=64,
        description="Processes that verify signatures beside each one that works; they begin with the first signed "
        "transaction. 0, and without Linux: threads of the working process do it.",
    )
    app_apple_id: Annotated[int | None, Expected("an integer, 1 or more")] = Field(
        default=None,
        ge=1,
        description="The app's Apple ID in App Store Connect; where it is given, a notification has to name it.",
    )

    @field_validator("apple_roots")
    @classmethod
    def _roots_are_there(cls, folder: Path | None) -> Path | None:
        if folder is not None and not folder.is_dir():
            raise ValueError("expected a folder that exists; leave it out for Apple's own certificates")
        return folder
