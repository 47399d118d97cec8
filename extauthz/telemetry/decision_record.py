"""What is recorded of one decision: the fields of a line of the decision log, of which Envoy's dynamic metadata holds a part."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Self

from extauthz.core.model import Allow, Decision, Identity, Reason

MAX_VALUE = 512
"""Characters of a value; what is longer is cut."""


class RecordField(StrEnum):
    """A field: what it tells, and whether it is in Envoy's dynamic metadata too."""

    meaning: str
    in_metadata: bool

    def __new__(cls, value: str, meaning: str, in_metadata: bool = False) -> Self:
        """Build a member from its row."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.in_metadata = in_metadata
        return member

    TIME = "time", "seconds since the epoch, to the millisecond"
    DECISION = "decision", "`allow`, `deny`, or `would_deny` for what only [monitor mode](monitor-mode.md) lets through", True
    REASON = "reason", "why, one of the [reasons](reference.md#reasons)", True
    STATUS = "status", "the HTTP status that belongs to the reason, a number", True
    DECISION_ID = "decision_id", "32 hex digits, which client and upstream are told too", True
    REQUEST_ID = "request_id", "`x-request-id` as Envoy sent it, if it is printable ASCII without spaces; 128 characters at most"
    TRACE_ID = "trace_id", "32 hex digits: of the check while [tracing](tracing.md) is on, else from the request's `traceparent`"
    METHOD = "method", "the request's method, 32 characters at most"
    PATH = "path", "the canonical path without the query, 512 characters at most; a path that is refused stands as it came"
    CLIENT_ADDRESS = (
        "client_address",
        "the address of the client, by [`envoy.client_address`](#the-address-of-a-client); absent for a unix socket",
    )
    ROUTE = "route", "the name of the route", True
    AUTH_TYPE = "auth_type", "`OAUTH`, `GLOBAL`, `USER` or `ANONYMOUS`", True
    ACTOR = "actor", "who holds the token: `token:<id>` or `oauth:<provider>:<subject>`", True
    USER = "user", "the effective user, after act-as", True
    CLIENT_ID = "client_id", "the OAuth client that the token was issued to", True
    TOKEN_ID = "token_id", "the id of an issued token, as `extauthz token show` takes it", True
    REQUIRED_SCOPES = (
        "required_scopes",
        "with `scope_missing`: the scopes that the route asks for, or with `any_of` any one of, separated by spaces",
        True,
    )
    HELD_SCOPES = "held_scopes", "with `scope_missing`: the scopes that the caller holds, separated by spaces", True
    NEAREST_ROUTE = "nearest_route", "with `route_unknown`: the name of the route that is most like the request; for two a second"
    TOKEN_SHA256 = "token_sha256", "of an access token that was not verified: the first 8 hex digits of its SHA-256"
    TOKEN_ISSUER = "token_issuer", "of an access token that was not verified: the issuer that it claims"
    TOKEN_KEY_ID = "token_key_id", "of an access token that was not verified: the key that it claims"
    SAMPLE = "sample", "the share of the decisions with this reason that is written, when it is less than 1"
    MICROSECONDS = "microseconds", "from the bytes of the question to those of the answer"


def record_of(decision: Decision) -> dict[str, str | int]:
    """Return what a decision itself tells, by the names of the fields; what it does not know is left out."""
    return {
        "decision": decision.outcome,
        "reason": decision.reason.value,
        "status": decision.reason.status,
        **record_of_caller(decision.route, decision.identity, decision.user),
        **record_of_scopes(decision),
    }


def record_of_caller(route: str | None, identity: Identity | None, user: str | None) -> dict[str, str | int]:
    """Return what does not depend on the reason: the name of the route, who called, and the effective user."""
    fields: dict[str, str | int] = {}
    if route is not None:
        fields["route"] = route
    if identity is not None:
        fields["auth_type"] = identity.auth_type.value
        fields["actor"] = identity.actor[:MAX_VALUE]
    if user is not None:
        fields["user"] = user[:MAX_VALUE]
    if identity is not None:
        if identity.client_id is not None:
            fields["client_id"] = identity.client_id[:MAX_VALUE]
        if identity.token_id is not None:
            fields["token_id"] = identity.token_id[:MAX_VALUE]
    return fields


def record_of_scopes(decision: Decision) -> dict[str, str | int]:
    """Return which scopes were asked for and which are held, where that is why the caller was refused."""
    if isinstance(decision, Allow) or decision.reason is not Reason.SCOPE_MISSING or decision.identity is None:
        return {}
    held = sorted(decision.identity.scopes)
    return {"required_scopes": _separated(decision.scopes), "held_scopes": _separated(held)}


def weight_of(sample: object) -> float:
    """Return how many decisions a line stands for, by its field `sample`; 1 for what is no share."""
    if sample is None:
        return 1.0
    is_share = isinstance(sample, (int, float)) and not isinstance(sample, bool) and 1e-9 <= sample <= 1
    return 1 / sample if is_share else 1.0  # type: ignore[operator]


def _separated(names: Iterable[str]) -> str:
    """Separate whole names by spaces, as many as fit."""
    text = " ".join(names)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE + 1].rpartition(" ")[0]
