"""Which headers clients send with a token: the sections act_as and auth_type of extauthz.yaml."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_serializer, model_validator

from extauthz.config.patterns import compile_patterns
from extauthz.config.values import Section, WrittenAs, text
from extauthz.core.act_as import ACT_AS_HEADERS
from extauthz.core.credentials import AUTH_TYPE, AuthTypes
from extauthz.responses.client_headers import spelled

BY_TOKEN = "by_token"

_HEADER_NAME = re.compile(r"[a-z][a-z0-9-]*").fullmatch


def _written_name(name: str) -> str:
    if not _HEADER_NAME(name.lower()):
        raise ValueError(f"{name!r} is not a header name: write letters, digits and '-'")
    return name


def _address_pattern(pattern: str) -> str:
    compile_patterns([pattern])
    return pattern


WrittenName = Annotated[str, AfterValidator(_written_name)]
"""A header as the file spells it: people are told its name like that."""
HeaderName = Annotated[WrittenName, AfterValidator(str.lower)]
AddressPattern = Annotated[str, AfterValidator(_address_pattern)]


class ActAsSection(Section):
    """Whom GLOBAL tokens may act for; USER addresses are compared with it when a token is made."""

    headers: list[WrittenName] = Field(
        default_factory=lambda: list(map(spelled, ACT_AS_HEADERS)), examples=["headers: [X-Acme-ActAs]"]
    )
    only: bool = False
    allow: list[AddressPattern] = Field(default_factory=list, examples=['allow: ["*@acme.com"]'])
    deny: list[AddressPattern] = Field(default_factory=list, examples=['deny: ["ceo@acme.com"]'])

    @model_validator(mode="after")
    def _names_that_replace(self) -> ActAsSection:
        if self.only and not (self.headers and "headers" in self.model_fields_set):
            raise ValueError("only needs headers, which stand in place of the two defaults: write headers: [X-Acme-ActAs]")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the header, in lower case."""
        names = [name.lower() for name in self.headers]
        return tuple(dict.fromkeys(names if self.only else (*ACT_AS_HEADERS, *names)))


class AuthTypeSection(Section):
    """How the kind of a token is told: by a header, or, where the text `by_token` stands in place of a section, by the token."""

    header: WrittenName = spelled(AUTH_TYPE)
    oauth: Annotated[str, text(r"[A-Za-z0-9._-]{1,64}", "write 1 to 64 letters, digits, '.', '_' and '-', like OAUTH")] = "OAUTH"

    @model_serializer
    def _yaml_value(self) -> str | dict[str, str]:
        return {"header": self.header, "oauth": self.oauth} if self.header else BY_TOKEN

    def types(self, prefixes: list[str]) -> AuthTypes:
        """Return what decides; `prefixes` are those of issued tokens."""
        if self.header:
            return AuthTypes(self.header.lower(), self.oauth.lower())
        return AuthTypes("", issued=tuple(f"{prefix}_" for prefix in prefixes))


def _from_text(value: object) -> object:
    if value == BY_TOKEN:
        return AuthTypeSection.model_construct(header="", oauth="")
    if isinstance(value, str):
        raise ValueError(f"write {BY_TOKEN}, or {{header: X-Acme-Auth-Type, oauth: OAUTH}}")
    return value


AuthTypeSetting = Annotated[AuthTypeSection, BeforeValidator(_from_text), WrittenAs({"const": BY_TOKEN})]
