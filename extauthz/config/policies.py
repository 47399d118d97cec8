"""From the settings and the route tables to what decides."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from extauthz.config.patterns import compile_patterns
from extauthz.config.saved_settings import Saved
from extauthz.config.settings import Settings
from extauthz.core.act_as import ActAs
from extauthz.core.credentials import Kind
from extauthz.core.identity import FORWARDED_HOST_HEADERS, OVERRIDE_HEADERS, IdentityHeaders
from extauthz.core.model import Reason
from extauthz.core.policy import Policy
from extauthz.core.routes import RouteTable
from extauthz.responses.remembered_edits import RememberedIdentityHeaders


def policy(
    settings: Settings, table: RouteTable, hosts: Mapping[str, RouteTable], *, monitored: frozenset[str | None], saved: Saved | None
) -> Policy:
    """Put together what decides; `saved` are the OAuth settings in the store, None where the file has them."""
    trusts_host = any(each.upstream.trusts_forwarded_host for each in (table, *hosts.values()))
    tokens = settings.tokens
    auth_types = settings.auth_type.types([tokens.prefix, *tokens.accept_prefixes] if tokens else [])
    return Policy(
        routes=table,
        hosts=hosts,
        kinds=_kinds(settings, saved),
        auth_types=auth_types,
        act_as=_act_as(settings),
        identity=_identity(settings, auth_types.header, one_host=not hosts and not trusts_host),
        max_token_size=settings.server.max_token_size,
        monitored=monitored,
    )


def _kinds(settings: Settings, saved: Saved | None) -> frozenset[Kind]:
    """Return what is switched on; as long as nobody knows of OAuth, its tokens are not refused for good."""
    sections = {Kind.OAUTH: settings.oauth, Kind.ISSUED: settings.tokens}
    unknown = {Kind.OAUTH} if isinstance(saved, Reason) else set()
    return frozenset(kind for kind, section in sections.items() if section is not None and section.enabled) | unknown


def _act_as(settings: Settings) -> ActAs:
    return ActAs(settings.act_as.names, compile_patterns(settings.act_as.allow), compile_patterns(settings.act_as.deny))


def _identity(settings: Settings, auth_type: str, *, one_host: bool) -> IdentityHeaders:
    """Name the headers; where the host decides, here or in the upstream, the ones that would name another host too."""
    overrides = OVERRIDE_HEADERS if one_host else (*OVERRIDE_HEADERS, *FORWARDED_HOST_HEADERS)
    prefix, keep = settings.identity.prefix, frozenset(settings.identity.keep)
    return _identity_headers(prefix, keep, settings.act_as.names, overrides, auth_type)


# What was worked out with the same names before a reload is used again.
_identity_headers = lru_cache(maxsize=16)(RememberedIdentityHeaders)
