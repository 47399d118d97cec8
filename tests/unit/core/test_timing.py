"""What the time of a refusal tells: nothing of how much of a secret was right, and little of whether an id exists.

Times are compared with each other in one run, by medians of interleaved rounds, never with a clock's figure. A comparison that does
leak is measured in the same way and must be found, else this file could not fail.
"""

from __future__ import annotations

import ast
import hmac
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from extauthz.adapters.store.reader import SqliteReader
from extauthz.core import tokens
from extauthz.core.model import AuthType, Identity, Reason
from extauthz.core.tokens import TokenRecord
from extauthz.ports import Evidence, FeedBatch, TokenStore
from extauthz.verifiers.change_feed import Feed
from extauthz.verifiers.issued import IssuedVerifier
from extauthz.verifiers.throttling import Budget
from tests.support.memory_store import MemoryTokenStore
from tests.support.postgresql import MakePlace, fill
from tests.support.world import NOW, StillClock

pytest_plugins = ["tests.support.postgresql"]

PEPPERS = {"p1": b"a pepper for tests, 32 bytes long"}
LENGTHS = range(43)
ROUNDS = 100
THIRD = 14
LITTLE, MUCH = 0.04, 0.15
"""Share of the whole time by which the outer thirds of the lengths may differ, and by which a leaking comparison does."""


class Forgetful:
    """Remembers nothing, so that every verification is cold."""

    def recall(self, token: str) -> None:
        """Know no token."""

    def put(self, token: str, evidence: Evidence, *, lifetime: float | None = None, basis: object = None) -> None:
        """Keep nothing."""

    def forget_refusals(self) -> None:
        """Have nothing to forget."""

    def clear(self) -> None:
        """Have nothing to clear."""


class Counting:
    """Counts the look-ups of a store."""

    def __init__(self, store: TokenStore) -> None:
        self.store = store
        self.asked: list[str] = []

    def find(self, token_id: str) -> TokenRecord | None:
        """Count and pass on."""
        self.asked.append(token_id)
        found = self.store.find(token_id)
        assert isinstance(found, TokenRecord | None)
        return found


def right_and_record() -> tuple[str, TokenRecord]:
    """Mint a token and what the store keeps of it."""
    minted = tokens.mint("glean", bytes(range(48)))
    fixed = {"permission": AuthType.GLOBAL, "user": None, "scopes": frozenset({"SEARCH"}), "created_at": int(NOW), "latest": None}
    digest = tokens.digest(minted.text, PEPPERS["p1"], **fixed)  # type: ignore[arg-type]
    record = TokenRecord(
        minted.id, "d", AuthType.GLOBAL, None, frozenset({"SEARCH"}), int(NOW), "ana", int(NOW) + 9999, "p1", digest
    )
    return minted.text, record


def wrong(right: str, length: int) -> str:
    """Return a well-formed token that shares so many leading characters of the secret."""
    head, secret = right[:-49], right[-49:-6]
    other = "".join("b" if character == "a" else "a" for character in secret[length:])
    body = head + secret[:length] + other
    return body + tokens._checksum(body)


def unknown(right: str) -> str:
    """Return a well-formed token with an id that was never issued."""
    body = "glean_" + "A" * 12 + right[18:-6]
    return body + tokens._checksum(body)


def verifier_of(store: TokenStore) -> IssuedVerifier:
    """Verify with a store, from nothing each time."""
    clock = StillClock(NOW)
    feed = Feed(clock=clock, memory=660)
    feed.apply(FeedBatch(1, 0, 1))
    budget = Budget(1e9, 64, clock=clock)
    return IssuedVerifier(
        store,
        Forgetful(),
        feed,
        peppers=PEPPERS,
        prefixes=frozenset({"glean"}),
        clock=clock,
        budget=budget,
        fresh=60.0,
        max_staleness=600.0,
        contact=3.0,
    )


