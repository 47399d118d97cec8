"""Names of headers that do not fit together; read from the plain data, so that a problem in one section hides no other."""

from __future__ import annotations

import re
from typing import Any

from extauthz.config.credential_headers import BY_TOKEN
from extauthz.config.document import Document, strings
from extauthz.core.act_as import ACT_AS_HEADERS
from extauthz.core.credentials import AUTH_TYPE, AUTHORIZATION
from extauthz.core.identity import FORWARDED_HOST_HEADERS, OVERRIDE_HEADERS, IdentityHeaders
from extauthz.errors import Problem

_OF_HTTP = re.compile(
    r"(?:accept|access-control|content|grpc|if|proxy|sec|x-b3|x-envoy|x-forwarded)-.*"
    r"|accept|age|allow|b3|baggage|cache-control|connection|cookie|date|dnt|etag|expect|expires|forwarded|host|keep-alive|last-modified"
    r"|location|max-forwards|origin|pragma|priority|range|referer|retry-after|server|set-cookie|te|traceparent|tracestate|trailer"
    r"|transfer-encoding|upgrade|user-agent|vary|via|www-authenticate|x-real-ip|x-request-id"
).fullmatch
"""Names that clients, proxies and servers use for something else: an allow removes what an act-as header is called."""


def problems(source: Document) -> list[Problem]:
    """List the headers of act_as, auth_type and identity that are taken, or that cannot be kept."""
    act_as = [(index, name.lower()) for index, name in strings(source, "act_as", "headers")]
    section, auth_type = (_section(source, name) for name in ("act_as", "auth_type"))
    header = auth_type.get("header", "" if source.data.get("auth_type") == BY_TOKEN else AUTH_TYPE)
    types = {header.lower()} if header and isinstance(header, str) else set()
    overrides = {*OVERRIDE_HEADERS, *FORWARDED_HOST_HEADERS}
    defaults = () if section.get("only") else ACT_AS_HEADERS
    keepable = {AUTHORIZATION, AUTH_TYPE, *types, *defaults, *(name for _, name in act_as), *overrides}
    found = [
        source.problem(("identity", "keep", index), f"{name!r} is not one of {', '.join(sorted(keepable))}")
        for index, name in strings(source, "identity", "keep")
        if name.lower() not in keepable
    ]
    prefix = _section(source, "identity").get("prefix")
    prefix = prefix if isinstance(prefix, str) else IdentityHeaders().prefix

    def is_taken(name: str) -> bool:
        return name in {AUTHORIZATION, *overrides} or name.startswith(prefix) or _OF_HTTP(name) is not None

    message = "has another meaning: name a header of its own"
    if "header" in auth_type and (any(map(is_taken, types)) or not types.isdisjoint(defaults)):
        found.append(source.problem(("auth_type", "header"), f"{header!r} {message}"))
    return found + [
        source.problem(("act_as", "headers", index), f"{name!r} {message}")
        for index, name in act_as
        if name in types or is_taken(name)
    ]


def _section(source: Document, name: str) -> dict[str, Any]:
    section = source.data.get(name)
    return section if isinstance(section, dict) else {}
