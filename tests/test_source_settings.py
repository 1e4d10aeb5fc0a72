"""Several source queues: how their tables are given, what they inherit, and what can't work together."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.errors import ConfigurationError
from receipt_actors.settings import (
    SETTINGS,
    QueueSettings,
    Settings,
    load_settings,
    load_some_settings,
    load_source_settings,
)
from receipt_actors.settings_model import SOURCE_SETTINGS
from receipt_actors.stores.apple.settings import AppStoreSettings

NAMESPACE = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def of(sources: object, **settings: Any) -> Settings:
    return Settings.model_validate({"backend": "aws", "bundle_ids": "com.example.one", "sources": sources, **settings})


def faults(sources: object, **settings: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        of(sources, **settings)
    return list(caught.value.faults)


class TestInheritance:
    def test_what_a_table_leaves_out_is_as_at_the_top_level(self) -> None:
        settings = of(
            {"Game2SQS": {"bundle_ids": "com.example.two"}}, environments="Sandbox", shared_secret="hush", consumers=7
        )
        second = settings.of_source("Game2SQS")
        assert (second.source_queue, second.bundle_ids) == ("Game2SQS", ("com.example.two",))
        others = set(SOURCE_SETTINGS) - {"bundle_ids"}
        assert all(getattr(second, name) == getattr(settings, name) for name in others)
        assert (second.consumers, second.sources) == (7, {})
        assert settings.every_source == (settings, second)
        assert (of({}).sources, of({}).every_source) == ({}, (of({}),))
        assert settings.source_queues == ("ReceiptsSQS", "Game2SQS")

    def test_a_dead_letter_queue_is_of_its_sources_kind(self) -> None:
        dead_letters = {"Game2.fifo": {"dead_letter_queue": "Dead2.fifo"}, "Game3.fifo": {}}
        settings = of(dead_letters, dead_letter_queue="Dead1")
        assert [each.dead_letter_queue for each in settings.every_source] == ["Dead1", "Dead2.fifo", None]
        (fault,) = faults({"Game2.fifo": {"dead_letter_queue": "Dead2"}})
        assert fault.startswith("sources.\"Game2.fifo\".dead_letter_queue: found 'Dead2', expected a FIFO queue")
        (fault,) = faults({"Game2SQS": {"dead_letter_queue": "Dead2.fifo"}})
        assert "expected a standard queue, as Game2SQS is one" in fault

    def test_a_dead_letter_queue_is_not_inherited(self) -> None:
        settings = of({"Game2SQS": {}, "Game3SQS": {"dead_letter_queue": "Dead3"}}, dead_letter_queue="Dead1")
        assert [each.dead_letter_queue for each in settings.every_source] == ["Dead1", None, "Dead3"]
        embedded = of({"Game2SQS": {}}, backend="embedded", database="r.db")
        assert [each.known_dead_letter_queue for each in embedded.every_source] == ["ReceiptsSQSDLQ", "Game2SQSDLQ"]
        embedded = of({"Game2SQS.fifo": {"post_queues": "Out.fifo"}}, backend="embedded", database="r.db")
        names = [each.known_dead_letter_queue for each in embedded.every_source]
        assert names == ["ReceiptsSQSDLQ", "Game2SQSDLQ.fifo"]

    def test_a_source_without_account_tokens_needs_no_namespace(self) -> None:
        top = {"app_account_token": "match", "app_account_token_rule": NAMESPACE}
        settings = of(
            {"Game2SQS": {"app_account_token": "ignore"}, "Game3SQS": {"app_account_token": "require"}}, **top
        )
        namespaces = [each.app_account_token_rule is not None for each in settings.every_source]
        assert namespaces == [True, False, True]


class TestWays:
    def test_spaces_around_a_queue_do_not_count(self) -> None:
        settings = of({" Game2SQS\n": {"bundle_ids": "com.example.two"}})
        assert settings.source_queues == ("ReceiptsSQS", "Game2SQS")
        assert settings.of_source("Game2SQS").bundle_ids == ("com.example.two",)
        assert list(settings.sources) == ["Game2SQS"]

    def test_a_file_has_tables(self, tmp_path: Path) -> None:
        file = tmp_path / "games.toml"
        file.write_text(
            'database = "r.db"\nbundle_ids = "com.example.one"\n'
            '[sources.Game2SQS]\nbundle_ids = ["com.example.two", "com.example.three"]\nunidentified = "reply"\n'
        )
        second = load_settings({}, config=file, environ={}).of_source("Game2SQS")
        assert (second.bundle_ids, second.unidentified) == (("com.example.two", "com.example.three"), "reply")
        assert second.origins["bundle_ids"] == f"sources.Game2SQS.bundle_ids in {file}"
        assert second.origins["database"] == f"database in {file}"
        assert "dead_letter_queue" not in second.origins

    def test_a_variable_or_a_flag_has_them_as_json(self) -> None:
        environ = {"RECEIPT_ACTORS_SOURCES": json.dumps({"Game2SQS": {"bundle_ids": "two"}})}
        given = {"bundle_ids": "one", "database": "r.db"}
        settings = load_settings(given, environ=environ)
        assert settings.of_source("Game2SQS").bundle_ids == ("two",)
        assert settings.origins["sources"] == "RECEIPT_ACTORS_SOURCES"
        settings = load_settings({**given, "sources": '{"Game3SQS": {}}'}, environ=environ)
        assert settings.source_queues == ("ReceiptsSQS", "Game3SQS")

    def test_a_worker_process_gets_them_with_their_secrets(self) -> None:
        tables = {
            "Game2SQS": {
                "bundle_ids": "two,three",
                "shared_secret": "hush-hush",
                "app_account_token": "require",
                "app_account_token_rule": NAMESPACE,
                "product_types": "consumable",
                "environments": "Sandbox",
            },
            "Game3SQS": {},
        }
        settings = of(tables, shared_secret="quiet")
        workers = pickle.loads(pickle.dumps(settings))
        assert workers.sources == settings.sources
        secrets = [each.shared_secret for each in workers.every_source if each.shared_secret is not None]
        assert [secret.get_secret_value() for secret in secrets] == ["quiet", "hush-hush", "quiet"]
        for mine, theirs in zip(settings.every_source, workers.every_source, strict=True):
            assert [getattr(mine, name) for name in SOURCE_SETTINGS] == [
                getattr(theirs, name) for name in SOURCE_SETTINGS
            ]
        assert "hush-hush" not in f"{settings!r} {settings.sources} {settings.model_dump_json()}"

    def test_commands_that_use_a_part_need_no_more_of_a_table(self) -> None:
        tables = {"Game2SQS": {"bundle_ids": "", "family_sharing": "perhaps", "dead_letter_queue": "Dead2"}}
        queues = load_some_settings(QueueSettings, {"backend": "aws", "sources": json.dumps(tables)}, environ={})
        assert queues.of_source("Game2SQS").dead_letter_queue == "Dead2"
        assert queues.sources == {"Game2SQS": {"dead_letter_queue": "Dead2"}}


class TestOneSource:
    TABLES = json.dumps({"Game2SQS": {"bundle_ids": "two", "post_queues": "Out2"}})

    def chosen(self, model: Any, queue: str | None, **flags: object) -> Any:
        given = {"backend": "aws", "sources": self.TABLES, **flags}
        flags = given if model is QueueSettings else {"bundle_ids": "one", "sources": self.TABLES}
        return load_source_settings(model, {**flags, "source_queue": queue}, environ={})

    def test_it_names_a_source(self) -> None:
        assert self.chosen(QueueSettings, "Game2SQS").post_queues == ("Out2",)
        assert self.chosen(QueueSettings, "ReceiptsSQS").post_queues == ("ResultsSQS",)
        assert self.chosen(QueueSettings, None).source_queue == "ReceiptsSQS"
        assert self.chosen(AppStoreSettings, "Game2SQS").bundle_ids == ("two",)
        # A slip of the pen must not have a receipt judged by another game's rules.
        with pytest.raises(ConfigurationError) as caught:
            self.chosen(QueueSettings, "Game3SQS")
        assert caught.value.faults == ("--source-queue: found 'Game3SQS', expected one of ReceiptsSQS, Game2SQS",)
        flags = {"backend": "aws", "source_queue": "Q"}  # without tables it is the setting
        assert load_source_settings(QueueSettings, flags, environ={}).source_queue == "Q"


class TestFaults:
    def test_all_are_told_at_once_with_their_places(self) -> None:
        tables = {
            "Game2SQS": {"bundle_ids": 3, "bundel_ids": "x", "family_sharing": "perhaps"},
            "Game 3": {},
            "Game4SQS": "bundle_ids",
            "Game5SQS": {"consumers": 8},
        }
        told = faults(tables, max_in_flight=0)
        assert told.pop(-2).startswith("sources.Game 3: found 'Game 3', expected ")
        assert told == [
            "sources: 'Game4SQS': found a string, expected a table of settings",
            "max_in_flight: found 0, expected an integer, 1 or more; leave it out for the default 2000",
            "sources.Game2SQS.bundel_ids: found it, expected a setting of a source; did you mean bundle_ids?",
            "sources.Game2SQS.bundle_ids: found 3, expected your app's bundle ids, comma separated, or * to accept any",
            "sources.Game2SQS.family_sharing: found 'perhaps', expected accept or refuse",
            f"sources.Game5SQS.consumers: found it, expected a setting of a source; a source has "
            f"{', '.join(SOURCE_SETTINGS)}",
        ]

    def test_a_dot_without_quotes_is_told(self) -> None:
        assert faults({"Game2": {"fifo": {"bundle_ids": "x"}}}) == [
            "sources.Game2.fifo: found a table, expected settings of a source; "
            'a queue whose name has a dot has quotes in TOML: [sources."Game2.fifo"]'
        ]

    def test_a_fault_of_the_top_level_is_told_once(self) -> None:
        assert len(faults({"A": {}, "B": {}}, environments="Moon")) == 1
        assert len(faults({"A": {"environments": "Moon"}, "B": {}}, environments="Moon")) == 2

    def test_what_a_source_lacks_at_the_top_level_is_told_for_that_source(self) -> None:
        (fault,) = faults({"Game2SQS": {"app_account_token": "match"}})
        assert fault.startswith("app_account_token_rule, for sources.Game2SQS: found nothing, expected the UUID")

    @pytest.mark.parametrize(
        ("tables", "top", "fault"),
        [
            ({"ReceiptsSQS": {}}, {}, "sources.ReceiptsSQS: found the queue of source_queue, expected another one"),
            ({" ReceiptsSQS": {}}, {}, "sources.ReceiptsSQS: found the queue of source_queue, expected another one"),
            ({"A": {}, "A ": {}}, {}, "sources: 'A': found two tables of this queue, expected one"),
            (
                {"ResultsSQS": {"post_queues": "Out"}},
                {},
                "post_queues: found 'ResultsSQS', expected queues that no receipts are taken from: "
                "an answer sent there would come back as a receipt",
            ),
            (
                {"A": {"post_queues": "B"}, "B": {"post_queues": "Out"}},
                {},
                "sources.A.post_queues: found 'B', expected queues that no receipts are taken from: "
                "an answer sent there would come back as a receipt",
            ),
            (
                {"A": {"dead_letter_queue": "ReceiptsSQS"}},
                {},
                "sources.A.dead_letter_queue: found 'ReceiptsSQS', expected a queue that is neither a source queue nor "
                "a post queue, of any source",
            ),
            (
                {"A": {"post_queues": "Dead"}},
                {"dead_letter_queue": "Dead"},
                "dead_letter_queue: found 'Dead', expected a queue that is neither a source queue nor a post queue, of "
                "any source",
            ),
            (
                {"A": {"dead_letter_queue": "Dead"}},
                {"dead_letter_queue": "Dead"},
                "sources.A.dead_letter_queue: found 'Dead', expected another one than that of ReceiptsSQS: nobody "
                "could tell what to redrive to which",
            ),
            (
                {"ReceiptsSQSDLQ": {}},
                {"backend": "embedded", "database": "r.db"},
                "dead_letter_queue: found 'ReceiptsSQSDLQ', expected a queue that is neither a source queue nor a post "
                "queue, of any source",
            ),
            (
                {"A": {"dead_letter_queue": "Dead.fifo"}},
                {},
                "sources.A.dead_letter_queue: found 'Dead.fifo', expected a standard queue, as A is one: SQS wants a "
                "dead-letter queue to be of its source queue's kind",
            ),
            (
                {"A": {"post_queues": "Alerts"}},
                {"alerts_queue": "Alerts"},
                "alerts_queue, for sources.A: found 'Alerts', expected a queue of its own, with no receipts, answers "
                "or dead letters on it",
            ),
        ],
    )
    def test_a_queue_has_one_use(self, tables: object, top: Mapping[str, object], fault: str) -> None:
        assert faults(tables, **top) == [fault]

    def test_the_server_api_is_asked_for_one_app_a_source(self) -> None:
        key = {
            "app_receipts": "server-api",
            "server_api_key": "BEGIN k",
            "server_api_key_id": "i",
            "server_api_issuer_id": "j",
        }
        assert of({"A": {"bundle_ids": "com.example.two"}}, **key).of_source("A").uses_server_api
        (fault,) = faults({"A": {"bundle_ids": "two,three"}}, **key)
        assert fault.startswith("app_receipts, for sources.A: found 'server-api', expected bundle_ids to name one app")

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("hush-hush", "found no JSON object, expected one; Expecting value at character 0"),
            ('{"A": {}, "A": {"shared_secret": "hush-hush"}}', "a key occurs twice in one object"),
            ('["hush-hush"]', "expected an object, found an array"),
            ('{"A": "hush-hush"}', "'A': found a string, expected a table of settings"),
        ],
    )
    def test_json_that_is_none_is_told_without_being_shown(self, text: str, fault: str) -> None:
        (told,) = faults(text)
        assert told.startswith("sources: ") and fault in told and "hush-hush" not in told

    def test_a_secret_that_is_none_is_masked(self) -> None:
        (fault,) = faults({"A": {"shared_secret": 31415926}})
        assert fault.startswith("sources.A.shared_secret: found **********") and "31415926" not in fault


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.one_of(
            st.none(),
            st.dictionaries(
                st.one_of(st.sampled_from(sorted(SETTINGS)), st.text(max_size=5)),
                st.one_of(st.none(), st.text(max_size=5), st.integers(), st.lists(st.text(max_size=5), max_size=2)),
                max_size=3,
            ),
        ),
        max_size=3,
    )
)
def test_whatever_tables_there_are_they_are_settings_or_faults(tables: dict[str, Any]) -> None:
    for given_as in (tables, json.dumps(tables)):
        told: tuple[str, ...] = ()
        queues = set(tables)
        try:
            queues = set(of(given_as).sources)
        except ConfigurationError as error:
            told = error.faults
        assert queues == set(tables)
        assert all(": found " in fault for fault in told)
