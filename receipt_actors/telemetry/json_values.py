"""Values that are sent between processes as JSON: pydantic writes and reads them by the types of their fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import ConfigDict, PlainSerializer, PlainValidator, TypeAdapter

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.telemetry.latencies import Latencies

_Key = TypeVar("_Key")


class JsonValue:
    """The base of a dataclass that can be sent."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", revalidate_instances="never")

    def as_json(self) -> dict[str, Any]:
        """Return what can be written as JSON, and read again by ``from_json``."""
        cls: Any = type(self)
        data: dict[str, Any] = _adapter(cls).dump_python(self, mode="json")
        return data

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read what ``as_json`` wrote.

        Raises:
            ValueError: it is something else.
        """
        kind: Any = cls
        value: Self = _adapter(kind).validate_python(data)
        return value


@lru_cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _rows(first: str, kind: Callable[[Any], Any]) -> tuple[PlainValidator, PlainSerializer]:
    """Have counts by pairs, of which the second is a reason, written as a list of objects: JSON has no such keys."""

    def read(rows: Any) -> Any:
        if isinstance(rows, Mapping):
            return rows
        return {
            (kind(row[first]), None if row["reason"] is None else Reason(row["reason"])): int(row["count"])
            for row in rows
        }

    def write(counts: Mapping[tuple[Any, Reason | None], int]) -> list[dict[str, object]]:
        return [{first: name, "reason": reason, "count": count} for (name, reason), count in counts.items()]

    return PlainValidator(read), PlainSerializer(write)


def _latencies(value: Any) -> Latencies:
    return value if isinstance(value, Latencies) else Latencies.from_json(value)


CountsByVerdict = Annotated[Mapping[tuple[Verdict, Reason], int], *_rows("verdict", Verdict)]
CountsByFate = Annotated[Mapping[tuple[str, Reason | None], int], *_rows("fate", str)]
Histogram = Annotated[Latencies, PlainValidator(_latencies), PlainSerializer(Latencies.as_json)]
