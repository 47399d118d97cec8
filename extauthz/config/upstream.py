"""The key `upstream` of a route file: how the server behind the routes reads a request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from extauthz.config.document import Document
from extauthz.config.lints import Lint
from extauthz.config.values import Section
from extauthz.core.identity import FORWARDED_HOST_HEADERS
from extauthz.core.policy import Policy
from extauthz.core.upstream import Upstream
from extauthz.errors import Problem

_KEPT = (
    "keeps a header by which an upstream with forwarded_host: trusted picks its site: leave it out, unless a proxy in front of "
    "Envoy writes it anew for every request"
)


class UpstreamSection(Section):
    """How loosely the upstream reads what it gets; the defaults are those of one that reads paths to the letter."""

    case: Literal["sensitive", "insensitive"] = "sensitive"
    trailing_slash: Literal["strict", "ignored"] = "strict"
    method_override: Literal["none", "query"] = "query"
    forwarded_host: Literal["ignored", "trusted"] = "ignored"

    @property
    def reading(self) -> Upstream:
        """The same for the core."""
        return Upstream(
            ignores_case=self.case == "insensitive",
            ignores_slash=self.trailing_slash == "ignored",
            overrides_method=self.method_override == "query",
            trusts_forwarded_host=self.forwarded_host == "trusted",
        )


def kept_hosts(keep: Iterable[str], policy: Policy, source: Document) -> list[Problem]:
    """Return a warning when a client may name the site of an upstream that believes it."""
    trusting = any(table.upstream.trusts_forwarded_host for table in (policy.routes, *policy.hosts.values()))
    keeps_one = trusting and not set(FORWARDED_HOST_HEADERS).isdisjoint(keep)
    return [source.problem(("identity", "keep"), _KEPT, Lint.KEPT_HOST_HEADER)] if keeps_one else []
