"""Which provider an issuer belongs to, and what is written of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from extauthz.config.issuers import provider_of
from extauthz.core.provider_table import PROVIDERS
from extauthz.core.providers import Provider, Verification

KNOWN = (
    (r"https://accounts\.google\.com/?", "gsuite"),
    (r"https://(?:login\.(?:microsoftonline\.(?:com|us)|partner\.microsoftonline\.cn)|sts\.windows\.net)/.+", "azure"),
    (r"https://[a-z0-9-]+\.(?:okta|oktapreview|okta-emea)\.com(?:/.*)?", "okta"),
    (r"https://[a-z0-9-]+\.onelogin\.com/.*", "onelogin"),
    (r"https://cognito-idp\..*", "cognito"),
    (r"https://[a-z0-9.-]+\.auth0\.com/?", "auth0"),
    (r"https://[a-z0-9.-]+\.zitadel\.cloud/?", "zitadel"),
    (r"https://auth\.pingone\.[a-z.]+/.*", "ping"),
    (r"https?://.+/realms/.+", "keycloak"),
    (r"https://.+|http://(?:localhost|127\.0\.0\.1|\[::1\])(?:[:/].*)?", "oidc"),
)
"""Forms of issuers, the first of which counts; whether an issuer is one of its provider is told when it is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIssuer:
    """Who issues access tokens for the API.

    `audience`, `user_claims` and `domains` are left out where nothing is said; `granted` is what `scopes` of the section says.
    """

    issuer: str
    client_ids: tuple[str, ...]
    audience: str | None = None
    user_claims: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    scopes: str | None = None

    @property
    def kind(self) -> str | None:
        """The name of the provider in the configuration, None for what is no issuer."""
        return next((name for form, name in KNOWN if re.fullmatch(form, self.issuer)), None)

    @property
    def granted(self) -> str:
        """What tokens hold: what was said, else what the provider's tokens hold by default, else what they claim."""
        return self.scopes or ("all" if self.kind in PROVIDERS else "claim")

    @property
    def is_asked(self) -> bool:
        """Whether the provider is asked about each token, which takes longer than a signature."""
        row = self._row
        return row is not None and (row.verifications[0] is not Verification.JWKS or row.userinfo_user)

    @property
    def is_the_only_one(self) -> bool:
        """Whether the provider has one issuer for everybody, which is not written."""
        return self._row is not None and self._row.opaque is not None

    @property
    def _row(self) -> Provider | None:
        return provider_of(self.kind, self.issuer) if self.kind is not None else None
