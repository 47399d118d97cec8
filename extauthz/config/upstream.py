"""The key `upstream` of a route file: how the server behind the routes reads a request."""

from __future__ import annotations

from typing import Literal

from extauthz.config.values import Section
from extauthz.core.upstream import Upstream


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
