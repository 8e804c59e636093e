"""Texts from outside, on somebody's terminal."""

import json

from hypothesis import given
from hypothesis import strategies as st

from taskmint.model.printable import printable

ANY = st.text(st.characters(exclude_categories=()))


@given(ANY)
def test_nothing_that_is_printed_acts_on_a_terminal(text: str) -> None:
    """Controls, DEL, line ends, directions, halves of letters: whatever the text."""
    assert printable(text).isprintable()
    assert printable(text, instead=" ").isprintable()
    assert len(printable(text, instead=" ")) == len(text)


@given(ANY)
def test_what_prints_is_left_as_it_is(text: str) -> None:
    """Letter by letter; and what is escaped can be read back, as JSON writes it."""
    for letter in text:
        shown = printable(letter)
        assert shown == letter if letter.isprintable() else json.loads(f'"{shown}"') == letter
