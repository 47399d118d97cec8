"""The reader of YAML: what is text, what is refused, and that no file makes it raise or hang."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.config.document import MAX_BYTES, MAX_DEPTH, Document, KeyPath, dotted, parse, read


def document(data: str | bytes) -> Document:
    found = Document("file.yaml")
    parse(data.encode() if isinstance(data, str) else data, found)
    return found


def value(text: str) -> Any:
    """Return what a plain scalar is read as."""
    found = document(f"key: {text}\n")
    assert not found.problems
    return found.data["key"]


def problems(data: str | bytes) -> list[str]:
    return [str(problem) for problem in document(data).problems]


# Scalars


@pytest.mark.parametrize(
    "text",
    [
        *("on", "off", "yes", "no", "On", "YES", "y", "n", "True", "TRUE", "False", "Null", "NULL"),
        *("1:30", "190:20:30", "017", "00", "0o17", "0x1F", "0b1", "+1", "1_000", "1,000"),
        *("2024-01-01", "2024-01-01T00:00:00Z", "1e5", "1.5e3", "1.0e+20", ".5", "1.", ".inf", "-.INF", ".nan"),
        *("1234567890123456789", "1.1234567890123456789", "9" * 400 + ".0", "<<", "=", "--"),
    ],
)
def test_stays_text(text: str) -> None:
    assert value(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("true", True), ("false", False), ("null", None), ("~", None), ("", None)),
        *(
            ("0", 0),
            ("-0", 0),
            ("42", 42),
            ("-42", -42),
            ("999999999999999999", 999999999999999999),
            ("1.5", 1.5),
            ("-0.25", -0.25),
        ),
    ],
)
def test_is_no_text(text: str, expected: object) -> None:
    found = value(text)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("text", ["42", "true", "null", "~", "", "1.5"])
def test_quotes_make_text(text: str) -> None:
    assert value(f"'{text}'") == value(f'"{text}"') == value(f"!!str {text}") == text


def test_a_block_is_text() -> None:
    assert document("a: |\n  true\nb: >\n  1\n  2\n").data == {"a": "true\n", "b": "1 2\n"}


# Lines


def test_every_key_and_item_has_its_line() -> None:
    found = document("a: 1\nb:\n  - x\n  - {c: y,\n     d: z}\n\ne: {}\n")
    assert found.data == {"a": 1, "b": ["x", {"c": "y", "d": "z"}], "e": {}}
    assert found.lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 4,
        ("b", 1, "c"): 4,
        ("b", 1, "d"): 5,
        ("e",): 7,
    }


def test_an_error_stands_at_the_longest_part_of_its_path_that_is_written() -> None:
    found = document("a:\n  b:\n    - x\n")
    told = [str(found.problem(path, "wrong")) for path in [("a", "b", 0), ("a", "b", 1), ("a", "c"), ("d",), ()]]
    assert told == [
        "file.yaml:3: a.b[0]: wrong",
        "file.yaml:2: a.b[1]: wrong",
        "file.yaml:1: a.c: wrong",
        "file.yaml:1: d: wrong",
        "file.yaml:1: wrong",
    ]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("a", "b", 0, "c-d_e"), "a.b[0].c-d_e"),
        ((0, 1, "a"), "[0][1].a"),
        (("a.b",), "'a.b'"),
        (("a", "b\nc"), r"a.'b\nc'"),
        (("a", "[0]"), "a.'[0]'"),
        (("a", "\x1b[31m"), r"a.'\x1b[31m'"),
        ((), ""),
    ],
)
def test_a_path_is_written_without_doubt(path: KeyPath, text: str) -> None:
    assert dotted(path) == text


@pytest.mark.parametrize(
    "data", [b"a: 1\r\nb:\r\n  - x\r\n", b"\xef\xbb\xbfa: 1\nb:\n  - x\n", "a: 1\nb:\n  - x\n".encode("utf-16")]
)
def test_line_ends_and_byte_order_marks_make_no_difference(data: bytes) -> None:
    found = document(data)
    assert (found.data, found.lines[("b", 0)], found.problems) == ({"a": 1, "b": ["x"]}, 3, [])


# What is refused; the words are tested in test_config.py


@pytest.mark.parametrize("data", ["", "# nothing\n", "---\n", "~\n", "\n\n"])
def test_an_empty_file_has_no_data_and_no_error(data: str) -> None:
    found = document(data)
    assert (found.data, found.problems) == (None, [])


def test_a_duplicate_key_keeps_the_first_value_and_its_own_keys_to_itself() -> None:
    found = document("a: {x: 1}\na: {b: 2, c: {d: 3}}\nb: 4\nc: {d: 5}\n")
    assert found.data == {"a": {"x": 1}, "b": 4, "c": {"d": 5}}
    assert [str(problem) for problem in found.problems] == ["file.yaml:2: a: duplicate key, first in line 1"]


@pytest.mark.parametrize("key", ["[x, y]", "{x: y}", "!!str x", "*x", '""', "? \n"])
def test_a_key_that_is_no_text_takes_its_value_along(key: str) -> None:
    found = document(f"? {key}\n: {{b: 2, c: [3]}}\nb: 4\n")
    assert found.data == {"b": 4}
    assert [problem.message for problem in found.problems] == ["a key must be plain text: write 'key: value'"]


@pytest.mark.parametrize("written", ["*x", "!x y", "!!binary eA==", "!x {b: 1}", "!!python/object:os.system [x]", "!!int 5"])
def test_what_is_not_read_leaves_its_place_empty(written: str) -> None:
    found = document(f"a: 1\nb: [first, {written}, last]\nc: {{d: {written} }}\n")
    assert found.data == {"a": 1, "b": ["first", None, "last"], "c": {"d": None}}
    assert [problem.path for problem in found.problems] == ["b[1]", "c.d"]
    assert [found.is_unread(path) for path in [("b", 1, "deeper"), ("c", "d"), ("b", 0), ("c",)]] == [True, True, False, False]


def test_an_alias_is_not_read_and_an_anchor_alone_is_harmless() -> None:
    assert document("a: &name 1\n").data == {"a": 1}
    found = document("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n")
    assert len(found.problems) == 4
    assert found.data == {"a": ["x", "x"], "b": [None, None], "c": [None, None]}


@pytest.mark.parametrize(
    "data",
    ["a: [1\nb: 2\n", "a: 'x\n", b"a: 1\nb: \0", b"a: 1\nb: \xff", "a: " + "[" * 21 + "]" * 21, "a: 1\n  b: 2\n", "a: 1\n\x07"],
)
def test_half_a_file_has_no_data(data: str | bytes) -> None:
    """Else everything behind the place where reading ended would be called missing."""
    found = document(data)
    assert (found.data, len(found.problems)) == (None, 1)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"a: 1\nb: \0\n", 2),
        ("# é\n" * 5000 + "b: \x07\n", 5001),
        ("# é\n".encode() * 5000 + b"b: \xff\n", 5001),
        (b"a: 1\nb: \xc3", 2),
        ("a: 1\nb: 'x\nc: 3\nd: 4\n", 2),
        ("a: 1\nb: {x: 1\nc: 3\n", 3),
    ],
)
def test_what_is_not_yaml_has_its_line(data: str | bytes, line: int) -> None:
    assert [problem.line for problem in document(data).problems] == [line]


def test_the_depth_has_an_end() -> None:
    deepest = "a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert not document(deepest).problems
    assert [problem.message for problem in document(f"a: [{deepest[3:]}]").problems] == [
        f"nested deeper than {MAX_DEPTH} levels: reading ends here"
    ]


@pytest.mark.parametrize(
    "data",
    [
        *("[" * 100_000, "[" * 100_000 + "]" * 100_000, "{" * 100_000, "- " * 100_000, "? " * 100_000, "[?" * 100_000),
        *("[a, " * 100_000, "[{a: " * 50_000, "{a: [" * 50_000, "*a: [" + "[" * 100_000, "!x [" + "[" * 100_000),
        "\n".join(" " * indent + "a:" for indent in range(3000)),
    ],
    ids=lambda data: f"{data[:6]!r}",
)
def test_many_brackets_take_no_time(data: str) -> None:
    """The parser needs 14 seconds for 100,000 of them when all are read."""
    started = time.process_time()
    found = document(data)
    assert time.process_time() - started < 0.5
    assert found.problems
    assert found.data is None


@pytest.mark.parametrize(
    "data",
    [
        "#" * 1_000_000,
        "a" * 1_000_000,
        "a\n" * 500_000,
        "'" * 100_000,
        '"\\x' * 50_000,
        "!<" * 50_000,
        "&a " * 50_000,
        "a: " * 50_000,
    ],
)
def test_long_texts_take_little_time(data: str) -> None:
    started = time.process_time()
    document(data)
    assert time.process_time() - started < 1.0


# Files


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert [str(problem) for problem in read(tmp_path / "none.yaml").problems] == [
        f"{tmp_path}/none.yaml:1: cannot be read: No such file or directory"
    ]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert [problem.message for problem in read(tmp_path).problems] == ["cannot be read: Is a directory"]


def test_a_name_with_a_nul_byte(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="embedded null") as said:  # in words of its own in each release of Python
        os.open(tmp_path / "a\0b", os.O_RDONLY)
    assert [problem.message for problem in read(tmp_path / "a\0b").problems] == [f"cannot be read: {said.value}"]


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """/dev/zero has no end, and a pipe no beginning until somebody writes."""
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (Path("/dev/zero"), tmp_path / "pipe.yaml"):
        assert [problem.message for problem in read(path).problems] == ["cannot be read: not a regular file"]


def test_no_more_is_read_than_would_be_accepted(tmp_path: Path) -> None:
    file = tmp_path / "sparse.yaml"
    file.touch()
    os.truncate(file, 2**40)
    assert [problem.message for problem in read(file).problems] == ["larger than 16 MiB"]


def test_the_largest_file(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    file.write_bytes(b"a: 1\n".ljust(MAX_BYTES, b"#"))
    assert not read(file).problems
    file.write_bytes(b"a: 1\n".ljust(MAX_BYTES + 1, b"#"))
    assert [problem.message for problem in read(file).problems] == ["larger than 16 MiB"]


def test_ten_thousand_routes_are_read_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(
        "routes:\n" + "".join(f'  - {{match: "GET /items/{number}/{{id}}", scope: SEARCH}}\n' for number in range(10_000))
    )
    started = time.process_time()
    found = read(file)
    assert time.process_time() - started < 5.0
    assert len(found.data["routes"]) == 10_000
    assert found.data["routes"][9_999] == {"match": "GET /items/9999/{id}", "scope": "SEARCH"}
    assert found.lines[("routes", 9_999, "scope")] == 10_001
    assert not found.problems


# Whatever a file holds


YAML_PIECES = st.sampled_from(
    [
        *("a", "b: ", "- ", "? ", ": ", "\n", "\n  ", "\n    ", "[", "]", "{", "}", ",", "&a ", "*a", "!x ", "!!str "),
        *("'", '"', "|\n", ">\n", "#", "---\n", "...\n", "%YAML 1.1\n", "<<: ", "~", "true", "1.5", "\t", "\r\n"),
        *("\\x41", "\ufeff", "\u2028", "\0", "é", "😀", "@", "`"),
    ]
)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(YAML_PIECES, max_size=60).map(lambda pieces: "".join(pieces).encode()),
    )
)
@settings(max_examples=1000)
def test_nothing_raises(data: bytes) -> None:
    found = document(data)
    assert all(problem.line >= 1 and problem.message for problem in found.problems)  # why: many texts are drawn without any
    if found.data is None and not found.problems and yaml.compose(data, Loader=yaml.CSafeLoader) is not None:
        assert value_is_null(data)


def value_is_null(data: bytes) -> bool:
    node = yaml.compose(data, Loader=yaml.CSafeLoader)
    return isinstance(node, yaml.ScalarNode) and node.value in {"", "~", "null"}


class QuotingDumper(yaml.SafeDumper):
    """Writes every text in quotes, every value once, and floats without an exponent."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


QuotingDumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))

# Characters that YAML 1.1 cannot hold unescaped are escaped in quotes; surrogates are no text.
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**18) + 1, 10**18 - 1),
    st.integers(-(10**6), 10**6).map(lambda number: number / 64),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=25
).filter(lambda data: depth(data) <= MAX_DEPTH)


def depth(data: object) -> int:
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(JSON, st.booleans())
@settings(max_examples=500)
def test_what_is_dumped_is_read_back(data: Any, flow: bool) -> None:
    text = yaml.dump(data, Dumper=QuotingDumper, default_flow_style=flow, allow_unicode=flow, sort_keys=False)
    found = document(text)
    assert (found.data, found.problems) == (data, [])
    assert repr(found.data) == repr(data)
