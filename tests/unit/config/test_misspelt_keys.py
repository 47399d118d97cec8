"""A key with one typing error gets the right suggestion, whichever key of the configuration it is."""

from __future__ import annotations

import difflib
import functools

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from docs.reference.generate import fields
from extauthz.config.document import Document
from extauthz.config.messages import problems_of
from extauthz.config.routes import RouteFile, RouteLine
from extauthz.config.settings import Settings
from extauthz.config.upstream import UpstreamSection
from extauthz.config.wording import nearest
from tests.support.documents import placed

LETTERS = st.sampled_from("abcdefghijklmnopqrstuvwxyz_")
PATHS = [path for path, _ in fields(Settings)]
ALL = sorted({path[:end] for path in PATHS for end in range(1, len(path) + 1)})
OF_ROUTES = [(model, name) for model in (RouteFile, RouteLine, UpstreamSection) for name in model.model_fields]


@st.composite
def misspelt(draw: st.DrawFn, key: str) -> str:
    """Return a key with a letter too many, too few, a wrong one, or two in the wrong order."""
    place = draw(st.integers(0, len(key) - 1))
    left, right = key[:place], key[place:]
    match draw(st.sampled_from(["more", "less", "wrong", "swapped"])):
        case "more":
            return f"{left}{draw(LETTERS)}{right}"
        case "less" if len(key) > 2:
            return f"{left}{right[1:]}"
        case "wrong":
            return f"{left}{draw(LETTERS)}{right[1:]}"
    return f"{left}{right[1:2]}{right[0]}{right[2:]}"


def is_nearer_to_another(wrong: str, key: str, names: tuple[str, ...]) -> bool:
    """Tell whether the error made another key of it, or something that is as near to another one."""

    def nearness(name: str) -> float:
        return difflib.SequenceMatcher(None, name, wrong).ratio()

    return wrong in names or any(nearness(name) >= nearness(key) for name in names if name != key)


@functools.cache
def siblings(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the keys that stand beside a key, and itself."""
    return tuple(each[-1].removesuffix("[]") for each in ALL if each[:-1] == path[:-1])


def messages(model: type[BaseModel], data: object, key: str) -> list[str]:
    """Return what is said of a key."""
    with pytest.raises(ValidationError) as raised:
        model.model_validate(data, context=("SEARCH", "CHAT"))
    found = problems_of(raised.value, Document("file.yaml", data), model)
    return [problem.message for problem in found if problem.path.rpartition(".")[2] == key]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ALL).flatmap(lambda path: st.tuples(st.just(path), misspelt(path[-1].removesuffix("[]")))))
@example((("internal_token", "keys[]", "id"), "_d"))
@example((("decision_log", "to"), "ot"))
def test_a_misspelt_key_of_the_settings_gets_the_right_suggestion(drawn: tuple[tuple[str, ...], str]) -> None:
    path, wrong = drawn
    key = path[-1].removesuffix("[]")
    assume(not is_nearer_to_another(wrong, key, siblings(path)))
    assert messages(Settings, placed((*path[:-1], wrong), "x"), wrong) == [f"unknown key, did you mean {key!r}?"]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(OF_ROUTES).flatmap(lambda each: st.tuples(st.just(each[0]), st.just(each[1]), misspelt(each[1]))))
def test_a_misspelt_key_of_a_route_file_gets_the_right_suggestion(drawn: tuple[type[BaseModel], str, str]) -> None:
    model, key, wrong = drawn
    assume(not is_nearer_to_another(wrong, key, tuple(model.model_fields)))
    assert messages(model, {wrong: "x"}, wrong) == [f"unknown key, did you mean {key!r}?"]


def errors_in(key: str) -> list[str]:
    """Return one error of each kind in the middle of a key."""
    middle = len(key) // 2
    left, right = key[:middle], key[middle:]
    return [f"{left}q{right}", f"{left}{right[1:]}", f"{left}q{right[1:]}"][: 3 if len(key) > 2 else 1]


@pytest.mark.parametrize("section", sorted({path[:-1] for path in ALL}), ids=".".join)
def test_every_key_gets_the_right_suggestion(section: tuple[str, ...]) -> None:
    names = siblings((*section, ""))
    wrong = [(each, key) for key in names for each in errors_in(key) if not is_nearer_to_another(each, key, names)]
    assert {key for _, key in wrong} == {*names}
    assert [(each, key) for each, key in wrong if nearest(each, names) != f", did you mean {key!r}?"] == []


@pytest.mark.parametrize("word", ["x", "zebra", "xy", "nothing_like_it", ""])
def test_what_is_like_no_key_gets_none(word: str) -> None:
    assert nearest(word, ["id", "to", "file", "env", "socket"]) == ""
