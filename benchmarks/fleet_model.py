"""What a fleet of sidecars asks of its PostgreSQL, computed from the settings.

docs/scaling.md shows it, fleet_load.py measures whether it is so.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from extauthz.adapters.store.following import GATHER
from extauthz.config.settings import LimitsSection, TokensSection

DAY = 86400.0
CONNECTIONS = 2
"""Of one sidecar that stay open: for look-ups, and for the change feed. Uses are written over a third, which is closed again."""
MAX_LISTENING = 500
"""Sidecars that may be told of changes by NOTIFY: each commit wakes them all."""
USED_AGAIN = 1050.0
"""Mean seconds after which a use of a token is noted again: 15 to 20 minutes, by chance."""
USAGE_PERIOD = 60.0
"""Mean seconds between two batches of uses of one sidecar; each is one connection and one statement."""
AT_START = {True: 5, False: 4}
"""Statements of a sidecar that starts, by whether it listens: schema, peppers, an empty look-up, LISTEN, the state of the feed."""

# Bytes of PostgreSQL's protocol, without TLS, TCP and IP, as fleet_load.py measures them: asked and answered, by whether the
# sidecar listens. One that does not prepares nothing either, and sends the text of each query.
LOOK_UP_BYTES = {True: (63, 542), False: (252, 547)}
FEED_BYTES = {True: (51, 190), False: (382, 196)}
CHANGE_BYTES = 49

_DEFAULTS = {name: field.default for name, field in TokensSection.model_fields.items()}
_IN_FLIGHT = LimitsSection.model_fields["store_in_flight"].default


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Sidecars of one kind, what is asked of each, and how they are set.

    `tokens` are the issued tokens that one sidecar sees again and again, `checks` the checks of them a second, `strangers` the
    look-ups a second of tokens that are not good. `changes` are commits a second in the whole store; each tells of as many tokens
    as `told`, one of which a `spread` of the sidecars uses. `restarts` are those of one sidecar in a day.
    """

    sidecars: int
    tokens: int = 100
    checks: float = 50.0
    strangers: float = 0.1
    changes: float = 0.1
    told: float = 1
    spread: float = 0.1
    restarts: float = 1.0
    listen: bool = True
    poll_interval: float = _DEFAULTS["poll_interval"]
    verdict_ttl: float = _DEFAULTS["verdict_ttl"]

    @property
    def read_again(self) -> float:
        """Look-ups a second of known tokens: each is read at its first use after `verdict_ttl`."""
        return self.sidecars * renewals(self.tokens, self.checks, self.verdict_ttl)

    @property
    def read_after_changes(self) -> float:
        """Look-ups a second of tokens that changed, by whoever uses them."""
        return self.sidecars * self.changes * self.spread

    @property
    def read_for_strangers(self) -> float:
        """Look-ups a second of tokens that are not good."""
        return self.sidecars * self.strangers

    @property
    def read_at_start(self) -> float:
        """Look-ups a second of sidecars that start with nothing in memory."""
        return self.sidecars * self.restarts / DAY * self.tokens

    @property
    def look_ups(self) -> float:
        """All look-ups a second. At this pace each is a statement of its own: there is nobody to share one with."""
        return self.read_again + self.read_after_changes + self.read_for_strangers + self.read_at_start

    @property
    def feed_period(self) -> float:
        """Mean seconds between two reads of the feed by one sidecar, when commits come at any time."""
        if not self.listen or not self.changes:
            return self.poll_interval
        rate = self.changes
        return GATHER + (math.exp(-rate * GATHER) - math.exp(-rate * self.poll_interval)) / rate

    @property
    def feed_reads(self) -> float:
        """Reads of the change feed a second."""
        return self.sidecars / self.feed_period

    @property
    def feed_changes(self) -> float:
        """Changes a second that these reads bring: each change goes to each sidecar."""
        return self.sidecars * self.changes * self.told

    @property
    def uses(self) -> float:
        """Uses a second that are told: of each token by each sidecar, every now and then."""
        return self.sidecars * renewals(self.tokens, self.checks, USED_AGAIN)

    @property
    def batches(self) -> float:
        """Batches of uses a second; nothing is sent when nothing was noted."""
        is_empty = math.exp(-USAGE_PERIOD * self.uses / self.sidecars)
        return self.sidecars / USAGE_PERIOD * (1 - is_empty)

    @property
    def starts(self) -> float:
        """Statements a second of sidecars that start, their look-ups apart."""
        return self.sidecars * self.restarts / DAY * AT_START[self.listen]

    @property
    def statements(self) -> float:
        """All statements a second."""
        return self.look_ups + self.feed_reads + self.batches + self.starts

    @property
    def megabits(self) -> float:
        """Megabits a second from the database: records, and the feed."""
        told = (
            self.look_ups * LOOK_UP_BYTES[self.listen][1]
            + self.feed_reads * FEED_BYTES[self.listen][1]
            + self.feed_changes * CHANGE_BYTES
        )
        return told * 8 / 1e6

    @property
    def connections(self) -> int:
        """Connections that stay open."""
        return CONNECTIONS * self.sidecars

    @property
    def rush(self) -> tuple[int, int]:
        """Look-ups when every sidecar has to read everything anew, and how few statements they can share."""
        return self.sidecars * self.tokens, self.sidecars * math.ceil(self.tokens / _IN_FLIGHT)


