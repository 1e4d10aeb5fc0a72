"""Further source queues: tables ``[sources.QUEUE]`` beside the source queue that all other settings speak of.

A table has what may differ from source to source (``SOURCE_SETTINGS``). What it leaves out it has from the top level,
except for its dead-letter queue, which is its own. So the settings of a source are settings like any others, of the
same class and with the same checks: ``of_source`` returns them, and ``every_source`` those of all.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Self

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, ValidationInfo, model_validator

from receipt_actors.domain.strict_json import JsonRefused, parse_object
from receipt_actors.domain.values import json_type, printable
from receipt_actors.settings_model.fields import Expected, QueueName
from receipt_actors.settings_model.model import Fault, SettingFaults, SomeSettings
from receipt_actors.settings_model.removed import REMOVED

#: What a table may set.
SOURCE_SETTINGS = (
    "post_queues",
    "dead_letter_queue",
    "bundle_ids",
    "product_ids",
    "environments",
    "unidentified",
    "product_types",
    "family_sharing",
    "app_account_token",
    "app_account_token_rule",
    "shared_secret",
)
#: What no source has from the top level. Two sources with one dead-letter queue: who would know what to redrive where?
_OWN = frozenset({"sources", "source_queue", "dead_letter_queue"})


class SourceSettings(SomeSettings, frozen=True):
    """Which queues receipts are taken from."""

    source_queue: QueueName = Field(default="ReceiptsSQS", description="Queue that receipts are taken from.")
    sources: Annotated[
        dict[str, dict[str, Any]],
        Expected("in the file, a table [sources.QUEUE] for each; elsewhere the same as JSON, {'QUEUE': {...}}"),
    ] = Field(
        default={},
        description="Further queues that receipts are taken from. Each may have its own "
        f"{', '.join(SOURCE_SETTINGS)}; what it leaves out is as for source_queue, except for dead_letter_queue.",
    )

    _of_sources: dict[str, Self] = PrivateAttr(default_factory=dict)

    def of_source(self, queue: str) -> Self:
        """Return the settings of one of ``sources``, as though it were the only source. ``KeyError``: it is none."""
        return self._of_sources[queue]

    @property
    def every_source(self) -> tuple[Self, ...]:
        """The settings of each source, those of ``source_queue`` first."""
        return (self, *self._of_sources.values())

    @property
    def source_queues(self) -> tuple[str, ...]:
        """The queues that receipts are taken from, ``source_queue`` first."""
        return tuple(source.source_queue for source in self.every_source)

    @model_validator(mode="wrap")
    @classmethod
    def _check_each_source(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """Check the top level, then each source, then all together; and tell of all that was found before the last."""
        if not isinstance(data, dict) or not data.get("sources"):
            return handler(data)
        origins: Mapping[str, str] = info.context or {}
        faults: list[Fault] = []
        tables = dict(_tables(data["sources"], origins.get("sources", "sources"), faults))
        settings: Self | None = None
        with _added_to(faults):
            settings = handler({**data, "sources": {}})
        told = {name for name, _ in faults}
        of_sources: dict[str, Self] = {}
        for queue, table in tables.items():
            faults += _unknown(queue, table, origins)
            own = {name: value for name, value in table.items() if name in cls.model_fields and name in SOURCE_SETTINGS}
            with _added_to(faults, but=told - own.keys()):  # what it has from the top level is told of there
                of_sources[queue] = cls._of_one_source(queue, own, data, origins)
        if settings is None or faults:
            raise SettingFaults(faults)
        settings._take(of_sources, tables, origins)
        if faults := list(settings.faults_together()):
            raise SettingFaults(faults)
        return settings

    @classmethod
    def _of_one_source(
        cls, queue: str, own: Mapping[str, object], top_level: Mapping[str, object], origins: Mapping[str, str]
    ) -> Self:
        """Check the settings of a source: its own, and for all else those of the top level."""
        own_places = {name: place_of_table(queue, origins, name) for name in own}
        values = {**_inherited(top_level, own), **own, "source_queue": queue}
        source = cls.model_validate(values, context=_places(cls, queue, own_places, origins))
        # Where a fault would be is said of every setting; where a value is from only of those that were given.
        given = {name: origin for name, origin in origins.items() if name in cls.model_fields and name not in _OWN}
        source._origins.clear()
        source._origins.update({**given, **own_places})
        return source

    def _take(
        self, of_sources: Mapping[str, Self], tables: Mapping[str, Mapping[str, object]], origins: Mapping[str, str]
    ) -> None:
        """Have the settings of each source; ``sources`` shows of them what the tables gave, as it was understood."""
        self._of_sources.update(of_sources)
        for queue, source in of_sources.items():
            own = {name: getattr(source, name) for name in tables[queue] if name in type(self).model_fields}
            self.sources[queue] = own  # made for these settings alone, and never changed again
        self.model_fields_set.add("sources")
        if "sources" in origins:
            self._origins["sources"] = origins["sources"]

    def faults_together(self) -> Iterator[Fault]:
        """Say what cannot work among several sources: the setting, and what a person is told."""
        for queue in self._of_sources:
            if queue == self.source_queue:
                place = place_of_table(queue, self.origins)
                yield "sources", f"{place}: found the queue of source_queue, expected another one"


@contextmanager
def _added_to(faults: list[Fault], *, but: Collection[str] = ()) -> Iterator[None]:
    """Collect the faults that are raised, unless they are about one of the settings ``but``, and go on."""
    try:
        yield
    except SettingFaults as found:
        faults += [(name, words) for name, words in found.by_setting if name not in but]


def _tables(value: object, origin: str, faults: list[Fault]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Read the tables, whatever was given; nothing of them is quoted, for there may be a secret in them."""
    if isinstance(value, str):
        try:
            value = parse_object(value)
        except JsonRefused as refused:
            faults.append(("sources", f"{origin}: found no JSON object, expected one; {refused.words}"))
            return
    if not isinstance(value, Mapping):
        faults.append(("sources", f"{origin}: found {json_type(value)}, expected a table for each queue"))
        return
    seen: set[str] = set()
    for name, table in value.items():
        queue = name.strip() if isinstance(name, str) else name  # as any other name of a queue: two would be one
        if isinstance(queue, str) and isinstance(table, Mapping):
            if queue in seen:
                faults.append(
                    ("sources", f"{origin}: {printable(queue)!r}: found two tables of this queue, expected one")
                )
            seen.add(queue)
            yield queue, table
        else:
            place = f"{origin}: {printable(str(queue))!r}"
            faults.append(("sources", f"{place}: found {json_type(table)}, expected a table of settings"))


