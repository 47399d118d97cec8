"""The proxy through which issuers are asked: `oauth.proxy`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, model_serializer, model_validator

from extauthz.config.values import Secret, Section, WrittenAs, text

_ADDRESS = r"https?://[^/?#@\s]+"
_ADDRESS_RULE = (
    "write the address of a proxy, without a user, like http://proxy.acme.com:3128; a user and a password have keys of their own: "
    "proxy: {url: http://proxy.acme.com:3128, user: extauthz, password: {env: PROXY_PASSWORD}}"
)
_USER = r"[!-9;-~](?:[ -9;-~]*[!-9;-~])?"  # RFC 7617 2: without a colon


class ProxySection(Section):
    """A proxy for what goes out over https, and how we name ourselves to it (RFC 9110 11.7)."""

    url: Annotated[str, text(_ADDRESS, _ADDRESS_RULE)] = Field(
        description="Where the proxy listens. Without a user, `proxy: URL` says the same."
    )
    user: Annotated[str, text(_USER, "write the user alone, printable ASCII without a colon", shown=False)] | None = None
    password: Secret | None = Field(default=None, repr=False, examples=["password: {env: PROXY_PASSWORD}"])

    @model_validator(mode="after")
    def _both_or_none(self) -> ProxySection:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password belong together: write both, or none of them")
        return self

    @model_serializer
    def _yaml_value(self) -> str | dict[str, object]:
        return self.url if self.user is None else {"url": self.url, "user": self.user, "password": self.password}


def _from_text(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not re.fullmatch(_ADDRESS, value):
        # A password may stand beside a user.
        raise ValueError(_ADDRESS_RULE if "@" in value else f"{value!r}: {_ADDRESS_RULE}")
    return ProxySection(url=value)


Proxy = Annotated[ProxySection, BeforeValidator(_from_text), WrittenAs({"type": "string", "pattern": f"^(?:{_ADDRESS})$"})]
