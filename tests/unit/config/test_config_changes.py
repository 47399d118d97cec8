"""What a reload takes and what needs a restart: one table says it of every key, and the comparison and the documents agree."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from extauthz.config.document import KeyPath
from extauthz.config.loader import Configuration, load
from extauthz.config.restart import EFFECTS, Effect, needing_restart
from extauthz.config.settings import Settings
from tests.support.project import ROOT

REFERENCE = ROOT / "docs" / "reference.md"
SETTINGS = {
    "version": 1,
    "server": {
        "listen": "127.0.0.1:9001",
        "tls": {"certificate": "a", "key": "b", "client_ca": "c"},
        "ops_tls": {"certificate": "a", "key": "b"},
    },
    "oauth": {
        "provider": "okta",
        "issuer": "https://acme.okta.com/oauth2/default",
        "client_ids": ["0oa1example"],
        "audience": "api://default",
        "proxy": {"url": "http://proxy.acme.com:3128"},
    },
    "tokens": {
        "store": "postgresql://extauthz@db.acme.com/extauthz",
        "store_password": {"file": "password"},
        "peppers": [{"id": "p1", "file": "pepper"}],
    },
    "internal_token": {"issuer": "https://auth.acme.com", "audience": "acme", "keys": [{"id": "k1", "file": "key.pem"}]},
    "scopes": ["SEARCH"],
    "routes": ["routes.yaml"],
    "console": {
        "tls": {"certificate": "a", "key": "b"},
        "oidc": {"issuer": "https://acme.okta.com", "client_id": "0oa1console", "client_secret": {"file": "secret"}},
        "sidecar_tls": {"certificate": "a", "key": "b"},
    },
}


def configured(folder: Path, **changes: object) -> Configuration:
    settings = {name: value for name, value in (SETTINGS | changes).items() if value is not None}
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    return load(folder / "extauthz.yaml")


def leaves(model: type[BaseModel], above: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of each key; a key that holds a list, a mapping or one of several sections is looked at as a whole."""
    for name, field in model.model_fields.items():
        inner = section(field.annotation)
        yield from leaves(inner, (*above, name)) if inner else ((*above, name),)


def section(annotation: object) -> type[BaseModel] | None:
    """Return the section that stands at a key, if it can be only one."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        (annotation, *others) = (one for one in typing.get_args(annotation) if one is not types.NoneType)
        if others:
            return None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def changed(model: BaseModel, path: KeyPath) -> BaseModel:
    """Return a copy in which the value at a path is another one, whatever its type."""
    name, *rest = path
    assert isinstance(name, str)
    value = getattr(model, name)
    if rest:
        assert isinstance(value, BaseModel), f"{path}: SETTINGS above lack this section"
    return model.model_copy(update={name: changed(value, tuple(rest)) if rest else "another value"})


def effect_of(path: KeyPath) -> Effect:
    """Return what the table says of a key, in a row of its own or in that of its section."""
    rows = [".".join(map(str, path[:length])) for length in range(len(path), 0, -1)]
    effects = [EFFECTS[row] for row in rows if row in EFFECTS]
    assert len(effects) == 1, f"{rows[0]}: EFFECTS says {len(effects)} times whether a reload takes it"
    return effects[0]


LEAVES = list(leaves(Settings))


def test_the_walk_comes_to_every_section() -> None:
    """Else the tests below would look at nothing."""
    assert {path[0] for path in LEAVES} == set(Settings.model_fields)
    assert {("server", "tls", "allowed_names"), ("tokens", "store"), ("grpc", "resets"), ("internal_token", "jwks")} < set(LEAVES)


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: ".".join(map(str, path)))
def test_a_changed_key_is_refused_until_a_restart_exactly_where_the_table_says_so(tmp_path: Path, path: KeyPath) -> None:
    """A key that is in no row would be taken by a reload that changes nothing, and nobody would be told."""
    before = configured(tmp_path)
    after = replace(before, settings=changed(before.settings, path))
    refused = [error.path for error in needing_restart(before, after)]
    if effect_of(path) is Effect.LIVE:
        assert refused == []
    else:
        (key,) = refused
        assert EFFECTS[key] is Effect.RESTART
        assert key.split(".") == list(path[: key.count(".") + 1])


def test_every_row_is_a_key() -> None:
    for key in EFFECTS:
        path = tuple(key.split("."))
        assert any(leaf[: len(path)] == path for leaf in LEAVES), key


def test_issued_tokens_cannot_be_switched_on_in_a_process_that_began_without_them(tmp_path: Path) -> None:
    without, on = configured(tmp_path, tokens=None), configured(tmp_path)
    assert [error.path for error in needing_restart(without, on)] == ["tokens"]
    assert needing_restart(on, without) == []


def test_the_reference_names_what_needs_a_restart() -> None:
    text = REFERENCE.read_text(encoding="utf-8").partition("\n## Reload\n")[2]
    (sentence,) = re.findall(r"\n\n(`server\.listen`[^:]*?) need a restart", text)
    assert re.findall(r"`([a-z_.]+)`", sentence) == [key for key, effect in EFFECTS.items() if effect is Effect.RESTART]
