"""Scopes that do not fit together: in the vocabulary, and in what the entries of providers grant."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from extauthz.config import document
from extauthz.config.document import Document, KeyPath
from extauthz.config.messages import unknown_scope
from extauthz.config.presets import PRESETS
from extauthz.config.scope_grants import ALL, CLAIM, listed, reads_claims
from extauthz.config.vocabulary import CLIENT_API, in_upper_case, scope
from extauthz.core.identity import MAX_VALUE
from extauthz.errors import Problem

_ZITADEL_ROLES = re.compile(r"urn:zitadel:iam:org:project:(?:[^:]+:)?roles")

Entries = Iterable[tuple[KeyPath, dict[str, Any]]]


def problems(source: Document, entries: Entries, vocabulary: Collection[str]) -> Iterator[Problem]:
    """Yield what is wrong with the vocabulary, and with the scopes of each entry."""
    for path, entry in entries:
        yield from _misused(source, path, entry, vocabulary)
    first: dict[str, str] = {}
    for index, name in scopes(source, "scopes"):
        common = in_upper_case(name)
        if common not in first:
            first[common] = name
            continue
        message = f"the scope {first[common]} is named twice: remove one"
        if common not in CLIENT_API and name != first[common]:
            message = f"{name} and {first[common]} are one scope in tokens that were made in upper case: give one another name"
        yield source.problem(("scopes", index), message)


def _misused(source: Document, path: KeyPath, entry: dict[str, Any], vocabulary: Collection[str]) -> Iterator[Problem]:
    written = entry.get("scopes")
    texts = listed(written)
    ceiling = list(_readable(enumerate(texts), vocabulary)) if isinstance(texts, list) else []
    for index, name in ceiling:
        if vocabulary and name not in vocabulary:
            place = (*path, "scopes", index) if isinstance(written, list) else (*path, "scopes")
            yield source.problem(place, unknown_scope(name, vocabulary, *(() if isinstance(written, list) else (ALL, CLAIM))))
    value = ",".join(dict(ceiling or scopes(source, "scopes")).values())
    if len(value) > MAX_VALUE and not reads_claims(entry):
        limit = f"a header for the upstream ends at {MAX_VALUE}: name fewer"
        yield source.problem((*path, "scopes"), f"OAuth tokens would hold {len(value)} bytes of scope names, {limit}")
    provider = entry.get("provider")
    if isinstance(provider, str) and provider in PRESETS and entry.get("scopes") is None and not reads_claims(entry):
        message = (
            "is missing: write scopes: claim, if the tokens say what they may do, or scopes: all, if each may do everything, "
            "or a list of what each may do"
        )
        yield source.problem((*path, "scopes"), message)
    if provider == "zitadel":
        yield from _roles_as_objects(source, path, entry)
    if entry.get("scopes") == ALL:
        for key in ("scope_claim", "scope_map"):
            if entry.get(key) is not None:
                message = "nothing uses it, because scopes: all reads no claim: write scopes: claim, or leave it out"
                yield source.problem((*path, key), message)
    for place, text in _mapped(entry.get("scope_map")) if vocabulary else ():
        with contextlib.suppress(ValueError):
            name = scope(text, vocabulary)
            if name not in vocabulary:
                yield source.problem((*path, "scope_map", *place), unknown_scope(name, vocabulary))


def _roles_as_objects(source: Document, path: KeyPath, entry: dict[str, Any]) -> Iterator[Problem]:
    """Yield claims of roles that are read as a list, which they never are, so that no token would hold anything."""
    names = listed(entry.get("scope_claim"))
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str) and _ZITADEL_ROLES.fullmatch(name):
            yield source.problem((*path, "scope_claim"), f"the roles of ZITADEL are the members of an object: write {name}.*")


def _mapped(values: object) -> Iterator[tuple[KeyPath, object]]:
    for value, names in values.items() if isinstance(values, dict) else ():
        if isinstance(names, list):
            yield from (((value, index), name) for index, name in enumerate(names))
        else:
            yield (value,), names


def scopes(source: Document, *path: str | int, vocabulary: Collection[str] = ()) -> list[tuple[int, str]]:
    """Return the scopes of a list that are written correctly; the others are listed as problems elsewhere."""
    return list(_readable(document.strings(source, *path), vocabulary))


def _readable(texts: Iterable[tuple[int, object]], vocabulary: Collection[str]) -> Iterator[tuple[int, str]]:
    for index, text in texts:
        with contextlib.suppress(ValueError):
            yield index, scope(text, vocabulary)
