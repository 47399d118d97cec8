"""What decides about requests on one side, in a form in which two sides can be compared."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.config.loader import Configuration
from extauthz.core.model import AuthType, Reason
from extauthz.core.routes import Route
from extauthz.tools.diff_senders import Pair, ScopeSets


@dataclass(frozen=True, slots=True)
class RouteRule:
    """What a route decides by, without its name and its pattern; `least` are the least sets of scopes that suffice."""

    least: frozenset[frozenset[str]]
    public: bool
    refusal: Reason | None
    accept: frozenset[AuthType]
    preflight: bool = False
    encoded_slashes: bool = False
    monitored: bool = False
    audience: str | None = None

    @property
    def line(self) -> tuple[object, ...]:
        """What the line of the route itself says; the rest may come from its file or from extauthz.yaml."""
        return self.least, self.public, self.refusal, self.accept


def rule_of(configuration: Configuration, route: Route) -> RouteRule:
    """Return the rule of a route."""
    scopes = [frozenset({scope}) for scope in route.scopes] if route.any_scope else [frozenset(route.scopes)]
    has_token = not route.public and not route.deny
    section = configuration.settings.internal_token
    is_signed = section is not None and section.enabled and has_token
    return RouteRule(
        least=frozenset(scopes) if has_token else frozenset([frozenset()] if route.public else []),
        public=route.public,
        refusal=Reason.ROUTE_DENIED if route.deny else None,
        accept=route.accept if has_token else frozenset(),
        preflight=route.preflight,
        encoded_slashes=route.encoded_slashes,
        monitored=route.name in configuration.policy.monitored,
        audience=configuration.audiences.get(route.name, section.audience) if section is not None and is_signed else None,
    )


def scope_sets(rules: tuple[RouteRule, RouteRule]) -> ScopeSets:
    """Return the least sets of both sides, none, one that suffices on both, and all; small ones first."""
    old, new = (sorted(rule.least, key=lambda scopes: (len(scopes), sorted(scopes))) for rule in rules)
    both = frozenset().union(*old[:1], *new[:1])
    every = frozenset().union(*old, *new)
    return tuple(sorted({frozenset[str](), *old, *new, both, every}, key=lambda scopes: (len(scopes), sorted(scopes))))


def general_rules(configuration: Configuration) -> tuple[object, ...]:
    """Return what decides besides the routes."""
    policy, tokens = configuration.policy, configuration.settings.tokens
    identity, act_as = policy.identity, configuration.settings.act_as
    return (
        *(policy.kinds, policy.auth_types, policy.max_token_size, act_as.names, frozenset(act_as.allow), frozenset(act_as.deny)),
        *(identity.prefix, identity.keep, identity.act_as, identity.overrides, identity.auth_type),
        *(frozenset([tokens.prefix, *tokens.accept_prefixes]) if tokens else None, configuration.saved is None),
        frozenset((rules.name, rules.scopes, rules.scope_claims is None) for rules in configuration.providers),
    )


def names_like_ours(pair: Pair) -> set[str]:
    """Return names that one side may take from a request; those that decide are not among them."""
    names = set()
    for configuration in pair:
        identity = configuration.policy.identity
        names |= {*identity.overrides, *identity.names.values(), f"{identity.prefix}other"}
    return names - {name for each in pair for name in each.policy.identity.credentials}
