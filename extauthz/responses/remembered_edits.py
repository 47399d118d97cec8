"""The edits of requests in memory: those of most requests with the identity of their token, others in lists of limited length."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial

from extauthz.core.identity import IdentityHeaders
from extauthz.core.model import HeaderEdits, Identity, Reason

MAX_NAMES, MAX_NAME = 4096, 64
"""Names of headers that are known to be none of ours, and their length in characters: clients choose them."""
MAX_USERS = 16_384
"""Edits for users whom a token does not belong to: its holder chooses them."""
MAX_UNUSUAL, MAX_SIZE = 4096, 1024
"""Edits that remove names that only look like ours, and the characters of those names: clients choose them."""

Make = Callable[[tuple[str, ...], Identity | None, str | None], HeaderEdits | Reason]


@dataclass(frozen=True, slots=True, eq=False)
class RememberedIdentityHeaders(IdentityHeaders):
    """Makes the edits that `IdentityHeaders` makes, once for requests that get the same.

    A token that works for its own user, and a request without a name like ours, is the usual case: such edits are kept with the
    identity, and go with it. Of all others the least recently used make room for new ones of their kind.
    """

    known: set[str] = field(init=False, repr=False)
    for_users: Make = field(init=False, repr=False)
    unusual: Make = field(init=False, repr=False)
    monitored: Callable[[HeaderEdits, bool], HeaderEdits] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Remember nothing yet."""
        IdentityHeaders.__post_init__(self)
        object.__setattr__(self, "known", set(self.always_listed))
        make = partial(IdentityHeaders.edits, self)
        object.__setattr__(self, "for_users", lru_cache(maxsize=MAX_USERS)(make))
        object.__setattr__(self, "unusual", lru_cache(maxsize=MAX_UNUSUAL)(make))
        object.__setattr__(self, "monitored", lru_cache(maxsize=MAX_UNUSUAL)(self._monitored_edits))

    def edits(self, received: Iterable[str], identity: Identity | None, user: str | None) -> HeaderEdits | Reason:
        """Return the edits of an allowed request, or IDENTITY_TOO_LONG."""
        ours = () if self.known.issuperset(received) else self._ours(received)
        if ours:
            is_short = sum(map(len, ours)) <= MAX_SIZE
            return self.unusual(ours, identity, user) if is_short else IdentityHeaders.edits(self, ours, identity, user)
        if identity is None or identity.user != user:
            return self.for_users(ours, identity, user)
        kept = identity.usual_edits
        if kept is None or kept[0] is not self:
            kept = self, IdentityHeaders.edits(self, ours, identity, user)
            object.__setattr__(identity, "usual_edits", kept)
        return kept[1]

    def monitored_edits(self, changes: HeaderEdits, *, refused: bool) -> HeaderEdits:
        """Return the edits of a request in monitor mode."""
        is_short = sum(map(len, changes.remove)) <= MAX_SIZE
        return (self.monitored if is_short else self._monitored_edits)(changes, refused)

    def _monitored_edits(self, changes: HeaderEdits, refused: bool) -> HeaderEdits:
        return IdentityHeaders.monitored_edits(self, changes, refused=refused)

    def _ours(self, received: Iterable[str]) -> tuple[str, ...]:
        """Return the received names that are ours and not always listed, in one order; remember the others."""
        unknown = [name for name in received if name not in self.known]
        ours = sorted(name for name in unknown if name not in self.always_listed and self.owns(name))
        for name in unknown:
            if name not in ours and len(name) <= MAX_NAME:
                if len(self.known) >= MAX_NAMES:
                    self.known.pop()
                self.known.add(name)
        return tuple(ours)
