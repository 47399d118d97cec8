"""The requests that the demo shows, each with its expected answer."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from extauthz.demo.providers import IssuerRole
from extauthz.demo.wrong_tokens import WrongToken

API = "/rest/api/v1"
ENVOY = "envoy"
"""The reason of what Envoy refuses."""


@dataclass(frozen=True, slots=True)
class Case:
    """One request: headers may name the shell variables of the demo's tokens, like $GLOBAL or $AZURE.

    `user` is who the upstream must see; "" stands for a request that arrives without a user, None for one that does not arrive.
    `logged` is the reason in the decision log, where the client is told less.
    """

    title: str
    method: str
    path: str
    headers: tuple[str, ...]
    status: int
    reason: str
    user: str | None = None
    logged: str = ""

    @property
    def expected(self) -> str:
        """Say in a few words what comes back."""
        return shown(self.status, self.reason, self.logged) if self.user is None else reached(self.user)

    @property
    def decision(self) -> str:
        """The reason of a refusal in the decision log; "" where Envoy itself refuses, and nothing is decided."""
        return "" if self.reason == ENVOY else self.logged or self.reason

    def curl(self, envoy: str) -> str:
        """Write the request as a line for a shell that has read the variables."""
        method = "" if self.method == "GET" else f"-X {self.method} "
        headers = "".join(f' -H "{header}"' for header in self.headers)
        as_is = "--path-as-is " if "%2e" in self.path else ""
        return f"curl -sS {as_is}{method}{shlex.quote(envoy + self.path)}{headers}"


def reached(user: str) -> str:
    """Say who the upstream sees."""
    return f"200 upstream sees {user or 'no user'}"


def shown(status: int, reason: str, logged: str) -> str:
    """Say why a request was refused: what the client is told, and what the decision log has beyond that."""
    return f"{status} {reason}" + (f" ({logged})" if logged not in ("", reason) else "")


def _bearer(variable: str) -> str:
    return f"Authorization: Bearer ${variable}"


_SEARCH, _CHAT, _FEED = f"{API}/search", f"{API}/chat", f"{API}/feed"
_OAUTH = "X-Glean-Auth-Type: OAUTH"
_WRONG_TOKENS = {
    WrongToken.OIDC_ID_TOKEN: ("an ID token", "token_kind_wrong"),
    WrongToken.OIDC_OTHER_AUDIENCE: ("another audience", "token_audience"),
    WrongToken.OIDC_OTHER_CLIENT: ("another client (azp)", "token_client"),
    WrongToken.OIDC_OTHER_ISSUER: ("a slash too many", "token_issuer"),
    WrongToken.OIDC_UNVERIFIED: ("unverified address", "token_user_invalid"),
    WrongToken.OIDC_OTHER_TYPE: ("another type (typ)", "token_header_forbidden"),
    WrongToken.OIDC_NOT_SIGNED: ("not signed (none)", "token_algorithm"),
    WrongToken.OIDC_PUBLIC_KEY: ("public key as secret", "token_algorithm"),
    WrongToken.KEYCLOAK_ID_TOKEN: ("an ID token", "token_kind_wrong"),
    WrongToken.KEYCLOAK_NO_MAPPER: ("no audience mapper", "token_audience"),
    WrongToken.KEYCLOAK_SERVICE_ACCOUNT: ("service account", "token_kind_wrong"),
    WrongToken.AUTH0_ID_TOKEN: ("an ID token", "token_kind_wrong"),
    WrongToken.AUTH0_FOR_USERINFO: ("for userinfo alone", "token_audience"),
    WrongToken.AUTH0_MACHINE: ("machine to machine", "token_kind_wrong"),
    WrongToken.COGNITO_ID_TOKEN: ("an ID token", "token_kind_wrong"),
    WrongToken.COGNITO_OTHER_CLIENT: ("another client", "token_client"),
}

CASES = (
    Case(
        "GLOBAL token acts for ana",
        "POST",
        _SEARCH,
        (_bearer("GLOBAL"), "X-Scio-ActAs: ana@acme.com"),
        200,
        "allowed",
        "ana@acme.com",
    ),
    Case("GLOBAL token acts for nobody", "POST", _SEARCH, (_bearer("GLOBAL"),), 400, "act_as_missing"),
    Case(
        "GLOBAL token acts for the ceo", "POST", _SEARCH, (_bearer("GLOBAL"), "X-Scio-ActAs: ceo@acme.com"), 403, "act_as_forbidden"
    ),
    Case("GLOBAL token without the scope", "POST", _FEED, (_bearer("GLOBAL"), "X-Scio-ActAs: ana@acme.com"), 403, "scope_missing"),
    Case("USER token of bob", "POST", _CHAT, (_bearer("USER_TOKEN"),), 200, "allowed", "bob@acme.com"),
    Case(
        "USER token wants to be ana",
        "POST",
        _CHAT,
        (_bearer("USER_TOKEN"), "X-Scio-ActAs: ana@acme.com"),
        400,
        "act_as_not_allowed",
    ),
    Case("ANONYMOUS token searches", "POST", _SEARCH, (_bearer("ANONYMOUS"),), 200, "allowed", ""),
    Case("ANONYMOUS token elsewhere", "POST", _CHAT, (_bearer("ANONYMOUS"),), 403, "anonymous_not_allowed"),
    *(
        Case(f"{role} access token of ana", "POST", _CHAT, (_bearer(role.variable), _OAUTH), 200, "allowed", "ana@acme.com")
        for role in IssuerRole
    ),
    *(
        Case(f"{wrong.role} token: {title}", "POST", _CHAT, (_bearer(wrong.variable), _OAUTH), 401, "token_invalid", logged=logged)
        for wrong, (title, logged) in _WRONG_TOKENS.items()
    ),
    Case(
        "oidc token without the scope",
        "POST",
        _CHAT,
        (_bearer(WrongToken.OIDC_NO_SCOPE.variable), _OAUTH),
        403,
        "scope_missing",
    ),
    Case("OAuth token, header forgotten", "POST", _CHAT, (_bearer("OAUTH"),), 401, "token_invalid", logged="token_malformed"),
    Case(
        "revoked token",
        "POST",
        _SEARCH,
        (_bearer("REVOKED"), "X-Scio-ActAs: ana@acme.com"),
        401,
        "token_invalid",
        logged="token_revoked",
    ),
    Case("no token", "POST", _SEARCH, (), 401, "credential_missing"),
    Case(
        "client claims to be the ceo",
        "POST",
        _CHAT,
        (_bearer("USER_TOKEN"), "X-Extauthz-User: ceo@acme.com"),
        200,
        "allowed",
        "bob@acme.com",
    ),
    Case("the same, with underscores", "POST", _CHAT, (_bearer("USER_TOKEN"), "X_Extauthz_User: ceo@acme.com"), 400, ENVOY),
    Case("path trick", "POST", f"{API}/search/%2e%2e%2fcreateauthtoken", (_bearer("USER_TOKEN"),), 400, ENVOY),
    Case("path trick that Envoy lets pass", "POST", f"{API}/search/%2e%2e;x/chat", (_bearer("USER_TOKEN"),), 400, "path_ambiguous"),
    Case("path that no route names", "GET", "/admin", (_bearer("USER_TOKEN"),), 403, "route_unknown"),
    Case("public path", "GET", "/healthz", (), 200, "public", ""),
)
"""`reason` is that of the denial; "envoy" where Envoy itself refuses, "allowed" or "public" where the upstream answers."""
