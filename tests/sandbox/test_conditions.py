"""The simulated DynamoDB's condition expressions."""

from __future__ import annotations

import pytest

from receipt_actors.sandbox.services.dynamodb import BadExpression, condition_holds

NAMES = {"#key": "Key"}
VALUES = {":two": {"N": "2"}, ":word": {"S": "two"}}
ITEM = {"Key": {"S": "k"}, "Count": {"N": "2.0"}, "Word": {"S": "two"}}


@pytest.mark.parametrize(
    ("text", "of_the_item", "of_none"),
    [
        ("attribute_exists(#key)", True, False),
        ("ATTRIBUTE_NOT_EXISTS( Count )", False, True),
        ("Count = :two", True, False),
        ("Count < :two", False, False),
        ("Count <= :two", True, False),
        ("Word = :word", True, False),
        ("Word <= :two", False, False),
        ("attribute_not_exists(Count) OR Count < :two", False, True),
        ("attribute_exists(Key) and attribute_exists(Word) AND Count = :two", True, False),
        ("attribute_exists(Key) AND (attribute_not_exists(Count) OR Count <= :two)", True, False),
        ("attribute_not_exists(Key) AND Count = :two OR Word = :word", True, False),
    ],
)
def test_what_is_understood(text: str, of_the_item: bool, of_none: bool) -> None:
    assert condition_holds(text, NAMES, VALUES, ITEM) is of_the_item
    assert condition_holds(text, NAMES, VALUES, {}) is of_none


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Count",
        "Count =",
        "Count > :two",
        "Count = :three",
        "#other = :two",
        ":two = :two",
        "attribute_exists Count",
        "attribute_exists(Count",
        "(Count = :two",
        "Count = :two) AND Word = :word",
        "Count = :two AND",
        "begins_with(Word, :word)",
        "NOT Count = :two",
        "Count = :two Word = :word",
    ],
)
def test_what_is_not_is_refused(text: str) -> None:
    with pytest.raises(BadExpression, match="is not simulated"):
        condition_holds(text, NAMES, VALUES, ITEM)
