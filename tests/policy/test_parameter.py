"""Typed parameters: one value, one meaning."""

import pytest

from taskmint.model.scope import ParameterValue
from taskmint.policy.parameter import (
    BooleanParameter,
    EnumParameter,
    IntegerParameter,
    Parameter,
    Refused,
    SegmentParameter,
)
from taskmint.yaml_model import MAX_INTEGER

ENUM = EnumParameter("p", ("eu", "us", "1"))
SEGMENT = SegmentParameter("p", 5)
INTEGER = IntegerParameter("p", -2, 10)
BOOLEAN = BooleanParameter("p")


@pytest.mark.parametrize(
    ("parameter", "claimed", "accepted"),
    [
        (ENUM, "eu", "eu"),
        (ENUM, "1", "1"),
        (SEGMENT, "a-B_9", "a-B_9"),
        (SEGMENT, "x", "x"),
        (INTEGER, -2, -2),
        (INTEGER, 10, 10),
        (INTEGER, "7", 7),
        (INTEGER, "-1", -1),
        (INTEGER, "0", 0),
        (BOOLEAN, True, True),
        (BOOLEAN, False, False),
        (BOOLEAN, "true", True),
        (BOOLEAN, "false", False),
    ],
)
def test_values_of_the_type_are_accepted(
    parameter: Parameter, claimed: ParameterValue, accepted: ParameterValue
) -> None:
    """Numbers and booleans also as their one text; the value that comes out has the type."""
    value = parameter.accept(claimed)

    assert value == accepted
    assert type(value) is type(accepted)


@pytest.mark.parametrize(
    ("parameter", "claimed", "reason"),
    [
        (ENUM, "EU", "must be one of: eu, us, 1"),
        (ENUM, "", "must be one of: eu, us, 1"),
        (ENUM, 1, "must be one of: eu, us, 1"),
        (ENUM, True, "must be one of: eu, us, 1"),
        (SEGMENT, "", "must be 1 to 5 letters, digits, dashes or underscores"),
        (SEGMENT, "toolong", "must be 1 to 5 letters, digits, dashes or underscores"),
        (SEGMENT, "a.b", "must be 1 to 5 letters, digits, dashes or underscores"),
        (SEGMENT, "a\n", "must be 1 to 5 letters, digits, dashes or underscores"),
        (SEGMENT, "٣", "must be 1 to 5 letters, digits, dashes or underscores"),
        (SEGMENT, 5, "must be 1 to 5 letters, digits, dashes or underscores"),
        (INTEGER, -3, "must be a whole number from -2 to 10"),
        (INTEGER, 11, "must be a whole number from -2 to 10"),
        (INTEGER, True, "must be a whole number from -2 to 10"),
        (INTEGER, "07", "must be a whole number from -2 to 10"),
        (INTEGER, "+7", "must be a whole number from -2 to 10"),
        (INTEGER, " 7", "must be a whole number from -2 to 10"),
        (INTEGER, "7\n", "must be a whole number from -2 to 10"),
        (INTEGER, "٣", "must be a whole number from -2 to 10"),
        (INTEGER, "-0.0", "must be a whole number from -2 to 10"),
        (INTEGER, "9" * 5000, "must be a whole number from -2 to 10"),
        (BOOLEAN, "True", "must be true or false"),
        (BOOLEAN, 1, "must be true or false"),
        (BOOLEAN, "", "must be true or false"),
    ],
)
def test_other_values_are_refused_with_a_reason(
    parameter: Parameter, claimed: ParameterValue, reason: str
) -> None:
    """No coercion, no other digits, no white space; a boolean is not a number."""
    assert parameter.accept(claimed) == Refused(reason)


def test_a_long_enum_is_not_recited() -> None:
    """Twenty choices are enough for a sentence."""
    many = EnumParameter("p", tuple(f"v{n}" for n in range(21)))
    few = EnumParameter("p", tuple(f"v{n}" for n in range(20)))

    refused = [parameter.accept("x") for parameter in (many, few)]

    assert [isinstance(r, Refused) and r.reason.endswith("v19, …") for r in refused] == [
        True,
        False,
    ]
    assert [isinstance(r, Refused) and r.reason.endswith("v19") for r in refused] == [False, True]


def test_the_largest_integer_is_what_json_carries() -> None:
    """2^53-1, as text as well."""
    assert MAX_INTEGER == 9_007_199_254_740_991
    largest = IntegerParameter("p", 0, MAX_INTEGER)

    assert largest.accept(str(MAX_INTEGER)) == MAX_INTEGER
    assert isinstance(largest.accept(MAX_INTEGER + 1), Refused)
