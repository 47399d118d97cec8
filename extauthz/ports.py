"""What the service needs of the world outside; every port has a real implementation in `adapters/`, and in the tests."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from extauthz.core.jwt import KeySet
from extauthz.core.model import Decision, Identity, Reason, Request
from extauthz.core.tokens import TokenRecord

Evidence = Identity | Reason

Header = tuple[str, str]
"""Name and value."""


class Clock(Protocol):
    """Wall clock for `exp`, monotonic clock for lifetimes and time-outs; both in seconds."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...


class Codec(Protocol):
    """Bytes of the protocol to values of the core, and back."""

    def read(self, data: bytes, decision_id: str) -> Request | None:
        """Return the request, or None when the bytes hold none."""

    def write(self, request: Request, decision: Decision, header: Header | None = None) -> bytes:
        """Return the answer; its status is explicit and never empty. An allow also sets this `header` for the upstream."""

    def fixed(self, reason: Reason, decision_id: str) -> bytes:
        """Return a denial that was serialised and checked at start: REQUEST_MALFORMED, INTERNAL or DRAINING."""


class Verifier(Protocol):
    """Finds out who holds a token."""

    def verify(self, token: str, now: float) -> Evidence | Awaitable[Evidence]:
        """Answer from memory where it can; else return an awaitable that nobody's cancellation ends. Raises Unavailable."""


class TokenStore(Protocol):
    """Look-ups of issued tokens."""

    def find(self, token_id: str) -> TokenRecord | Awaitable[TokenRecord | None] | None:
        """Return the record of an id, at once or when awaited; raises Unavailable then or now."""


Use = tuple[int, str]
"""When a token was used, in seconds since the epoch, and from which network."""

RESOLUTION = 900
"""Seconds: a use is kept only if it is later than the one that is kept by more than this."""


USUAL_PREFIX = "glean"
"""What issued tokens begin with where nothing else is written."""
ADMIN_KEY_PREFIX = "exadm"
"""What keys of the console's API begin with; no issued token may."""


class UsageStore(Protocol):
    """Keeps the last use of each issued token."""

    async def record_usage(self, uses: Mapping[str, Use]) -> int:
        """Keep uses by token id, unknown ones left out; return how many were kept; raises Unavailable."""


EMPTY_AUDIT = (0, "00" * 32)
"""The head of an audit without rows."""


@dataclass(frozen=True, slots=True)
class FeedBatch:
    """What changed in a token store after a position: `changes` are (number, token id) in the order of their numbers.

    `head` is the highest number ever given, `oldest` the lowest that is still kept (`head` + 1 when none is), `epoch` counts the
    restores that were accepted. `audit` is number and MAC of the last row of the audit. With `more`, later changes than these are
    kept as well, to be read in the next batch.
    """

    epoch: int
    head: int
    oldest: int
    changes: tuple[tuple[int, str], ...] = ()
    audit: tuple[int, str] = EMPTY_AUDIT
    more: bool = False


class KeySource(Protocol):
    """The keys of one issuer."""

    def keys(self) -> KeySet | None:
        """Return the keys in memory, or None when there are none that may still be used."""

    @property
    def fetched_at(self) -> float:
        """When the keys in memory were fetched, in seconds since the epoch; 0 for never."""

    def load(self) -> Awaitable[KeySet]:
        """Fetch the first keys, or join the fetch that is under way; raises Unavailable."""

    def reload_for_unknown_key(self) -> Awaitable[KeySet] | None:
        """Fetch once more for a key that the set lacks, or wait for the fetch that will be made; None while none may be."""


class Introspector(Protocol):
    """One issuer that is asked about a token."""

    def ask(self, token: str, *, is_known: bool = False) -> Coroutine[None, None, Mapping[str, Any] | Reason]:
        """Ask what the issuer says of a token, TOKEN_INACTIVE if nothing good; raises Unavailable, at once or when awaited.

        A token that was good a while ago `is_known`: part of the budget is for such tokens only.
        """


@dataclass(slots=True)
class Verdict:
    """A token that was verified; `basis` is what that rests on, for the verifier to look at. `until` is on the monotonic clock."""

    identity: Identity
    until: float
    basis: object


class Verdicts(Protocol):
    """Remembers who holds which token, or why nobody does, for a bounded time and number."""

    def recall(self, token: str) -> Verdict | Reason | None: ...

    def put(self, token: str, evidence: Evidence, *, lifetime: float | None = None, basis: object = None) -> None:
        """Remember an identity for at most `lifetime` seconds, and what it rests on; a refusal for a few."""

    def forget_refusals(self) -> None: ...

    def clear(self) -> None: ...


class Recorder(Protocol):
    """Counts and logs decisions; never raises."""

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        """Take one decision; a request that could not be read has no method and no path."""
