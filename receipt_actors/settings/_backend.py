"""Where queues and claims live, and what each is called there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from receipt_actors.domain.fifo import dead_letter_queue_fault, dead_letter_queue_of
from receipt_actors.domain.sources import misuses
from receipt_actors.settings_model.fields import Expected, FilePath, OptionalQueueName, QueueNames, TableName
from receipt_actors.settings_model.model import Fault, SomeSettings
from receipt_actors.settings_model.sources import SourceSettings, place_of_table

_AWS_VARIABLE = re.compile(
    r"AWS_(ENDPOINT_URL|REGION|DEFAULT_REGION|PROFILE|ACCESS_KEY_ID|ROLE_ARN|CONTAINER_CREDENTIALS_.+)"
)
_AWS_SETTINGS = ("source_queue", "post_queues", "ledger_table", "notifications_table", "role_table")
_TO_BE_CHOSEN: Any = None


class BackendSettings(SomeSettings, frozen=True):
    """Where queues and claims live."""

    database: Annotated[FilePath | None, Expected("a path")] = Field(
        default=None, description="SQLite file that holds queues and claims: the embedded backend."
    )
    backend: Literal["aws", "embedded"] = Field(
        default=_TO_BE_CHOSEN,
        description="Where queues and claims live. Left out: embedded where a database is given, else aws where a "
        "queue, a table or the environment (such as AWS_REGION) points to it.",
    )

    @model_validator(mode="before")
    @classmethod
    def _choose_a_backend(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("backend") is None and (chosen := choose_backend(data, environ={})):
            return {**data, "backend": chosen[0]}
        return data

    @field_validator("backend", mode="before")
    @classmethod
    def _a_backend_is_chosen(cls, value: object, info: ValidationInfo) -> object:
        if value is None:
            raise ValueError(
                "expected a sign of where queues and claims live: give database (a path) to run on this machine alone, "
                "or backend aws (or AWS_REGION, or source_queue) to use SQS and DynamoDB"
            )
        if value == "embedded" and "database" in info.data and info.data["database"] is None:
            raise ValueError("expected database to be given too: the path of the SQLite file to use")
        return value


class QueueSettings(SourceSettings, BackendSettings, frozen=True):
    """What it takes to reach the queues."""

    post_queues: QueueNames = Field(
        default=("ResultsSQS",), description="Every queue that a message may name for its answer."
    )
    dead_letter_queue: OptionalQueueName = Field(
        default=None,
        description="Queue that messages without an answer are moved to. Left out: the one of the source queue's "
        "redrive policy; with the embedded backend, the source queue's name followed by DLQ (before .fifo).",
    )
    max_receive_count: int = Field(
        default=20,
        ge=1,
        le=1000,
        description="Deliveries before the embedded queue moves a message to its dead-letter queue. An existing queue "
        "takes it over at a start only.",
    )

    @field_validator("post_queues")
    @classmethod
    def _answers_do_not_go_to_the_source(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("source_queue") in names:
            raise ValueError(
                "expected queues other than source_queue: an answer sent there would come back as a receipt"
            )
        return names

    @field_validator("dead_letter_queue")
    @classmethod
    def _dead_letters_have_their_own_queue(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is not None and name in (info.data.get("source_queue"), *info.data.get("post_queues", ())):
            raise ValueError("expected a queue that is neither source_queue nor one of post_queues")
        source_queue = info.data.get("source_queue")
        if name is not None and source_queue is not None and (fault := dead_letter_queue_fault(source_queue, name)):
            raise ValueError(fault)
        return name

    @property
    def known_dead_letter_queue(self) -> str | None:
        """The dead-letter queue, as far as the settings say: on AWS, the source queue's redrive policy may, too."""
        default = dead_letter_queue_of(self.source_queue) if self.backend == "embedded" else None
        return self.dead_letter_queue or default

    @property
    def all_post_queues(self) -> tuple[str, ...]:
        """Every queue that any message may name for its answer."""
        return tuple(dict.fromkeys(queue for source in self.every_source for queue in source.post_queues))

    def faults_together(self) -> Iterator[Fault]:
        """See ``SourceSettings``."""
        yield from super().faults_together()
        uses = [
            (each.source_queue, frozenset(each.post_queues), each.known_dead_letter_queue) for each in self.every_source
        ]
        for misuse in misuses(uses):
            place = self._place_of(misuse.source_queue, misuse.setting)
            yield misuse.setting, f"{place}: found {misuse.queue!r}, expected {misuse.expected}"

    def _place_of(self, source_queue: str, setting: str) -> str:
        if source_queue == self.source_queue:
            return self.origins.get(setting, setting)
        return place_of_table(source_queue, self.origins, setting)


class LedgerSettings(BackendSettings, frozen=True):
    """What it takes to reach the claims."""

    ledger_table: TableName = Field(default="TransactionIdTable", description="DynamoDB table that holds the claims.")


def choose_backend(values: Mapping[str, object], environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Choose the backend that the other settings, else the environment, point to; and say why."""
    if values.get("database") is not None:
        return "embedded", "chosen because database is given"
    signs = [*(name for name in _AWS_SETTINGS if name in values), *filter(_AWS_VARIABLE.fullmatch, sorted(environ))]
    return ("aws", f"chosen because {signs[0]} is given") if signs else None