def renewals(tokens: int, uses: float, lifetime: float) -> float:
    """Return renewals a second of what each token has: it counts for a lifetime, and is renewed at the first use after it."""
    return tokens / (lifetime + tokens / uses) if uses else 0.0


EXAMPLES: Mapping[str, Fleet] = {
    "100": Fleet(sidecars=100),
    "500": Fleet(sidecars=MAX_LISTENING),
    "10,000, `feed: poll`": Fleet(sidecars=10_000, listen=False),
    "10,000, as advised": Fleet(sidecars=10_000, listen=False, poll_interval=4.0, verdict_ttl=600.0),
}


def table(fleets: Mapping[str, Fleet] = EXAMPLES) -> str:
    """Return what docs/scaling.md says of some fleets."""
    all_of_them = list(fleets.values())
    lines = [
        _line("sidecars", fleets),
        "|---|" + "---:|" * len(fleets),
        _line("known tokens read again, /s", (f"{fleet.read_again:,.0f}" for fleet in all_of_them)),
        _line("… after a change, /s", (f"{fleet.read_after_changes:,.0f}" for fleet in all_of_them)),
        _line("… for strangers, /s", (f"{fleet.read_for_strangers:,.0f}" for fleet in all_of_them)),
        _line("… after a start, /s", (f"{fleet.read_at_start:,.0f}" for fleet in all_of_them)),
        _line("reads of the feed, /s", (f"{fleet.feed_reads:,.0f}" for fleet in all_of_them)),
        _line("… changes in them, /s", (f"{fleet.feed_changes:,.0f}" for fleet in all_of_them)),
        _line("batches of last uses, /s", (f"{fleet.batches:,.0f}" for fleet in all_of_them)),
        _line("… uses in them, /s", (f"{fleet.uses:,.0f}" for fleet in all_of_them)),
        _line("**statements, /s**", (f"**{fleet.statements:,.0f}**" for fleet in all_of_them)),
        _line("from the database, Mbit/s", (f"{fleet.megabits:,.1f}" for fleet in all_of_them)),
        _line("connections", (f"{fleet.connections:,}" for fleet in all_of_them)),
        _line("a rush: look-ups", (f"{fleet.rush[0]:,}" for fleet in all_of_them)),
        _line("… in statements, at least", (f"{fleet.rush[1]:,}" for fleet in all_of_them)),
    ]
    return "\n".join(lines)


def _line(name: str, cells: Iterable[str]) -> str:
    return f"| {' | '.join((name, *cells))} |"


if __name__ == "__main__":
    print(table())
