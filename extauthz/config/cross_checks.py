"""Problems that only several keys together show; read from the plain data, so that a problem in one section hides no other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from extauthz.config import console, document, header_checks, internal_token, openid, scope_checks
from extauthz.config.document import Document
from extauthz.config.issuers import TENANT, issuers_of, names_of, provider_of, usual_verification
from extauthz.config.oauth import ADDRESSES, EVERY_CLIENT
from extauthz.config.presets import ALL_PROVIDERS, PRESETS
from extauthz.config.values import one_or_many
from extauthz.core.act_as import address
from extauthz.core.providers import Provider, Verification
from extauthz.errors import Problem

_NO_USE = {
    **dict.fromkeys(openid.ONLY_HERE, "it is known how {name} tokens are written; provider: oidc takes any others"),
    "issuer": "{name} has one issuer for everybody",
    "audience": "{name} tokens are for the client that they name, and client_ids says which clients are yours",
    "guests": "only azure tokens tell who is a guest",
    "hosted_domains": "only gsuite tells hosted domains; `domains` is there for every provider",
}
_NO_HOSTED_DOMAINS = "userinfo is asked for nothing but hosted_domains"
_USERS_INSTEAD = "`users` tells the addresses, so that userinfo is not asked"


def problems(source: Document, vocabulary: Collection[str]) -> list[Problem]:
    """List what does not fit together; `vocabulary` are the scopes that are written correctly."""
    return [
        *scope_checks.problems(source, provider_entries(source), vocabulary),
        *header_checks.problems(source),
        *_misused_pepper_ids(source),
        *_misused_providers(source),
        *internal_token.problems(
            source, (one for _, entry in provider_entries(source) if (pair := _row(entry)) for one in pair[1])
        ),
        *console.problems(source, _clients(source)),
    ]


def provider_entries(source: Document) -> Iterator[tuple[document.KeyPath, dict[str, object]]]:
    """Yield the path and the data of each provider, in whichever form the section is written."""
    oauth = source.data.get("oauth")
    if not isinstance(oauth, dict):
        return
    several = oauth.get("providers")
    if "providers" not in oauth:
        yield ("oauth",), oauth
    for index, entry in enumerate(several if isinstance(several, list) else ()):
        if isinstance(entry, dict):
            yield ("oauth", "providers", index), entry


def _clients(source: Document) -> Iterator[tuple[document.KeyPath, str]]:
    """Yield each client id and audience of all providers, with the path of its key."""
    for path, entry in provider_entries(source):
        for key in ("client_ids", "audience"):
            yield from (((*path, key), item) for item in document.items(one_or_many(entry.get(key))) if isinstance(item, str))


def _row(entry: dict[str, object]) -> tuple[Provider, list[str]] | None:
    """Return what is known about the provider, and its issuer written out for each tenant; None when one of them is wrong."""
    name, issuer = entry.get("provider"), entry.get("issuer") or ""
    if not isinstance(name, str) or name not in ALL_PROVIDERS or not isinstance(issuer, str):
        return None
    issuers = issuers_of(name, issuer, entry.get("tenants"))
    row = provider_of(name, issuers[0])
    return (row, issuers) if row else None


def _issuers(source: Document) -> Iterator[str]:
    for _, entry in provider_entries(source):
        pair = _row(entry)
        yield from pair[1] if pair else ()


def _misused_providers(source: Document) -> Iterator[Problem]:
    """Ask for what keeps out the tokens of others, and for nothing that a provider would not use; names and issuers must differ."""
    entries = list(provider_entries(source))
    issuers: list[tuple[int, str]] = []
    opaque_names: dict[int, str] = {}
    for index, (path, entry) in enumerate(entries):
        if pair := _row(entry):
            row, written = pair
            yield from _misused_tenants(source, path, entry, row)
            # Tokens of the opaque form name no issuer: one of the same name stands in other tokens.
            issuers += [(index, f"{'opaque ' if row.opaque else ''}{issuer}") for issuer in written]
            opaque_names |= {index: row.name} if row.opaque else {}
            if row.name not in PRESETS and EVERY_CLIENT in document.items(one_or_many(entry.get("client_ids"))):
                message = f"{EVERY_CLIENT} stands for no client here: name the clients of {row.name} whose tokens are yours"
                yield source.problem((*path, "client_ids"), message)
            if row.name in PRESETS:
                yield from openid.problems(source, path, entry, row.name)
            yield from _missing(source, path, entry, row)
            yield from _unused(source, path, entry, row)
            yield from _misused_claims(source, path, entry, row)
    called = [(index, entry.get("name") or entry.get("provider"), entry.get("tenants")) for index, (_, entry) in enumerate(entries)]
    names = [(index, one) for index, name, tenants in called if isinstance(name, str) for one in names_of(name, tenants)]
    for index, name in dict(reversed(twice(names))).items():
        yield source.problem((*entries[index][0], "name"), f"another provider above is named {name!r}: give each its own name")
    several = [(index, "opaque") for index, (_, entry) in enumerate(entries) if entry.get("opaque_tokens") is True]
    for index, _ in twice(several):
        message = "another provider above takes the opaque tokens, which name no issuer: leave it out here or there"
        yield source.problem((*entries[index][0], "opaque_tokens"), message)
    for index, _ in twice(issuers):
        opaque = opaque_names.get(index)
        key = "provider" if opaque else "issuer"
        why = f"is {opaque} too, and its tokens name no issuer" if opaque else "has the same issuer"
        yield source.problem((*entries[index][0], key), f"another provider above {why}: write one entry for both")


def _misused_tenants(source: Document, path: document.KeyPath, entry: dict[str, object], row: Provider) -> Iterator[Problem]:
    """Ask for what differs between the tenants; they may share keys only if their tokens name the tenant beside the issuer."""
    has_tenants = entry.get("tenants") is not None
    if has_tenants and TENANT not in str(entry.get("issuer")):
        message = "has no {tenant} for `tenants`: write it where theirs differ, like {tenant}/v2.0, or leave `tenants` out"
        yield source.problem((*path, "issuer"), message)
    for place, tenant in twice(document.strings(source, *path, "tenants")):
        yield source.problem((*path, "tenants", place), f"{tenant} is listed twice: remove one")
    for key in ADDRESSES:
        uri = entry.get(key)
        if isinstance(uri, str) and has_tenants and TENANT not in uri and TENANT not in row.fixed_claims.values():
            message = "is the same for all of `tenants`, so that one could speak for another: write {tenant} where theirs differ"
            yield source.problem((*path, key), message)
        if isinstance(uri, str) and not has_tenants and TENANT in uri:
            yield source.problem((*path, key), "{tenant} stands for each of `tenants`: list them, or write one tenant here")


def _ways(entry: dict[str, object], row: Provider) -> tuple[Verification, ...]:
    """Return how tokens are verified; all ways that this provider has when the one that is written is none of them."""
    name = entry.get("verification")
    if name is None:
        return (usual_verification(row, with_secret=entry.get("client_secret") is not None),)
    return tuple(way for way in row.verifications if way == name) or row.verifications


def _missing(source: Document, path: document.KeyPath, entry: dict[str, object], row: Provider) -> Iterator[Problem]:
    # The keys sign for every API of the issuer: the client itself must be one of them, or it has to be said which one is ours.
    has_audience = Verification.JWKS in row.verifications and not row.own_audience and row.name not in PRESETS
    if has_audience and entry.get("audience") is None:
        message = (
            "is missing: write it, like audience: api://default "
            "(it stands in the settings of the authorization server, and tokens for other audiences are not yours)"
        )
        yield source.problem((*path, "audience"), message)
    if row.opaque and entry.get("domains") is None:
        message = (
            "is missing: write it, like domains: [acme.com] "
            '(without it everybody with a Google account could come in; domains: ["*"] says that this is meant)'
        )
        yield source.problem((*path, "domains"), message)
    if _ways(entry, row) == (Verification.INTROSPECTION,) and entry.get("client_secret") is None:
        other_ways = [f", or verification: {way}" for way in row.verifications if way is not Verification.INTROSPECTION]
        example = f"client_secret: {{env: {row.name.upper()}_CLIENT_SECRET}}"
        message = f"is missing: write where it is, like {example}{''.join(other_ways)}"
        yield source.problem((*path, "client_secret"), message)


def _unused(source: Document, path: document.KeyPath, entry: dict[str, object], row: Provider) -> Iterator[Problem]:
    """Find keys that would promise what is not done."""
    ways, opaque = _ways(entry, row), row.opaque is not None
    asks_user = (row.userinfo_user and entry.get("users") is None) or (opaque and entry.get("hosted_domains") is not None)
    asks_user = asks_user or entry.get("userinfo") is True
    uses = {
        "issuer": not opaque,
        "audience": not opaque,
        "guests": bool(row.home_claim),
        "hosted_domains": opaque,
        "client_secret": Verification.INTROSPECTION in ways,
        "jwks_uri": Verification.JWKS in ways or entry.get("signed_introspection") is True,
        "tokeninfo_uri": Verification.TOKENINFO in ways,
        "introspection_uri": Verification.INTROSPECTION in ways,
        "userinfo_uri": Verification.USERINFO in ways or asks_user,
        "tenants": ways == (Verification.JWKS,),
        **dict.fromkeys(openid.ONLY_HERE, row.name in PRESETS),
    }
    no_userinfo = _NO_HOSTED_DOMAINS if opaque else _USERS_INSTEAD if row.userinfo_user else None
    reasons = _NO_USE | ({"userinfo_uri": no_userinfo} if no_userinfo else {})
    for key, is_used in uses.items():
        if not is_used and entry.get(key) not in (None, False):
            why = reasons.get(key, f"{{name}} tokens of this issuer are verified by {' or '.join(ways)}").format(name=row.name)
            yield source.problem((*path, key), f"nothing uses it, because {why}: leave it out")


def _misused_claims(source: Document, path: document.KeyPath, entry: dict[str, object], row: Provider) -> Iterator[Problem]:
    """Keep out addresses that users give themselves, and find an audience and users that no token can have."""
    names, users = one_or_many(entry.get("user_claim")), entry.get("users")
    claims = {claim for claim in names if isinstance(claim, str)} if isinstance(names, list) else set()
    if users is None and row.must_verify and not claims.issubset(row.user_claims):
        message = f"{row.name} verifies no address but {row.user_claims[0]}: leave the key out, or tell the addresses in `users`"
        yield source.problem((*path, "user_claim"), message)
    if users is not None and row.verified_claim and not claims.isdisjoint({*row.user_claims, "email"}):
        message = f"an address may be unverified, and `users` is read by an id: write {row.subject_claim}, or leave the key out"
        yield source.problem((*path, "user_claim"), message)
    if isinstance(users, dict) and "*" in users and not entry.get("required_claims"):
        message = 'lets "*" stand for every user of the issuer: say by required_claims which tokens it is for, or name the users'
        yield source.problem((*path, "users", "*"), message)
    required = entry.get("required_claims")
    for name in (name for name, value in required.items() if value == []) if isinstance(required, dict) else ():
        message = "lists no value, so that no token could have one: write some, or leave it out"
        yield source.problem((*path, "required_claims", name), message)
    clients, audience, domains = (
        {item.lower() for item in items if isinstance(item, str)} if isinstance(items, list) else set()
        for items in (one_or_many(entry.get(key)) for key in ("client_ids", "audience", "domains"))
    )
    if audience and "aud" in row.client_claims and not row.opaque and clients.isdisjoint(audience):
        message = f"{row.name} tokens have their client as audience, and this is none of client_ids: leave it out"
        yield source.problem((*path, "audience"), message)
    for user_id, user in users.items() if isinstance(users, dict) and domains else ():
        email = address(user) if isinstance(user, str) else None
        if email and domains.isdisjoint({"*", email.rpartition("@")[2]}):
            message = f"{user!r} is of none of `domains`: name its domain there, or remove the user"
            yield source.problem((*path, "users", user_id), message)


def _misused_pepper_ids(source: Document) -> list[Problem]:
    tokens = source.data.get("tokens")
    peppers = tokens.get("peppers") if isinstance(tokens, dict) else None
    ids = [
        (index, str(pepper.get("id")))
        for index, pepper in enumerate(peppers if isinstance(peppers, list) else ())
        if isinstance(pepper, dict) and "id" in pepper
    ]
    message = "another pepper above has the same id: give each its own"
    return [source.problem(("tokens", "peppers", index, "id"), message) for index, _ in twice(ids)]


def twice(items: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return the items whose text stands in an earlier one."""
    first: dict[str, int] = {}
    return [(index, text) for index, text in items if first.setdefault(text, index) != index]
