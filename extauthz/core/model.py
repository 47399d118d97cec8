"""What goes into a decision and what comes out of it.

`Reason` is the one closed list of causes. It is the metric label, the log field, the dynamic metadata and the documentation row;
what a client may learn of it is narrower and stands beside each reason as `public_name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final, Self

_TOKEN_TEXT = "The token is not valid. An OAuth access token needs the header X-Glean-Auth-Type: OAUTH."
_ROUTE_TEXT = "This method and path are not open."
_RETRY_TEXT = "The answer is not known at the moment; try again."


class Reason(StrEnum):
    """Why a check ended as it did: HTTP status, the sentence for the client, and the name that the client sees."""

    status: int
    message: str
    public_name: str
    __hash__ = str.__hash__  # Enum's own is written in Python, and reasons are keys on the warm path

    def __new__(cls, value: str, status: int, message: str, public_name: str = "") -> Self:
        """Build a member from its row: name, HTTP status, client sentence, and another public name"""
        member = str.__new__(cls, value)
        member._value_ = value
        member.status = status
        member.message = message
        member.public_name = public_name or value
        return member

    ALLOWED = "allowed", 200, "Allowed."
    PUBLIC = "public", 200, "Allowed."

    REQUEST_MALFORMED = "request_malformed", 400, "The request could not be read."
    PATH_MALFORMED = "path_malformed", 400, "The path is malformed."
    PATH_AMBIGUOUS = "path_ambiguous", 400, "The path can be read in more than one way."
    HOST_MALFORMED = "host_malformed", 400, "The host is malformed."
    AUTHORIZATION_MALFORMED = "authorization_malformed", 400, "Send one Authorization header: Bearer and one token."
    AUTH_TYPE_UNKNOWN = "auth_type_unknown", 400, "X-Glean-Auth-Type must be OAUTH or absent."
    TOKEN_IN_QUERY = "token_in_query", 400, "Send the token in the Authorization header, not in the query."
    METHOD_IN_QUERY = "method_in_query", 400, "Send the method itself, not as _method in the query."
    ACT_AS_MISSING = "act_as_missing", 400, "Required header missing: X-Scio-ActAs."
    ACT_AS_MALFORMED = "act_as_malformed", 400, "X-Scio-ActAs must be one e-mail address."
    ACT_AS_CONFLICT = "act_as_conflict", 400, "The act-as headers name different users."
    ACT_AS_NOT_ALLOWED = "act_as_not_allowed", 400, "X-Scio-ActAs must be empty with this kind of token."

    CREDENTIAL_MISSING = "credential_missing", 401, "A Bearer token is required."
    SCHEME_UNSUPPORTED = "scheme_unsupported", 401, "Only the Bearer scheme is supported."
    CREDENTIAL_DISABLED = "credential_disabled", 401, "This kind of token is not accepted here."
    TOKEN_EXPIRED = "token_expired", 401, "The token has expired."
    TOKEN_MALFORMED = "token_malformed", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_CHECKSUM = "token_checksum", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_UNKNOWN = "token_unknown", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_SECRET_WRONG = "token_secret_wrong", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_REVOKED = "token_revoked", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_SIGNATURE = "token_signature", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_ALGORITHM = "token_algorithm", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_KEY_UNKNOWN = "token_key_unknown", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_HEADER_FORBIDDEN = "token_header_forbidden", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_ISSUER = "token_issuer", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_AUDIENCE = "token_audience", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_CLIENT = "token_client", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_NOT_YET_VALID = "token_not_yet_valid", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_CLAIMS_MALFORMED = "token_claims_malformed", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_KIND_WRONG = "token_kind_wrong", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_USER_INVALID = "token_user_invalid", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_USER_NOT_ALLOWED = "token_user_not_allowed", 401, _TOKEN_TEXT, "token_invalid"
    TOKEN_INACTIVE = "token_inactive", 401, _TOKEN_TEXT, "token_invalid"

    ROUTE_UNKNOWN = "route_unknown", 403, _ROUTE_TEXT
    METHOD_NOT_ALLOWED = "method_not_allowed", 403, _ROUTE_TEXT, "route_unknown"
    ROUTE_DENIED = "route_denied", 403, _ROUTE_TEXT, "route_unknown"
    CREDENTIAL_NOT_ACCEPTED = "credential_not_accepted", 403, "This kind of token is not accepted on this route."
    ACT_AS_FORBIDDEN = "act_as_forbidden", 403, "Acting as this user is not permitted."
    ANONYMOUS_NOT_ALLOWED = "anonymous_not_allowed", 403, "Anonymous tokens are not accepted on this route."
    SCOPE_MISSING = "scope_missing", 403, "The token lacks a scope that this route requires."
    IDENTITY_TOO_LONG = "identity_too_long", 403, "The identity is too long to be forwarded."

    STORE_UNAVAILABLE = "store_unavailable", 503, _RETRY_TEXT
    STORE_REWOUND = "store_rewound", 503, _RETRY_TEXT
    STORE_STALE = "store_stale", 503, _RETRY_TEXT
    ISSUER_UNAVAILABLE = "issuer_unavailable", 503, _RETRY_TEXT
    KEY_SET_UNAVAILABLE = "key_set_unavailable", 503, _RETRY_TEXT
    CHECK_TIMEOUT = "check_timeout", 503, _RETRY_TEXT
    OVERLOADED = "overloaded", 503, _RETRY_TEXT
    DRAINING = "draining", 503, _RETRY_TEXT

    INTERNAL = "internal", 500, "The check failed."


ALLOWING = frozenset({Reason.ALLOWED, Reason.PUBLIC})
_UNREADABLE = {
    Reason.REQUEST_MALFORMED,
    Reason.PATH_MALFORMED,
    Reason.PATH_AMBIGUOUS,
    Reason.HOST_MALFORMED,
    Reason.METHOD_IN_QUERY,
}
FORWARDED = frozenset(reason for reason in Reason if reason.status not in (200, 500)) - _UNREADABLE - {Reason.ROUTE_DENIED}
"""What monitor mode forwards: all but what cannot be read in one way, what is open to nobody, and faults of ours."""

DECISION_ID = "0123456789abcdef" * 2
"""Stands in HeaderEdits for the id of the decision at hand, so that equal decisions have equal edits."""


class AuthType(StrEnum):
    """What stands behind a verified credential; also the value of the auth-type header."""

    __hash__ = str.__hash__
    OAUTH = "OAUTH"
    GLOBAL = "GLOBAL"
    USER = "USER"
    ANONYMOUS = "ANONYMOUS"


@dataclass(slots=True)
class Request:
    """One HTTP request as Envoy described it; each check makes one, and `frozen` would cost three times as much.

    `path` is the raw `:path`, query included. `headers` maps lower-case names to values, copies joined with ",", bytes read as
    Latin-1. `raw`: exact bytes (encode_raw_headers). `source`: the address of the client. `traceparent`: written if tracing is on.
    `filtered`: Envoy kept headers back, the pseudo-headers among them.
    """

    method: Final[str]
    path: Final[str] = field(repr=False)
    host: Final[str]
    headers: Final[Mapping[str, str]] = field(repr=False)
    raw: Final[bool]
    decision_id: Final[str]
    source: Final[str] = ""
    traceparent: Final[str] = ""
    filtered: Final[bool] = False

    def header(self, name: str) -> str:
        """Return the value without SP and HTAB at its ends; "" when it is absent or blank."""
        return self.headers.get(name, "").strip(" \t")


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """A verified token: who holds it and what it may do, before act-as rules; each verification makes its own.

    `user` is the address that the token is bound to: None for GLOBAL and ANONYMOUS. `expires_at` is in seconds since the epoch,
    `token_id` that of an issued token, `client_id` that of an OAuth client. `usual_edits` are those of most of its requests, and
    whose they are.
    """

    auth_type: AuthType
    actor: str
    user: str | None
    scopes: frozenset[str]
    expires_at: float
    client_id: str | None = None
    token_id: str | None = None
    usual_edits: tuple[object, HeaderEdits | Reason] | None = field(default=None, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """What the upstream's request gets: headers to overwrite, and names to remove. No name is in both.

    The value DECISION_ID stands for the id of the decision. `encoded` is what a codec keeps with them, as long as they live.
    """

    set: tuple[tuple[str, str], ...]
    remove: tuple[str, ...]
    encoded: object = field(default=None, init=False, compare=False, repr=False)


@dataclass(slots=True)
class Allow:
    """The request may go on. `user` is the effective user."""

    outcome: ClassVar[str] = "allow"
    reason: Final[Reason]
    route: Final[str]
    edits: Final[HeaderEdits]
    identity: Final[Identity | None] = None
    user: Final[str | None] = None


@dataclass(frozen=True, slots=True)
class Deny:
    """The request stops here. `scopes` are those that the route asks for, or any one of, when they are the cause.

    `kind` is that of the token, where there is a well-formed one.
    """

    outcome: ClassVar[str] = "deny"
    reason: Reason
    route: str | None = None
    identity: Identity | None = None
    user: str | None = None
    scopes: tuple[str, ...] = ()
    any_scope: bool = False
    kind: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class WouldDeny:
    """Monitor mode: the request goes on although enforcing refuses it for this `reason`; its edits name nobody."""

    outcome: ClassVar[str] = "would_deny"
    reason: Reason
    route: str | None
    edits: HeaderEdits
    identity: Identity | None = None
    user: str | None = None
    scopes: tuple[str, ...] = ()
    kind: str | None = field(default=None, compare=False)


Decision = Allow | Deny | WouldDeny
