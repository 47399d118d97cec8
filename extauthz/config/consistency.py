"""Mistakes that only several keys together show; read from the plain data, so that a mistake in one section hides no other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from extauthz.config import document
from extauthz.config.document import Document, Mistake
from extauthz.config.problems import unknown_scope
from extauthz.config.settings import Settings
from extauthz.config.values import scope
from extauthz.core.act_as import ACT_AS_HEADERS
from extauthz.core.credentials import AUTH_TYPE, AUTHORIZATION
from extauthz.core.identity import MAX_VALUE, OVERRIDE_HEADERS, IdentityHeaders
from extauthz.core.policy import Policy
from extauthz.core.providers import expanded

_LISTEN_WARNING = "can be reached by other machines, which can then try tokens: listen on loopback or a unix socket"
_OPS_WARNING = "can be reached by other machines, which can then read metrics and readiness: listen on loopback or a unix socket"
_RULE_WARNING = "is not the default: decoder_header_mutation_rules of your Envoy must allow these names, else it answers 500"


def mistakes(source: Document, vocabulary: list[str]) -> list[Mistake]:
    """List what does not fit together; `vocabulary` are the scopes that are written correctly."""
    return [
        *_misused_scopes(source, vocabulary),
        *_misused_headers(source),
        *_misused_pepper_ids(source),
        *_misused_providers(source),
    ]


def _entries(source: Document) -> Iterator[tuple[document.KeyPath, dict[str, object]]]:
    """Yield the path and the data of each provider, in whichever form the section is written."""
    oauth = source.data.get("oauth")
    if not isinstance(oauth, dict):
        return
    several = oauth.get("providers")
    if "providers" not in oauth:
        yield ("oauth",), oauth
    for index, entry in enumerate(several if isinstance(several, list) else ()):
        if isinstance(entry, dict):
            yield ("oauth", "providers", index), entry


def _misused_providers(source: Document) -> Iterator[Mistake]:
    """Ask for the audience where tokens do not name the client as theirs; names and issuers must differ."""
    entries = list(_entries(source))
    for path, entry in entries:
        if entry.get("provider") == "okta" and entry.get("audience") is None:
            message = (
                "is missing: write it, like audience: api://default "
                "(it stands in the settings of the authorization server, and tokens for other audiences are not yours)"
            )
            yield source.mistake((*path, "audience"), message)
    names = [(index, str(entry.get("name") or entry.get("provider"))) for index, (_, entry) in enumerate(entries)]
    for index, name in twice(names):
        yield source.mistake((*entries[index][0], "name"), f"another provider above is named {name!r}: give each its own name")
    issuers = [(index, expanded(str(entry.get("issuer")))) for index, (_, entry) in enumerate(entries)]
    for index, _ in twice(issuers):
        yield source.mistake((*entries[index][0], "issuer"), "another provider above has the same issuer: write one entry for both")


def _misused_scopes(source: Document, vocabulary: list[str]) -> list[Mistake]:
    mistakes: list[Mistake] = []
    for path, _ in _entries(source):
        ceiling = list(scopes(source, *path, "scopes"))
        mistakes += [
            source.mistake((*path, "scopes", index), unknown_scope(name, vocabulary))
            for index, name in ceiling
            if vocabulary and name not in vocabulary
        ]
        held = ",".join(dict(ceiling or scopes(source, "scopes")).values())
        if len(held) > MAX_VALUE:
            limit = f"a header for the upstream ends at {MAX_VALUE}: name fewer"
            message = f"OAuth tokens would hold {len(held)} bytes of scope names, {limit}"
            mistakes.append(source.mistake((*path, "scopes"), message))
    for index, name in twice(scopes(source, "scopes")):
        mistakes.append(source.mistake(("scopes", index), f"the scope {name} is named twice: remove one"))
    return mistakes


def _misused_pepper_ids(source: Document) -> list[Mistake]:
    tokens = source.data.get("tokens")
    peppers = tokens.get("peppers") if isinstance(tokens, dict) else None
    found = [
        (index, str(pepper.get("id")))
        for index, pepper in enumerate(peppers if isinstance(peppers, list) else ())
        if isinstance(pepper, dict) and "id" in pepper
    ]
    message = "another pepper above has the same id: give each its own"
    return [source.mistake(("tokens", "peppers", index, "id"), message) for index, _ in twice(found)]


def twice(items: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return the items whose text stands in an earlier one."""
    first: dict[str, int] = {}
    return [(index, text) for index, text in items if first.setdefault(text, index) != index]


def _misused_headers(source: Document) -> list[Mistake]:
    act_as = [(index, name.lower()) for index, name in strings(source, "act_as", "headers")]
    keepable = {AUTHORIZATION, AUTH_TYPE, *ACT_AS_HEADERS, *(name for _, name in act_as), *OVERRIDE_HEADERS}
    mistakes = [
        source.mistake(("identity", "keep", index), f"{name!r} is not one of {', '.join(sorted(keepable))}")
        for index, name in strings(source, "identity", "keep")
        if name.lower() not in keepable
    ]
    identity = source.data.get("identity")
    prefix = identity.get("prefix") if isinstance(identity, dict) else None
    prefix = prefix if isinstance(prefix, str) else IdentityHeaders().prefix
    taken = {AUTHORIZATION, AUTH_TYPE, "host", *OVERRIDE_HEADERS}
    return mistakes + [
        source.mistake(("act_as", "headers", index), f"{name!r} has another meaning: name a header of its own")
        for index, name in act_as
        if name in taken or name.startswith(prefix)
    ]


def risks(settings: Settings, policy: Policy, source: Document) -> list[Mistake]:
    """List what is allowed but worth a look."""
    warnings = []
    addresses = (("listen", settings.server.listen, _LISTEN_WARNING), ("ops", settings.server.ops, _OPS_WARNING))
    for key, address, warning in addresses:
        if address is not None and not address.is_local:
            warnings.append(source.mistake(("server", key), warning))
    if settings.identity.prefix != IdentityHeaders().prefix:
        warnings.append(source.mistake(("identity", "prefix"), _RULE_WARNING))
    if set(settings.act_as.headers) - set(ACT_AS_HEADERS):
        warnings.append(source.mistake(("act_as", "headers"), _RULE_WARNING))
    if settings.tokens and settings.tokens.enabled and not settings.act_as.allow:
        warnings.append(source.mistake(("act_as", "allow"), "is empty: no GLOBAL token can act for anybody"))
    if not policy.kinds:
        warnings.append(source.mistake((), "neither oauth nor tokens is on: only public routes are open"))
    return warnings


def scopes(source: Document, *path: str | int) -> list[tuple[int, str]]:
    """Return the scopes of a list that are written correctly; the others are listed as mistakes elsewhere."""
    found = []
    for index, name in strings(source, *path):
        with contextlib.suppress(ValueError):
            found.append((index, scope(name)))
    return found


def strings(source: Document, *path: str | int) -> list[tuple[int, str]]:
    """Return the texts of a list with their positions in it."""
    value = source.data
    for key in path:
        if isinstance(key, int):
            value = value[key] if isinstance(value, list) and key < len(value) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return [(index, item) for index, item in enumerate(value) if isinstance(item, str)] if isinstance(value, list) else []
