"""A checked request as it is recorded: all that its decision depends on, with its token replaced by what verifying it came to.

What a client chose is taken down only where it cannot be a secret: an e-mail address, a host, an origin, words and numbers of a
path. Everything else that a decision depends on is replaced by a harmless text that comes to the same.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from extauthz.core.act_as import address
from extauthz.core.credentials import AUTHORIZATION, AuthTypes, Kind
from extauthz.core.decide import Plan, plan
from extauthz.core.model import Decision, Deny, Identity, Reason, Request, WouldDeny
from extauthz.core.policy import Policy, canonical_host
from extauthz.core.routes import Node
from extauthz.telemetry.decision_record import RecordField
from extauthz.telemetry.plain_words import LONGEST, is_plain, is_words

VERSION = 1
MAX_SIZE = 16 * 1024
"""Characters of a request as it is recorded; a longer one is left out."""
MAX_HEADERS = 100
MAX_PARTS = 4
"""Parts of Authorization that may be tokens, of which each is looked for; a request with more is left out."""
SHOWN = frozenset(
    {
        *(RecordField.METHOD, RecordField.PATH, RecordField.ROUTE, RecordField.REASON, RecordField.DECISION, RecordField.TIME),
        *(RecordField.USER, RecordField.ACTOR, RecordField.AUTH_TYPE, RecordField.CLIENT_ID, RecordField.TOKEN_ID),
    }
)
"""Fields of the decision log that a recorded request shows too."""
UNREPEATABLE = frozenset({Reason.REQUEST_MALFORMED, Reason.INTERNAL})
"""Reasons with which there is no request that could be decided again."""

_REMOVED = "removed"
_OTHER_HOST = "other.invalid"
_NO_TOKEN = frozenset({Reason.CREDENTIAL_MISSING, Reason.SCHEME_UNSUPPORTED, Reason.CREDENTIAL_DISABLED})
_LEAST = 8
_TOKENS = re.compile(rf"[a-z0-9._~+/-]{{{_LEAST},}}").finditer
"""What may be one, in lower case."""
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,18}[A-Za-z0-9])?"
_HOST = re.compile(
    rf"(?:{_LABEL}(?:\.{_LABEL})*\.?|\[(?:[0-9A-Fa-f]{{0,4}}:){{2,7}}(?:[0-9A-Fa-f]{{0,4}}|[0-9.]{{7,15}})\])(?::[0-9]{{1,5}})?"
).fullmatch
_REQUESTED_METHOD = "access-control-request-method"
_QUERIES: Mapping[Reason, str] = {
    Reason.TOKEN_IN_QUERY: f"?access_token={_REMOVED}",
    Reason.METHOD_IN_QUERY: f"?_method={_REMOVED}",
}
_AUTHORIZATIONS: Mapping[Reason, str] = {
    Reason.AUTHORIZATION_MALFORMED: f"Bearer {_REMOVED} {_REMOVED}",
    Reason.SCHEME_UNSUPPORTED: f"Basic {_REMOVED}",
}


def recorded_request(
    policy: Policy, request: Request, decision: Decision, moment: float, *, scopes: Collection[str]
) -> dict[str, Any] | None:
    """Return a request as JSON writes it, or None for one that cannot be decided again; `moment` is in seconds of the epoch.

    `scopes` is the whole vocabulary. Deciding it again at that moment comes to the same, and to the same edits.
    """
    reason = decision.reason
    tokens = _parts(request.header(AUTHORIZATION))
    if reason in UNREPEATABLE or len(request.headers) > MAX_HEADERS or len(request.path) > MAX_SIZE or tokens is None:
        return None
    caller, line = _caller(decision, scopes), _line(policy, request)
    if caller is None or line is None or not _may_name(policy, request, decision):
        return None
    method, path = line
    recorded = {
        "version": VERSION,
        "method": method,
        "path": _target(path, request.path, reason),
        "host": _host(policy, request.host),
        "headers": _headers(policy, request, decision, has_token=caller != "nobody"),
        "caller": caller,
        "decision": decision.outcome,
        "reason": reason.value,
        "route": decision.route,
        "time": round(moment, 6),
    }
    text = json.dumps(recorded).lower()
    if len(text) > MAX_SIZE or any(token in text for token in tokens):
        return None
    return recorded


def _line(policy: Policy, request: Request) -> tuple[str, str] | None:
    """Return method and path in which what may be a secret is replaced, None where no such text comes to the same."""
    target = request.path
    path = re.split("[?#]", target, maxsplit=1)[0]
    segments = path.split("/")
    named = _named(policy, request.host, segments)
    method = request.method if is_words(request.method) else _REMOVED.upper()
    for may_stay in (is_words, _is_short):
        found = "/".join(each if is_named or may_stay(each) else _REMOVED for each, is_named in zip(segments, named, strict=True))
        replaced = replace(request, method=method, path=found + target[len(path) :])
        if (method, found) == (request.method, path) or _route(policy, replaced) == _route(policy, request):
            return method, found
    return None


def _is_short(segment: str) -> bool:
    """Tell whether a segment is no token; how it is encoded, or a short name in it, may be what decides."""
    return len(segment) <= LONGEST or is_words(segment)


def _route(policy: Policy, request: Request) -> object:
    """Return what a request comes to as far as its method and path decide."""
    planned = plan(policy, request)
    return planned.route if isinstance(planned, Plan) else (planned.reason, planned.route)


def _named(policy: Policy, host: str, segments: Sequence[str]) -> list[bool]:
    """Return for each segment whether some route has it as a literal in its place."""
    table = policy.table_for(host)
    nodes: list[Node] = [] if isinstance(table, Reason) else [table.root]
    named = []
    # What stands before the first slash is no segment.
    for segment in segments[1:]:
        named.append(any(segment in node.literals for node in nodes))
        below = ((node.literals.get(segment), node.parameter) for node in nodes)
        nodes = [node for pair in below for node in pair if node is not None]
    return [False, *named]


def _may_name(policy: Policy, request: Request, decision: Decision) -> bool:
    """Tell whether no address in an act-as header, which is taken down as it is, could be a token."""
    values = (request.header(name) for name in policy.act_as.headers)
    pairs = (value.rpartition("@") for value in values if _is_named(request, decision, value))
    return all(len(part) <= LONGEST or is_plain(part) for name, _, domain in pairs for part in (name, *domain.split(".")))


def _is_named(request: Request, decision: Decision, value: str) -> bool:
    """Tell whether a value is taken down as an address: without an identity nobody has compared it with anything."""
    return decision.identity is not None and address(value, raw=request.raw) is not None


def _target(path: str, target: str, reason: Reason) -> str:
    """Return a path with a query or fragment that comes to the same reason as a target."""
    if reason is Reason.PATH_MALFORMED and "#" in target:
        return f"{path}#" if "#" in target.partition("?")[0] else f"{path}?#"
    return path + _QUERIES.get(reason, "")


def _parts(authorization: str) -> frozenset[str] | None:
    """Return what of the header may be a token or the secret part of one, in lower case; None for what takes long to look for."""
    found = [match[0] for match in islice(_TOKENS(authorization.lower()), MAX_PARTS + 1)]
    if len(found) > MAX_PARTS:
        return None
    parts = {part for token in found for part in (token, token.rpartition(".")[2], re.split("[._-]", token)[-1])}
    return frozenset(part for part in parts if len(part) >= _LEAST)


def _caller(decision: Decision, scopes: Collection[str]) -> str | None:
    """Describe who called, as extauthz/tools/callers.py reads it; None where that cannot be said."""
    if decision.identity is not None:
        return _identity(decision.identity, scopes)
    reason = decision.reason
    if reason.status not in (401, 503) or reason in _NO_TOKEN:
        return "nobody"
    kind = decision.kind if isinstance(decision, (Deny, WouldDeny)) else None
    return f"{'oauth' if kind == Kind.OAUTH else 'GLOBAL'} reason={reason.value}" if kind is not None else None


def _identity(identity: Identity, scopes: Collection[str]) -> str | None:
    if not identity.scopes.issubset(scopes):
        return None
    values: dict[str, str | None] = {"user": identity.user, "scopes": ",".join(sorted(identity.scopes)) or "-"}
    if identity.token_id is not None:
        name = identity.auth_type.value
        values["token"] = identity.token_id
    else:
        name = "oauth"
        _, values["provider"], values["subject"] = identity.actor.split(":", 2)
        values["client"] = identity.client_id
    # What ends later than calendars reach never ends.
    if identity.expires_at < datetime.max.replace(tzinfo=UTC).timestamp():
        values["expires"] = datetime.fromtimestamp(identity.expires_at, UTC).isoformat()
    return " ".join([name, *(f"{key}={shlex.quote(value)}" for key, value in values.items() if value is not None)])


def _host(policy: Policy, host: str) -> str:
    if _HOST(host) or canonical_host(host) in policy.hosts:
        return host
    return f"{_REMOVED} {_REMOVED}" if policy.hosts and canonical_host(host) is None else _OTHER_HOST


def _headers(policy: Policy, request: Request, decision: Decision, *, has_token: bool) -> dict[str, str]:
    """Return the headers that a decision depends on, in the order of the request; others that would be removed are empty."""
    types = policy.auth_types

    def act_as(value: str) -> str:
        return value if _is_named(request, decision, value) else _REMOVED

    writers: dict[str, Callable[[str], str]] = dict.fromkeys(policy.act_as.headers, act_as)
    if types.header:
        writers[types.header] = lambda value: _auth_type(types, value)
    if request.method == "OPTIONS":
        writers |= {"origin": _origin, _REQUESTED_METHOD: _requested_method}
    headers: dict[str, str] = {}
    for name in request.headers:
        value = request.header(name)
        if name == AUTHORIZATION:
            # Whoever decides it again writes one for a described token.
            if not has_token:
                headers[name] = value and _authorization(types, decision)
        elif name in writers:
            headers[name] = value and writers[name](value)
        elif policy.identity.owns(name):
            headers[_known_name(policy.identity.prefix, name)] = ""
    return headers


def _authorization(types: AuthTypes, decision: Decision) -> str:
    kind = decision.kind if isinstance(decision, (Deny, WouldDeny)) else None
    prefix = types.issued[0] if kind == Kind.ISSUED and not types.header and types.issued else ""
    return _AUTHORIZATIONS.get(decision.reason, f"Bearer {prefix}{_REMOVED}")


def _known_name(prefix: str, name: str) -> str:
    """Return a name whose end, where clients choose it, is a short word or two."""
    is_prefixed = re.sub("[^a-z0-9]", "-", name[: len(prefix)].lower()) == prefix
    return prefix + _REMOVED if is_prefixed and not is_words(name[len(prefix) :]) else name


def _auth_type(types: AuthTypes, value: str) -> str:
    return value if value.lower() == types.oauth else "unknown"


def _origin(value: str) -> str:
    scheme, separator, host = value.partition("://")
    return value if separator and scheme in ("http", "https") and _HOST(host) else "null"


def _requested_method(value: str) -> str:
    return value if value and is_words(value) else "OTHER"
