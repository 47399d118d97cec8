"""A checked request as it is recorded: all that its decision depends on, with its token replaced by what verifying it came to.

What a client chose is taken down only where it cannot be a secret: an e-mail address, a host, an origin. Everything else that a
decision depends on is replaced by a harmless text that comes to the same.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from extauthz.core.act_as import address
from extauthz.core.credentials import AUTHORIZATION, AuthTypes, Kind
from extauthz.core.model import Decision, Deny, Identity, Reason, Request, WouldDeny
from extauthz.core.policy import Policy, canonical_host
from extauthz.telemetry.decision_record import RecordField

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
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]{{2,45}}\])(?::[0-9]{{1,5}})?").fullmatch
_WORDS = re.compile(r"(?=.{0,24}\Z)[^0-9]*(?:[0-9]{1,3}[^0-9]*)?").fullmatch
_METHOD = re.compile(r"[A-Za-z]{1,20}").fullmatch
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
    if reason in UNREPEATABLE or len(request.headers) > MAX_HEADERS or tokens is None:
        return None
    caller = _caller(decision, scopes)
    if caller is None:
        return None
    recorded = {
        "version": VERSION,
        "method": request.method,
        "path": _target(request.path, reason),
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


def _target(target: str, reason: Reason) -> str:
    """Return the path as the decision log has it, and a query or fragment that comes to the same reason."""
    path = re.split("[?#]", target, maxsplit=1)[0]
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
        # Without an identity nobody has compared it with anything.
        return value if decision.identity is not None and address(value, raw=request.raw) is not None else _REMOVED

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
    return prefix + _REMOVED if is_prefixed and not _WORDS(name[len(prefix) :]) else name


def _auth_type(types: AuthTypes, value: str) -> str:
    return value if value.lower() == types.oauth else "unknown"


def _origin(value: str) -> str:
    scheme, separator, host = value.partition("://")
    return value if separator and scheme in ("http", "https") and _HOST(host) else "null"


def _requested_method(value: str) -> str:
    return value if _METHOD(value) else "OTHER"
