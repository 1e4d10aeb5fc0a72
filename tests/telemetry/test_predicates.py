"""Predicates of traces: what they match, and that any text is either read or refused with a word that helps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.errors import PredicateRefused
from receipt_actors.telemetry.predicate_parser import MAX_CHARACTERS, MAX_DEPTH, parse
from receipt_actors.telemetry.predicates import (
    And,
    Comparison,
    Condition,
    FieldType,
    Not,
    OneOf,
    Operator,
    Or,
    Predicate,
    Vocabulary,
)
from receipt_actors.telemetry.tracing import VOCABULARY

TYPES = {"user": FieldType.NUMBER, "seconds": FieldType.NUMBER, "reason": FieldType.TEXT, "queue": FieldType.TEXT}
SMALL = Vocabulary({"claim": frozenset(TYPES), "reply": frozenset({"user", "reason"})}, TYPES)
FACTS: dict[str, Any] = {"user": 42, "seconds": 1.5, "reason": "already_ours", "queue": None}


def matches(condition: str, **facts: Any) -> bool:
    return parse(f"claim where {condition}", SMALL).holds({**FACTS, **facts})


def refusal(text: str, vocabulary: Vocabulary = SMALL) -> str:
    with pytest.raises(PredicateRefused) as refused:
        parse(text, vocabulary)
    return str(refused.value)


# --- what matches ---


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("claim", {"claim"}),
        (" claim|reply ", {"claim", "reply"}),
        ("*", {"claim", "reply"}),
        ("reply | reply", {"reply"}),
    ],
)
def test_events_are_selected_by_name(text: str, selected: set[str]) -> None:
    """One, several, or all."""
    predicate = parse(text, SMALL)
    assert {event for event in SMALL.events if predicate.selects(event)} == selected
    assert predicate.holds({})


@pytest.mark.parametrize(
    "condition",
    [
        "user == 42",
        "user == 42.0",
        "user != 41",
        "user < 43 and user <= 42 and user > 41 and user >= 42",
        "user > -1e3",
        "seconds == 1.5",
        'reason == "already_ours"',
        "reason == 'already_ours'",
        'reason ~ "ready"',
        'reason ~ "al*_?urs"',
        'reason ~ "*"',
        'reason >= "a" and reason < "b"',
        "user in (1, 2, 42)",
        "user not in (1, 2)",
        "not user in (1, 2)",
        "queue == null",
        "reason != null",
        "not not user == 42",
        "user == 1 or user == 42 and reason ~ 'o'",
        "(user == 1 or user == 42) and not (reason == 'x' or user == 2)",
        "user\n==\t42",
    ],
)
def test_what_is_true_matches(condition: str) -> None:
    """Comparisons, ``in``, ``~`` and what joins them mean what they mean elsewhere."""
    assert matches(condition)
    assert not matches(f"not ({condition})")


@pytest.mark.parametrize(
    "condition",
    ["user == 42", "user != 42", "user < 50", "user in (42)", "user not in (1)", "not user == 1", "user == null"],
)
@pytest.mark.parametrize("found", ["42", True, [], ...])
def test_what_does_not_compare_does_not_match(condition: str, found: object) -> None:
    """A value of another type, or none (``...``), makes nothing true, not even the opposite; null alone is known."""
    facts = {name: fact for name, fact in {**FACTS, "user": found}.items() if fact is not ...}
    assert not parse(f"claim where {condition}", SMALL).holds(facts)


def test_what_is_not_known_does_not_hide_what_is() -> None:
    """``or`` needs one side, ``and`` both."""
    assert parse("claim where user == 1 or reason == 'x'", SMALL).holds({"reason": "x"})
    assert not parse("claim where user == 1 and reason == 'x'", SMALL).holds({"reason": "x"})


@pytest.mark.parametrize(
    ("pattern", "text", "is_like"),
    [
        ("a*b*c", "a--b--c", True),
        ("a*b*c", "a--c--b", False),
        ("a*a", "a", False),
        ("?", "", False),
        ("?*?", "ab", True),
        ("*.json?", "x.json5", True),
        ("[a-z]*", "b", False),
        ("a?c", "abcd", False),
        ("**", "", True),
        ("*" * 300 + "x", "a" * 500, False),
        ("a*" * 200 + "b", "a" * 1000, False),
        ("a?*" * 150 + "b", "a" * 1000, False),
    ],
)
def test_globs(pattern: str, text: str, is_like: bool) -> None:
    """``*`` is anything and ``?`` any one character, of the whole text; none of them takes long."""
    assert parse(f"claim where reason ~ '{pattern}'", SMALL).holds({"reason": text}) is is_like


def test_an_actor_that_can_not_match_is_known_beforehand() -> None:
    """So that nobody else has to be watched."""
    predicate = parse("claim where queue == 'a' and user > 1 and (reason == 'x' or queue ~ 'b*')", SMALL)
    assert predicate.may_hold("queue", "a")
    assert not predicate.may_hold("queue", "b")
    assert not parse("claim where not queue == 'a'", SMALL).may_hold("queue", "a")
    assert parse("claim where not (queue == 'a' and user == 1)", SMALL).may_hold("queue", "a")
    assert parse("claim", SMALL).may_hold("queue", "a")


def test_an_event_that_can_not_match_is_known_beforehand() -> None:
    """It lacks a field that the condition needs."""
    predicate = parse("* where user == 1 and (seconds > 1 or not queue == 'x')", SMALL)
    assert predicate.can_hold({"user", "seconds"})
    assert predicate.can_hold({"user", "queue"})
    assert not predicate.can_hold({"user", "reason"})
    assert parse("*", SMALL).can_hold(set())
    assert not parse("* where not user == 1", SMALL).can_hold({"queue"})


# --- what is refused ---


@pytest.mark.parametrize(
    ("text", "at", "expectation"),
    [
        ("", 0, "expected an event or * (did you mean claim or reply?)"),
        ("clam", 0, "expected an event, found clam (did you mean claim?)"),
        ("CLAIM", 0, "expected an event, found CLAIM (did you mean claim?)"),
        ("claim|", 6, "expected an event or * (did you mean claim or reply?)"),
        ("claim were user == 1", 6, "expected where, | or the end, found were (did you mean where?)"),
        ("claim where", 11, "expected a field, not or (: queue, reason, seconds or user"),
        ("claim where usr == 1", 12, "expected a field, not or (, found usr (did you mean user?)"),
        ("claim where user = 1", 17, "this is not part of the language (did you mean ==?)"),
        ("claim where user 1", 17, "expected ==, !=, <, <=, >, >=, ~, in or not in"),
        ("claim where user == '1'", 20, "user is a number: expected a number"),
        ("claim where user == true", 20, "user is a number: expected a number"),
        ("claim where user < null", 19, "user is a number: expected a number"),
        ("claim where user ~ '1'", 17, "user is a number: ~ is for text"),
        ("claim where reason == 1", 22, "reason is text: expected a string in quotes"),
        ("claim where reason == ours", 22, 'expected "ours" in quotes'),
        ("claim where user in (1, 2", 25, "expected , or )"),
        ("claim where (user == 1", 22, "expected and, or, or )"),
        ("claim where user == 1 )", 22, "expected and, or, or the end"),
        ("claim where user == 1x", 20, "expected a number such as 42, -1 or 0.25"),
        ("claim where user == 1e999", 20, "expected a number that is not as large as this"),
        ("claim where reason ~ 'abc", 21, "expected the quote to be closed"),
        ("claim where reason ~ 'a\\d'", 24, "expected \\\\, \\\", \\', \\n or \\t"),
        ("claim && reply", 6, "this is not part of the language (did you mean and?)"),
        ("reply where queue == 'x'", 12, "reply never has queue; claim may"),
    ],
)
def test_a_refusal_says_where_and_what_was_expected(text: str, at: int, expectation: str) -> None:
    """One line of what was expected, the predicate, and a caret under the place; near names where there are some."""
    assert refusal(text) == f"{expectation}\n{text}\n{' ' * at}^"


def test_what_is_too_long_or_too_deep_is_refused() -> None:
    """Length and depth have bounds, which are told."""
    assert "at most 1,000 characters" in refusal("claim " + " " * MAX_CHARACTERS)
    assert f"at most {MAX_DEPTH}" in refusal("claim where " + "(" * (MAX_DEPTH + 1) + "user == 1")
    assert f"at most {MAX_DEPTH}" in refusal("claim where " + "not " * (MAX_DEPTH + 1) + "user == 1")
    assert "at most 40 digits" in refusal("claim where user == " + "1" * 41)


def test_of_a_long_text_the_place_is_shown() -> None:
    """The caret stands under the place, on a line that a terminal holds."""
    text = "claim where " + " or ".join(f"user == {number}" for number in range(50)) + " or usr == 1"
    _expectation, shown, caret = refusal(text).split("\n")
    assert len(shown) < 80
    assert shown[caret.index("^") :].startswith("usr == 1")


def test_every_event_and_field_of_the_house_can_be_named() -> None:
    """The vocabulary is the one of ``tracing``."""
    for event, fields in VOCABULARY.events.items():
        for field in fields:
            value = "'x'" if VOCABULARY.fields[field] is FieldType.TEXT else "1"
            assert parse(f"{event} where {field} == {value}", VOCABULARY).selects(event)


# --- whatever the text ---

NUMBERS = st.integers(-(10**19), 10**19) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], include_characters="\n\t*?"), max_size=8).filter(
    lambda text: all(each.isprintable() or each in "\n\t" for each in text)
)
NUMBER_FIELDS, TEXT_FIELDS = st.sampled_from(["user", "seconds"]), st.sampled_from(["reason", "queue"])
ORDERINGS = [Operator.LESS, Operator.AT_MOST, Operator.GREATER, Operator.AT_LEAST]
LEAVES: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Comparison, NUMBER_FIELDS, st.sampled_from([Operator.EQUAL, Operator.NOT_EQUAL, *ORDERINGS]), NUMBERS),
    st.builds(Comparison, TEXT_FIELDS, st.sampled_from(list(Operator)), TEXTS),
    st.builds(
        Comparison, NUMBER_FIELDS | TEXT_FIELDS, st.sampled_from([Operator.EQUAL, Operator.NOT_EQUAL]), st.none()
    ),
    st.builds(OneOf, NUMBER_FIELDS, st.lists(st.none() | NUMBERS, min_size=1, max_size=3).map(tuple)),
    st.builds(OneOf, TEXT_FIELDS, st.lists(TEXTS, min_size=1, max_size=3, unique=True).map(tuple)),
)


def _joined(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    def several(kind: Any) -> st.SearchStrategy[Any]:
        parts = inner.filter(lambda condition: not isinstance(condition, kind))
        return st.lists(parts, min_size=2, max_size=3).map(lambda conditions: kind(tuple(conditions)))

    return st.builds(Not, inner) | several(And) | several(Or)


CONDITIONS = st.recursive(LEAVES, _joined, max_leaves=8)
PREDICATES = st.builds(Predicate, st.sampled_from([None, ["claim"], ["reply", "claim"]]), st.none() | CONDITIONS)
FACT_VALUES = st.none() | st.booleans() | NUMBERS | TEXTS | st.just([])
ALL_FACTS = st.dictionaries(st.sampled_from(sorted(TYPES)), FACT_VALUES)
WORDS = ["claim", "where", "and", "or", "not", "in", "null"]
PIECES = [*TYPES, *WORDS, "(", ")", "==", "~", "1", "'x'", '"', "|", "*", ","]


@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else happens, and what was read is written so that it is read again as the same."""
    try:
        predicate = parse(text, SMALL)
    except PredicateRefused:
        return
    assert parse(str(predicate), SMALL) == predicate


