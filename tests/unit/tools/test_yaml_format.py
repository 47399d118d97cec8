"""The layout of YAML files: what it changes, and that it changes nothing else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from extauthz.config.document import Document, parse
from extauthz.config.loader import Configuration, load
from extauthz.config.yaml_comments import comments
from extauthz.tools.yaml_format import LayoutRefused, formatted
from tests.support.project import ROOT, TESTS

CONFIG = TESTS / "config"
SHIPPED = sorted([*(ROOT / "config").glob("*.yaml"), *(ROOT / "config" / "routes").glob("*.yaml")])
ALL = [*SHIPPED, *sorted((CONFIG / "lints").rglob("*.yaml")), *sorted((CONFIG / "bad").rglob("*.yaml"))]


def laid_out(text: str) -> str:
    found = formatted(text.encode())
    assert isinstance(found, bytes)
    return found.decode()


def data_of(text: bytes) -> Document:
    document = Document("")
    parse(text, document)
    return document


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a:   1\n", "a: 1\n"),
        ("a:\n    b: 1\n    c:\n        d: 2\n", "a:\n  b: 1\n  c:\n    d: 2\n"),
        ("a:\n- 1\n- 2\n", "a:\n  - 1\n  - 2\n"),
        ("a: {b: 1,c: [2,3]}\n", "a: {b: 1, c: [2, 3]}\n"),
        ("a: { b: 1 }   # why\n", "a: {b: 1}     # why\n"),
        ("a: 1   \nb: 2", "a: 1\nb: 2\n"),
        ("a: 1\r\nb: 2\r\n", "a: 1\nb: 2\n"),
        ("# a head\n\na: 1\n\n# end\n", "# a head\n\na: 1\n\n# end\n"),
        ("---\na:  1\n", "---\na: 1\n"),
        # What a word means is not for the layout: all of these are text for the reader of the project.
        ("a: 017\nb: 1_000\nc: 0o7\nd: yes\ne: 1:30\nf: 2024-01-01\ng: 1e5\nh: .5\n",) * 2,
        ("a: null\nb: ~\nc:\nd: ''\ne: \"true\"\nf: '1'\n",) * 2,
        ("a: |\n  text  \n   more\n",) * 2,
        ("a: >\n  folded\n  text\n",) * 2,
        (f"a: {'word ' * 60}end\n",) * 2,
        (f"a: [{'word, ' * 60}end]  # extauthz: ignore open-read: a reason\n",) * 2,
    ],
)
def test_layout(before: str, after: str) -> None:
    assert laid_out(before) == after
    assert data_of(after.encode()).data == data_of(before.encode()).data


def test_a_list_in_brackets_over_several_lines_is_wrapped() -> None:
    words = [f"WORD{number}" for number in range(40)]
    wrapped = laid_out("a: [" + ",\n ".join(", ".join(words[start : start + 5]) for start in range(0, 40, 5)) + "]\n")
    assert wrapped.startswith(f"a: [{', '.join(words[:10])}")
    assert max(map(len, wrapped.splitlines())) <= 140
    assert laid_out(wrapped) == wrapped


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: 1\na: 2\n", "problems of its own"),
        ("a: &b 1\nc: *b\n", "problems of its own"),
        ("a: !x 1\n", "problems of its own"),
        ("a: [\n", "problems of its own"),
        ("", "problems of its own"),
        ("# nothing\n", "problems of its own"),
        ("a: 1\n---\nb: 2\n", "problems of its own"),
        ("a: \x00\n", "problems of its own"),
        # The library loses comments within brackets.
        ("a: [\n  b, # why b\n  c]\n", "where a comment stands"),
    ],
)
def test_a_file_that_is_not_understood_is_refused(text: str, why: str) -> None:
    found = formatted(text.encode())
    assert isinstance(found, LayoutRefused)
    assert why in found.why


def texts_of_comments(data: bytes) -> list[str]:
    text = data.decode()
    return [text[start:end].rstrip() for start, end in comments(text)]


@pytest.mark.parametrize("file", ALL, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_data_and_comments_of_every_file_stay(file: Path) -> None:
    before = file.read_bytes()
    after = formatted(before)
    if isinstance(after, LayoutRefused):
        assert not (data_of(before).data and not data_of(before).problems)
    else:
        assert data_of(after).data == data_of(before).data
        assert texts_of_comments(after) == texts_of_comments(before)
        assert formatted(after) == after


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_what_is_shipped_is_laid_out(file: Path) -> None:
    assert formatted(file.read_bytes()) == file.read_bytes()


# Files that people might write: the lines of the complete example with other indentation, spaces and comments.

SPACES = st.sampled_from([" ", "  ", "     "])
COMMENTS = st.sampled_from(["", "", "  # a comment", "  # 'quoted', {with: signs}", "   #bare"])


@st.composite
def untidy(draw: st.DrawFn) -> bytes:
    """Return the complete example as somebody writes it in a hurry."""
    unit = draw(st.sampled_from([1, 2, 3, 4]))
    lines = []
    for line in (ROOT / "config" / "extauthz.yaml").read_text(encoding="utf-8").splitlines():
        indent = len(line) - len(line.lstrip())
        body = line.lstrip()
        if re.fullmatch(r"[a-z_]+: \S.*", body) and draw(st.booleans()):
            body = body.replace(": ", f":{draw(SPACES)}", 1)
        if body and not body.startswith("#") and draw(st.integers(0, 9)) == 0:
            body += draw(COMMENTS)
        lines.append(" " * (indent // 2 * unit) + body)
        if draw(st.integers(0, 19)) == 0:
            lines.append("")
    return "\n".join(lines).encode()


@settings(max_examples=3, deadline=None)
@given(untidy())
def test_a_loaded_configuration_is_the_same_before_and_after(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    folder = tmp_path_factory.mktemp("config")
    shutil.copytree(ROOT / "config" / "routes", folder / "routes")
    file = folder / "extauthz.yaml"
    file.write_bytes(text)
    before = load(file)
    after_text = formatted(text)
    assert isinstance(after_text, bytes)
    file.write_bytes(after_text)
    assert same(load(file)) == same(before)
    assert formatted(after_text) == after_text
    assert texts_of_comments(after_text) == texts_of_comments(text)


def same(configuration: Configuration) -> tuple[object, ...]:
    """Return everything of a configuration but the lines and the bytes of its files."""
    policy = configuration.policy
    return configuration.settings, policy.kinds, policy.monitored, [*configuration.route_places], configuration.audiences


KEYS = st.sampled_from(["a", "b", "c d", "e"])
WORDS = st.sampled_from(["x", "true", "017", "'it''s'", '"a # b"', "1", "null", "", "'#'", "- a", "a: b", "x y", "ä…"])
NESTED = st.recursive(WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)


def written(value: object, indent: str = "") -> str:
    match value:
        case dict():
            return "".join(f"{indent}{key}:{_below(inner, indent)}" for key, inner in value.items()) or f"{indent}{{}}\n"
        case list():
            return "".join(f"{indent}-{_below(inner, indent)}" for inner in value) or f"{indent}[]\n"
    return f"{indent}{value}\n"


def _below(value: object, indent: str) -> str:
    if isinstance(value, (dict, list)) and value:
        return f"  # of {len(value)}\n{written(value, indent + '   ')}"
    return f"  {written(value).strip()}\n"


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(KEYS, NESTED, min_size=1, max_size=4))
@example({"a": [["x"]], "b": {"e": ["", {"c d": "x"}]}})
def test_whatever_is_written_means_the_same_or_is_refused(value: dict[str, object]) -> None:
    text = written(value).encode()
    after = formatted(text)
    assume(isinstance(after, bytes))
    assert isinstance(after, bytes)
    assert data_of(after).data == data_of(text).data
    assert texts_of_comments(after) == texts_of_comments(text)
    assert formatted(after) == after


def test_a_layout_that_changes_something_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the library does to a file is compared with what was there."""
    for change in (b"b: 2\n", b"a: 2\n", b"a: '1'\n", b"a: 1\n", b"a: 1  # another\n", b"# why\na: 1\n", b"a: [\n"):
        monkeypatch.setattr("extauthz.tools.yaml_format._written", lambda data, change=change: change)
        assert isinstance(formatted(b"a:  1  # why\n"), LayoutRefused), change


def test_a_library_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(data: bytes) -> bytes:
        raise AssertionError("a bug of the library")

    monkeypatch.setattr("extauthz.tools.yaml_format._written", fail)
    found = formatted(b"a:  1\n")
    assert isinstance(found, LayoutRefused)
    assert "AssertionError" in found.why
