"""``hostile_messages``: what a cracker, a broken producer or a random bit would put on the queue, by seed.

Each message comes with the ``Reason`` for which it must be moved to the dead-letter queue. Where there is none the
message may be well-formed: then it is for Apple to refuse the receipt, which was never bought with.
"""

from __future__ import annotations

import base64
import json
import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from receipt_actors.domain.ports import MAX_BATCH_BYTES, OutgoingMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.sqs_rules import check_send_batch

POST_QUEUE = "ResultsSQS"  #: which the messages are answered on, were they good
_REQUIRED = ("receipt", "user_id", "post_queue")
_OPTIONAL = ("transaction_id", "product_id")
_ROOM_BYTES = 4096  # that a large body leaves for attributes
_DEEPEST = 100_000
_Choice = TypeVar("_Choice")


@dataclass(frozen=True, slots=True)
class HostileMessage:
    """A message to send to the source queue."""

    family: str  #: what sort of malice it is
    body: str = field(repr=False)
    reason: Reason | None  #: for which it must be moved; None: Apple's refusal, or whatever its mutations have hit
    attributes: Mapping[str, str] = field(default_factory=dict, repr=False)


_Made: TypeAlias = tuple[str, Reason | None] | tuple[str, Reason | None, Mapping[str, str]]


