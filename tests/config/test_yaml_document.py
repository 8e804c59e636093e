"""YAML without its surprises: what is refused, where, and what a bomb costs."""

import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskmint import yaml_document
from taskmint.yaml_document import (
    Document,
    Mapping,
    Scalar,
    Sequence,
    key_path,
    parse_document,
    quoted,
    yaml_guess,
)


def parse(text: str) -> Document:
    """Parse text as file f.yaml."""
    return parse_document("f.yaml", text.encode())


def problems(text: str) -> list[str]:
    """The findings of a text."""
    return [str(finding) for finding in parse(text).findings]


def test_every_node_knows_its_place() -> None:
    """Lines and columns count from 1, for keys as well as values."""
    root = parse("a: one\nlist:\n  - x\n  - {k: 'v'}\n").root

    assert root == Mapping(
        {
            "a": Scalar("one", plain=True, line=1, column=4),
            "list": Sequence(
                (
                    Scalar("x", plain=True, line=3, column=5),
                    Mapping({"k": Scalar("v", plain=False, line=4, column=9)}, {"k": (4, 6)}, 4, 5),
                ),
                3,
                3,
            ),
        },
        {"a": (1, 1), "list": (2, 1)},
        1,
        1,
    )


def test_scalars_stay_text() -> None:
    """Nothing is guessed: what YAML would read as a boolean, number or null is text here."""
    root = parse("- no\n- 12:30:45\n- 1_000\n- ~\n- 2001-99-99\n").root

    assert isinstance(root, Sequence)
    texts = [item.text for item in root.items if isinstance(item, Scalar)]
    assert texts == ["no", "12:30:45", "1_000", "~", "2001-99-99"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", ['f.yaml:2:1: the key "a" stands here twice; the first is at 1:1']),
        (
            "x: {a: 1, a: {b: [2]}, c: 3}\n",
            ['f.yaml:1:11: x: the key "a" stands here twice; the first is at 1:5'],
        ),
        ("a: &x 1\n", ["f.yaml:1:4: a: anchors are not allowed; remove &x"]),
        ("a: !!str 1\n", ['f.yaml:1:4: a: tags are not allowed; remove "tag:yaml.org,2002:str"']),
        ("<<: {a: 1}\n", ["f.yaml:1:1: merge keys are not allowed; write the keys out"]),
        ("no: 1\n", ['f.yaml:1:1: YAML reads this key as true or false; write "no"']),
        ("1: 1\n", ['f.yaml:1:1: YAML reads this key as a number; write "1"']),
        ("? [a]\n: 1\n", ["f.yaml:1:3: a key is a plain word; write text as the key"]),
        ("", ["f.yaml:1:1: is empty; write a mapping"]),
        ("# nothing\n", ["f.yaml:1:1: is empty; write a mapping"]),
        (
            "a: 1\n---\nb: 2\n",
            ["f.yaml:2:1: a file holds one document; move it into a file of its own"],
        ),
        (
            'a: "\\0"\n',
            ["f.yaml:1:4: a: holds the invisible character U+0000; remove its escape"],
        ),
        ("a: \u202ex\n", ["f.yaml:1:4: holds the invisible character U+202E; remove it"]),
        ("a: 1 # x\r b: 2\n", ["f.yaml:1:9: holds the invisible character U+000D; remove it"]),
        *(
            (f"a{hidden}: 1\n", [f"f.yaml:1:2: holds the invisible character {name}; remove it"])
            for hidden, name in (
                ("\r", "U+000D"),
                ("\x85", "U+0085"),
                ("\xa0", "U+00A0"),
                ("\u034f", "U+034F"),
                ("\u115f", "U+115F"),
                ("\u17b4", "U+17B4"),
                ("\u180b", "U+180B"),
                ("\u2003", "U+2003"),
                ("\u202f", "U+202F"),
                ("\u2800", "U+2800"),
                ("\u3000", "U+3000"),
                ("\u3164", "U+3164"),
                ("\ufe0f", "U+FE0F"),
                ("\uffa0", "U+FFA0"),
                ("\U000e0100", "U+E0100"),
            )
        ),
        ("# \u2066\n", ["f.yaml:1:3: holds the invisible character U+2066; remove it"]),
    ],
)
def test_what_surprises_is_refused_with_its_place(text: str, expected: list[str]) -> None:
    """Repeated keys, anchors, tags, merges, guessed and odd keys: found, with what to write."""
    assert problems(text) == expected


def test_an_alias_is_refused_also_as_a_key() -> None:
    """Both places are named, and reading goes on."""
    found = problems("a: &x 1\n*x : [1, {b: 2}]\nc: *x\nd: 1\nd: 2\n")

    assert [finding.partition(": ")[0] for finding in found] == [
        "f.yaml:1:4",
        "f.yaml:2:1",
        "f.yaml:3:4",
        "f.yaml:5:1",
    ]


def test_a_refused_key_takes_its_value_with_it() -> None:
    """The value of a repeated or odd key is not taken for another key's."""
    root = parse("a: 1\na: {x: [1]}\n? {k: [v]}\n: {y: [2]}\nb: 3\n").root

    assert isinstance(root, Mapping)
    assert set(root.entries) == {"a", "b"}
    assert root.entries["b"] == Scalar("3", plain=True, line=5, column=4)


