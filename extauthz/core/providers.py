"""What the SSO providers differ in, as data; adding one is one row.

An issuer picks the row: one provider may write several kinds of tokens, as Azure does with its versions 1.0 and 2.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

_GUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_LOGIN = r"https://login\.(?:microsoftonline\.(?:com|us)|partner\.microsoftonline\.cn)"
_ORIGIN = r"(?:https://[^/?#@\s]+|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?)"


class Verification(StrEnum):
    """Who says that a token is good: the issuer's published keys, or the issuer itself, asked about each token."""

    JWKS = "jwks"
    INTROSPECTION = "introspection"
    USERINFO = "userinfo"
    TOKENINFO = "tokeninfo"


@dataclass(frozen=True, slots=True)
class Provider:
    """How one provider writes its access tokens.

    `issuer` matches its issuers, with a group `tenant` where there is one; `issuer_form` says in words what to write, and
    `short_issuer` is a pattern of the admin form and what it stands for. `discovery` is the address of the discovery document.
    `verifications` are the ways that work, the usual one first. The tokens are JWTs, or `opaque` texts of this form.

    `client_claim`, `user_claims` and `scope_claim` name claims, `subject_claim` the one that a map of users is read by; with
    `userinfo_user` the address is asked for at userinfo. With `client_in_audience` the client claim is `aud`, which may be a list.
    A `second_client_claim` names an allowed client too, if it is there. With `own_audience` a token for the client itself is
    accepted. `required_scopes` lists sets of spellings, one of each is required.

    An ID token is recognised by any of `id_token_claims` or by a `jti` that starts with `id_token_jti`; a token of an application
    without a user by the absence of one of `user_token_claims`, by one of `app_token_marks`, or by a user claim like `app_users`.
    A user claim with `guest_mark` in it is no address: one of `guest_names` takes it apart into local part and domain.
    `fixed_claims` must have these values, in which {tenant} is that of the issuer. `home_claim` names the issuer of the user's
    home, of which `homes` tells the `tenant`. `verified_claim` says by one of `verified_values` whether the address was verified;
    it must be there if `must_verify`.
    """

    name: str
    issuer: re.Pattern[str]
    issuer_form: str
    short_issuer: tuple[str, str]
    client_claim: str
    user_claims: tuple[str, ...]
    scope_claim: str
    algorithms: frozenset[str] = frozenset({"RS256"})
    verifications: tuple[Verification, ...] = (Verification.JWKS,)
    opaque: re.Pattern[str] | None = None
    subject_claim: str = "sub"
    userinfo_user: bool = False
    client_in_audience: bool = False
    second_client_claim: str = ""
    own_audience: bool = False
    required_scopes: tuple[frozenset[str], ...] = ()
    id_token_claims: frozenset[str] = frozenset({"nonce", "at_hash", "c_hash"})
    id_token_jti: str = ""
    user_token_claims: frozenset[str] = frozenset()
    app_token_marks: Mapping[str, str] = field(default_factory=dict, hash=False)
    app_users: re.Pattern[str] = re.compile(r"(?!)")
    fixed_claims: Mapping[str, str] = field(default_factory=dict, hash=False)
    home_claim: str = ""
    homes: re.Pattern[str] = re.compile(r"(?!)")
    guest_mark: str = ""
    guest_names: tuple[re.Pattern[str], ...] = ()
    verified_claim: str = ""
    verified_values: tuple[object, ...] = (True, "true")
    must_verify: bool = False
    discovery: str = "{issuer}/.well-known/openid-configuration"


