"""Act-as rules: which user a verified token works for.

X-Scio-ActAs and X-Glean-ActAs are one header with two names; configuration can add names, never take one away.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial

from extauthz.core.model import AuthType, Identity, Reason, Request

ACT_AS_HEADERS = ("x-scio-actas", "x-glean-actas")
MAX_ADDRESS = 254

_ATOM, _LABEL = r"[A-Za-z0-9!#$&'*+/=?^_{}~-]+", r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
ADDRESS = rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+"
_ADDRESS = re.compile(rf"(?=[^@]{{1,64}}@){ADDRESS}").fullmatch


def address(text: str, *, raw: bool = True) -> str | None:
    """Return one e-mail address in lower case, or None.

    Without `raw`, "!" is refused: Envoy writes it in place of a byte that is not UTF-8.
    """
    if len(text) > MAX_ADDRESS or (not raw and "!" in text):
        return None
    return _address(text)


@lru_cache(maxsize=4096)
def _address(text: str) -> str | None:
    return text.lower() if _ADDRESS(text) else None


@dataclass(frozen=True, slots=True)
class ActAs:
    """Who may be acted for: `allow` None is nobody; `deny` beats it. `headers` are lower-case names."""

    headers: tuple[str, ...] = ACT_AS_HEADERS
    allow: re.Pattern[str] | None = None
    deny: re.Pattern[str] | None = None
    permits: Callable[[str], bool] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Remember what was decided for an address, in nothing that points back here: so these rules go when nobody holds them."""
        object.__setattr__(self, "permits", lru_cache(maxsize=4096)(partial(_permits, self.allow, self.deny)))


def _permits(allow: re.Pattern[str] | None, deny: re.Pattern[str] | None, user: str) -> bool:
    """Tell whether a GLOBAL token may act for this lower-case address; deny is also tried without a +tag."""
    if deny:
        local, _, domain = user.partition("@")
        without_tag = f"{local.partition('+')[0]}@{domain}"
        if deny.fullmatch(user) or deny.fullmatch(without_tag):
            return False
    return allow is not None and allow.fullmatch(user) is not None


def effective_user(rules: ActAs, request: Request, identity: Identity) -> str | Reason | None:
    """Return the address that the request works for, None for an anonymous token, or why not."""
    headers = request.headers
    values = [value for name in rules.headers if name in headers and (value := request.header(name))]
    if identity.auth_type is not AuthType.GLOBAL:
        return Reason.ACT_AS_NOT_ALLOWED if values else identity.user
    if not values:
        return Reason.ACT_AS_MISSING
    users = [address(value, raw=request.raw) for value in values]
    user = users[0]
    if user is None or None in users:
        return Reason.ACT_AS_MALFORMED
    if users.count(user) != len(users):
        return Reason.ACT_AS_CONFLICT
    return user if rules.permits(user) else Reason.ACT_AS_FORBIDDEN
