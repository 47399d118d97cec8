"""The token store as `serve` holds it open: for look-ups, for its change feed, and for last uses; it outlives reloads."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from extauthz.adapters.store.following import PostgresFollower, SqliteFollower
from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.usage import SqliteUsage
from extauthz.config.loader import Configuration
from extauthz.config.secrets import Secrets
from extauthz.config.settings import LimitsSection, TokensSection
from extauthz.config.vocabulary import kept_scope
from extauthz.ports import Clock, TokenStore, UsageStore, Verdicts
from extauthz.verifiers.change_feed import Feed
from extauthz.verifiers.issued import IssuedVerifier
from extauthz.verifiers.known_ids import KnownIds
from extauthz.verifiers.throttling import Budget

if TYPE_CHECKING:
    from extauthz.adapters.store.link import DatabaseLink
    from extauthz.adapters.store.postgres import PostgresReader

STRANGERS = 0.1
"""The share of look-ups for ids that are not in memory while all that exist are."""
FEED_GRACE = 1.0
"""Seconds beyond the poll interval after which a read of the feed is overdue."""


@dataclass(slots=True)
class OpenedStore:
    """A store that is open, and the peppers that its tokens were checked against."""

    reader: SqliteReader | PostgresReader
    feed: Feed
    follower: SqliteFollower | PostgresFollower
    usage: UsageStore
    peppers: Mapping[str, bytes] = field(repr=False)
    links: tuple[DatabaseLink, ...] = ()

    async def check(self, peppers: Mapping[str, bytes], now: float) -> None:
        """Raise StoreError if tokens need other peppers than these, or if that cannot be read."""
        if dict(peppers) == dict(self.peppers):
            return
        if isinstance(self.reader, SqliteReader):
            self.reader.check_peppers(peppers, int(now))
        else:
            await self.reader.check_peppers(peppers, int(now))

    def renew(self, tokens: TokensSection, limits: LimitsSection, secrets: Secrets) -> None:
        """Go on with the settings of another configuration."""
        self.peppers = secrets.peppers
        self.feed.ids.resize(limits.known_ids)
        self.feed.remember(feed_memory(tokens))
        self.follower.poll_interval = tokens.poll_interval
        if not isinstance(self.reader, SqliteReader):
            self.reader.peppers = secrets.peppers
        for link in self.links:
            link.use_password(secrets.store_password)


def verifier_of(
    configuration: Configuration, store: TokenStore, feed: Feed, peppers: Mapping[str, bytes], verdicts: Verdicts, *, clock: Clock
) -> IssuedVerifier:
    """Build what verifies issued tokens; a tenth of the look-ups is for ids that no token may have."""
    tokens, limits = configuration.settings.tokens, configuration.settings.limits
    if tokens is None:
        raise ValueError("no section `tokens`")
    per_second, in_flight = limits.store_per_second, limits.store_in_flight
    vocabulary = frozenset(configuration.settings.scopes)
    return IssuedVerifier(
        store,
        verdicts,
        feed,
        peppers=peppers,
        prefixes=frozenset((tokens.prefix, *tokens.accept_prefixes)),
        clock=clock,
        budget=Budget(per_second, in_flight, clock=clock),
        strangers=Budget(max(1.0, per_second * STRANGERS), max(1, int(in_flight * STRANGERS)), clock=clock),
        fresh=tokens.verdict_ttl,
        max_staleness=tokens.max_staleness,
        contact=tokens.poll_interval + FEED_GRACE,
        written=lambda names: frozenset(kept_scope(name, vocabulary) for name in names),
    )


def feed_memory(tokens: TokensSection) -> float:
    """Return for how many seconds a verdict on an issued token can be used at all, and a change has to be remembered."""
    return tokens.verdict_ttl + tokens.max_staleness


async def open_store(
    configuration: Configuration, secrets: Secrets, stack: contextlib.AsyncExitStack, *, clock: Clock
) -> OpenedStore | None:
    """Open the store, to be closed by the stack; None if issued tokens are off. Raises StoreError."""
    place, tokens = configuration.store_place, configuration.settings.tokens
    if place is None or tokens is None:
        return None
    peppers = secrets.peppers
    feed = Feed(clock=clock, memory=feed_memory(tokens), ids=KnownIds(configuration.settings.limits.known_ids))

    def position() -> int:
        return feed.position

    if isinstance(place, Path):
        reader = SqliteReader(place)
        stack.callback(reader.close)
        reader.check_peppers(peppers, int(clock.now()))
        file = SqliteFollower(reader, position=position, apply=feed.apply, ids=feed.ids, poll_interval=tokens.poll_interval)
        return OpenedStore(reader, feed, file, SqliteUsage(reader), peppers)
    # Eight megabytes that a SQLite store has no use for.
    from extauthz.adapters.store.link import DatabaseLink
    from extauthz.adapters.store.postgres import PostgresReader, PostgresUsage

    password, listen = secrets.store_password, tokens.feed == "notify"
    database = PostgresReader(place, password=password, peppers=peppers, clock=clock, prepare=listen)
    await database.open()
    stack.push_async_callback(database.close)
    usage = PostgresUsage(place, password=password)
    stack.push_async_callback(usage.close)
    link = DatabaseLink(place, password, prepare=listen)
    server = PostgresFollower(
        link, position=position, apply=feed.apply, ids=feed.ids, poll_interval=tokens.poll_interval, listen=listen
    )
    return OpenedStore(database, feed, server, usage, peppers, (database.link, usage.link, link))
