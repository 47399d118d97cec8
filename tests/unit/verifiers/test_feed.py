"""What the change feed makes of what a store tells it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.ports import FeedBatch
from extauthz.verifiers.change_feed import SLICE, UNKNOWN, Feed
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


def test_at_the_very_beginning_of_the_feed_nothing_has_changed(clock: StillClock) -> None:
    feed = Feed(clock=clock, memory=MEMORY)
    feed.apply(FeedBatch(0, 0, 1))
    assert not feed.changed_since("any", feed.mark)
    before = feed.mark
    feed.apply(FeedBatch(0, 1, 1, ((1, "a"),)))
    assert feed.changed_since("a", before)
    assert not feed.changed_since("a", feed.mark)


def test_every_token_has_its_place_in_the_memory(feed: Feed) -> None:
    """Of a thousand names some are in each of its dictionaries, however the process hashes them."""
    before = feed.mark
    for start in range(11, 1011, SLICE):
        feed.apply(changes(*range(start, start + SLICE)))
    assert all(feed.changed_since(f"token {number}", before) for number in range(11, 1011))
    assert not any(feed.changed_since(f"token {number}", feed.mark) for number in range(11, 1011))


@pytest.mark.parametrize("size", [1, SLICE])
def test_no_more_than_a_slice_is_forgotten_at_once(feed: Feed, clock: StillClock, size: int) -> None:
    before, last = feed.mark, 10 + 3 * SLICE
    for start in range(11, last + 1, size):
        feed.apply(changes(*range(start, start + size)))
    clock.advance(MEMORY + 1)
    for left in (2, 1, 0):
        feed.apply(FeedBatch(0, last, 1))
        assert sum(feed.changed_since(f"token {number}", before) for number in range(11, last + 1)) == left * SLICE


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


# --- slice by slice


def test_another_memory_counts_from_then_on(feed: Feed, clock: StillClock) -> None:
    before = feed.mark
    feed.apply(changes(11))
    feed.remember(2 * MEMORY)
    clock.advance(1.5 * MEMORY)
    feed.apply(changes(12))
    assert feed.changed_since("token 11", before)
    clock.advance(MEMORY)
    feed.apply(changes(13))

    assert not feed.changed_since("token 11", before)


def part(first: int, last: int, head: int, *, epoch: int = 0) -> FeedBatch:
    """Return some changes of a store that has later ones."""
    return FeedBatch(epoch, head, 1, tuple((number, f"token {number}") for number in range(first, last + 1)), more=last < head)


def test_what_is_left_to_be_read_is_no_contact(feed: Feed, clock: StillClock) -> None:
    before = feed.mark
    clock.advance(5)
    feed.apply(part(11, 13, 17))
    clock.advance(1)
    feed.apply(part(14, 16, 17))

    assert (feed.position, feed.age) == (16, 6.0)
    assert [feed.changed_since(f"token {number}", before) for number in range(11, 18)] == [True] * 6 + [False]
    feed.apply(part(17, 17, 17))
    assert (feed.position, feed.age, feed.generation, feed.backlog) == (17, 0.0, before[0], None)
    assert feed.changed_since("token 17", before)


def test_a_store_that_is_written_to_all_the_time_is_heard_as_of_what_was_read(feed: Feed, clock: StillClock) -> None:
    """Contact is the moment at which the store told of changes that by now are all applied."""
    clock.advance(5)
    feed.apply(part(11, 12, 14))
    clock.advance(2)
    feed.apply(part(13, 14, 30))
    assert feed.age == 2.0, "14 was the head two seconds ago"
    clock.advance(1)
    feed.apply(part(15, 16, 40))
    assert feed.age == 3.0
    feed.apply(part(17, 30, 50))
    assert feed.age == 1.0


def test_a_slice_that_is_not_followed_by_the_next_one_lets_the_age_grow(feed: Feed, clock: StillClock) -> None:
    feed.apply(part(11, 12, 14))
    clock.advance(700)
    assert feed.age == 700.0


@pytest.mark.parametrize(
    "batch",
    [
        part(14, 15, 20),
        FeedBatch(0, 20, 1, ((13, "a"), (15, "b")), more=True),
        FeedBatch(0, 20, 18, ((18, "a"),), more=True),
        FeedBatch(0, 20, 1, ((13, "a"), (14, "b")), more=False),
        FeedBatch(0, 14, 1, ((13, "a"), (14, "b")), more=True),
        FeedBatch(0, 20, 21),
    ],
    ids=["the first is missing", "one between", "kept ones are younger", "the last one", "more than there are", "none is kept"],
)
def test_a_gap_between_slices_voids_everything(feed: Feed, batch: FeedBatch) -> None:
    before = feed.mark
    feed.apply(part(11, 12, 14))
    between = feed.mark
    feed.apply(batch)

    assert feed.changed_since("any", before)
    assert feed.changed_since("any", between)
    assert (feed.position, feed.generation, feed.age, feed.backlog) == (batch.head, 2, 0.0, None)


def test_a_head_below_the_one_that_was_told_is_a_rewound_store_although_the_position_is_lower(
    feed: Feed, clock: StillClock
) -> None:
    clock.advance(5)
    feed.apply(part(11, 12, 20))
    feed.apply(part(13, 14, 19))
    assert (feed.rewound, feed.position, feed.age) == (True, 12, 5.0)
    feed.apply(part(13, 14, 20))
    assert feed.rewound


def test_a_change_that_is_still_to_be_read_is_late_after_a_second(feed: Feed, clock: StillClock) -> None:
    """A record that was read before the store told of it may be another by now; one that was read afterwards has seen it."""
    before = feed.mark
    feed.apply(part(11, 12, 14))
    behind = feed.mark
    clock.advance(1.0)
    assert not feed.is_late(before)
    clock.advance(0.1)
    assert feed.is_late(before)
    assert not feed.is_late(behind)
    feed.apply(part(13, 14, 20))
    assert not feed.is_late(behind), "that the head is 20 was told just now"
    clock.advance(1.1)
    assert feed.is_late(behind)
    assert not feed.is_late(feed.mark)
    feed.apply(part(15, 20, 20))
    assert not feed.is_late(before), "it is known what changed"


class CountedId(str):
    """An id that counts how often any of its kind is looked for."""

    looked_for = 0
    __slots__ = ()

    def __hash__(self) -> int:
        CountedId.looked_for += 1
        return super().__hash__()


def test_no_batch_costs_more_than_its_slice_also_when_many_changes_are_forgotten(feed: Feed, clock: StillClock) -> None:
    """Ten slices come within a second, and so their time is over within a second."""

    def apply(batch: FeedBatch) -> int:
        before = CountedId.looked_for
        feed.apply(batch)
        return CountedId.looked_for - before

    head, mark = 10 + 10 * SLICE, feed.mark
    ids = [CountedId(f"token {number}") for number in range(head + 1)]
    slices = [tuple((number, ids[number]) for number in range(first, first + SLICE)) for first in range(11, head, SLICE)]
    costs = [apply(FeedBatch(0, head, 1, changes, more=changes[-1][0] < head)) for changes in slices]
    assert (feed.position, feed.backlog) == (head, None)
    clock.advance(MEMORY + 1)
    costs += [apply(FeedBatch(0, head, head + 1)) for _ in range(10)]
    assert not any(feed.changed_since(ids[number], mark) for number in range(11, head))
    assert max(costs) <= 6 * SLICE
    assert sum(costs) >= 20 * SLICE


def test_what_a_gap_voids_is_let_go_of_slice_by_slice_and_hides_no_later_change(feed: Feed, clock: StillClock) -> None:
    """Another store may give the same number to the same token once more."""
    feed.apply(FeedBatch(0, 11, 1, ((11, "a"),)))
    clock.advance(MEMORY)
    feed.apply(FeedBatch(1, 10, 11))
    mark = feed.mark
    feed.apply(FeedBatch(1, 11, 1, ((11, "a"),)))
    clock.advance(1)
    feed.apply(FeedBatch(1, 11, 1))
    assert feed.changed_since("a", mark)


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
        match data.draw(st.sampled_from(("write", "read", "part", "slice", "mark", "prune"))):
            case "write":
                log.append(data.draw(st.sampled_from("abc")))
            case "read" | "part" as how:
                kept = [(number + 1, name) for number, name in enumerate(log) if number >= pruned and number + 1 > feed.position]
                some = kept[: data.draw(st.integers(0, len(kept)))] if how == "part" else kept
                feed.apply(FeedBatch(0, len(log), pruned + 1, tuple(some)))
            case "slice":
                kept = [(number + 1, name) for number, name in enumerate(log) if number >= pruned and number + 1 > feed.position]
                some = kept[: data.draw(st.integers(1, 3))]
                feed.apply(FeedBatch(0, len(log), pruned + 1, tuple(some), more=len(some) < len(kept)))
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
