"""Act-as rules: which user a verified token works for.

X-Scio-ActAs and X-Glean-ActAs are one header with two names; configuration can add names, never take one away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from extauthz.core.model import AuthType, Identity, Reason, Request

ACT_AS_HEADERS = ("x-scio-actas", "x-glean-actas")
MAX_ADDRESS = 254

_ATOM = r"[A-Za-z0-9!#$&'*+/=?^_{}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+").fullmatch
_PATTERN = re.compile(r"[A-Za-z0-9.!#$&'*+/=?^_{}~-]+@[A-Za-z0-9.*-]+").fullmatch


def address(text: str, *, raw: bool = True) -> str | None:
    """Return one e-mail address in lower case, or None.

    Without `raw`, "!" is refused: Envoy writes it in place of a byte that is not UTF-8.
    """
    if len(text) > MAX_ADDRESS or not _ADDRESS(text) or (not raw and "!" in text):
        return None
    return text.lower()


def compile_patterns(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Compile address patterns, in which `*` is any run without "@"; None for an empty list; raise ValueError for a bad one."""
    compiled = []
    for pattern in patterns:
        if not _PATTERN(pattern):
            raise ValueError(f"{pattern!r} is not an address pattern: write someone@acme.com, *@acme.com or *@*")
        compiled.append(re.escape(pattern.lower()).replace(r"\*", "[^@]*"))
    return re.compile("|".join(compiled)) if compiled else None


@dataclass(frozen=True, slots=True)
class ActAs:
    """Who may be acted for: `allow` None is nobody; `deny` beats it. `headers` are lower-case names."""

    headers: tuple[str, ...] = ACT_AS_HEADERS
    allow: re.Pattern[str] | None = None
    deny: re.Pattern[str] | None = None

    def permits(self, user: str) -> bool:
        """Tell whether a GLOBAL token may act for this lower-case address; deny is also tried without a +tag."""
        if self.deny:
            local, _, domain = user.partition("@")
            without_tag = f"{local.partition('+')[0]}@{domain}"
            if self.deny.fullmatch(user) or self.deny.fullmatch(without_tag):
                return False
        return self.allow is not None and self.allow.fullmatch(user) is not None


def effective_user(rules: ActAs, request: Request, identity: Identity) -> str | Reason | None:
    """Return the address that the request works for, None for an anonymous token, or why not."""
    named = [value for value in map(request.header, rules.headers) if value]
    if identity.auth_type is not AuthType.GLOBAL:
        return Reason.ACT_AS_NOT_ALLOWED if named else identity.user
    if not named:
        return Reason.ACT_AS_MISSING
    users = {address(value, raw=request.raw) for value in named}
    if None in users:
        return Reason.ACT_AS_MALFORMED
    if len(users) > 1:
        return Reason.ACT_AS_CONFLICT
    user = users.pop()
    return user if user is not None and rules.permits(user) else Reason.ACT_AS_FORBIDDEN
