"""What is built from settings and a real SQLite store, at the start and by a reload, keeps to the settings of now."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin.token_requests import TokenRequest, TokenRules, issue
from extauthz.config.loader import Configuration, load
from extauthz.config.patterns import compile_patterns
from extauthz.core.act_as import ActAs
from extauthz.core.credentials import Kind
from extauthz.core.model import AuthType, Identity, Reason
from extauthz.core.tokens import TokenRecord, fingerprint
from extauthz.errors import StoreError, Unavailable
from extauthz.ports import Evidence
from extauthz.runtime.build import RuntimeBuilder, RuntimeParts
from tests.support.postgresql import ANA, KEY
from tests.support.world import NOW, PEPPER, StillClock

pytest_plugins = ["tests.support.postgresql"]

SETTINGS = """\
version: 1
server: {{listen: 127.0.0.1:9001, ops: null}}
tokens: {{store: "sqlite:///tokens.db", peppers: [{{id: p1, file: pepper}}], verdict_ttl: {fresh}, max_staleness: {stale},
  poll_interval: {fresh}}}
scopes: [SEARCH]
routes: [routes.yaml]
"""
FRESH, STALE = 40, 320
"""Seconds, neither of them a default."""
RULES = TokenRules("glean", frozenset({"SEARCH"}), 1e9, ActAs(allow=compile_patterns(["*@acme.com"])))


@dataclass
class Assembled:
    """An assembly of a folder, whose feed is read when a test says so."""

    folder: Path
    stack: AsyncExitStack
    clock: StillClock = field(default_factory=StillClock)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def start(self, *, fresh: int = FRESH, stale: int = STALE) -> None:
        """Open the store and build what decides."""
        self.assembly = RuntimeBuilder(clock=self.clock, environment={})
        self.parts: RuntimeParts = await self.assembly.open(self.configured(fresh, stale), self.stack)
        self.poll()

    async def reload(self, *, fresh: int = FRESH, stale: int = STALE) -> None:
        """Take the files as they are now."""
        configuration = self.configured(fresh, stale)
        after = await self.assembly.prepare(configuration, self.parts)
        self.assembly.adopt(configuration, self.parts, after)
        self.parts = after

    def configured(self, fresh: int, stale: int) -> Configuration:
        """Write a configuration and read it."""
        (self.folder / "extauthz.yaml").write_text(SETTINGS.format(fresh=f"{fresh}s", stale=f"{stale}s"))
        return load(self.folder / "extauthz.yaml")

    def poll(self) -> None:
        """Read the change feed, as the follower does."""
        assert self.parts.store is not None
        reader, feed = self.parts.store.reader, self.parts.store.feed
        assert isinstance(reader, SqliteReader)
        reader.version()
        feed.apply(reader.read_feed(feed.position))

    def token(self, pepper: bytes = PEPPER, *, known: bytes | None = None) -> tuple[str, TokenRecord]:
        """Put a token into the store; return its text and record. `known` is the pepper whose fingerprint is kept with it."""
        order = TokenRequest("a token", AuthType.USER, frozenset({"SEARCH"}), NOW - 60, "root", NOW + 86_400, "ana@acme.com")
        entropy = hashlib.sha384(str(next(self.numbers)).encode()).digest()
        text, record = issue(order, RULES, pepper_id="p1", pepper=pepper, entropy=entropy)
        with self.store() as store:
            store.add(record, fingerprint(known or pepper))
        return text.text, record

    def store(self) -> closing[SqlTokenStore]:
        """Open the store to write, as a command does."""
        return closing(SqlTokenStore(self.folder / "tokens.db", audit=KEY))

    def verify(self, text: str) -> Evidence:
        """Verify a token as a check does; raises Unavailable."""
        evidence = self.parts.runtime.verifiers[Kind.ISSUED].verify(text, self.clock.now())
        assert isinstance(evidence, Identity | Reason)
        return evidence


@pytest.fixture
async def assembled(tmp_path: Path, sqlite_template: Path) -> AsyncIterator[Assembled]:
    shutil.copy(sqlite_template, tmp_path / "tokens.db")
    (tmp_path / "pepper").write_bytes(PEPPER)
    (tmp_path / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    async with AsyncExitStack() as stack:
        yield Assembled(tmp_path, stack)


async def began(assembled: Assembled, how: str) -> None:
    """Serve with FRESH and STALE from the start on, or since a reload."""
    if how == "from the start":
        await assembled.start()
        return
    await assembled.start(fresh=1, stale=1)
    await assembled.reload()


async def test_a_reload_that_was_prepared_needs_no_secret_any_more(assembled: Assembled) -> None:
    """A commit cannot fail: what it goes on with was read when it was prepared."""
    await assembled.start()
    configuration = assembled.configured(FRESH, STALE)
    after = await assembled.assembly.prepare(configuration, assembled.parts)
    (assembled.folder / "pepper").unlink()
    assembled.assembly.adopt(configuration, assembled.parts, after)
    await assembled.assembly.retire(configuration, after)
    assembled.parts = after
    text, _ = assembled.token()
    assembled.poll()
    assert isinstance(assembled.verify(text), Identity)


def _out_of_reach(_: SqliteReader, __: str) -> TokenRecord | None:
    raise Unavailable(Reason.STORE_UNAVAILABLE)


@pytest.mark.parametrize("how", ["from the start", "since a reload"])
async def test_a_revoked_token_does_not_become_good_again_while_look_ups_fail(
    assembled: Assembled, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The feed is read on and on: as long as a verdict could be used it remembers the revocation."""
    await began(assembled, how)
    text, record = assembled.token()
    assembled.poll()
    assert isinstance(assembled.verify(text), Identity)
    with assembled.store() as store:
        store.revoke([record.id], None, ANA)
    assembled.poll()
    monkeypatch.setattr(SqliteReader, "find", _out_of_reach)
    for _ in range((FRESH + STALE) // 20 + 1):
        assembled.clock.advance(20)
        assembled.poll()
        with pytest.raises(Unavailable):
            assembled.verify(text)


@pytest.mark.parametrize("how", ["from the start", "since a reload"])
async def test_a_known_token_serves_as_long_as_the_store_may_be_away(
    assembled: Assembled, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await began(assembled, how)
    text, _ = assembled.token()
    assembled.poll()
    assembled.verify(text)
    monkeypatch.setattr(SqliteReader, "find", _out_of_reach)
    assembled.clock.advance(STALE - 1)
    assert isinstance(assembled.verify(text), Identity)
    assembled.clock.advance(1)
    with pytest.raises(Unavailable) as caught:
        assembled.verify(text)
    assert caught.value.reason is Reason.STORE_STALE


async def test_a_pepper_that_was_replaced_verifies_no_token_after_a_reload_and_the_new_one_does(assembled: Assembled) -> None:
    """The section of the settings is the same: only what its files hold has changed."""
    await assembled.start()
    before = assembled.parts.runtime.verifiers[Kind.ISSUED]
    new = b"another pepper, 32 bytes or more"
    (assembled.folder / "pepper").write_bytes(new)
    await assembled.reload()
    good, _ = assembled.token(new)
    forged, _ = assembled.token(PEPPER, known=new)
    assembled.poll()
    assert isinstance(assembled.verify(good), Identity)
    assert assembled.verify(forged) is Reason.TOKEN_SECRET_WRONG

    after = assembled.parts.runtime.verifiers[Kind.ISSUED]
    assert after is not before
    await assembled.reload()
    assert assembled.parts.runtime.verifiers[Kind.ISSUED] is after, "nothing has changed: what is remembered stays"


@pytest.mark.parametrize("how", ["from the start", "since a reload"])
async def test_a_token_is_looked_up_and_the_feed_read_as_often_as_the_settings_say(
    assembled: Assembled, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await began(assembled, how)
    assert assembled.parts.follower is not None
    assert assembled.parts.follower.poll_interval == FRESH
    text, _ = assembled.token()
    assembled.poll()
    assembled.verify(text)
    find, asked = SqliteReader.find, []

    def watched(reader: SqliteReader, token_id: str) -> TokenRecord | None:
        asked.append(token_id)
        return find(reader, token_id)

    monkeypatch.setattr(SqliteReader, "find", watched)
    for seconds, times in ((FRESH - 1, 0), (1, 1), (FRESH - 1, 1), (1, 2)):
        assembled.clock.advance(seconds)
        assembled.poll()
        assert isinstance(assembled.verify(text), Identity)
        assert len(asked) == times


async def test_a_pepper_of_before_that_comes_back_is_refused_instead_of_every_token(assembled: Assembled) -> None:
    """What the store is compared with are the peppers of the last reload, not those of the start."""
    await assembled.start()
    new = b"another pepper, 32 bytes or more"
    (assembled.folder / "pepper").write_bytes(new)
    await assembled.reload()
    good, _ = assembled.token(new)
    assembled.poll()
    (assembled.folder / "pepper").write_bytes(PEPPER)
    with pytest.raises(StoreError, match="pepper 'p1' is not the one that the tokens in the store were made with"):
        await assembled.reload()
    assert isinstance(assembled.verify(good), Identity)
