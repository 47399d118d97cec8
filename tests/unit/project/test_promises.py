"""Numbers that the documents promise: each stands in the code and in a sentence, and a test shows what it does."""

from __future__ import annotations

import ast
import importlib
import inspect
from functools import cache
from typing import Any

import pytest
import yaml

from tests.support.project import ROOT, TESTS

PROMISES: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "data" / "promises.yaml").read_text(encoding="utf-8"))


def value_of(constant: str) -> object:
    """Return a constant of a module, an attribute or a field's default of a class, or the default of what makes its objects."""
    module, _, name = constant.partition(":")
    owner, _, attribute = name.partition(".")
    found = getattr(importlib.import_module(module), owner)
    if not attribute:
        return found
    fields = getattr(found, "model_fields", {})
    if attribute in fields:
        return fields[attribute].default
    made_with = inspect.signature(found).parameters
    return made_with[attribute].default if attribute in made_with else getattr(found, attribute)


@cache
def words(page: str) -> str:
    """Return the text of a page, its lines joined."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


@cache
def names_in(file: str) -> frozenset[str]:
    """Return the names of the tests in a file, wherever it stands."""
    (path,) = TESTS.rglob(file)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise["constant"])
def test_the_code_has_the_number_of_the_documents(promise: dict[str, Any]) -> None:
    """Whoever changes one of them changes the other two lines with it."""
    assert value_of(promise["constant"]) == promise["is"]
    missing = {page: says for page, says in promise["says"].items() if " ".join(says.split()) not in words(page)}
    assert not missing


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise["constant"])
def test_a_test_shows_what_the_number_does(promise: dict[str, Any]) -> None:
    file, _, name = promise["shown_by"].partition("::")
    assert name in names_in(file)


def test_each_number_is_in_the_table_once() -> None:
    assert len({promise["constant"] for promise in PROMISES}) == len(PROMISES) > 50
    assert value_of("extauthz.adapters.store.following:SqliteFollower.look_interval") == 0.25
    assert value_of("extauthz.config.settings:TokensSection.poll_interval") == 2.0
    assert value_of("extauthz.transport.http.key_set:BriefConnection.most") == 100
