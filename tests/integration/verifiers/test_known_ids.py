"""Which ids exist, told from memory: complete or not at all, bounded, and never in the way of a token that was just made."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.adapters.store import following, reader
from extauthz.adapters.store.following import PostgresFollower, SqliteFollower
from extauthz.adapters.store.link import DatabaseLink
from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin.token_requests import TokenRequest, TokenRules, issue
from extauthz.config.loader import Configuration, load
from extauthz.config.patterns import compile_patterns
from extauthz.core.act_as import ActAs
from extauthz.core.credentials import Kind
from extauthz.core.model import AuthType, Identity, Reason
from extauthz.core.tokens import fingerprint, mint
from extauthz.errors import Unavailable
from extauthz.ports import FeedBatch
from extauthz.runtime.build import RuntimeBuilder, RuntimeParts
from extauthz.runtime.store import verifier_of
from extauthz.serve import figures
from extauthz.verifiers import known_ids
from extauthz.verifiers.change_feed import Feed
from extauthz.verifiers.issued import IssuedVerifier
from extauthz.verifiers.known_ids import PAGE, KnownIds
from extauthz.verifiers.throttling import Budget
from extauthz.verifiers.verdicts import VerdictCache
from tests.support.memory_store import MemoryTokenStore
from tests.support.postgresql import ANA, FINGERPRINT, KEY, Place, token
from tests.support.waiting import until
from tests.support.world import NOW, PEPPER, StillClock

pytest_plugins = ["tests.support.postgresql"]

RULES = TokenRules("glean", frozenset({"SEARCH"}), 1e9, ActAs(allow=compile_patterns(["*@acme.com"])))


def stranger(number: int) -> str:
    """Make up a token whose checksum is right."""
    return mint("glean", hashlib.sha384(f"stranger {number}".encode()).digest()).text


def read_all(ids: KnownIds, store: MemoryTokenStore) -> None:
    """Read page after page, as a follower does."""
    while (place := ids.next_page) is not None:
        ids.take(place, store.read_ids(place[1], PAGE))


# --- the set


def test_nothing_is_read_before_the_feed_has_a_position() -> None:
    ids = KnownIds()
    assert (ids.next_page, ids.complete, ids.count) == (None, False, 0)
    ids.add(["a"])
    assert "a" not in ids
    ids.begin()
    assert ids.next_page is not None


def test_a_page_that_is_not_full_is_the_last_one() -> None:
    ids = KnownIds()
    ids.begin()
    names = [f"{number:012}" for number in range(2 * PAGE)]
    for expected in (names[:PAGE], names[PAGE:], []):
        assert not ids.complete
        place = ids.next_page
        assert place is not None
        ids.take(place, expected)
    assert (ids.complete, ids.next_page, ids.count) == (True, None, 2 * PAGE)
    assert all(name in ids for name in names)
    assert not any(f"{number:012}x" in ids for number in range(10_000))


def test_a_page_of_an_earlier_reading_completes_nothing() -> None:
    ids = KnownIds()
    ids.begin()
    place = ids.next_page
    assert place is not None
    ids.begin()
    ids.take(place, ["a"])
    assert not ids.complete
    assert "a" not in ids


def test_too_many_ids_are_none(caplog: pytest.LogCaptureFixture) -> None:
    ids = KnownIds(3)
    ids.begin()
    ids.add(["a", "b", "c", "a"])
    assert (ids.count, ids.full) == (3, False)
    ids.add(["d", "e"])
    assert (ids.count, ids.full, ids.complete, ids.next_page) == (0, True, False, None)
    ids.add(["f"])
    assert [record.getMessage() for record in caplog.records] == [
        "more tokens than limits.known_ids: unknown ids are looked up in the store"
    ]
    ids.resize(10)
    assert (ids.full, ids.next_page is None) == (False, False)


def test_zero_switches_it_off() -> None:
    ids = KnownIds(0)
    ids.begin()
    assert (ids.next_page, ids.complete, ids.full) == (None, False, False)


def test_a_million_ids_take_at_most_thirty_megabytes() -> None:
    """All that the process grows by while they are read, page by page."""
    program = """
import psutil
from extauthz.verifiers.known_ids import PAGE, KnownIds
from extauthz.runtime.store import verifier_of
ids = KnownIds()
before = psutil.Process().memory_info().rss
ids.begin()
for first in range(0, 1_000_001, PAGE):
    ids.take(ids.next_page, [f"{number:012}" for number in range(first, min(first + PAGE, 1_000_000))])
print(ids.count, ids.complete, psutil.Process().memory_info().rss - before)
"""
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60).stdout.split()
    assert told[:2] == ["1000000", "True"]
    assert 8e6 < int(told[2]) <= 30e6


def test_two_processes_hash_differently() -> None:
    """Whoever knows the ids of one cannot make an id that collides in another."""
    assert KnownIds()._hash("a" * 12) != KnownIds()._hash("a" * 12)


def test_an_id_that_collides_counts_as_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KnownIds, "_hash", lambda self, token_id: 7)
    ids = KnownIds()
    ids.begin()
    ids.add(["a"])
    assert "b" in ids


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_complete_set_misses_no_token_that_the_feed_told(data: st.DataObject) -> None:
    """Whatever is made, read, missed and read again in between."""
    store, clock = MemoryTokenStore(), StillClock()
    ids = KnownIds()
    feed = Feed(clock=clock, memory=60, ids=ids)
    names: list[str] = []
    told = 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(known_ids, "PAGE", 3)
        for action in data.draw(st.lists(st.sampled_from(["made", "made", "page", "page", "feed", "gap"]), max_size=60)):
            match action:
                case "made":
                    names.append(hashlib.sha256(str(len(names)).encode()).hexdigest()[:12])
                    store.add(token(names[-1]), FINGERPRINT)
                case "page" if (place := ids.next_page) is not None:
                    ids.take(place, store.read_ids(place[1], 3))
                case "feed":
                    feed.apply(store.read_feed(feed.position))
                    told = len(names)
                case "gap":
                    store._feed.clear()
            if ids.complete:
                assert [name for name in names[:told] if name not in ids] == []
        feed.apply(store.read_feed(feed.position))
        while (place := ids.next_page) is not None:
            ids.take(place, store.read_ids(place[1], 3))
        assert ids.complete
        assert [name for name in names if name not in ids] == []


# --- read by those who follow a store


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ids a page, so that a few tokens are several."""
    for module in ("extauthz.verifiers.known_ids.PAGE", "extauthz.adapters.store.following.IDS_PAGE"):
        monkeypatch.setattr(module, 3)


@asynccontextmanager
async def followed(place: Place) -> AsyncIterator[Feed]:
    """Follow a store as `serve` does."""
    feed = Feed(clock=StillClock(), memory=60, ids=KnownIds())
    with ExitStack() as stack:
        follower: SqliteFollower | PostgresFollower
        if isinstance(place.where, Path):
            file = stack.enter_context(closing(SqliteReader(place.where)))
            follower = SqliteFollower(file, position=lambda: feed.position, apply=feed.apply, ids=feed.ids, look_interval=0.01)
        else:
            link = DatabaseLink(place.where, None, prepare=True)
            follower = PostgresFollower(link, position=lambda: feed.position, apply=feed.apply, ids=feed.ids)
        task = asyncio.create_task(follower.run())
        try:
            yield feed
        finally:
            task.cancel()
            await asyncio.wait({task})


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("count", [0, 1, 3, 7])
async def test_the_ids_of_a_store_are_read_and_followed(place: Place, count: int) -> None:
    names = [f"{letter}{letter.upper()}{number:010}" for number, letter in enumerate("zyxwvut"[:count])]
    with place.opened() as store:
        store.add_many([token(name) for name in names], {"p1": FINGERPRINT}, ANA)
        async with followed(place) as feed:
            await until(lambda: feed.ids.complete)
            assert feed.ids.count == count
            assert [name in feed.ids for name in names] == [True] * count
            store.add(token("newcomer0000"), FINGERPRINT)
            await until(lambda: "newcomer0000" in feed.ids)
            assert feed.ids.complete


