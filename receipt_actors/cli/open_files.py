"""The limit on open files: raised to what the settings need, or said to be too low, before anything starts."""

from __future__ import annotations

import resource

from receipt_actors.errors import ConfigurationError
from receipt_actors.settings import Settings
from receipt_actors.web.limits import MAX_CONNECTIONS

SPARE_FILES = 64  #: standard streams, the database, libraries, and what else a process opens


def files_needed(settings: Settings) -> int:
    """Count the files that may be open at once: nearly all of them are connections that are kept alive."""
    environments = 1 if settings.uses_curl else 2  # production and sandbox: pools of their own with requests
    app_store = environments * settings.effective_app_store_concurrency
    batchers = settings.batchers * settings.batch_requests
    admin = 0 if settings.admin is None else MAX_CONNECTIONS
    return SPARE_FILES + admin + app_store + settings.ledger_concurrency + 2 * max(batchers, settings.all_consumers)


def raise_limit(settings: Settings) -> None:
    """Raise the soft limit of open files to what the settings need.

    Raises:
        ConfigurationError: the hard limit is lower than that.
    """
    needed = files_needed(settings)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _allows(soft, needed):
        return
    if not _allows(hard, needed):
        raise ConfigurationError(
            [
                f"open files: these settings need {needed}, the hard limit is {hard}; raise it (ulimit -Hn {needed}), "
                "or lower app_store_concurrency, ledger_concurrency or consumers"
            ]
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _allows(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed
