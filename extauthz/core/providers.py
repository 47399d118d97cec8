"""What the SSO providers differ in, and what is configured of one; the providers themselves are in `provider_table`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Verification(StrEnum):
    """Who says that a token is good: the issuer's published keys, or the issuer itself, asked about each token."""

    JWKS = "jwks"
    INTROSPECTION = "introspection"
    USERINFO = "userinfo"
    TOKENINFO = "tokeninfo"


@dataclass(frozen=True, slots=True)
class Provider:
    """How one provider, with a `title` for people, writes its access tokens.

    `issuer` matches its issuers, with a group `tenant` where there is one; `issuer_form` says in words what to write, and
    `short_issuer` is a pattern of the admin form and what it stands for. `discovery` is the address of the discovery document.
    `verifications` are the ways that work, the usual one first. The tokens are JWTs, or `opaque` texts of this form.

    The first of `client_claims` that a token has names its client, which must not be the subject, but in tokens `of_workloads`.
    `subject_claim` is what a map of users is read by; with `userinfo_user` userinfo tells the address. With `client_in_audience`
    the client claim is `aud`, which may be a list. A `second_client_claim` names an allowed client too, if it is there. With
    `own_audience` a token for the client itself is accepted. `required_scopes` lists sets of spellings, one of each is required;
    with `has_scopes` there is one scope at least.

    An ID token is recognised by any of `id_token_claims` or by a `jti` that starts with `id_token_jti`; a token of an application
    without a user by the absence of one of `user_token_claims`, or by a user or subject like `app_users`; what is no access token
    by one of `foreign_marks`, by another value of `kind_claims`, or by a `typ` of the header that is none of `header_types`.
    A user claim with `guest_mark` in it is no address: one of `guest_names` takes it apart into local part and domain.
    `fixed_claims` must have these values, in which {tenant} is that of the issuer. `home_claim` names the issuer of the user's
    home, of which `homes` tells the `tenant`. `verified_claim` says by one of `verified_values` whether the address was verified;
    it must be there if `must_verify`.
    """

    name: str
    title: str
    issuer: re.Pattern[str]
    issuer_form: str
    short_issuer: tuple[str, str]
    client_claims: tuple[str, ...]
    user_claims: tuple[str, ...]
    scope_claim: str
    algorithms: frozenset[str] = frozenset({"RS256"})
    key_uses: tuple[str, ...] = ("sig",)
    verifications: tuple[Verification, ...] = (Verification.JWKS,)
    opaque: re.Pattern[str] | None = None
    subject_claim: str = "sub"
    userinfo_user: bool = False
    client_in_audience: bool = False
    second_client_claim: str = ""
    own_audience: bool = False
    of_workloads: bool = False
    required_scopes: tuple[frozenset[str], ...] = ()
    has_scopes: bool = True
    header_types: frozenset[str] = frozenset({"jwt", "at+jwt", "application/at+jwt"})
    id_token_claims: frozenset[str] = frozenset({"nonce", "at_hash", "c_hash"})
    id_token_jti: str = ""
    user_token_claims: frozenset[str] = frozenset()
    foreign_marks: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)
    kind_claims: Mapping[str, str] = field(default_factory=dict, hash=False)
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


@dataclass(frozen=True, slots=True)
class ProviderRules:
    """One configured provider: whose tokens are accepted, for whom. `leeway` is in seconds and never prolongs `exp`.

    `client_ids` None accepts every client, `audience` None every audience, `domains` None every domain. `tenant` is that of the
    issuer. `scopes` is what each of its tokens may do, with `scope_claims` at most: then each value of these claims is a scope, or,
    with a `scope_map`, stands for some, else for none. `guests` lets in users of other tenants. Each of `required_claims` is one of
    the values, or a list with one. The first of `user_claims` that a token has decides: `users` maps its values to addresses, "*"
    all others; without it the claim holds the address. With `userinfo` the issuer is asked about the user of a token that is
    verified otherwise; `hosted_domains` are those that its answer may name as `hd`.
    """

    name: str
    provider: Provider
    issuer: str
    client_ids: frozenset[str] | None
    audience: frozenset[str] | None
    scopes: frozenset[str]
    user_claims: tuple[str, ...]
    tenant: str = ""
    verification: Verification = Verification.JWKS
    domains: frozenset[str] | None = None
    hosted_domains: frozenset[str] | None = None
    leeway: float = 60.0
    guests: bool = False
    required_claims: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    users: Mapping[str, str] | None = None
    userinfo: bool = False
    scope_claims: tuple[str, ...] | None = None
    scope_map: Mapping[str, frozenset[str]] | None = None

    @property
    def discovery(self) -> str:
        """Where the discovery document stands (OpenID Connect Discovery 4)."""
        return self.provider.discovery.format(issuer=self.issuer.rstrip("/"), tenant=self.tenant)