@pytest.mark.usefixtures("small_pages")
async def test_the_ids_are_read_again_behind_a_gap(place: Place) -> None:
    with place.opened() as store:
        store.add_many([token(f"{number:012}") for number in range(7)], {"p1": FINGERPRINT}, ANA)
        async with followed(place) as feed:
            await until(lambda: feed.ids.complete)
            generation = feed.generation
            with place.raw() as connection:
                connection.execute("BEGIN")
                connection.execute("UPDATE store_state SET head = head + 9")
                connection.execute("COMMIT")
                if place.kind == "postgresql":
                    connection.execute("NOTIFY extauthz_changes")
            await until(lambda: feed.generation > generation and feed.ids.complete)
            assert feed.ids.count == 7


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Ids that cannot be read, on either database, until this is undone."""
    with monkeypatch.context() as patched:
        patched.setattr(following, "_IDS", "SELECT id FROM nowhere WHERE id > %s LIMIT %s")
        patched.setattr(reader, "_IDS", "SELECT id FROM nowhere WHERE id > ? LIMIT ?")
        yield patched


@pytest.mark.usefixtures("unreadable")
async def test_ids_that_cannot_be_read_do_not_stop_the_feed(place: Place) -> None:
    with place.opened() as store:
        store.add(token(), FINGERPRINT)
        async with followed(place) as feed:
            await until(lambda: feed.position == 1)
            store.add(token("b" * 12), FINGERPRINT)
            await until(lambda: feed.position == 2)
            assert "b" * 12 in feed.ids
            assert not feed.ids.complete


async def test_ids_that_could_not_be_read_are_read_later(
    place: Place, monkeypatch: pytest.MonkeyPatch, unreadable: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "IDS_RETRY", 0.3)
    with place.opened() as store:
        store.add(token(), FINGERPRINT)
        async with followed(place) as feed:
            await until(lambda: feed.position == 1)
            unreadable.undo()
            await until(lambda: feed.ids.complete)
            assert feed.ids.count == 1


# --- what it is good for


class Flooded:
    """A verifier with a hundred look-ups a second, ten of them for strangers, on a store full of tokens that nobody used yet."""

    def __init__(self) -> None:
        self.clock = StillClock()
        self.store = MemoryTokenStore()
        self.feed = Feed(clock=self.clock, memory=660.0, ids=KnownIds())
        self.verifier = IssuedVerifier(
            self.store,
            VerdictCache(Kind.ISSUED, bytes(32), lifetime=660.0, clock=self.clock),
            self.feed,
            peppers={"p1": PEPPER},
            prefixes=frozenset({"glean"}),
            clock=self.clock,
            budget=Budget(100, 64, clock=self.clock),
            strangers=Budget(10, 8, clock=self.clock),
            fresh=60.0,
            max_staleness=600.0,
            contact=3.0,
        )
        self.real = [self.made() for _ in range(40)]
        self._stranger = 0

    def made(self) -> str:
        """Make a token that is good; return its text."""
        order = TokenRequest("a token", AuthType.USER, frozenset({"SEARCH"}), NOW - 60, "root", NOW + 3600, "ana@acme.com")
        entropy = hashlib.sha384(str(len(self.store.list_tokens())).encode()).digest()
        text, record = issue(order, RULES, pepper_id="p1", pepper=PEPPER, entropy=entropy)
        self.store.add(record, fingerprint(PEPPER))
        return text.text

    def follow(self) -> None:
        """Read the feed, and the ids that are wanted."""
        self.feed.apply(self.store.read_feed(self.feed.position))
        read_all(self.feed.ids, self.store)

    def ask(self, token_: str) -> str:
        """Return what is told of a token."""
        try:
            found = self.verifier.verify(token_, self.clock.now())
        except Unavailable as unavailable:
            return unavailable.reason.value
        assert isinstance(found, Identity | Reason)
        return "good" if isinstance(found, Identity) else found.value

    def flood(self, count: int) -> Counter[str]:
        """Ask about made-up tokens whose checksums are right; return what was told."""
        answers: Counter[str] = Counter()
        for _ in range(count):
            self._stranger += 1
            answers[self.ask(stranger(self._stranger))] += 1
        return answers


@pytest.fixture
def flooded() -> Flooded:
    return Flooded()


def test_made_up_tokens_crowd_out_no_real_one(flooded: Flooded) -> None:
    flooded.follow()
    answers: Counter[str] = Counter()
    for real in flooded.real:
        flooded.clock.advance(0.012)
        answers += flooded.flood(10)
        assert flooded.ask(real) == "good"
    assert answers == {"token_unknown": 400}
    assert flooded.verifier.unknown > 380
    assert flooded.verifier.shed == 0


def test_while_the_ids_are_read_the_budget_is_everybodys(flooded: Flooded) -> None:
    """As it is where the set is off: whoever comes first is looked up, and nobody is called unknown without a look."""
    flooded.feed.apply(flooded.store.read_feed(flooded.feed.position))
    answers = flooded.flood(150)
    assert answers == {"token_unknown": 100, "overloaded": 50}
    assert flooded.verifier.unknown == 0


def test_a_token_that_was_just_made_is_found_before_the_feed_tells(flooded: Flooded) -> None:
    flooded.follow()
    flooded.flood(5)
    assert flooded.ask(flooded.made()) == "good"


def test_in_a_flood_a_new_token_waits_for_the_feed_and_no_longer(flooded: Flooded) -> None:
    flooded.follow()
    flooded.flood(200)
    new = flooded.made()
    assert flooded.ask(new) == "token_unknown"
    flooded.follow()
    assert flooded.ask(new) == "good"


def test_without_contact_nobody_is_called_unknown(flooded: Flooded) -> None:
    """A token may have been made since."""
    flooded.follow()
    flooded.clock.advance(3.0)
    assert flooded.flood(50) == {"token_unknown": 10, "overloaded": 40}
    assert flooded.verifier.shed == 40
    flooded.follow()
    assert flooded.flood(50) == {"token_unknown": 50}


def test_while_changes_are_left_to_be_read_nobody_is_called_unknown(flooded: Flooded) -> None:
    """It may be one of an import."""
    flooded.follow()
    position = flooded.feed.position
    flooded.feed.apply(FeedBatch(0, position + 9, 1, ((position + 1, "another"),), more=True))
    assert flooded.flood(50) == {"token_unknown": 10, "overloaded": 40}


def test_strangers_take_no_more_than_their_share_in_all(flooded: Flooded) -> None:
    flooded.follow()
    flooded.flood(1_000)
    assert [flooded.ask(real) for real in flooded.real] == ["good"] * 40
    assert flooded.verifier.queries["ok"] == 50


def test_a_rewound_store_has_no_unknown_ids(flooded: Flooded) -> None:
    flooded.follow()
    flooded.feed.apply(FeedBatch(0, 0, 1))
    assert flooded.flood(20) == {"store_rewound": 20}


def test_a_revoked_token_is_known(flooded: Flooded) -> None:
    revoked = flooded.real[0].split("_")[1]
    flooded.store.revoke([revoked], "lost", ANA)
    flooded.follow()
    flooded.flood(100)
    assert flooded.ask(flooded.real[0]) == "token_revoked"


def test_a_look_up_that_no_budget_is_left_for_gives_its_share_back(flooded: Flooded) -> None:
    """The budget of all is used up by real tokens: a stranger is not called unknown, and the share of strangers stays whole."""
    flooded.follow()
    for _ in range(64):
        flooded.verifier._budget.take()
    share = flooded.verifier._strangers
    assert share is not None
    assert flooded.flood(1) == {"overloaded": 1}
    assert share.under_way == 0


# --- as it is built from settings

SETTINGS = """\
version: 1
server: {listen: 127.0.0.1:9001, ops: null}
tokens: {store: "sqlite:///tokens.db", peppers: [{id: p1, file: pepper}]}
scopes: [SEARCH]
routes: [routes.yaml]
limits: {store_per_second: 50, known_ids: %d}
"""


@pytest.mark.parametrize(("poll_interval", "contact"), [("250ms", 1.25), ("2s", 3.0), ("30s", 31.0)])
def test_contact_is_a_poll_interval_and_a_second(tmp_path: Path, poll_interval: str, contact: float) -> None:
    """Longer, and ids are called unknown that may have been made since; shorter, and a flood shuts out whoever polls seldom."""
    (tmp_path / "pepper").write_bytes(PEPPER)
    (tmp_path / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    tokens = f"tokens: {{poll_interval: {poll_interval}, "
    (tmp_path / "extauthz.yaml").write_text((SETTINGS % 1_000).replace("tokens: {", tokens))
    flooded, configuration = Flooded(), load(tmp_path / "extauthz.yaml")
    verdicts = VerdictCache(Kind.ISSUED, bytes(32), lifetime=660.0, clock=flooded.clock)
    flooded.verifier = verifier_of(configuration, flooded.store, flooded.feed, {"p1": PEPPER}, verdicts, clock=flooded.clock)
    flooded.follow()
    flooded.clock.advance(contact - 0.1)
    assert flooded.flood(50) == {"token_unknown": 50}
    flooded.clock.advance(0.1)
    assert set(flooded.flood(50)) == {"overloaded"}


async def test_what_serves_reads_the_ids_and_follows_its_limit(tmp_path: Path, sqlite_template: Path) -> None:
    shutil.copy(sqlite_template, tmp_path / "tokens.db")
    (tmp_path / "pepper").write_bytes(PEPPER)
    (tmp_path / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    with closing(SqlTokenStore(tmp_path / "tokens.db", audit=KEY)) as store:
        store.add_many([token(f"{number:012}") for number in range(5)], {"p1": fingerprint(PEPPER)}, ANA)

    def configured(known: int) -> Configuration:
        (tmp_path / "extauthz.yaml").write_text(SETTINGS % known)
        return load(tmp_path / "extauthz.yaml")

    def refused(parts: RuntimeParts) -> Counter[str]:
        verifier = parts.runtime.verifiers[Kind.ISSUED]
        answers: Counter[str] = Counter()
        for number in range(30):
            try:
                answers[str(verifier.verify(stranger(number), NOW))] += 1
            except Unavailable as unavailable:
                answers[unavailable.reason.value] += 1
        return answers

    async with AsyncExitStack() as stack:
        clock = StillClock()
        assembly = RuntimeBuilder(clock=clock)
        parts = await assembly.open(configured(1_000), stack)
        assert parts.follower is not None
        assert parts.feed is not None
        feed = parts.feed
        task = asyncio.create_task(parts.follower.run())
        try:
            await until(lambda: feed.ids.complete)
            assert feed.ids.count == 5
            assert refused(parts) == {"token_unknown": 30}
            assert figures.of_parts(parts)["extauthz_unknown_ids_total", ()] == 25.0
            for limit, full in ((4, True), (0, False), (5, False)):
                configuration = configured(limit)
                after = await assembly.prepare(configuration, parts)
                assembly.adopt(configuration, parts, after)
                parts = after
                await until(lambda limit=limit: feed.ids.full or feed.ids.complete or not limit)  # type: ignore[misc]
                assert (feed.ids.full, feed.ids.complete) == (full, limit == 5)
        finally:
            task.cancel()
            await asyncio.wait({task})


def test_a_look_up_gives_back_all_that_it_took(flooded: Flooded) -> None:
    """What is not given back is missing for ever: after 64 such look-ups no token would be found any more."""
    flooded.follow()
    for _ in range(100):
        flooded.clock.advance(1.0)
        flooded.follow()
        assert flooded.flood(1) == {"token_unknown": 1}
    assert flooded.verifier.unknown == 0  # each of them was looked up
    assert flooded.verifier.queries == {"ok": 100, "failed": 0}
    assert flooded.ask(flooded.real[0]) == "good"


def test_without_a_budget_for_strangers_every_id_is_looked_up(flooded: Flooded) -> None:
    flooded.verifier._strangers = None
    flooded.follow()
    assert flooded.feed.ids.complete
    assert flooded.flood(20) == {"token_unknown": 20}
    assert (flooded.verifier.unknown, flooded.verifier.queries["ok"]) == (0, 20)