@given(PREDICATES)
def test_what_is_written_is_read_as_the_same(predicate: Predicate) -> None:
    """Quotes, escapes, numbers and parentheses survive."""
    written = str(predicate)
    if len(written) <= MAX_CHARACTERS:
        read = parse(written, SMALL)
        assert (read.events, read.condition) == (predicate.events, predicate.condition)


@given(CONDITIONS, ALL_FACTS)
def test_it_agrees_with_a_plain_reading(condition: Condition, facts: dict[str, Any]) -> None:
    """Whatever is compared with whatever: a match is what the plain reading below takes for true."""
    assert Predicate(None, condition).holds(facts) is (plain_reading(condition, facts) is True)


@given(CONDITIONS, ALL_FACTS.filter(lambda facts: "queue" in facts))
def test_what_may_not_hold_does_not(condition: Condition, facts: dict[str, Any]) -> None:
    """An actor that is not watched would not have matched."""
    predicate = Predicate(None, condition)
    assert predicate.may_hold("queue", facts["queue"]) or not predicate.holds(facts)


@given(CONDITIONS, ALL_FACTS)
def test_what_can_not_hold_does_not(condition: Condition, facts: dict[str, Any]) -> None:
    """An event that lacks a field that it would need is not looked at."""
    predicate = Predicate(None, condition)
    assert predicate.can_hold(facts) or not predicate.holds(facts)