def _unknown(queue: str, table: Mapping[str, object], origins: Mapping[str, str]) -> Iterator[Fault]:
    for name, value in table.items():
        if name not in SOURCE_SETTINGS and isinstance(value, Mapping):  # a queue's name with a dot, without the quotes
            yield "sources", _table_in_table(queue, str(name), origins)
        elif name not in SOURCE_SETTINGS:
            yield "sources", _unknown_in_table(queue, str(name), origins)


def _inherited(data: Mapping[str, object], own: Mapping[str, object]) -> dict[str, object]:
    values = {name: value for name, value in data.items() if name not in _OWN}
    if own.get("app_account_token") == "ignore":  # which leaves its rule without a use
        values.pop("app_account_token_rule", None)
    return values


def _places(cls: type[SomeSettings], queue: str, own: Mapping[str, str], origins: Mapping[str, str]) -> dict[str, str]:
    """Say of each setting of a source where a fault of it would be: in its table, or where it has it from."""
    table = place_of_table(queue, {})
    found = {name: f"{origins.get(name, name)}, for {table}" for name in cls.model_fields}
    return {**found, "source_queue": place_of_table(queue, origins), **own}


def place_of_table(queue: str, origins: Mapping[str, str], name: str | None = None) -> str:
    """Say where a table ``[sources.QUEUE]`` is, or one setting of it."""
    key = printable(queue)
    place = "sources." + (f'"{key}"' if "." in key else key) + ("" if name is None else f".{printable(name)}")
    origin = origins.get("sources")
    if origin is None:
        return place
    return f"{place} in {origin.removeprefix('sources in ')}"


def _unknown_in_table(queue: str, name: str, origins: Mapping[str, str]) -> str:
    """Name a setting that no source has, and the one that it is most like; or what does its work now."""
    place = place_of_table(queue, origins, name)
    if name in REMOVED:
        return f"{place}: found a setting that was removed; {REMOVED[name]}"
    near = difflib.get_close_matches(name.replace("-", "_"), SOURCE_SETTINGS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"a source has {', '.join(SOURCE_SETTINGS)}"
    return f"{place}: found it, expected a setting of a source; {hint}"


def _table_in_table(queue: str, name: str, origins: Mapping[str, str]) -> str:
    """Say that the table of a source has a table, and how a name with a dot is written."""
    hint = f'a queue whose name has a dot has quotes in TOML: [sources."{printable(f"{queue}.{name}")}"]'
    return f"{place_of_table(queue, origins, name)}: found a table, expected settings of a source; {hint}"
