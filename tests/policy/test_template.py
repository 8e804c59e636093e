"""Placeholders: nothing that is put in leaves its place (P3)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmint.policy.template import (
    BodyTemplate,
    Misplaced,
    Template,
    body_pattern,
    names_in,
    parse_path,
    parse_text,
    path_pattern,
    render_body,
    word,
)
from taskmint.yaml_document import quoted

HOSTILE = st.one_of(
    st.text(),
    st.sampled_from(
        [
            "../../sys/health",
            "..",
            ".",
            "a/b",
            "%2e%2e",
            "x\n",
            "\n",
            "",
            'x"; ALTER ROLE postgres SUPERUSER--',
            "{{name}}",
            "{region}",
            "{{identity.entity.id}}",
            'x" { capabilities = ["sudo"] } path "*',
            "*",
            "+",
            "x?list=true",
            "#",
            "ä",
            "x\u202e",
            "a" * 65,
            "٣",
        ]
    ),
    st.integers(),
    st.booleans(),
)
WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")


@pytest.mark.parametrize("text", ["creds/ro", "creds/{a}", "creds/x-{a}.{b}/y", "{a}/{b}"])
def test_a_template_is_what_was_written(text: str) -> None:
    """Reading and writing it again changes nothing."""
    assert str(parse_path(text)) == text


def test_a_path_is_filled_segment_by_segment() -> None:
    """Each placeholder with its value; integers and booleans in their one spelling."""
    template = parse_path("creds/ro-{region}/{count}/{flag}")

    assert template.render({"region": "eu", "count": -7, "flag": True}) == "creds/ro-eu/-7/true"
    assert template.names == ("region", "count", "flag")


DOTS = "has an empty segment, a . or a .."
LETTERS = "will not do here: a path is letters, digits and . _ - between slashes"
BRACE = "has a brace outside a placeholder like {name}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", DOTS),
        ("/", DOTS),
        ("/creds", DOTS),
        ("creds/", DOTS),
        ("creds//x", DOTS),
        ("creds/../x", DOTS),
        ("./creds", DOTS),
        ("creds/x y", LETTERS),
        ("creds/x?y", LETTERS),
        ("creds/x#y", LETTERS),
        ("creds/%2e", LETTERS),
        ("creds/+", LETTERS),
        ("creds/*", LETTERS),
        ("creds/{region", BRACE),
        ("creds/region}", BRACE),
        ("creds/{Region}", BRACE),
        ("creds/{{name}}", BRACE),
        ("creds/{}", BRACE),
        ("creds/x\n", LETTERS),
        ("creds/ä", LETTERS),
    ],
)
def test_paths_that_could_leave_are_refused(text: str, problem: str) -> None:
    """Empty segments, dots, wildcards, queries, stray braces; the path is quoted."""
    with pytest.raises(ValueError, match=f"^{re.escape(f'{quoted(text)} {problem}')}$"):
        parse_path(text)


@given(HOSTILE)
def test_no_value_leaves_its_segment(value: str | int | bool) -> None:
    """A value that goes in is one word, so the path keeps its segments; any other is refused."""
    template = parse_path("creds/{x}/ro-{x}")
    try:
        rendered = template.render({"x": value})
    except Misplaced:
        return
    first, second, third = rendered.split("/")

    assert first == "creds"
    assert WORD.fullmatch(second)
    assert third == f"ro-{second}"


@given(HOSTILE)
def test_no_value_leaves_its_place_in_a_body(value: str | int | bool) -> None:
    """Text that surrounds a placeholder stays as the policy wrote it."""
    body: BodyTemplate = {"a": parse_text("say 'x' to {x}!"), "b": (parse_text("{x}"), 7, True)}
    try:
        rendered = render_body(body, {"x": value})
    except Misplaced:
        return
    assert isinstance(rendered, dict)
    assert isinstance(rendered["a"], str)

    assert re.fullmatch(r"say 'x' to [A-Za-z0-9_-]{1,64}!", rendered["a"])
    assert rendered["b"] == [value, 7, True]


def test_a_refused_value_is_not_in_the_error() -> None:
    """What was hostile enough to be refused is not written to a log."""
    with pytest.raises(Misplaced) as caught:
        word("../../sys")

    assert str(caught.value) == (
        "a value is one word of at most 64 letters, digits, dash, underscore"
    )


def test_a_text_of_one_placeholder_keeps_its_type() -> None:
    """An integer stays a JSON number; inside other text it is written out."""
    body = {"one": parse_text("{n}"), "text": parse_text("{n} hours")}

    assert render_body(body, {"n": 5}) == {"one": 5, "text": "5 hours"}


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("creds/ro-{region}", "creds/ro-eu"),
        ("creds/{job}", "creds/+"),
        ("creds/ro-{job}/x", "creds/+/x"),
        ("creds/{region}-{job}", "creds/+"),
        ("creds/x", "creds/x"),
    ],
)
def test_what_is_not_known_is_one_wildcard_segment(path: str, pattern: str) -> None:
    """A segment with an unknown name becomes `+` as a whole."""
    assert path_pattern(parse_path(path), {"region": "eu"}) == pattern


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("plain", "plain"),
        ("{region}", "eu"),
        ("{job}", "*"),
        ("x-{region}-{job}-y", "x-eu-*"),
        ("{job}-{region}", "*"),
    ],
)
def test_a_body_ends_with_a_wildcard_where_it_is_not_known(text: str, pattern: str) -> None:
    """What follows the first unknown name is no longer said."""
    assert body_pattern({"k": (parse_text(text), 1)}, {"region": "eu"}) == {"k": [pattern, 1]}


def test_the_names_of_a_body_are_all_its_placeholders() -> None:
    """However deep."""
    body: BodyTemplate = {"a": (parse_text("{x}"), {"b": parse_text("{y} {x}")}), "c": 1}

    assert names_in(body) == {"x", "y"}


@pytest.mark.parametrize("text", ["{", "}", "a {b} {", "} {b}", "{a-b}", "{{x}}"])
def test_stray_braces_in_a_body_are_refused(text: str) -> None:
    """A brace encloses a name or does not stand there."""
    with pytest.raises(ValueError, match=f"^{re.escape(f'{quoted(text)} {BRACE}')}$"):
        parse_text(text)


def test_words_are_words() -> None:
    """Booleans in lower case, numbers in decimal; 64 characters and no more."""
    assert [word(value) for value in (True, False, 0, -5, "x_y-Z")] == [
        "true",
        "false",
        "0",
        "-5",
        "x_y-Z",
    ]
    with pytest.raises(Misplaced):
        word("x" * 65)


def test_a_template_without_names_needs_no_values() -> None:
    """It is its text."""
    assert Template(("x y",), ()).render({}) == "x y"