def plain_reading(condition: Condition, facts: Mapping[str, Any]) -> bool | None:
    """Evaluate a condition as its documentation says it; None is unknown."""
    match condition:
        case And(conditions):
            truths = [plain_reading(each, facts) for each in conditions]
            return False if False in truths else None if None in truths else True
        case Or(conditions):
            truths = [plain_reading(each, facts) for each in conditions]
            return True if True in truths else None if None in truths else False
        case Not(inner):
            truth = plain_reading(inner, facts)
            return None if truth is None else not truth
        case OneOf(field, values):
            return plain_reading(Or(tuple(Comparison(field, Operator.EQUAL, value) for value in values)), facts)
        case Comparison(field, how, value):
            return _compared(facts[field], how, value) if field in facts else None


def _compared(found: Any, how: Operator, value: Any) -> bool | None:
    if found is None or value is None:
        return {Operator.EQUAL: found is value, Operator.NOT_EQUAL: found is not value}.get(how)
    if kind_of(found) != kind_of(value):
        return None
    match how:
        case Operator.EQUAL:
            return bool(found == value)
        case Operator.NOT_EQUAL:
            return bool(found != value)
        case Operator.LESS:
            return bool(found < value)
        case Operator.AT_MOST:
            return bool(found <= value)
        case Operator.GREATER:
            return bool(found > value)
        case Operator.AT_LEAST:
            return bool(found >= value)
        case Operator.LIKE:
            return looks_like(found, value) if "*" in value or "?" in value else value in found


def kind_of(value: object) -> object:
    return "number" if type(value) in (int, float) else type(value)


def looks_like(text: str, pattern: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return looks_like(text, pattern[1:]) or (text != "" and looks_like(text[1:], pattern))
    return text != "" and pattern[0] in ("?", text[0]) and looks_like(text[1:], pattern[1:])