def hostile_messages(
    count: int, seed: int, *, receipt: str = "bm8gcmVjZWlwdA==", large: int = 0, any_queue: bool = False
) -> Iterator[HostileMessage]:
    """Make ``count`` messages, every family in turn; the same ones for the same arguments.

    Args:
        count: how many.
        seed: of everything that is random.
        receipt: what the messages are made from; a forged one, so that none of them can be worth an OK.
        large: how many of them have about 1 MiB.
        any_queue: also what SQS (and the embedded queue) would not take: lone surrogates, control characters, empty
            bodies, more than 1 MiB; for a parser alone, or a broker of other rules.
    """
    maker = _Maker(random.Random(seed), receipt)
    families = maker.families()
    for number in range(count):
        if large and number % max(1, count // large) == 0 and number // max(1, count // large) < large:
            name, make = "large", maker.large
        else:
            name, make = families[number % len(families)]
        message = _message(name, make())
        while not any_queue and check_send_batch("", [OutgoingMessage(message.body, message.attributes)]) != [None]:
            message = _message(name, make())
        yield message


def _message(family: str, made: _Made) -> HostileMessage:
    body, reason, *attributes = made
    return HostileMessage(family, body, reason, attributes[0] if attributes else {})


class _Maker:
    def __init__(self, rng: random.Random, receipt: str) -> None:
        self._random = rng
        self._receipt = receipt

    def families(self) -> Sequence[tuple[str, Callable[[], _Made]]]:
        """Name them all; each has at least one message that SQS takes."""
        makers = (
            *(self.truncated, self.foreign_syntax, self.encoding, self.not_an_object, self.wrong_type, self.missing),
            *(self.empty, self.number, self.constant, self.duplicate_key, self.surrogate, self.deep, self.brackets),
            *(self.queue_name, self.submission_id, self.attribute, self.bad_receipt, self.odd_receipt, self.escapes),
            *(self.mutated, self.spliced),
        )
        return [(make.__name__, make) for make in makers]

    # --- no JSON, or no object ---

    def truncated(self) -> _Made:
        text = self._good()
        return text[: self._random.randrange(len(text))], Reason.NOT_JSON

    def foreign_syntax(self) -> _Made:
        text, fields = self._good(), json.loads(self._good())
        spoilt_number = self._one("01", "+1", ".5", "1.", "0x10", "1_000", "1e", "--1", "tru", "None", "undefined")
        spoilt_string = self._one(r'"\x41"', r'"\u12G4"', r'"\u"', "'AAAA'", '"A', 'A"', r'"\"', "`AAAA`")
        body = self._one(
            f"<purchase user='{fields['user_id']}'/>",
            "&".join(f"{name}={value}" for name, value in fields.items()),
            "\n".join(f"{name}: {value}" for name, value in fields.items()),
            repr(fields),
            text + self._one(",", "}", text, "\x00", "null", "//", ";"),
            self._one("//\n", "/**/", "(", "callback(", ")]}',\n", "HTTP/1.1 200 OK\r\n\r\n", "}") + text,
            f"{text[:-1]},}}",
            text.replace(":", "=", 1),
            text.replace('"', "", 2),
            self._written(user_id=spoilt_number),
            self._written(receipt=spoilt_string),
        )
        return body, Reason.NOT_JSON

    def encoding(self) -> _Made:
        text = self._good()
        data = text.encode()
        raw_control = self._one("\t", "\n", "\r", "\x00", "\x1b[2J", "\x08", "\x1f")
        body = self._one(
            "\ufeff" + text,
            self._one("\u00a0", "\u2028", "\u200b", "\u3000", "\x0b", "\x0c", "\x00") + text,
            (data + b" " * (len(data) % 2)).decode("utf-16-le", "replace"),
            text.encode("utf-16").decode("latin-1"),
            text.encode("utf-32-be").decode("latin-1"),
            zlib.compress(data, 1).decode("latin-1"),
            base64.b64encode(data).decode(),
            data.hex(),
            text.replace('"', "\u201c"),
            self._written(receipt=f'"AA{raw_control}AA"'),
        )
        return body, Reason.NOT_JSON

    def not_an_object(self) -> _Made:
        text = self._good()
        body = self._one(f"[{text}]", json.dumps(text), "null", "true", str(self._integer()), "-1.5e3", "[]", '""')
        return self._one("", " ", "\n") + body, Reason.NOT_AN_OBJECT

    # --- wrong fields ---

    def wrong_type(self) -> _Made:
        name = self._one(*_REQUIRED, *_OPTIONAL)
        values: list[object] = [True, False, [], {}, [self._good()], {name: self._receipt}, 0.5, [[None]]]
        values += [str(self._integer())] if name == "user_id" else [self._integer()]
        values += [None] if name in _REQUIRED else []
        return self._with(name, json.dumps(self._one(*values)))

    def missing(self) -> _Made:
        name = self._one(*_REQUIRED)
        values = {each: self._value(each) for each in _REQUIRED}
        value = values.pop(name)
        near = self._one(
            "", name.upper(), name.replace("_", "-"), name + "\u200b", f" {name}", name.replace("e", "\u0435")
        )
        if near and near != name:
            values[near] = value
        values["__proto__"] = json.dumps({name: 1})
        return self._object(values), _bad(name)

    def empty(self) -> _Made:
        name = self._one(*_REQUIRED, *_OPTIONAL)
        texts = ["", "\n", "\x00", "\r\n", "\t", *([] if name in _OPTIONAL else [" ", "   ", "\u00a0"])]
        return self._with(name, json.dumps(self._one(*texts)))

    def number(self) -> _Made:
        digits = self._one(20, 30, 400, 4300, 4301, 10_000)
        huge = self._one("", "-") + self._one("9" * digits, "1" + "0" * digits)
        wide = self._one(huge, "1e999", "-1e999", "1e19", f"{2**63}", f"{-(2**63) - 1}", "0.1", "9007199254740993.0")
        if self._random.random() < 0.7:
            return self._with("user_id", wide)
        if self._random.random() < 0.5:
            return self._with(self._one("receipt", "post_queue", *_OPTIONAL), wide)
        return self._object({"x": wide, "receipt": "null"}), Reason.BAD_RECEIPT

    def constant(self) -> _Made:
        value = self._one("NaN", "Infinity", "-Infinity")
        name = self._one(*_REQUIRED, "x")
        return self._written(**{name: self._one(value, f"[{value}]", f'{{"y":{value}}}')}), Reason.NOT_JSON

    def duplicate_key(self) -> _Made:
        name = self._one(*_REQUIRED)
        escaped = "".join(self._one(letter, f"\\u{ord(letter):04x}") for letter in name)
        again = f'"{self._one(name, escaped)}":{self._one(self._value(name), "null", "[]")}'
        inner = '{"y":1,"\\u0079":1}'
        body = self._one(
            f"{self._good()[:-1]},{again}}}",
            f"{{{again},{self._good()[1:]}",
            self._written(x=self._one(inner, f"[{inner}]", f'{{"z":[{inner}]}}')),
            self._written(x='{"":1,"":1}'),
        )
        return body, Reason.DUPLICATE_KEY

    def surrogate(self) -> _Made:
        name = self._one("receipt", "post_queue", *_OPTIONAL)
        lone = self._one(r"\ud800", r"\udfff", r"\udc00\ud800", r"\uD83D", "\ud800", "\udfff")
        return self._with(name, f'"AA{lone}AA"')

    def escapes(self) -> _Made:
        """Keys and values that only a JSON parser reads; then one fault, to be found all the same."""
        name = self._one(*_REQUIRED)
        fields = {_escaped(each): self._value(each) for each in _REQUIRED if each != name}
        fields[_escaped(name)] = self._one("null", '"\\u0000"', "[]", "{}")
        return self._object(fields), _bad(name)

    # --- structure ---

    def deep(self) -> _Made:
        depth = self._one(33, 34, 100, 990, 1_000, 5_000, self._one(10_000, _DEEPEST))
        opening, closing = self._one(("[", "]"), ('{"x":', "}"), ('[{"x":', "}]"))
        inside = opening * depth + self._one("", "1") + self._one("", closing * depth)
        if self._random.random() < 0.3:
            return inside, Reason.TOO_DEEP
        text = self._good()
        return self._one(f'{text[:-1]},"x":{inside}}}', self._written(receipt=inside)), Reason.TOO_DEEP

    def brackets(self) -> _Made:
        """Brackets inside strings are no depth, however they are escaped; the fault is elsewhere."""
        noise = "".join(self._random.choices('[]{}"\\,:\n', k=self._one(40, 400, 4000)))
        return self._written(x=json.dumps(noise), user_id="null"), Reason.BAD_USER_ID

    def large(self) -> _Made:
        """About 1 MiB; some of it is valid JSON that only lacks a user."""
        room = MAX_BATCH_BYTES - _ROOM_BYTES
        start = self._object({"receipt": self._value("receipt"), "post_queue": self._value("post_queue")})[:-1]
        kinds: list[tuple[str, Reason]] = [
            ("A" * room, Reason.NOT_JSON),
            (f'{start},"x":"{"A" * (room - 200 - len(self._receipt))}"}}', Reason.BAD_USER_ID),
            (f'{start},"x":"{chr(0x1F4A9) * (room // 5)}"}}', Reason.BAD_USER_ID),
            (f'{start},"x":[{"0," * (room // 3)}0]}}', Reason.BAD_USER_ID),
            (f'{start},"user_id":{"9" * (room // 2)}}}', Reason.BAD_USER_ID),
            (start + " " * (room - 500 - len(self._receipt)) + "}", Reason.BAD_USER_ID),
            ("[" * room, Reason.TOO_DEEP),
            ('{"a":' * (room // 5), Reason.TOO_DEEP),
            ('"' + "\\[" * (room // 3), Reason.NOT_JSON),
            (f"{{{','.join(f'{chr(34)}k{number}{chr(34)}:0' for number in range(room // 12))}}}", Reason.BAD_RECEIPT),
            ("\u00e9" * MAX_BATCH_BYTES, Reason.TOO_LARGE),
            (self._good() + " " * MAX_BATCH_BYTES, Reason.TOO_LARGE),
        ]
        return self._one(*kinds)

    # --- where it would have us write, and under which name ---

    def queue_name(self) -> _Made:
        name = POST_QUEUE
        if self._random.random() < 0.3:
            near = (name.swapcase(), f"{name}2", f"{name}.fifo")
            others = ("ReceiptsSQS", "ReceiptsSQSDLQ", *near, "Other", "0", "-", "a" * 80)
            return self._written(post_queue=json.dumps(self._one(*others))), Reason.POST_QUEUE_NOT_ALLOWED
        odd = self._one(
            f"https://sqs.eu-west-1.amazonaws.com/123456789012/{name}",
            f"arn:aws:sqs:eu-west-1:123456789012:{name}",
            *("http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "${jndi:ldap://127.0.0.1/x}", "*"),
            *(f"../{name}", f"./{name}", f"{name}/", f"/{name}", f"queue/../{name}", f"{name}%00", f"{name}\\..\\x"),
            *(f"{name} ", f" {name}", f"{name}\n", f"{name}\x00", f"{name},Other", f"{name};", f"{name}.fifo.fifo"),
            "a" * 81,
            *(name.replace("e", "\u0435"), name.replace("S", "\uff33"), f"{name}\u200b", f"\u202e{name[::-1]}"),
            "'; DROP TABLE queues; --",
        )
        return self._written(post_queue=json.dumps(odd)), Reason.BAD_POST_QUEUE

    def submission_id(self) -> _Made:
        bad = self._one(
            "", "x" * 257, "x" * 5000, "a\tb", "a\nINFO forged line", "\r\n", "a\x00", "\ud800", "\x7f", "\x85"
        )
        body = self._one(self._good(), self._good(), "null", self._written(user_id="null"))
        return body, Reason.BAD_SUBMISSION_ID, {"submission_id": bad}

    def attribute(self) -> _Made:
        """Attributes of a stranger, some in the name of ours; the body has one fault."""
        odd = self._one("x", "\U0001f4a9" * 64, "../../etc/passwd", "a" * 256, "' OR 1=1 --", "%s%n", "{0.__class__}")
        ours: dict[str, str] = {name: odd for name in ("reason", "detail", "source_message_id")}
        foreign = {f"x-{number}": odd * 8 for number in range(4)}
        times = {"submitted_at": self._one("0", "-1", "9" * 13, "9" * 300, "NaN", "1e999", "yesterday")}
        attributes = {**self._one(ours, foreign, {}), **self._one(times, {}), "submission_id": odd}
        return self._written(user_id='"0"'), Reason.BAD_USER_ID, attributes

    # --- receipts ---

    def bad_receipt(self) -> _Made:
        odd = self._one(
            "A A", "\u00e4", "AAAA\x00", "\x1b]0;x\x07", "\uff21" * 4, "data: base64", "A\tA", "\u2028", "\ufeffAAAA"
        )
        return self._written(
            receipt=json.dumps(self._one(odd, self._receipt + odd, odd + self._receipt))
        ), Reason.BAD_RECEIPT

    def odd_receipt(self) -> _Made:
        """What passes for a receipt until somebody reads it: it is Apple's to refuse."""
        bomb = b"\x00" * self._one(10, 1_000, 1_000_000)
        header = (
            base64.urlsafe_b64encode(self._one(b'{"alg":"none"}', b'{"alg":"ES256","x5c":[]}')).decode().rstrip("=")
        )
        claims = base64.urlsafe_b64encode(b'{"transactionId":"1","bundleId":"com.example.game"}').decode().rstrip("=")
        odd = self._one(
            f"{header}.{claims}.{base64.urlsafe_b64encode(self._random.randbytes(64)).decode().rstrip('=')}",
            f"{header}.{claims}.A",
            base64.b64encode(zlib.compress(bomb, 9)).decode(),
            base64.b64encode(b"PK\x03\x04" + zlib.compress(bomb, 9)).decode(),
            base64.b64encode(b"\x30\x80" * self._one(10, 2000)).decode(),
            base64.encodebytes(self._random.randbytes(self._one(1, 100, 10_000))).decode(),
            "A" * self._one(1, 2, 3, 50_000),
            self._one("=", "====", "-", "data:;base64,AAAA", "%s%s%s", "{{7*7}}", "<script>", "$(id)", "\\u0000"),
            self._receipt[: self._random.randrange(1, len(self._receipt))],
        )
        return self._written(receipt=json.dumps(odd)), None

    # --- fuzz ---

    def mutated(self) -> _Made:
        data = bytearray(self._good().encode())
        for _ in range(self._one(1, 1, 2, 8, 64)):
            position = self._random.randrange(len(data))
            match self._random.randrange(4):
                case 0:
                    data[position] ^= 1 << self._random.randrange(8)
                case 1:
                    del data[position : position + self._random.randrange(8)]
                case 2:
                    data[position:position] = self._random.randbytes(self._random.randrange(8))
                case _:
                    data[position] = self._random.choice(b'{}[]":,\\0159eE.-+ \x00\xff')
            data = data or bytearray(b"{")
        return data.decode("utf-8", self._one("replace", "surrogateescape", "ignore")), None

    def spliced(self) -> _Made:
        first, second = self._good(), self._one(*self.families()[:-1])[1]()[0]
        cut = self._random.randrange(len(first))
        rest = second[self._random.randrange(len(second) or 1) :]
        return first[:cut] + rest + self._one("", first[cut:]), None

    # --- parts ---

    def _one(self, *choices: _Choice) -> _Choice:
        return self._random.choice(choices)

    def _integer(self) -> int:
        return self._random.randrange(2**63)

    def _value(self, name: str) -> str:
        values = {"receipt": self._receipt, "user_id": self._integer(), "post_queue": POST_QUEUE}
        return json.dumps(values[name])

    def _good(self) -> str:
        return self._written()

    def _with(self, name: str, written: str) -> tuple[str, Reason]:
        return self._written(**{name: written}), _bad(name)

    def _written(self, **fields: str) -> str:
        """A good message, but for fields that are given as they are to be written."""
        return self._object({name: self._value(name) for name in _REQUIRED} | fields)

    def _object(self, fields: Mapping[str, str]) -> str:
        names = list(fields)
        self._random.shuffle(names)
        return "{" + ",".join(f'"{name}":{fields[name]}' for name in names) + "}"


def _bad(name: str) -> Reason:
    return Reason(f"bad_{name}")


def _escaped(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)
