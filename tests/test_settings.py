"""Settings: their layers, their checks, and what a person is told about a bad one."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import ConfigurationError
from receipt_actors.settings import SETTINGS, QueueSettings, Settings, load_settings, load_some_settings, node_name
from receipt_actors.settings_model import REMOVED
from receipt_actors.stores.apple.settings import AppStoreSettings

ENOUGH = {"bundle_ids": "com.example.game", "backend": "aws"}  #: the least that has to be given


def load(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, config: Path | None = None
) -> Settings:
    return load_settings(ENOUGH | dict(flags or {}), environ=environ or {}, config=config)


def faults(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, config: Path | None = None
) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(flags, environ, config)
    return list(caught.value.faults)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "shop.toml"


class TestLayers:
    def test_defaults_stand_where_nothing_is_given(self) -> None:
        settings = load()
        assert settings.source_queue == "ReceiptsSQS"
        assert settings.post_queues == ("ResultsSQS",)
        assert settings.environments == (Environment.PRODUCTION,)
        assert settings.product_ids == ("*",)
        assert settings.dead_letter_queue is None
        assert (settings.consumers, settings.max_in_flight, settings.visibility_timeout_seconds) == (4, 2000, 120)
        assert settings.receive_wait_seconds < settings.drain_seconds
        assert (settings.is_alone, settings.role_table, settings.lease_seconds) == (True, "RoleTable", 10)

    def test_a_flag_beats_a_variable_and_a_variable_beats_the_file(
        self, toml: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        toml.write_text("consumers = 1\nledger_concurrency = 1\nmax_receive_count = 1\n")
        environ = {"RECEIPT_ACTORS_CONSUMERS": "2", "RECEIPT_ACTORS_LEDGER_CONCURRENCY": "2"}
        settings = load({"consumers": "3"}, environ, toml)
        assert (settings.consumers, settings.ledger_concurrency, settings.max_receive_count) == (3, 2, 1)
        assert load({"consumers": None}, environ, toml).consumers == 2
        assert load({}, {"RECEIPT_ACTORS_CONSUMERS": "", "RECEIPT_ACTORS_CONFIG": ""}).consumers == 4
        monkeypatch.setenv("RECEIPT_ACTORS_CONSUMERS", "6")
        assert load_settings(ENOUGH).consumers == 6

    def test_each_value_knows_where_it_came_from(self, toml: Path) -> None:
        toml.write_text("max_receive_count = 1\n")
        settings = load_settings(
            {"bundle_ids": "a"}, environ={"RECEIPT_ACTORS_CONSUMERS": "2", "AWS_REGION": "eu-west-1"}, config=toml
        )
        assert settings.origins == {
            "bundle_ids": "--bundle-ids",
            "consumers": "RECEIPT_ACTORS_CONSUMERS",
            "max_receive_count": f"max_receive_count in {toml}",
            "backend": "chosen because AWS_REGION is given",
        }

    def test_the_file_may_be_named_by_the_environment(self, toml: Path) -> None:
        toml.write_text("consumers = 7\n")
        assert load(environ={"RECEIPT_ACTORS_CONFIG": str(toml)}).consumers == 7
        other = toml.with_name("other.toml")
        other.write_text("consumers = 9\n")
        assert load(environ={"RECEIPT_ACTORS_CONFIG": str(toml)}, config=other).consumers == 9

    def test_a_variable_may_hold_what_a_file_may(self, toml: Path) -> None:
        toml.write_text("consumers = 1\nmax_receive_count = 1\n")
        variable = '{"consumers": 2, "post_queues": ["A", "B"], "max_in_flight": "300", "ledger_concurrency": 2}'
        environ = {"RECEIPT_ACTORS_SETTINGS": variable, "RECEIPT_ACTORS_MAX_IN_FLIGHT": "400"}
        settings = load({}, environ, toml)
        assert (settings.consumers, settings.max_receive_count, settings.max_in_flight) == (2, 1, 400)
        assert settings.post_queues == ("A", "B")
        assert settings.origins["ledger_concurrency"] == "ledger_concurrency in RECEIPT_ACTORS_SETTINGS"

    @pytest.mark.parametrize(
        ("written", "fault"),
        [
            ("consumers=2", "RECEIPT_ACTORS_SETTINGS: expected a JSON object of settings; "),
            ('["consumers"]', "RECEIPT_ACTORS_SETTINGS: expected a JSON object of settings; "),
            ('{"consumers": 1, "consumers": 2}', "RECEIPT_ACTORS_SETTINGS: expected a JSON object of settings; "),
            ('{"consumer": 2}', "consumer in RECEIPT_ACTORS_SETTINGS: "),
            ('{"consumers": "four"}', "consumers in RECEIPT_ACTORS_SETTINGS: found 'four'"),
        ],
    )
    def test_a_variable_that_holds_no_settings_is_a_fault(self, written: str, fault: str) -> None:
        with pytest.raises(ConfigurationError) as raised:
            load(environ={"RECEIPT_ACTORS_SETTINGS": written})
        assert any(line.startswith(fault) for line in raised.value.faults), raised.value.faults

    def test_a_list_in_a_file_is_a_list_or_text_with_commas(self, toml: Path) -> None:
        for written in ('["A", "B"]', '"A, B"', '" A,B, "'):
            toml.write_text(f"post_queues = {written}\n")
            assert load(config=toml).post_queues == ("A", "B")

    def test_the_variables_that_kubernetes_adds_for_a_service_of_our_name_are_ignored(self) -> None:
        """A Service named receipt-actors must not keep the pods beside it from starting."""
        environ = {
            "RECEIPT_ACTORS_SERVICE_HOST": "10.0.0.1",
            "RECEIPT_ACTORS_SERVICE_PORT_ADMIN": "80",
            "RECEIPT_ACTORS_PORT": "tcp://10.0.0.1:80",
            "RECEIPT_ACTORS_PORT_80_TCP_ADDR": "10.0.0.1",
        }
        assert load(environ=environ) == load()


class TestRoles:
    @pytest.mark.parametrize(
        ("host", "called"), [("ip-10-0-0-1.eu", "ip-10-0-0-1.eu"), ("näme\n" + "x" * 200, "n-me-" + "x" * 95)]
    )
    def test_a_node_is_called_as_its_machine_is(self, monkeypatch: pytest.MonkeyPatch, host: str, called: str) -> None:
        monkeypatch.delenv("HOSTNAME", raising=False)
        monkeypatch.setattr("socket.gethostname", lambda: host)
        assert node_name() == called
        monkeypatch.setenv("HOSTNAME", "north")
        assert node_name() == "north"

    @pytest.mark.parametrize("other", ["ledger_table", "notifications_table"])
    def test_roles_have_a_table_of_their_own(self, other: str) -> None:
        (fault,) = faults({other: "Shared", "role_table": "Shared"})
        assert "neither ledger_table nor notifications_table" in fault


class TestBackend:
    @pytest.mark.parametrize(
        ("flags", "environ", "backend"),
        [
            ({"database": "r.db"}, {}, "embedded"),
            ({"database": "r.db", "source_queue": "Q"}, {"AWS_REGION": "eu-west-1"}, "embedded"),
            ({"database": "r.db", "backend": "aws"}, {}, "aws"),
            ({"source_queue": "Q"}, {}, "aws"),
            ({"ledger_table": "Table"}, {}, "aws"),
            ({"role_table": "Table"}, {}, "aws"),
            ({}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "aws"),
            ({}, {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2"}, "aws"),
            ({"backend": "aws"}, {}, "aws"),
        ],
    )
    def test_it_is_the_one_given_else_the_one_that_the_rest_points_to(
        self, flags: dict[str, object], environ: dict[str, str], backend: str
    ) -> None:
        assert load_settings({"bundle_ids": "a"} | flags, environ=environ).backend == backend

    @pytest.mark.parametrize("environ", [{}, {"AWS_CA_BUNDLE": "/ca.pem"}])
    def test_without_a_sign_one_is_told_how_to_choose(self, environ: dict[str, str]) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load_settings({"bundle_ids": "a"}, environ=environ)
        (fault,) = caught.value.faults
        assert "give database (a path)" in fault
        assert "backend aws" in fault

    def test_embedded_needs_a_database(self) -> None:
        (fault,) = faults({"backend": "embedded"})
        assert fault.startswith("--backend: found 'embedded', expected database to be given too")

    def test_a_home_is_expanded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/ann")
        assert load({"database": "~/r.db"}).database == Path("/home/ann/r.db")


class TestFaults:
    def test_all_faults_of_all_layers_are_told_at_once(self, toml: Path) -> None:
        toml.write_text("visibility_timeout_seconds = 5\nconsumer = 3\n")
        told = faults({"consumers": "many"}, {"RECEIPT_ACTORS_LOG_LEVEL": "loud", "RECEIPT_ACTORS_COLOUR": "1"}, toml)
        assert told == [
            f"consumer in {toml}: found an unknown setting, expected a known one; did you mean consumers?",
            "RECEIPT_ACTORS_COLOUR: found an unknown setting, expected a known one; "
            "the settings reference lists all there are",
            "--consumers: found 'many', expected an integer, 1 or more; leave it out for the default 4",
            f"visibility_timeout_seconds in {toml}: found 5, expected an integer from 10 to 43200; "
            "leave it out for the default 120",
            "RECEIPT_ACTORS_LOG_LEVEL: found 'LOUD', expected DEBUG, INFO, WARNING or ERROR; "
            "leave it out for the default INFO",
        ]

    def test_missing_bundle_ids_say_how_to_give_them(self) -> None:
        (fault,) = faults({"bundle_ids": None})
        assert "your app's bundle ids, comma separated, or * to accept any" in fault
        assert "--bundle-ids, RECEIPT_ACTORS_BUNDLE_IDS or the key bundle_ids" in fault

    def test_a_misspelt_variable_or_key_is_told_with_the_right_one(self, toml: Path) -> None:
        (fault,) = faults(environ={"RECEIPT_ACTORS_MAX_INFLIGHT": "1"})
        assert fault.startswith("RECEIPT_ACTORS_MAX_INFLIGHT: ")
        assert "did you mean RECEIPT_ACTORS_MAX_IN_FLIGHT?" in fault
        toml.write_text("max-in-flight = 1\n")
        (fault,) = faults(config=toml)
        assert fault.endswith("did you mean max_in_flight?")

    @pytest.mark.parametrize("name", REMOVED)
    def test_a_setting_that_was_removed_says_what_does_its_work_now(self, name: str, toml: Path) -> None:
        toml.write_text(f"{name} = 1\n")
        told = faults({name: "1", "consumers": "0"}, {f"RECEIPT_ACTORS_{name.upper()}": "1"}, toml)
        words = f"found a setting that was removed; {REMOVED[name]}"
        places = (f"{name} in {toml}", f"RECEIPT_ACTORS_{name.upper()}", f"--{name.replace('_', '-')}")
        assert told[:-1] == [f"{place}: {words}" for place in places]
        assert name not in SETTINGS

    def test_a_removed_setting_of_a_source_says_so_too(self, toml: Path) -> None:
        toml.write_text('[sources.Game2SQS]\napp_account_token_namespace = "x"\n')
        (told,) = faults(config=toml)
        assert told.endswith("found a setting that was removed; give the namespace as app_account_token_rule")
        with pytest.raises(ConfigurationError, match="batch_requests: found a setting that was removed; a batcher has"):
            Settings(bundle_ids=("a",), database=Path("r.db"), batch_requests=2)  # type: ignore[call-arg]

    def test_broken_toml_is_told_with_its_line(self, toml: Path) -> None:
        toml.write_text("consumers = 1\nlog_level = INFO\n")
        (fault,) = faults(config=toml)
        assert fault.startswith(f"--config: found '{toml}', expected TOML")
        assert "line 2" in fault

    @pytest.mark.parametrize("spoil", [lambda path: None, Path.mkdir, lambda path: path.write_bytes(b"\xff\xfe")])
    def test_an_unreadable_file_is_a_fault_beside_the_others(self, toml: Path, spoil: object) -> None:
        assert callable(spoil)
        spoil(toml)
        told = faults({"consumers": "0"}, {"RECEIPT_ACTORS_CONFIG": str(toml)})
        assert told[0].startswith(f"RECEIPT_ACTORS_CONFIG: found '{toml}', expected ")
        assert told[1].startswith("--consumers: ")

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("source_queue", "https://sqs.eu-west-1.amazonaws.com/123/Mine", "a name, not a URL; try 'Mine'"),
            ("source_queue", "arn:aws:sqs:eu-west-1:123:Mine", "a name, not an ARN; try 'Mine'"),
            ("source_queue", "Mine.fifo.fifo", "with .fifo at the end of a FIFO queue's name"),
            ("source_queue", "a" * 76 + ".fifo", "1 to 80 letters, digits, - and _"),
            ("source_queue", "a" * 81, "1 to 80 letters, digits, - and _"),
            ("source_queue", "", "1 to 80 letters"),
            ("source_queue", "ResultsSQS", "an answer sent there would come back as a receipt"),
            ("post_queues", "Fine,not fine", "1 to 80 letters"),
            ("post_queues", " , ", "names of SQS queues"),
            ("dead_letter_queue", "ResultsSQS", "neither source_queue nor one of post_queues"),
            ("dead_letter_queue", "ReceiptsSQS", "neither source_queue nor one of post_queues"),
            ("dead_letter_queue", "Letters.fifo", "a standard queue, as ReceiptsSQS is one"),
            ("alerts_queue", "ReceiptsSQS", "a queue of its own"),
            ("alerts_queue", "ResultsSQS", "a queue of its own"),
            ("ledger_table", "ab", "3 to 255"),
            ("bundle_ids", "*,com.example.game", "* alone"),
            ("product_ids", "com.example.*", "no other wildcards"),
            ("bundle_ids", ["", "a"], "bundle ids"),
            *(
                ("bundle_ids", value, f"letters, digits, - and . only, as Apple has them; {wrong!r} is none")
                for value, wrong in (
                    ("com.example game", "com.example game"),
                    ("com.example.game,'com.example.two'", "'com.example.two'"),
                    ("com.exämple", "com.exämple"),
                    ("com.example.my_game", "com.example.my_game"),
                    ("com.example.game;com.example.two", "com.example.game;com.example.two"),
                    ("TEAM/com.example", "TEAM/com.example"),
                )
            ),
            ("role", "leader", "--role: found 'leader', expected alone, active-standby or load-balanced"),
            ("role", "Active-Standby", "expected alone, active-standby or load-balanced"),
            ("role_table", "no", "3 to 255"),
            ("lease_seconds", "0.9", "a number from 1 to 300"),
            ("lease_seconds", "301", "a number from 1 to 300"),
            ("lease_seconds", "nan", "expected"),
            ("lease_seconds", "soon", "expected"),
            ("environments", "production", "Production, Sandbox or both"),
            ("unidentified", "drop", "dead-letter or reply"),
            ("backend", "gcp", "aws or embedded"),
            ("database", "~nobody-of-that-name/r.db", "expected a path"),
            ("receive_wait_seconds", "21", "an integer from 0 to 20"),
            ("receive_wait_seconds", "25", "an integer from 0 to 20"),
            ("drain_seconds", "10", "more than receive_wait_seconds (10)"),
            ("drain_seconds", "inf", "a number above 0"),
            ("drain_seconds", "nan", "a number above 0"),
            ("visibility_timeout_seconds", "43201", "an integer from 10 to 43200"),
            ("visibility_timeout_seconds", "60.5", "an integer"),
            ("app_store_concurrency", "5001", "expected at most 5000 a process; or give more processes"),
            ("transport", "httpx", "auto or threads"),
            ("app_store_rate_per_second", "0", "a number above 0"),
            ("consumers", True, "an integer, 1 or more"),
            ("processes", "51", "ledger_concurrency: found 50, expected 51 or more"),
            ("processes", "0", "an integer, 1 or more, or auto"),
            ("processes", "many", "an integer, 1 or more, or auto"),
            ("app_store_url", "ftp://127.0.0.1/", "an https URL"),
            ("app_store_url", "buy.itunes.apple.com", "an https URL"),
            ("app_store_url", "https://", "an https URL"),
            ("app_store_url", "https://host:port/", "an https URL"),
            ("app_store_url", "http://apple.example/", "127.0.0.1 only"),
            ("app_store_url", "http://localhost.example/", "127.0.0.1 only"),
        ],
    )
    def test_what_could_not_work_is_refused(self, name: str, value: object, words: str) -> None:
        told = faults({name: value})
        assert len(told) == 1
        assert words in told[0]
        assert "\n" not in told[0]


class TestProcesses:
    def test_each_limit_is_refused_that_leaves_somebody_nothing(self) -> None:
        told = faults({"processes": "4", "max_in_flight": "3", "app_store_concurrency": "2", "ledger_concurrency": "1"})
        assert [line.partition(":")[0] for line in told] == [
            "--max-in-flight",
            "--app-store-concurrency",
            "--ledger-concurrency",
        ]


class TestSecrets:
    def test_the_shared_secret_is_never_shown(self) -> None:
        settings = load({"shared_secret": "hush-hush"})
        assert "hush-hush" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
        assert settings.shared_secret is not None
        assert settings.shared_secret.get_secret_value() == "hush-hush"

    @pytest.mark.parametrize("secret", [["hush-hush"], {"it": "hush-hush"}])
    def test_a_fault_does_not_show_it_either(self, secret: object) -> None:
        (fault,) = faults({"shared_secret": secret})
        assert "hush-hush" not in fault
        assert fault.startswith("--shared-secret: found **********, expected ")

    def test_a_password_in_a_url_is_refused_and_masked(self) -> None:
        (fault,) = faults({"app_store_url": "https://ann:hush-hush@apple.example/"})
        assert "without a user name or password" in fault
        assert "hush-hush" not in fault


class TestAdminPort:
    TOKEN = "0123456789abcdef"

    @pytest.mark.parametrize("address", ["0.0.0.0:9464", "[::]:9464", "10.0.0.7:9464", "receipts.internal:9464"])
    def test_other_machines_need_one(self, address: str) -> None:
        (fault,) = faults({"admin": address})
        assert fault.startswith("admin_token: found nothing, expected a token")
        assert address in fault
        settings = load({"admin": address}, {"RECEIPT_ACTORS_ADMIN_TOKEN": self.TOKEN})
        assert settings.admin_token is not None
        assert settings.admin_token.get_secret_value() == self.TOKEN
        assert self.TOKEN not in f"{settings!r} {settings.model_dump_json()}"

    @pytest.mark.parametrize("address", ["9464", "localhost", "http://localhost:80", "localhost:99999", "a b:1"])
    def test_what_is_no_address_is_refused(self, address: str) -> None:
        (fault,) = faults({"admin": address})
        assert fault.startswith(f"--admin: found '{address}', expected HOST:PORT, such as 127.0.0.1:9464")

    @pytest.mark.parametrize("token", ["short", "with a space in it", "tülay-tülay-tülay", "line\nline-line-line-l"])
    def test_a_token_that_a_header_cannot_carry_or_anybody_can_guess_is_refused(self, token: str) -> None:
        (fault,) = faults({"admin_token": token})
        assert fault.startswith("--admin-token: found **********, expected 16 or more letters")
        assert token not in fault


class TestEmbedding:
    def test_settings_are_built_from_keyword_arguments_without_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RECEIPT_ACTORS_CONSUMERS", "9")
        settings = Settings(bundle_ids=("a",), database=Path("r.db"), consumers=2)
        assert (settings.backend, settings.consumers, settings.origins) == ("embedded", 2, {})

    def test_faults_are_our_error_and_name_the_arguments(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Settings(bundle_ids=(), database=Path("r.db"), consumer=2)  # type: ignore[call-arg]
        assert caught.value.faults == (
            "bundle_ids: found '', expected your app's bundle ids, comma separated, or * to accept any",
            "consumer: found an unknown setting, expected a known one; did you mean consumers?",
        )

    def test_settings_do_not_change(self) -> None:
        settings = load()
        with pytest.raises(ValueError, match="frozen"):
            settings.consumers = 5  # type: ignore[misc]
        assert settings.consumers == 4

    def test_settings_travel_to_another_process(self) -> None:
        settings = load({"shared_secret": "hush-hush"})
        assert copy.deepcopy(settings) == settings
        assert pickle.loads(pickle.dumps(settings)) == settings


class TestSomeSettings:
    def test_nothing_is_demanded_that_is_not_used(self) -> None:
        queues = load_some_settings(QueueSettings, {"database": "r.db"}, environ={})
        assert (queues.backend, queues.source_queue) == ("embedded", "ReceiptsSQS")
        assert load_some_settings(AppStoreSettings, {"bundle_ids": "a"}, environ={}).bundle_ids == ("a",)
        environ = {"RECEIPT_ACTORS_LEDGER_TABLE": "Table"}  # a table for start means AWS, whatever the command
        assert load_some_settings(QueueSettings, {}, environ=environ).backend == "aws"

    def test_what_is_not_used_is_not_checked(self, toml: Path) -> None:
        toml.write_text('consumers = "many"\nsource_queue = "Q"\n')
        settings = load_some_settings(QueueSettings, {}, config=toml, environ={"RECEIPT_ACTORS_DRAIN_SECONDS": "0"})
        assert settings.origins == {
            "source_queue": f"source_queue in {toml}",
            "backend": "chosen because source_queue is given",
        }
        toml.write_text('sorce_queue = "Q"\n')  # an unknown name is a fault all the same
        with pytest.raises(ConfigurationError, match=r"did you mean source_queue\?"):
            load_some_settings(QueueSettings, {"database": "r.db"}, config=toml, environ={})


@given(
    flags=st.dictionaries(st.sampled_from(sorted(SETTINGS)), st.text(), max_size=6),
    environ=st.dictionaries(
        st.sampled_from([setting.variable for setting in SETTINGS.values()]), st.text(), max_size=6
    ),
)
def test_whatever_is_given_there_are_settings_or_faults(flags: dict[str, str], environ: dict[str, str]) -> None:
    faults: tuple[str, ...] = ()
    try:
        load_settings(flags, environ=environ)
    except ConfigurationError as error:
        faults = error.faults
    assert faults or "bundle_ids" in flags or environ.get("RECEIPT_ACTORS_BUNDLE_IDS")


@pytest.mark.parametrize(
    ("wait", "limit", "effective"),
    [("10", None, 10), ("10", "30", 10), ("10", "2.5", 3), ("10", "0", 1), ("0", "0", 0), ("1", "0", 1)],
)
def test_a_batch_run_waits_no_longer_for_an_answer_than_it_has_to(wait: str, limit: str | None, effective: int) -> None:
    """Its end waits for a long poll; one of less than a second would not ask all servers of a queue."""
    flags = {"receive_wait_seconds": wait} | ({} if limit is None else {"exit_when_idle_seconds": limit})
    assert load(flags).effective_receive_wait_seconds == effective


def test_every_setting_says_what_it_is_for_and_what_it_takes() -> None:
    for name, setting in SETTINGS.items():
        assert setting.description.endswith("."), name
        assert setting.expected, name
        assert setting.variable == f"RECEIPT_ACTORS_{name.upper()}"
        assert setting.flag == f"--{name}".replace("_", "-") or name == "exit_when_idle_seconds"
    assert SETTINGS["exit_when_idle_seconds"].flag == "--exit-when-idle"


def test_values_that_may_be_written_in_several_ways() -> None:
    for name, setting in SETTINGS.items():
        assert setting.default is None or getattr(load({name: setting.default}), name) == getattr(load(), name)
    assert [load({"processes": value}).processes for value in ("auto", "2", 3)] == ["auto", 2, 3]
    assert load({"log_level": "debug"}).log_level == "DEBUG"
    for url in ("http://127.0.0.1:8080/v", "http://localhost/v", "http://[::1]:1/v", "https://x/v"):
        assert load({"app_store_url": url}).app_store_url == url
    for address in ("127.0.0.1:9464", "localhost:0", "[::1]:9464"):  # this machine needs no token
        assert load({"admin": address}).admin == address


class TestTransport:
    def test_libcurl_is_taken_where_it_is_installed(self) -> None:
        settings = load({"max_in_flight": "3000"})
        assert (settings.transport, settings.uses_curl) == ("auto", True)
        assert settings.effective_app_store_concurrency == 1000
        assert load({"max_in_flight": "300"}).effective_app_store_concurrency == 300
        assert load({"app_store_concurrency": "5000"}).effective_app_store_concurrency == 5000
        assert load({"app_store_concurrency": "7"}).effective_app_store_concurrency == 7

    @pytest.mark.parametrize("found", [None, "PycURL/7.45.7 libcurl/8.16.0"])
    def test_threads_will_do_where_it_is_not(self, found: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        if found is None:
            monkeypatch.setitem(sys.modules, "pycurl", None)
        else:
            monkeypatch.setattr("pycurl.version", found)
        settings = load({"max_in_flight": "3000"})
        assert (settings.transport, settings.uses_curl) == ("auto", False)
        assert settings.effective_app_store_concurrency == 200
        (told,) = faults({"app_store_concurrency": "2000"})
        assert "expected at most 200 a process with threads" in told
        assert ("pip install pycurl" if found is None else "is older than 7.49") in told

    def test_many_threads_are_refused(self) -> None:
        few = load({"transport": "threads", "app_store_concurrency": "200"})
        assert (few.uses_curl, few.effective_app_store_concurrency) == (False, 200)
        (told,) = faults({"transport": "threads", "app_store_concurrency": "201"})
        assert "--app-store-concurrency: found '201', expected at most 200 a process with threads" in told
        assert told.endswith("with transport auto")  # which is there

    def test_more_than_libcurl_can_take_is_refused(self) -> None:
        (told,) = faults({"app_store_concurrency": "10001", "processes": "2"})
        assert "--app-store-concurrency: found '10001', expected at most 5000 a process" in told
        assert "threads" not in told and "pip" not in told


class TestTraces:
    def test_they_need_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert load({"traces": "otlp"}).traces == "otlp"
        for module in [name for name in sys.modules if name.startswith("opentelemetry.")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, "opentelemetry", None)
        (told,) = faults({"traces": "otlp"})
        assert "--traces: found 'otlp', expected OpenTelemetry to be installed" in told
        assert "pip install 'receipt-actors[otel]'" in told
        assert load({}).traces == "none"
