"""What a broken or hostile App Store could answer, by seed, and what may come of it at most."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")
BUNDLE_ID = "com.example.game"
_DEEPEST = 100_000


class Outcome(Enum):
    OK = "ok"  #: its one transaction is worth an OK
    REFUSED = "refused"  #: Apple's final refusal, by its status
    INVALID = "invalid"  #: a transaction is named, and policy refuses it
    NOTHING = "nothing"  #: no verdict: tried again, handed back, or moved as not understood


@dataclass(frozen=True, slots=True)
class HostileAnswer:
    family: str
    body: bytes = field(repr=False)
    transaction_id: str
    allowed: frozenset[Outcome]


_Made = tuple[str | bytes, Outcome] | tuple[str | bytes, Outcome, Outcome]


def hostile_answers(count: int, seed: int, *, large: int = 0, only_readable: bool = False) -> Iterator[HostileAnswer]:
    """Make ``count`` answers, each for a transaction of its own; ``large`` of them have 10 MB and more.

    ``only_readable`` leaves out what can't even be told from a web page, of which a few in a row are an outage.
    """
    rng = random.Random(seed)
    for number in range(count):
        maker = _Maker(rng, str(70_000_000_000_000 + seed * 1_000_000 + number))
        families = maker.readable() if only_readable else [*maker.readable(), *maker.unreadable()]
        make = maker.large if number < large else families[number % len(families)]
        body, *allowed = make()
        data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
        yield HostileAnswer(make.__name__, data, maker.transaction_id, frozenset(allowed))


class _Maker:
    def __init__(self, rng: random.Random, transaction_id: str) -> None:
        self._random = rng
        self.transaction_id = transaction_id

    def readable(self) -> list[Callable[[], _Made]]:
        return [
            *(self.odd_but_clear, self.refusal, self.status, self.receipt, self.in_app, self.transaction_id_of),
            *(self.environment, self.bundle, self.date, self.cancellation, self.renewals, self.crowd),
        ]

    def unreadable(self) -> list[Callable[[], _Made]]:
        return [self.no_json, self.no_status, self.twice, self.constant, self.deep, self.digits, self.mutated]

    # --- clear all the same ---

    def odd_but_clear(self) -> _Made:
        noise = self._one(
            "x" * 10_000, [[]] * 100, {"status": 21003}, _nested(100), 10**40, 1e300, "\ud800\x00", None, "21004"
        )
        entry = self._entry() | {self._one("x", "status", "receipt", "\x00", "__proto__"): noise}
        if self._random.random() < 0.5:
            entry["transaction_id"] = int(self.transaction_id)
        answer = self._answer(entry) | {self._one("x", "Status", "reciept", "latest_receipt"): noise}
        text = json.dumps(answer, ensure_ascii=True, indent=self._one(None, 7))
        return self._one(text, "\n \t" + text + " \r\n", text.replace('"status"', '"\\u0073tatus"')), Outcome.OK

    def large(self) -> _Made:
        size = 10_000_000
        texts = ["x" * size, [0] * (size // 3), ["\ud800"] * (size // 10)]
        answer = self._answer() | {"latest_receipt": self._one(*texts)}
        if self._random.random() < 0.3:
            return json.dumps(answer) + " " * 17_000_000, Outcome.NOTHING
        return json.dumps(answer), Outcome.OK

    def refusal(self) -> _Made:
        answer = self._answer() | {"status": self._one(21003, 21010, 21150)}
        return json.dumps(answer), Outcome.REFUSED

    # --- an object with a status, and something wrong ---

    def status(self) -> _Made:
        status = self._one(
            -1, 1, 200, 404, 20999, 21001, 21005, 21009, 21011, 21099, 21200, 10**9, 10**30, -(10**30), 2**31
        )
        return json.dumps(self._answer() | {"status": status}), Outcome.NOTHING

    def receipt(self) -> _Made:
        answer = self._answer()
        receipt = answer.pop("receipt")
        wrong = self._one(None, [], [receipt], json.dumps(receipt), 0, True, {}, {"receipt": receipt}, {"in_app": None})
        if self._random.random() < 0.8:
            answer["receipt"] = wrong
        return json.dumps(answer), Outcome.NOTHING

    def in_app(self) -> _Made:
        entry = self._entry()
        wrong = self._one(
            None, {}, entry, {"0": entry}, "x", 5, True, [None], [[entry]], [entry, 5], [json.dumps(entry)], []
        )
        return json.dumps(self._answer(in_app=wrong)), Outcome.NOTHING

    def transaction_id_of(self) -> _Made:
        entry = self._entry()
        ids = ["", None, True, [], {}, 1.5, -5, 10**40, "x" * 257, "a\nb", "\x00", "\ud800", [self.transaction_id]]
        entry["transaction_id"] = self._one(*ids)
        if self._random.random() < 0.1:
            del entry["transaction_id"]
        more = [self._entry()] if self._random.random() < 0.3 else []
        return json.dumps(self._answer(in_app=[*more, entry])), Outcome.NOTHING

    def environment(self) -> _Made:
        named = self._one(
            "Xcode", "LocalTesting", "", "production", "PRODUCTION", 0, True, [], {}, ["Production"], "Production "
        )
        return json.dumps(self._answer() | {"environment": named}), Outcome.NOTHING

    def bundle(self) -> _Made:
        answer = self._answer()
        answer["receipt"] |= self._one(
            *({"bundle_id": wrong} for wrong in (5, True, [], {}, "", "x" * 257, "a\x00", [BUNDLE_ID])),
            {"bid": "com.example.other"},
        )
        return json.dumps(answer), Outcome.NOTHING

    def date(self) -> _Made:
        name = self._one("purchase_date_ms", "expires_date_ms", "expires_date", "quantity")
        wrong = self._one(
            "", "x", "-1", -1, 1.5, True, [], {}, "9" * 17, 10**17, "\u0661", "1e9", "2030-99-01 00:00:00 Etc/GMT"
        )
        return json.dumps(self._answer(self._entry() | {name: wrong})), Outcome.NOTHING

    def cancellation(self) -> _Made:
        name = self._one("cancellation_date", "cancellation_date_ms")
        wrong = self._one("", False, True, [], {}, 1.5, "x" * 257, "\x00", "\ud800")
        return json.dumps(self._answer(self._entry() | {name: wrong})), Outcome.NOTHING

    def renewals(self) -> _Made:
        wrong = self._one("x", 5, True, [None], [[]], {}, [{}], [{"transaction_id": ""}])
        return json.dumps(self._answer() | {"latest_receipt_info": wrong}), Outcome.NOTHING

    def crowd(self) -> _Made:
        entries = [self._entry() | {"transaction_id": f"{self.transaction_id}.{number}"} for number in range(101)]
        return json.dumps(self._answer(in_app=entries * self._one(1, 20))), Outcome.NOTHING

    # --- nothing that could be read ---

    def no_json(self) -> _Made:
        text = json.dumps(self._answer())
        noise = self._random.randbytes(self._one(1, 100, 50_000))
        return self._one(
            *("", " ", "null", "<html>We'll be back soon</html>", "OK", '"status"', "0"),
            *(text[: self._random.randrange(len(text))], text + text, text + "}", f"[{text}]", json.dumps(text)),
            *(text.replace('"', "'"), f"callback({text})", text.encode() + b"\xff", b"\x00" + text.encode(), noise),
        ), Outcome.NOTHING

    def no_status(self) -> _Made:
        answer = self._answer()
        wrong = self._one("0", 0.0, False, None, [], [0], {}, {"status": 0}, "", "valid")
        del answer["status"]
        if self._random.random() < 0.8:
            answer["status"] = wrong
        return json.dumps(answer), Outcome.NOTHING

    def twice(self) -> _Made:
        """A key with two values: readers disagree on which of them counts."""
        answer = self._answer()
        text = json.dumps(answer)
        name, first, second = self._one(
            *(("status", "21003", "0"), ("status", "0", "21003"), ("status", "0", "21010")),
            ("bundle_id", '"com.example.other"', f'"{BUNDLE_ID}"'),
            ("transaction_id", '"1"', f'"{self.transaction_id}"'),
            ("environment", '"Sandbox"', '"Production"'),
            ("in_app", "[]", json.dumps(answer["receipt"]["in_app"])),
        )
        written = f'"{name}": {json.dumps(_find(answer, name))}'
        assert written in text
        return text.replace(written, f'"{name}": {first}, "{name}": {second}', 1), Outcome.NOTHING

    def constant(self) -> _Made:
        constant = self._one("NaN", "Infinity", "-Infinity")
        text = json.dumps(self._answer())
        return self._one(f'{{"x": {constant}, {text[1:]}', f'{text[:-1]}, "x": [{constant}]}}'), Outcome.NOTHING

    def deep(self) -> _Made:
        opening, closing = self._one(("[", "]"), ('{"x":', "}"))
        deep = opening * _DEEPEST + "0" + closing * _DEEPEST
        text = json.dumps(self._answer())
        return self._one(deep, f'{text[:-1]}, "x": {deep}}}', f'{{"receipt": {deep}, "status": 0}}'), Outcome.NOTHING

    def digits(self) -> _Made:
        text = json.dumps(self._answer())
        digits = "9" * self._one(4301, 100_000)
        return self._one(
            text.replace('"status": 0', f'"status": {digits}'), f'{{"x": {digits}, {text[1:]}'
        ), Outcome.NOTHING

    def mutated(self) -> _Made:
        """Some bytes of a good answer changed: it may be good still, but for no transaction that it does not name."""
        data = bytearray(json.dumps(self._answer()).encode())
        for _ in range(self._one(1, 2, 20)):
            data[self._random.randrange(len(data))] = self._random.randrange(256)
        return bytes(data), *Outcome

    # --- parts ---

    def _answer(self, entry: Mapping[str, Any] | None = None, in_app: object = ...) -> dict[str, Any]:
        entries = [entry or self._entry()] if in_app is ... else in_app
        receipt = {"bundle_id": BUNDLE_ID, "receipt_type": "Production", "in_app": entries}
        return {"status": 0, "environment": "Production", "receipt": receipt}

    def _entry(self) -> dict[str, Any]:
        return {
            "transaction_id": self.transaction_id,
            "product_id": "coins_100",
            "quantity": "1",
            "purchase_date_ms": "1750000000000",
        }

    def _one(self, *choices: T) -> T:
        return self._random.choice(choices)


def _nested(depth: int) -> object:
    value: object = 0
    for _ in range(depth):
        value = [value]
    return value


def _find(answer: Mapping[str, Any], name: str) -> object:
    for fields in (answer, answer["receipt"], answer["receipt"]["in_app"][0]):
        if name in fields:
            return fields[name]
    raise KeyError(name)
