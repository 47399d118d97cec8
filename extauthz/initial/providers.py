"""Which provider an issuer belongs to, and the section of the YAML that takes its access tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

_KNOWN = (
    (re.compile(r"https://accounts\.google\.com/?"), "gsuite"),
    (
        re.compile(r"https://(?:login\.microsoftonline\.(?:com|us)|login\.partner\.microsoftonline\.cn|sts\.windows\.net)/.+"),
        "azure",
    ),
    (re.compile(r"https://[a-z0-9-]+\.(?:okta|oktapreview|okta-emea)\.com(?:/oauth2/[A-Za-z0-9]+)?"), "okta"),
    (re.compile(r"https://[a-z0-9-]+\.onelogin\.com/oidc/2"), "onelogin"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Who issues access tokens for the API; `audience` and `domains` where the provider wants them."""

    issuer: str
    client_ids: tuple[str, ...]
    audience: str | None = None
    domains: tuple[str, ...] = ()

    @property
    def kind(self) -> str | None:
        """The name of the provider in the configuration, None for an issuer that none of them has."""
        return next((name for pattern, name in _KNOWN if pattern.fullmatch(self.issuer)), None)

    @property
    def is_asked(self) -> bool:
        """Whether the provider is asked about each token, which takes longer than a signature."""
        return self.kind in ("gsuite", "onelogin") or (self.kind == "okta" and "/oauth2/" not in self.issuer)
