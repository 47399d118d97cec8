"""Who sends a described request, in words: `GLOBAL scopes=SEARCH,CHAT`, `oauth user=ana@acme.com`, `nobody`.

So a policy can be asked about a token without its secret. What verifying the token comes to is part of the description; everything
after that is decided by the steps that serve.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from extauthz.config.messages import unknown_scope
from extauthz.config.vocabulary import scope
from extauthz.config.wording import nearest
from extauthz.core.act_as import address
from extauthz.core.credentials import Kind
from extauthz.core.model import AuthType, Identity, Reason
from extauthz.core.providers import ProviderRules
from extauthz.errors import CallerError

TOKEN_ID = "0" * 12
"""The id of a described token that names none: as long as every id."""
VERIFYING = frozenset(reason for reason in Reason if reason.status in (401, 503)) - {
    Reason.CREDENTIAL_MISSING,
    Reason.SCHEME_UNSUPPORTED,
    Reason.CREDENTIAL_DISABLED,
}
"""Reasons that verifying a token can come to."""

_EXAMPLES = "'GLOBAL scopes=SEARCH,CHAT', 'oauth user=ana@acme.com' or 'nobody'"
_ISSUED = ("scopes", "token", "expires", "reason")
_KEYS: Mapping[str, tuple[str, ...]] = {
    "nobody": (),
    "oauth": ("user", "scopes", "provider", "client", "subject", "expires", "reason"),
    "GLOBAL": _ISSUED,
    "USER": ("user", *_ISSUED),
    "ANONYMOUS": _ISSUED,
}


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who sends a request: nobody without a `kind`, else a token of this kind, and what verifying it comes to.

    `description` says the same in words and holds no secret.
    """

    kind: Kind | None = None
    evidence: Identity | Reason | None = None
    description: str = "nobody"


NOBODY = Caller()


def caller(text: str, vocabulary: Sequence[str], providers: Sequence[ProviderRules] = ()) -> Caller:
    """Read a description; raises CallerError.

    `scopes=*` stands for the whole vocabulary, `scopes=-` for none; tokens of a provider that hold every scope need no `scopes`.
    `reason` says why verifying the token fails, like token_revoked; `expires` when it ends, as a time of ISO 8601.
    """
    try:
        first, *others = shlex.split(text) or [""]
    except ValueError as error:
        raise CallerError(f"{error}: write {_EXAMPLES}") from error
    name = next((name for name in _KEYS if name.lower() == first.lower()), None)
    if name is None:
        raise CallerError(f"unknown kind of caller {first!r}{nearest(first, _KEYS) or f': write {_EXAMPLES}'}")
    values = _values(name, others)
    if name == "nobody":
        return NOBODY
    reason = _reason(values["reason"]) if "reason" in values else None
    if name == "oauth":
        kind, evidence = Kind.OAUTH, reason or _of_provider(values, vocabulary, providers)
    else:
        kind, evidence = Kind.ISSUED, reason or _issued(AuthType(name), values, vocabulary)
    return Caller(kind, evidence, " ".join((name, *(f"{key}={shlex.quote(value)}" for key, value in values.items()))))


def _values(name: str, others: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in others:
        key, separator, value = pair.partition("=")
        if key not in _KEYS[name]:
            listing = ", ".join(_KEYS[name]) or "nothing"
            raise CallerError(f"{name} does not take {key!r}{nearest(key, _KEYS[name]) or f': it takes {listing}'}")
        if not separator or not value:
            raise CallerError(f"{key} has no value: write {key}=…")
        if key in values:
            raise CallerError(f"{key} is written twice: keep one")
        values[key] = value
    return values


def _issued(permission: AuthType, values: Mapping[str, str], vocabulary: Sequence[str]) -> Identity:
    if "scopes" not in values:
        raise CallerError(f"{permission} needs scopes: write scopes=SEARCH,CHAT, or scopes=* for all")
    if permission is AuthType.USER and "user" not in values:
        raise CallerError("USER needs the user that it acts for: write user=ana@acme.com")
    token_id = values.get("token", TOKEN_ID)
    user = _address(values["user"]) if permission is AuthType.USER else None
    scopes = _scopes(values["scopes"], vocabulary)
    return Identity(permission, f"token:{token_id}", user, scopes, _expires(values), token_id=token_id)


def _of_provider(values: Mapping[str, str], vocabulary: Sequence[str], providers: Sequence[ProviderRules]) -> Identity:
    rules = _provider(values.get("provider"), providers)
    if "user" not in values:
        raise CallerError("oauth needs the user of the token: write user=ana@acme.com")
    ceiling = rules.scopes if rules else frozenset(vocabulary)
    if "scopes" in values:
        scopes = _scopes(values["scopes"], vocabulary) & ceiling
    elif rules is None or rules.scope_claims is None:
        scopes = ceiling
    else:
        raise CallerError(f"tokens of {rules.name} hold the scopes that they claim: write scopes=SEARCH,CHAT")
    user = _address(values["user"])
    actor = f"oauth:{rules.name if rules else 'described'}:{values.get('subject', user)}"
    return Identity(AuthType.OAUTH, actor, user, scopes, _expires(values), client_id=values.get("client"))


def _provider(name: str | None, providers: Sequence[ProviderRules]) -> ProviderRules | None:
    if name is None:
        return providers[0] if providers else None
    rules = next((rules for rules in providers if rules.name == name), None)
    if rules is None:
        names = [rules.name for rules in providers]
        raise CallerError(
            f"no provider {name!r}{nearest(name, names) or ': the configuration has ' + (', '.join(names) or 'none')}"
        )
    return rules


def _scopes(text: str, vocabulary: Sequence[str]) -> frozenset[str]:
    if text == "*":
        return frozenset(vocabulary)
    if text == "-":
        return frozenset()
    names = set()
    for part in text.split(","):
        try:
            name = scope(part, vocabulary)
        except ValueError as error:
            raise CallerError(str(error)) from error
        if name not in vocabulary:
            raise CallerError(unknown_scope(name, vocabulary))
        names.add(name)
    return frozenset(names)


def _address(text: str) -> str:
    user = address(text)
    if user is None:
        raise CallerError(f"{text!r} is not one e-mail address")
    return user


def _reason(text: str) -> Reason:
    names = {reason.value: reason for reason in VERIFYING}
    if text not in names:
        raise CallerError(f"verifying a token does not come to {text!r}{nearest(text, names) or ': write one like token_revoked'}")
    return names[text]


def _expires(values: Mapping[str, str]) -> float:
    text = values.get("expires")
    if text is None:
        return math.inf
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CallerError(f"expires={text} is not a time: write one like 2027-01-31T12:00:00Z") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
