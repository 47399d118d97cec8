"""What the change feed makes of what a store tells it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.feed import UNKNOWN, Feed
from extauthz.ports import FeedBatch
from tests.support.world import StillClock

MEMORY = 660.0


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def feed(clock: StillClock) -> Feed:
    """A feed that has read once: position 10."""
    made = Feed(clock=clock, memory=MEMORY)
    made.apply(FeedBatch(epoch=0, head=10, oldest=1))
    return made


def changes(*numbers: int, epoch: int = 0, oldest: int = 1) -> FeedBatch:
    return FeedBatch(epoch, max(numbers), oldest, tuple((number, f"token {number}") for number in numbers))


def test_before_the_first_read_nothing_is_known(clock: StillClock) -> None:
    feed = Feed(clock=clock, memory=MEMORY)
    before = feed.mark
    assert (feed.position, feed.age) == (UNKNOWN, float("inf"))
    feed.apply(FeedBatch(0, 10, 1))

    assert (feed.position, feed.age) == (10, 0.0)
    assert feed.changed_since("any", before), "what was read before may be older than the first position"
    assert not feed.changed_since("any", feed.mark)


def test_the_head_of_the_audit_is_kept_as_it_was_told_last(clock: StillClock) -> None:
    """Also one of a store that is older than it was: somebody is watching it."""
    feed = Feed(clock=clock, memory=MEMORY)
    assert feed.audit is None
    for batch in (FeedBatch(0, 10, 1), FeedBatch(0, 11, 1, ((11, "a"),), (11, "ab")), FeedBatch(0, 9, 1, (), (9, "cd"))):
        feed.apply(batch)
        assert feed.audit == batch.audit
    assert feed.rewound


def test_a_change_voids_what_was_read_before_it_and_nothing_else(feed: Feed) -> None:
    before = feed.mark
    feed.apply(changes(11, 12))
    after = feed.mark

    assert feed.changed_since("token 11", before)
    assert feed.changed_since("token 12", before)
    assert not feed.changed_since("token 13", before)
    assert not feed.changed_since("token 11", after)
    assert feed.position == 12


def test_a_token_that_changes_again_is_void_again(feed: Feed) -> None:
    feed.apply(FeedBatch(0, 11, 1, ((11, "a"),)))
    between = feed.mark
    feed.apply(FeedBatch(0, 12, 1, ((12, "a"),)))
    assert feed.changed_since("a", between)


def test_a_batch_that_was_read_twice_changes_nothing(feed: Feed) -> None:
    feed.apply(changes(11, 12))
    mark = feed.mark
    feed.apply(changes(11, 12))
    assert feed.mark == mark
    assert not feed.changed_since("token 12", mark)


@pytest.mark.parametrize(
    "batch",
    [
        changes(13, 14),
        changes(11, 13),
        FeedBatch(0, 20, 21),
        FeedBatch(0, 20, 15),
        FeedBatch(0, 20, 15, ((15, "token 15"),)),
        FeedBatch(0, 12, 1),
        FeedBatch(0, 12, 1, ((11, "token 11"),)),
    ],
    ids=[
        "the first is missing",
        "one between is missing",
        "none is kept",
        "kept ones are younger",
        "and come",
        "all are missing",
        "the last is missing",
    ],
)
def test_a_gap_voids_everything(feed: Feed, batch: FeedBatch) -> None:
    before = feed.mark
    feed.apply(batch)

    assert feed.changed_since("any", before)
    assert (feed.position, feed.generation) == (batch.head, 2)
    assert feed.age == 0.0


@pytest.mark.parametrize("oldest", [1, 11], ids=["all is kept", "nothing is kept"])
def test_nothing_new_is_contact(feed: Feed, clock: StillClock, oldest: int) -> None:
    mark = feed.mark
    clock.advance(30)
    assert feed.age == 30.0
    feed.apply(FeedBatch(0, 10, oldest))
    assert (feed.mark, feed.age) == (mark, 0.0)


def test_a_head_that_goes_back_is_a_rewound_store_until_the_restore_is_accepted(feed: Feed, clock: StillClock) -> None:
    before = feed.mark
    clock.advance(5)
    feed.apply(FeedBatch(0, 9, 1))
    assert (feed.rewound, feed.age) == (True, 5.0)
    feed.apply(changes(11))
    assert feed.rewound, "new numbers do not make it the old store"
    feed.apply(FeedBatch(1, 30, 31))

    assert (feed.rewound, feed.position, feed.age) == (False, 30, 0.0)
    assert feed.changed_since("any", before)


@pytest.mark.parametrize("oldest", [1, 200], ids=["all changes", "a gap, which would begin anew"])
def test_a_restored_store_is_not_believed_because_it_has_more_changes_by_now(feed: Feed, clock: StillClock, oldest: int) -> None:
    """It goes on from the older state, past the position of before: the revocations that were lost are still lost."""
    position, generation = feed.position, feed.generation
    feed.apply(FeedBatch(0, position - 1, 1))
    clock.advance(5)
    for head in (position + 1, position + 300):
        later = tuple((number, f"t{number}") for number in range(max(oldest, position + 1), head + 1))
        feed.apply(FeedBatch(0, head, oldest, later))
        assert (feed.rewound, feed.position, feed.generation) == (True, position, generation)
    assert feed.age >= 5


def test_an_epoch_that_goes_back_is_a_rewound_store(clock: StillClock) -> None:
    feed = Feed(clock=clock, memory=MEMORY)
    feed.apply(FeedBatch(3, 10, 1))
    feed.apply(FeedBatch(2, 99, 1))
    assert feed.rewound


def test_changes_are_remembered_for_a_while(feed: Feed, clock: StillClock) -> None:
    before = feed.mark
    feed.apply(changes(11))
    clock.advance(MEMORY)
    feed.apply(changes(12))
    assert feed.changed_since("token 11", before)
    clock.advance(0.1)
    feed.apply(changes(13))
    assert not feed.changed_since("token 11", before)
    assert feed.changed_since("token 12", before)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_change_is_ever_missed(data: st.DataObject) -> None:
    """Whatever is read when, a token that changed after a mark is void for it."""
    clock = StillClock()
    feed = Feed(clock=clock, memory=MEMORY)
    log: list[str] = []
    pruned = 0
    marks: list[tuple[tuple[int, int], int]] = []
    for _ in range(data.draw(st.integers(1, 25))):
        match data.draw(st.sampled_from(("write", "read", "part", "mark", "prune"))):
            case "write":
                log.append(data.draw(st.sampled_from("abc")))
            case "read" | "part" as how:
                kept = [(number + 1, name) for number, name in enumerate(log) if number >= pruned and number + 1 > feed.position]
                some = kept[: data.draw(st.integers(0, len(kept)))] if how == "part" else kept
                feed.apply(FeedBatch(0, len(log), pruned + 1, tuple(some)))
            case "mark":
                marks.append((feed.mark, len(log)))
            case "prune":
                pruned = data.draw(st.integers(pruned, len(log)))
    feed.apply(
        FeedBatch(
            0, len(log), pruned + 1, tuple((n + 1, name) for n, name in enumerate(log) if n >= pruned and n + 1 > feed.position)
        )
    )
    assert feed.position == len(log)
    for mark, written in marks:
        for name in "abc":
            if name in log[written:]:
                assert feed.changed_since(name, mark)
