"""Who can send a request under two configurations: every class of callers that one of them may treat otherwise than the other.

Rules about scopes are monotone: a token that holds more is never refused for it. So the least sets of scopes that suffice on either
side stand for all sets, together with none and with all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from extauthz.config.loader import Configuration
from extauthz.core.act_as import ActAs
from extauthz.core.credentials import AUTHORIZATION, Credential, Kind
from extauthz.core.model import AuthType, Identity, Reason
from extauthz.core.policy import Policy
from extauthz.tools.callers import TOKEN_ID
from extauthz.tools.diff_addresses import Addresses, Patterns, addresses
from extauthz.tools.masking import PLACEHOLDER

NOBODY = "nobody"
USER, OTHER_USER = "ana@example.com", "bob@example.com"
"""Users of tokens, and of a second act-as header."""

ScopeSets = tuple[frozenset[str], ...]
Pair = tuple[Configuration, Configuration]


@dataclass(frozen=True, slots=True)
class Way:
    """How a token of one family is sent: its text, the headers beside it, and what is special about that in words."""

    text: str
    headers: Mapping[str, str]
    details: tuple[str, ...]
    accepted: tuple[bool, bool] = (True, True)
    """Whether each side verifies a token with this prefix at all."""


@dataclass(frozen=True, slots=True)
class Acting:
    """What is sent of act-as headers."""

    headers: Mapping[str, str]
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """What tokens of a provider hold: all of `scopes`, or those of them that the token has `claimed`; None is any."""

    scopes: frozenset[str] | None
    claimed: bool

    def of(self, scopes: frozenset[str]) -> frozenset[str]:
        """Return what a token holds that claims these."""
        if self.scopes is None:
            return scopes
        return self.scopes & scopes if self.claimed else self.scopes


ANYTHING = Grant(None, claimed=True)


@dataclass(frozen=True, slots=True, eq=False)
class Sender:
    """One class of callers: its headers, and what verifying its token comes to on each side."""

    kind: str
    scopes: frozenset[str] | None
    headers: Mapping[str, str]
    details: tuple[str, ...]
    family: Kind | None = None
    evidence: tuple[Identity | Reason, Identity | Reason] = (Reason.TOKEN_UNKNOWN, Reason.TOKEN_UNKNOWN)
    provider: str = ""

    def verified(self, side: int, credential: Credential) -> Identity | Reason:
        """Return what verifying the credential comes to; one that is taken for the other kind is none."""
        return self.evidence[side] if credential.kind is self.family else Reason.TOKEN_MALFORMED


class Senders:
    """Makes the classes of callers of two configurations."""

    def __init__(self, pair: Pair) -> None:
        """Work out what does not depend on the route."""
        policies = pair[0].policy, pair[1].policy
        self.addresses = _addresses(pair)
        self._ways = _ways(pair)
        self._acting = _acting((policies[0].act_as, policies[1].act_as), self.addresses)
        self._not_acting = _not_acting((policies[0].act_as, policies[1].act_as))
        self._providers = _providers(pair)
        self._known: dict[ScopeSets, tuple[Sender, ...]] = {}

    def of(self, sets: ScopeSets) -> tuple[Sender, ...]:
        """Return all callers for these sets of scopes, plain ones before odd ones of their kind."""
        if sets not in self._known:
            self._known[sets] = (Sender(NOBODY, None, {}, ()), *self._issued(sets), *self._of_providers(sets))
        return self._known[sets]

    def _issued(self, sets: ScopeSets) -> Iterator[Sender]:
        for kind in (AuthType.ANONYMOUS, AuthType.USER, AuthType.GLOBAL):
            user = USER if kind is AuthType.USER else None
            acting = self._acting if kind is AuthType.GLOBAL else self._not_acting
            for way, act_as, scopes in product(self._ways[Kind.ISSUED], acting, sets):
                identity = Identity(kind, f"token:{TOKEN_ID}", user, scopes, math.inf, token_id=TOKEN_ID)
                evidence = tuple(identity if accepted else Reason.TOKEN_MALFORMED for accepted in way.accepted)
                yield _sender(kind.value, scopes, way, act_as, Kind.ISSUED, (evidence[0], evidence[1]))

    def _of_providers(self, sets: ScopeSets) -> Iterator[Sender]:
        for name, sides in self._providers.items():
            held = {tuple(None if grant is None else grant.of(scopes) for grant in sides): scopes for scopes in reversed(sets)}
            shown = name if len(self._providers) > 1 else ""
            for way, act_as, (both, scopes) in product(self._ways[Kind.OAUTH], self._not_acting, reversed(held.items())):
                evidence = tuple(
                    Reason.TOKEN_ISSUER
                    if each is None
                    else Identity(AuthType.OAUTH, f"oauth:{name}:{USER}", USER, each, math.inf, client_id="client")
                    for each in both
                )
                chosen = scopes if len(held) > 1 else None
                yield _sender("oauth", chosen, way, act_as, Kind.OAUTH, (evidence[0], evidence[1]), shown)


def _sender(
    kind: str,
    scopes: frozenset[str] | None,
    way: Way,
    acting: Acting,
    family: Kind,
    evidence: tuple[Identity | Reason, Identity | Reason],
    provider: str = "",
) -> Sender:
    headers = {AUTHORIZATION: f"Bearer {way.text}"} | dict(way.headers) | dict(acting.headers)
    return Sender(kind, scopes, headers, (*acting.details, *way.details), family, evidence, provider)


def _addresses(pair: Pair) -> Addresses:
    old, new = (Patterns(tuple(each.settings.act_as.allow), tuple(each.settings.act_as.deny)) for each in pair)
    return addresses(old, new, (pair[0].policy.act_as, pair[1].policy.act_as))


def _acting(rules: tuple[ActAs, ActAs], users: Addresses) -> list[Acting]:
    """Return what GLOBAL tokens can send, the usual first: each answer about a user, and each mixture of header names."""
    groups = _header_groups(rules)
    found = []
    examples = users.examples or {(False, False): USER}
    for _, user in sorted(examples.items(), reverse=True):
        for values in product((user, None, OTHER_USER), repeat=len(groups)):
            headers = {name: value for name, value in zip(groups, values, strict=True) if value is not None}
            usual = len(groups) == 1 and values[0] == user
            details = (f"acting for {user}",) if usual else tuple(f"{name}: {value}" for name, value in headers.items())
            acting = Acting(headers, details or ("no act-as header",))
            if acting not in found and (len(groups) > 1 or values[0] != OTHER_USER):
                found.append(acting)
    return sorted(found, key=lambda acting: not acting.headers)


def _not_acting(rules: tuple[ActAs, ActAs]) -> list[Acting]:
    """Return what other tokens can send: nothing, or one of the headers that they may not have."""
    headers = _header_groups(rules)
    return [Acting({}), *(Acting({name: USER}, (f"with {name}",)) for name in headers)]


def _header_groups(rules: tuple[ActAs, ActAs]) -> list[str]:
    """Return one act-as header of each class: read by both sides, by the old one alone, by the new one alone."""
    old, new = (each.headers for each in rules)
    groups = (
        [name for name in old if name in new],
        [name for name in old if name not in new],
        [name for name in new if name not in old],
    )
    return [group[0] for group in groups if group]


def _ways(pair: Pair) -> dict[Kind, list[Way]]:
    """Return how tokens are sent; where both sides tell and take them alike, there is one way for each family."""
    policies = pair[0].policy, pair[1].policy
    prefixes = _prefixes(pair)
    types = [each.auth_types for each in policies]
    same = (types[0].header, types[0].oauth) == (types[1].header, types[1].oauth)
    told = _told_by(policies)
    ways: dict[Kind, list[Way]] = {}
    for family in Kind:
        texts = list(prefixes.items()) if family is Kind.ISSUED else [("", (True, True))]
        usual = {types[0].header: types[0].oauth} if family is Kind.OAUTH and types[0].header else {}
        ways[family] = []
        for prefix, accepted in texts:
            special = (f"prefix {prefix}",) if len(texts) > 1 else ()
            for headers in [usual] if same else told:
                details = (*special, *(() if same else _sent(headers)))
                ways[family] += _sizes(f"{prefix}_{PLACEHOLDER}" if prefix else PLACEHOLDER, headers, details, accepted, policies)
    return ways


def _sent(headers: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}: {value}" for name, value in headers.items()) or ("no header that tells the kind of its token",)


def _told_by(policies: tuple[Policy, Policy]) -> list[dict[str, str]]:
    """Return all mixtures of headers that can tell the kind of a token on either side, and of their values."""
    names = dict.fromkeys(each.auth_types.header for each in policies if each.auth_types.header)
    values = dict.fromkeys([None, *(each.auth_types.oauth for each in policies if each.auth_types.header), "another"])
    mixtures = (dict(zip(names, chosen, strict=True)) for chosen in product(values, repeat=len(names)))
    return [{name: value for name, value in mixture.items() if value is not None} for mixture in mixtures]


def _sizes(
    text: str, headers: Mapping[str, str], details: tuple[str, ...], accepted: tuple[bool, bool], policies: tuple[Policy, Policy]
) -> Iterator[Way]:
    yield Way(text, headers, details, accepted)
    smaller, larger = sorted(each.max_token_size for each in policies)
    if smaller != larger:
        yield Way(text.ljust(smaller + 1, "x"), headers, (*details, f"a token of {smaller + 1:,} bytes or more"), accepted)


def _prefixes(pair: Pair) -> dict[str, tuple[bool, bool]]:
    """Return prefixes of issued tokens, and which side takes each: all of both, or one where both take the same."""
    sections = [each.settings.tokens for each in pair]
    old, new = ({section.prefix: None} | dict.fromkeys(section.accept_prefixes) if section else {} for section in sections)
    if not old or not new or old.keys() == new.keys():
        return {next(iter(old or new), ""): (True, True)}
    sides = {prefix: (prefix in old, prefix in new) for prefix in old | new}
    return dict(sorted(sides.items(), key=lambda each: each[1], reverse=True))


def _providers(pair: Pair) -> dict[str, tuple[Grant | None, Grant | None]]:
    """Return what tokens of each provider hold on each side, None where it does not know the provider.

    Of several that grant the same there is one. Providers that only a store knows may grant anything.
    """
    old, new = ({rules.name: Grant(rules.scopes, rules.scope_claims is not None) for rules in each.providers} for each in pair)
    if not old and not new:
        return {"": (ANYTHING, ANYTHING)}
    otherwise = [ANYTHING if each.saved is not None and not each.providers else None for each in pair]
    found: dict[tuple[Grant | None, Grant | None], str] = {}
    for name in old | new:
        found.setdefault((old.get(name, otherwise[0]), new.get(name, otherwise[1])), name)
    return {name: grants for grants, name in found.items()}