# All tenants share the signing keys: the exact issuer, and `tid` beside it, are the boundary of the tenant.
_AZURE_2 = Provider(
    name="azure",
    issuer=re.compile(rf"{_LOGIN}/(?P<tenant>{_GUID})/v2\.0"),
    issuer_form="<directory_ID>/v2.0, or https://sts.windows.net/<directory_ID>/ for tokens of version 1.0",
    short_issuer=(rf"({_GUID}/v2\.0)", r"https://login.microsoftonline.com/\1"),
    client_claim="azp",
    user_claims=("preferred_username",),
    scope_claim="scp",
    subject_claim="oid",
    app_token_marks={"idtyp": "app"},
    fixed_claims={"ver": "2.0", "tid": "{tenant}"},
    home_claim="idp",
    homes=re.compile(rf"(?:{_LOGIN}/|https://sts\.(?:windows\.net|chinacloudapi\.cn)/)(?P<tenant>{_GUID})/(?:v2\.0)?"),
    guest_mark="#",
    # A domain holds no "_", so the last one stands for "@"; a personal account is named by its address.
    guest_names=(
        re.compile(r"([^@#]+)_([^@#_]+)#EXT#@[^@#]+", re.IGNORECASE),
        re.compile(r"live\.com#([^@#]+)@([^@#]+)", re.IGNORECASE),
    ),
    verified_claim="xms_edov",
    verified_values=(True, "true", 1, "1"),
    own_audience=True,
)
_AZURE_1 = replace(
    _AZURE_2,
    issuer=re.compile(rf"https://sts\.windows\.net/(?P<tenant>{_GUID})/"),
    client_claim="appid",
    user_claims=("upn", "unique_name"),  # guests have no upn
    fixed_claims={"ver": "1.0", "tid": "{tenant}"},
    discovery="https://login.microsoftonline.com/{tenant}/.well-known/openid-configuration",
)
# The cloud of the US Government shares the issuer of version 1.0 with the global one; that of China has its own.
_AZURE_1_CHINA = replace(
    _AZURE_1,
    issuer=re.compile(rf"https://sts\.chinacloudapi\.cn/(?P<tenant>{_GUID})/"),
    discovery="https://login.partner.microsoftonline.cn/{tenant}/.well-known/openid-configuration",
)
_OKTA = Provider(
    name="okta",
    issuer=re.compile(rf"{_ORIGIN}/oauth2/[^/?#\s]+"),
    issuer_form="https://<org>.okta.com/oauth2/<id> for a custom authorization server, or https://<org>.okta.com",
    short_issuer=(r"(https://[A-Za-z0-9-]+)", r"\1.okta.com"),
    algorithms=frozenset({"RS256", "ES256"}),
    client_claim="cid",
    user_claims=("sub",),
    scope_claim="scp",
    id_token_jti="ID.",
    subject_claim="uid",
    user_token_claims=frozenset({"uid"}),
)
# The org server signs access tokens with a key that it does not publish: only Okta itself can tell whether one is good.
_OKTA_ORG = replace(
    _OKTA,
    issuer=re.compile(_ORIGIN),
    verifications=(Verification.USERINFO, Verification.INTROSPECTION),
    user_claims=("email",),
    verified_claim="email_verified",
)
_GSUITE = Provider(
    name="gsuite",
    issuer=re.compile(r"https://accounts\.google\.com"),
    issuer_form="https://accounts.google.com",
    short_issuer=("", "https://accounts.google.com"),
    verifications=(Verification.TOKENINFO,),
    opaque=re.compile(r"ya29\.[A-Za-z0-9._~+/=-]{1,2043}"),  # Google: 2,048 bytes at most
    client_claim="aud",
    second_client_claim="azp",
    user_claims=("email",),
    scope_claim="scope",
    required_scopes=(
        frozenset({"openid"}),
        frozenset({"email", "https://www.googleapis.com/auth/userinfo.email"}),
        frozenset({"profile", "https://www.googleapis.com/auth/userinfo.profile"}),
    ),
    app_users=re.compile(r".*[@.]gserviceaccount\.com", re.IGNORECASE),
    verified_claim="email_verified",
    must_verify=True,
)
# One signing key serves all tenants: the exact issuer is the boundary of the tenant.
_ONELOGIN = Provider(
    name="onelogin",
    issuer=re.compile(rf"{_ORIGIN}/oidc/2"),
    issuer_form="https://<subdomain>, or https://<subdomain>.onelogin.com/oidc/2",
    short_issuer=(r"(https://[A-Za-z0-9-]+)(?:\.onelogin\.com)?", r"\1.onelogin.com/oidc/2"),
    client_claim="aud",
    client_in_audience=True,
    second_client_claim="azp",
    user_claims=("email",),
    userinfo_user=True,
    scope_claim="scope",
    id_token_claims=frozenset({"nonce", "at_hash", "c_hash", "sid", "auth_time"}),
    verified_claim="email_verified",
    own_audience=True,
)

PROVIDERS: Mapping[str, tuple[Provider, ...]] = MappingProxyType(
    {"azure": (_AZURE_2, _AZURE_1, _AZURE_1_CHINA), "gsuite": (_GSUITE,), "okta": (_OKTA, _OKTA_ORG), "onelogin": (_ONELOGIN,)}
)


@dataclass(frozen=True, slots=True)
class ProviderRules:
    """One configured provider: whose tokens are accepted, for whom. `leeway` is in seconds and never prolongs `exp`.

    `audience` None accepts every audience, `domains` None every domain. `tenant` is that of the issuer. `scopes` is what each of
    its tokens may do. `guests` lets in users of other tenants. The first of `user_claims` that a token has decides: `users` maps
    its values to addresses; without it the claim holds the address. With `userinfo` the issuer is asked about the user of a token
    that is verified otherwise; `hosted_domains` are those that its answer may name as `hd`.
    """

    name: str
    provider: Provider
    issuer: str
    client_ids: frozenset[str]
    audience: frozenset[str] | None
    scopes: frozenset[str]
    user_claims: tuple[str, ...]
    tenant: str = ""
    verification: Verification = Verification.JWKS
    domains: frozenset[str] | None = None
    hosted_domains: frozenset[str] | None = None
    leeway: float = 60.0
    guests: bool = False
    users: Mapping[str, str] | None = field(default=None, hash=False)
    userinfo: bool = False

    @property
    def discovery(self) -> str:
        """Where the discovery document stands (OpenID Connect Discovery 4)."""
        return self.provider.discovery.format(issuer=self.issuer.rstrip("/"), tenant=self.tenant)