def test_broken_yaml_is_one_finding_at_its_place() -> None:
    """Where the parser stops is where the finding points; nothing of the file is used."""
    document = parse("a: 1\nb: [1\nc: 2\n")

    assert document.root is None
    assert [(finding.line, finding.problem[:11]) for finding in document.findings] == [
        (3, "is not YAML")
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: \xff\n", "is not UTF-8"),
        (b"a: 1\nb: \xc3\n", "is not UTF-8"),
        (b"a: \x00\n", "holds the invisible character U+0000"),
        ("\ufeffa: 1\n".encode(), "holds the invisible character U+FEFF"),
        (b"#" * (yaml_document.MAX_BYTES + 1), f"has more than {yaml_document.MAX_BYTES} bytes"),
    ],
)
def test_bytes_that_are_no_text_are_refused(content: bytes, problem: str) -> None:
    """Encoding, control characters and size are checked before the parser sees anything."""
    document = parse_document("f.yaml", content)

    assert document.root is None
    assert [finding.problem for finding in document.findings] == [problem]


def test_the_line_of_bad_encoding_is_named() -> None:
    """An editor can jump to it."""
    assert parse_document("f.yaml", b"a: 1\n\nb: \xff").findings[0].line == 3


@pytest.mark.parametrize(
    "bomb",
    [
        "[" * 1_000_000,
        "{a: " * 400_000,
        "- " * 1_000_000,
        "? " * 1_000_000,
        "a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n" + "d: [" + "*c, " * 100_000 + "]",
        "".join(f"a: {n}\n" for n in range(100_000)),
        "[" + "a," * 1_500_000 + "]",
    ],
    ids=["flow", "mappings", "sequences", "keys", "aliases", "duplicates", "wide"],
)
def test_bombs_under_the_size_cap_fizzle(bomb: str) -> None:
    """Depth, aliases, repeated keys and sheer number end in findings, soon."""
    content = bomb.encode()
    assert len(content) <= yaml_document.MAX_BYTES
    document = parse_document("f.yaml", content)

    assert document.root is None
    assert 1 <= len(document.findings) <= yaml_document.MAX_FINDINGS


def test_the_tree_stays_small_for_its_file() -> None:
    """Every value costs at most 600 bytes, so the caps bound memory as well."""
    content = ("k: [" + "a," * 20_000 + "]").encode()
    tracemalloc.start()
    document = parse_document("f.yaml", content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert document.findings == ()
    assert peak < 600 * 20_000


def test_a_hundred_thousand_keys_are_just_a_file() -> None:
    """Breadth below the caps is legal."""
    root = parse("".join(f"k{n}: v\n" for n in range(100_000))).root

    assert isinstance(root, Mapping)
    assert len(root.entries) == 100_000


def test_the_depth_cap_allows_what_it_says() -> None:
    """MAX_DEPTH levels pass and one more does not."""
    deep = yaml_document.MAX_DEPTH - 1

    assert parse("[" * deep + "x" + "]" * deep).findings == ()
    assert problems("[" * (deep + 2) + "x") == [
        f"f.yaml:1:{deep + 2}: nesting is deeper than {yaml_document.MAX_DEPTH}; flatten it"
    ]


@given(st.text())
@example("%YAML 99999999999999999999.1\n---\n")
@example("%TAG ! tag:x,2000:\n---\na: !b 1")
@example('"\\ud800"')
@example("a: !<%> x")
@example("\r\n\t- a:\n\t\t- b")
def test_any_text_is_a_document_or_findings(text: str) -> None:
    """Whatever is written: a tree, or at least one finding; nothing is raised."""
    document = parse_document("f.yaml", text.encode("utf-8", "surrogatepass"))

    assert (document.root is None) <= bool(document.findings)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_findings(content: bytes) -> None:
    """The same for bytes."""
    document = parse_document("f.yaml", content)

    assert (document.root is None) <= bool(document.findings)


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("no", "true or false"),
        ("On", "true or false"),
        ("12:30:45", "a number"),
        ("0660", "a number"),
        ("0o17", "a number"),
        ("1e3", "a number"),
        ("-1.5", "a number"),
        (".inf", "a number"),
        ("null", "nothing"),
        ("~", "nothing"),
        ("", "nothing"),
        ("2001-01-01", "a date"),
        ("<<", "a merge key"),
        ("=", "a default value"),
        ("eu", None),
        ("60s", None),
        ("v1.2.3", None),
        ("y", None),
    ],
)
def test_guesses_are_known(text: str, guess: str | None) -> None:
    """What YAML 1.1 or 1.2 would make of an unquoted scalar."""
    assert yaml_guess(text) == guess


def test_quoted_text_fits_in_a_sentence() -> None:
    """Control characters and quotes are escaped, and length is bounded."""
    assert quoted('a"\\\n\u202e') == '"a\\"\\\\\\u000a\\u202e"'
    assert quoted("x" * 61) == '"' + "x" * 60 + '…"'


def test_key_paths_read_aloud() -> None:
    """Dots between words, brackets around indexes, quotes around what is no word."""
    assert key_path(("tasks", "a-b", "who", 0)) == "tasks.a-b.who[0]"
    assert key_path(("x", "a b\n")) == 'x."a b\\u000a"'
    assert key_path(()) == ""