def medians(calls: Mapping[int, Callable[[], object]]) -> dict[int, float]:
    """Time calls in rounds, each from another place on, forwards and backwards, and return the median of each."""
    times: dict[int, list[float]] = {key: [] for key in calls}
    order = list(calls)
    for turn in range(ROUNDS):
        start = turn * 17 % len(order)
        for key in (order[start:] + order[:start])[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            calls[key]()
            times[key].append(time.perf_counter() - started)
    return {key: statistics.median(found) for key, found in times.items()}


def leak(calls: Mapping[int, Callable[[], object]], *, enough: float = 0.0, attempts: int = 2) -> float:
    """Return by which share of the whole time long and short common beginnings differ: the smallest of a few attempts.

    What leaks does so in every attempt, what only looks so on a busy machine does not; one below `enough` is the last.
    """
    shares: list[float] = []
    while len(shares) < attempts and min(shares, default=1.0) >= enough:
        found = medians(calls)
        few, many = (statistics.fmean(found[length] for length in part) for part in (LENGTHS[:THIRD], LENGTHS[-THIRD:]))
        shares.append(abs(many - few) / statistics.fmean(found.values()))
    return min(shares)


@pytest.fixture
def reader(make_place: MakePlace) -> Iterator[SqliteReader]:
    """A SQLite store with one token, read as `serve` reads it."""
    place = make_place("sqlite")
    with place.opened() as store:
        fill(store, right_and_record()[1])
    opened = SqliteReader(Path(place.where))
    yield opened
    opened.close()


@pytest.fixture(params=["memory", "sqlite"])
def verifier(request: pytest.FixtureRequest, reader: SqliteReader) -> IssuedVerifier:
    """A verifier over each store that answers at once."""
    memory = MemoryTokenStore()
    fill(memory, right_and_record()[1])
    return verifier_of(memory if request.param == "memory" else reader)


def test_the_cases_are_what_they_claim(verifier: IssuedVerifier) -> None:
    right, _ = right_and_record()
    assert isinstance(verifier.verify(right, NOW), Identity)
    for length in LENGTHS:
        assert wrong(right, length)[:18] == right[:18]
        assert verifier.verify(wrong(right, length), NOW) is Reason.TOKEN_SECRET_WRONG
    assert verifier.verify(unknown(right), NOW) is Reason.TOKEN_UNKNOWN


def test_the_time_does_not_tell_how_much_of_a_secret_was_right(verifier: IssuedVerifier) -> None:
    right, _ = right_and_record()
    calls = {length: partial(verifier.verify, wrong(right, length), NOW) for length in LENGTHS}
    assert leak(calls, enough=LITTLE, attempts=10) < LITTLE


def test_a_comparison_that_leaks_is_found(verifier: IssuedVerifier) -> None:
    """The same statistic over the same work with a comparison that stops at the first difference."""
    right, _ = right_and_record()

    def leaking(text: str) -> None:
        verifier.verify(text, NOW)
        for mine, theirs in zip(right, text, strict=True):
            if hmac.digest(b"", mine.encode(), "sha256") != hmac.digest(b"", theirs.encode(), "sha256"):
                return

    assert leak({length: partial(leaking, wrong(right, length)) for length in LENGTHS}) > MUCH


def test_an_unknown_id_costs_what_a_wrong_secret_costs(reader: SqliteReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look-up and one digest over a message of nearly the same length; what is left is reading the row."""
    right, _ = right_and_record()
    counting = Counting(reader)
    verifier = verifier_of(counting)
    digests: list[int] = []
    real = hmac.digest

    def counted(key: bytes, message: bytes, algorithm: str) -> bytes:
        digests.append(len(message))
        return real(key, message, algorithm)

    with monkeypatch.context() as patched:
        patched.setattr(tokens.hmac, "digest", counted)
        verifier.verify(unknown(right), NOW)
        verifier.verify(wrong(right, 0), NOW)
    assert len(counting.asked) == len(digests) == 2
    assert abs(digests[0] - digests[1]) < 64


def test_neither_is_much_faster_than_the_other(verifier: IssuedVerifier) -> None:
    right, _ = right_and_record()
    found = medians({0: partial(verifier.verify, unknown(right), NOW), 1: partial(verifier.verify, wrong(right, 0), NOW)})
    assert 0.5 < found[0] / found[1] < 2


# --- what no clock shows: how the digests are compared

SOURCE = Path(tokens.__file__).read_text(encoding="utf-8")
CONSTANT_TIME = {"hmac.compare_digest(dummy, _UNKNOWN_DIGEST)", "hmac.compare_digest(actual, record.digest)"}
OF_NO_SECRET = {
    "len(entropy) != ENTROPY_BYTES",
    "form is None",
    "form[1] not in prefixes",
    # A CRC over what the client sent, which it can work out by itself.
    "_checksum(text[:-_CHECKSUM]) != text[-_CHECKSUM:]",
    "latest is None",
    "latest is not None",
    "len(record.digest) == len(_UNKNOWN_DIGEST)",
    "record is None",
    "record.expires_at > latest",
    "record.revoked_at is not None",
    "now >= record.expires_at",
}
SEARCHING = {"startswith", "endswith", "removeprefix", "removesuffix", "find", "index", "count", "eq", "ne", "__eq__", "__ne__"}


def comparisons(source: str) -> tuple[set[str], set[str]]:
    """Return the calls of hmac.compare_digest in a source, and everything else in it that compares or searches."""
    constant_time, others = set(), set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr="compare_digest")):
                constant_time.add(ast.unparse(node))
            case ast.Compare() | ast.Match():
                others.add(ast.unparse(node))
            case ast.Call(func=ast.Attribute(attr=name)) if name in SEARCHING:
                others.add(ast.unparse(node))
    return constant_time, others


def test_a_secret_could_be_guessed_byte_by_byte_if_anything_else_compared_digests() -> None:
    assert comparisons(SOURCE) == (CONSTANT_TIME, OF_NO_SECRET)


COMPARED, UNKNOWN = "hmac.compare_digest(actual, record.digest)", "        hmac.compare_digest(dummy, _UNKNOWN_DIGEST)\n"


@pytest.mark.parametrize(
    ("safe", "leaking"),
    [
        (COMPARED, "(actual == record.digest)"),
        (COMPARED, "(actual in {record.digest})"),
        (COMPARED, "record.digest.startswith(actual)"),
        (COMPARED, "operator.eq(actual, record.digest)"),
        (COMPARED, f"(actual[0] == record.digest[0] and {COMPARED})"),
        (COMPARED, "hmac.compare_digest(actual[:8], record.digest[:8])"),
        (UNKNOWN, ""),
    ],
)
def test_a_comparison_of_digests_that_leaks_is_seen_in_the_source(safe: str, leaking: str) -> None:
    assert SOURCE.count(safe) == 1
    assert comparisons(SOURCE.replace(safe, leaking)) != (CONSTANT_TIME, OF_NO_SECRET)
