"""The SSO providers, as data; adding one is one row.

An issuer picks the row: one provider may write several kinds of tokens, as Azure does with its versions 1.0 and 2.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from extauthz.core.providers import Provider, Verification

_GUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_LOGIN = r"https://login\.(?:microsoftonline\.(?:com|us)|partner\.microsoftonline\.cn)"
_ORIGIN = r"(?:https://[^/?#@\s]+|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?)"

# All tenants share the signing keys: the exact issuer, and `tid` beside it, are the boundary of the tenant.
_AZURE_2 = Provider(
    name="azure",
    title="Azure",
    issuer=re.compile(rf"{_LOGIN}/(?P<tenant>{_GUID})/v2\.0"),
    issuer_form="<directory_ID>/v2.0, or https://sts.windows.net/<directory_ID>/ for tokens of version 1.0",
    short_issuer=(rf"({_GUID}/v2\.0)", r"https://login.microsoftonline.com/\1"),
    client_claims=("azp",),
    user_claims=("preferred_username",),
    scope_claim="scp",
    subject_claim="oid",
    foreign_marks={"idtyp": frozenset({"app"})},
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
    client_claims=("appid",),
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
    title="Okta",
    issuer=re.compile(rf"{_ORIGIN}/oauth2/[^/?#\s]+"),
    issuer_form="https://<org>.okta.com/oauth2/<id> for a custom authorization server, or https://<org>.okta.com",
    short_issuer=(r"(https://[A-Za-z0-9-]+)", r"\1.okta.com"),
    algorithms=frozenset({"RS256", "ES256"}),
    client_claims=("cid",),
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
    title="GSuite",
    issuer=re.compile(r"https://accounts\.google\.com"),
    issuer_form="https://accounts.google.com",
    short_issuer=("", "https://accounts.google.com"),
    verifications=(Verification.TOKENINFO,),
    opaque=re.compile(r"ya29\.[A-Za-z0-9._~+/=-]{1,2043}"),  # Google: 2,048 bytes at most
    client_claims=("aud",),
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
    title="OneLogin",
    issuer=re.compile(rf"{_ORIGIN}/oidc/2"),
    issuer_form="https://<subdomain>, or https://<subdomain>.onelogin.com/oidc/2",
    short_issuer=(r"(https://[A-Za-z0-9-]+)(?:\.onelogin\.com)?", r"\1.onelogin.com/oidc/2"),
    client_claims=("aud",),
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
