"""What to do about each reason of a refusal."""

from __future__ import annotations

from extauthz.core.model import ALLOWING, Reason

_TOKEN = "the client sends a token that is none of yours, or a damaged one: let it get a new one"
_PROVIDER = "compare the token with the oauth section: issuer, client_ids and audience say whose tokens are accepted"
_CLAIMS = "the provider issues tokens that are not accepted: see docs/oauth-providers.md for what it has to put into them"
_WORLD = "nothing is wrong with the client: such a request is answered with 503; see /readyz and the process log of that time"
_KIND = "list the kind of token in `accept` of the route, or give the client another kind of token"

HINTS: dict[Reason, str] = {
    Reason.REQUEST_MALFORMED: "Envoy sent no HTTP request to check: see `extauthz doctor --envoy-admin`",
    Reason.PATH_MALFORMED: "the client has to encode the path as RFC 3986 says",
    Reason.PATH_AMBIGUOUS: "servers read such a path in different ways: the client has to send its canonical form",
    Reason.HOST_MALFORMED: "the client has to send one host, and route files have `hosts`",
    Reason.METHOD_IN_QUERY: "the client has to send the method itself; `method_override: none` where the upstream ignores _method",
    Reason.ROUTE_DENIED: "the route says `deny: true`: nothing has to be done if that is meant",
    Reason.INTERNAL: "an error of ours: see the process log of that time, and report it",
    Reason.AUTHORIZATION_MALFORMED: "the client has to send one Authorization header: Bearer, a space and one token",
    Reason.AUTH_TYPE_UNKNOWN: "the client has to send the header of auth_type with an OAuth access token, and else no such header",
    Reason.TOKEN_IN_QUERY: "the client has to send its token in the Authorization header; this one now stands in logs: replace it",
    Reason.ACT_AS_MISSING: "with a GLOBAL token the client has to name the user in the act-as header, or it needs a USER token",
    Reason.ACT_AS_MALFORMED: "the client has to send one e-mail address in the act-as header",
    Reason.ACT_AS_CONFLICT: "the client names different users in several act-as headers: it has to send one",
    Reason.ACT_AS_NOT_ALLOWED: "only a GLOBAL token may act for others: without one the client has to leave the act-as header out",
    Reason.CREDENTIAL_MISSING: "give the client a token, or mark the route `public: true` if everybody may call it",
    Reason.SCHEME_UNSUPPORTED: "the client uses Basic or another scheme: it needs a Bearer token",
    Reason.CREDENTIAL_DISABLED: "switch the section oauth or tokens on, or give the client the other kind of token",
    Reason.TOKEN_EXPIRED: "the client has to renew its token: `extauthz token rotate`, or a refresh at the OAuth provider",
    Reason.TOKEN_MALFORMED: f"{_TOKEN}; an OAuth access token needs the header of auth_type",
    Reason.TOKEN_CHECKSUM: _TOKEN,
    Reason.TOKEN_UNKNOWN: _TOKEN,
    Reason.TOKEN_SECRET_WRONG: f"{_TOKEN}; if it is a good one, the pepper or the row in the store has changed",
    Reason.TOKEN_REVOKED: "the client still uses a token that was revoked: `extauthz token show ID` tells when and why",
    Reason.TOKEN_SIGNATURE: f"{_PROVIDER}; a signature that does not fit may also be a forgery",
    Reason.TOKEN_ALGORITHM: _CLAIMS,
    Reason.TOKEN_KEY_UNKNOWN: f"{_PROVIDER}; see also whether the keys of the issuer can be fetched",
    Reason.TOKEN_HEADER_FORBIDDEN: _CLAIMS,
    Reason.TOKEN_ISSUER: _PROVIDER,
    Reason.TOKEN_AUDIENCE: _PROVIDER,
    Reason.TOKEN_CLIENT: "add the client to client_ids of the provider, if its users may come in",
    Reason.TOKEN_NOT_YET_VALID: "the clocks of provider and sidecar differ: set them by NTP",
    Reason.TOKEN_CLAIMS_MALFORMED: _CLAIMS,
    Reason.TOKEN_KIND_WRONG: "the client sends an ID token, a refresh token or one without a user: it has to send its access token",
    Reason.TOKEN_USER_INVALID: "the token names no verified e-mail address: see user_claim and users of the provider",
    Reason.TOKEN_USER_NOT_ALLOWED: "the user is a guest or of another domain: see domains, hosted_domains and guests",
    Reason.TOKEN_INACTIVE: "the provider says that the token has ended: the client has to get a new one",
    Reason.ROUTE_UNKNOWN: "add the path to a route file; `deny: true` records that it is meant to be refused",
    Reason.METHOD_NOT_ALLOWED: "add the method to the route of this path; HEAD is not part of GET",
    Reason.CREDENTIAL_NOT_ACCEPTED: _KIND,
    Reason.ACT_AS_FORBIDDEN: "add the user to act_as.allow, or take it out of act_as.deny, if the token may work for this user",
    Reason.ANONYMOUS_NOT_ALLOWED: "mark the route `anonymous: true`, or give the client another kind of token",
    Reason.SCOPE_MISSING: "give the client a token with the scope of the route, or change the scope in the route file",
    Reason.IDENTITY_TOO_LONG: "the subject or the scopes of the token exceed 512 bytes in a header: narrow them",
    Reason.STORE_UNAVAILABLE: _WORLD,
    Reason.STORE_REWOUND: "an older store was put in place: `extauthz store accept-restore`",
    Reason.STORE_STALE: _WORLD,
    Reason.ISSUER_UNAVAILABLE: _WORLD,
    Reason.KEY_SET_UNAVAILABLE: _WORLD,
    Reason.CHECK_TIMEOUT: f"{_WORLD}; server.check_timeout may be too short for remote verification",
    Reason.OVERLOADED: f"{_WORLD}; see `limits` and server.max_in_flight",
    Reason.DRAINING: "the sidecar was stopping: nothing has to be done",
}

_BY_NAME = {reason.value: HINTS[reason] for reason in Reason if reason not in ALLOWING}


def hint(reason: str) -> str | None:
    """Return what to do about a reason of a log; None for one that this version does not know."""
    return _BY_NAME.get(reason)
