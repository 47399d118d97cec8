"""Files of others as plain data: quickly, and whatever they are made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.config import plain_data
from extauthz.config.files import MAX_BYTES, Files
from extauthz.config.plain_data import MAX_DEPTH, read
from extauthz.errors import ConfigurationError

READ: dict[str, tuple[str, object]] = {
    "mapping": ("a: {b: [1, 2.5, x, null, true]}\n", {"a": {"b": [1, 2.5, "x", None, True]}}),
    "keys are text": ("200: ok\ntrue: yes\n", {"200": "ok", "true": "yes"}),
    "quoted": ("a: '1'\nb: \"true\"\nc: !!str 1\n", {"a": "1", "b": "true", "c": "1"}),
    "block": ("a: |\n  b\n  c\n", {"a": "b\nc\n"}),
    "alias": ("a: &x {b: 1}\nc: *x\nd: &y t\ne: *y\n", {"a": {"b": 1}, "c": {"b": 1}, "d": "t", "e": "t"}),
    "merge": ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\n", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
    "merge of several": (
        "a: &x {b: 1}\nc: &y {b: 2, d: 3}\ne: {<<: [*x, *y]}\n",
        {"a": {"b": 1}, "c": {"b": 2, "d": 3}, "e": {"b": 1, "d": 3}},
    ),
    "empty": ("", None),
    "json under another name": ('{"a": [1]}', {"a": [1]}),
    "yaml that begins like json": ("{a: [1]}", {"a": [1]}),
}
BROKEN = {
    "a: [1\nb: ]": "f.yaml:2: not YAML: did not find expected ',' or ']'",
    "a: 1\na: 2\n": "f.yaml:2: duplicate key 'a': remove one",
    "a: &x [*x]\n": "f.yaml:1: the alias *x stands inside of what it names, or before it",
    "a: *x\n": "f.yaml:1: the alias *x stands inside of what it names, or before it",
    "{[a]: 1}\n": "f.yaml:1: a key must be plain text: write 'key: value'",
    "a: {<<: 1}\n": "f.yaml:1: a merge key (<<) names mappings",
    "--- a\n--- b\n": "f.yaml:2: a second document begins here: write one document per file",
    "a: \x01\n": "f.yaml: not text: save the file as UTF-8, without control characters",
    "[" * (MAX_DEPTH + 1): f"f.yaml:1: nested deeper than {MAX_DEPTH} levels",
}
BROKEN_JSON = {
    '{"a": 1, "a": 2}': "f.json: an object has the key 'a' twice: remove one",
    '{"a": ': "f.json:1: not JSON: Expecting value",
    "[" * 100_000: "f.json: nested too deeply",
    '{"a": 1}\n{"b": 2}': "f.json:2: not JSON: Extra data",
    f'{{"a": {"9" * 5000}}}': "f.json: Exceeds the limit (4300 digits)",
}


def written(folder: Path, text: str, name: str = "f.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def problem(file: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(file, Files())
    (found,) = caught.value.problems
    return str(found).removeprefix(f"{file.parent}/")


@pytest.mark.parametrize("name", READ)
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    text, data = READ[name]
    assert read(written(tmp_path, text), Files()) == data


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: repr(text[:20]))
def test_what_is_wrong_is_said_with_its_line(text: str, tmp_path: Path) -> None:
    assert problem(written(tmp_path, text)).startswith(BROKEN[text])


@pytest.mark.parametrize("text", BROKEN_JSON, ids=lambda text: repr(text[:20]))
def test_what_is_wrong_with_json_is_said(text: str, tmp_path: Path) -> None:
    assert problem(written(tmp_path, text, "f.json")).startswith(BROKEN_JSON[text])


def test_a_file_that_is_not_there_or_too_large_is_a_problem(tmp_path: Path) -> None:
    assert problem(tmp_path / "f.yaml") == "f.yaml: cannot be read: No such file or directory"
    assert problem(tmp_path).endswith(": cannot be read: Is a directory")
    assert problem(written(tmp_path, "#" * (MAX_BYTES + 1))) == "f.yaml: larger than 16 MiB"
    (tmp_path / "l.json").write_bytes(b'{"\xff": 1}')
    assert problem(tmp_path / "l.json") == "l.json: not text: save the file as UTF-8"


def test_aliases_of_aliases_take_no_memory(tmp_path: Path) -> None:
    """Written out they would be 10 to the 30th entries."""
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 31)]
    data = read(written(tmp_path, "\n".join(lines)), Files())
    assert data["a30"][0] is data["a29"]


def test_merge_keys_do_not_copy_without_end(tmp_path: Path) -> None:
    many = ", ".join(f"k{n}: 1" for n in range(1000))
    lines = [f"a: &a {{{many}}}"] + [f"b{n}: {{<<: *a}}" for n in range(101)]
    assert problem(written(tmp_path, "\n".join(lines))).endswith("merge keys (<<) copy more than 100,000 entries")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(st.characters(codec="ascii", categories=("L", "N", "P"))),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="ascii", categories=("L",)), min_size=1), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=50)
@given(PLAIN)
def test_json_and_yaml_are_the_same_data(tmp_path_factory: pytest.TempPathFactory, data: object) -> None:
    folder = tmp_path_factory.getbasetemp()
    as_json, as_yaml = written(folder, json.dumps(data), "d.json"), written(folder, f"--- {json.dumps(data)}", "d.yaml")
    assert read(as_json, Files()) == read(as_yaml, Files()) == data


def test_the_name_that_comes_twice_is_found_by_one_look_at_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Name(str):
        __slots__ = ()
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Name.compared += 1
            return str.__eq__(self, other)

    def loads(text: bytes, *, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any]) -> Any:
        return object_pairs_hook(
            [(Name(name), value) for name, value in json.JSONDecoder(object_pairs_hook=list).decode(text.decode())]
        )

    names = [*(f"a{number}" for number in range(300)), "a299"]
    file = written(tmp_path, "{" + ", ".join(f'"{name}": 1' for name in names) + "}", "f.json")
    monkeypatch.setattr(plain_data.json, "loads", loads)
    assert problem(file).endswith("an object has the key 'a299' twice: remove one")
    assert Name.compared < 1_000
