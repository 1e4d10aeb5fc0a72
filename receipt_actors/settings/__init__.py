"""Every setting once: its name, type, unit, default and meaning; and where its value comes from.

A setting named ``max_in_flight`` is the key ``max_in_flight`` of a TOML file, the environment variable
``RECEIPT_ACTORS_MAX_IN_FLIGHT`` and the flag ``--max-in-flight``; a flag beats a variable, a variable beats the file.
The command line's flags and the settings reference of the manual are both generated from ``SETTINGS``.

``Settings`` has them all. Whoever needs a part takes a smaller model, such as ``QueueSettings``, and demands no more.
Each theme has a module: ``_backend`` (queues and claims), ``_work`` (how much at once, how long), ``_operations`` (what
those who run the system see of it), and ``stores.apple.settings`` (which purchases count, and how Apple vouches for
them). What a setting is says ``settings_model``.

Embedding applications build ``Settings(bundle_ids=("com.example.game",), ...)`` themselves: the same checks, and the
environment is not read. Either way, settings that cannot work raise one ``ConfigurationError`` that lists every fault.

pydantic does the validation; pydantic-settings is left out on purpose: it cannot say which file, variable or flag a
bad value came from, overlooks misspelt variables, reads the environment behind an embedder's back, and doubles the
import time.
"""

from receipt_actors.settings._all import SETTINGS, NotificationSettings, RoleSettings, Settings, node_name
from receipt_actors.settings._backend import BackendSettings, LedgerSettings, QueueSettings
from receipt_actors.settings._loading import CONFIG_VARIABLE, load_settings, load_some_settings, load_source_settings
from receipt_actors.settings._operations import LogSettings, OperationsSettings
from receipt_actors.settings._work import uses_curl
from receipt_actors.settings_model.fields import Setting
from receipt_actors.settings_model.model import SomeSettings
from receipt_actors.settings_model.sources import SOURCE_SETTINGS
from receipt_actors.stores.apple.settings import AppStoreSettings, SignatureSettings

__all__ = [
    "CONFIG_VARIABLE",
    "SETTINGS",
    "SOURCE_SETTINGS",
    "AppStoreSettings",
    "BackendSettings",
    "LedgerSettings",
    "LogSettings",
    "NotificationSettings",
    "OperationsSettings",
    "QueueSettings",
    "RoleSettings",
    "Setting",
    "Settings",
    "SignatureSettings",
    "SomeSettings",
    "load_settings",
    "load_some_settings",
    "load_source_settings",
    "node_name",
    "uses_curl",
]
