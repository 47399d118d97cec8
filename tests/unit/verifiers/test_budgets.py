"""How much work strangers can cause, and how somebody who is down is left alone: every rule, and any order of events."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extauthz.core.model import Reason
from extauthz.errors import Unavailable
from extauthz.verifiers.throttling import MAX_REST, Breaker, Budget
from tests.support.world import StillClock

PAUSE = 5.0
FAILURES = 5


def takes(of: Budget | Breaker) -> bool:
    """Try to take one, and tell whether it was there; a refusal has the reason of its kind."""
    expected = Reason.OVERLOADED if isinstance(of, Budget) else Reason.ISSUER_UNAVAILABLE
    try:
        of.take()
    except Unavailable as refusal:
        if refusal.reason is not expected:
            raise
        return False
    return True


def taken(of: Budget | Breaker, times: int) -> int:
    """Try so many times, and count what was there."""
    return sum(takes(of) for _ in range(times))


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


# --- the budget


@pytest.mark.parametrize("per_second", [1, 2, 20, 2000])
def test_a_budget_starts_full_with_one_second_s_share(clock: StillClock, per_second: int) -> None:
    budget = Budget(per_second, clock=clock)

    assert taken(budget, 3 * per_second) == per_second
    assert budget.refused == 2 * per_second


@pytest.mark.parametrize(
    ("seconds", "pieces"),
    [(0.0, 0), (0.0625, 0), (0.125, 1), (0.1875, 1), (0.25, 2), (0.5, 4), (1.0, 8), (1.125, 8), (60.0, 8), (1e9, 8)],
    ids=str,
)
def test_an_empty_budget_fills_with_time_and_no_further_than_its_burst(clock: StillClock, seconds: float, pieces: int) -> None:
    budget = Budget(8, clock=clock)
    taken(budget, 8)
    clock.advance(seconds)

    assert taken(budget, 20) == pieces


def test_small_steps_fill_as_much_as_a_large_one(clock: StillClock) -> None:
    budget = Budget(8, clock=clock)
    taken(budget, 8)
    passed = 0
    for _ in range(64):
        clock.advance(1 / 64)
        passed += takes(budget)

    assert passed == 8


def test_asking_in_vain_costs_nothing(clock: StillClock) -> None:
    """A flood of refusals keeps no piece from those who come later."""
    budget = Budget(4, clock=clock)
    taken(budget, 4)
    for _ in range(1000):
        assert not takes(budget)
    clock.advance(0.25)

    assert takes(budget)
    assert budget.refused == 1000


def test_giving_back_makes_room_but_returns_no_piece(clock: StillClock) -> None:
    budget = Budget(2, clock=clock)
    assert taken(budget, 2) == 2
    budget.give_back()
    budget.give_back()

    assert budget.under_way == 0
    assert not takes(budget)


def test_only_so_many_at_once(clock: StillClock) -> None:
    budget = Budget(100, 2, clock=clock)
    assert taken(budget, 5) == 2
    assert (budget.under_way, budget.refused) == (2, 3)
    clock.advance(3600)
    assert not takes(budget), "time makes no room"
    budget.give_back()

    assert taken(budget, 5) == 1
    assert budget.under_way == 2


def test_who_finds_no_room_takes_no_piece(clock: StillClock) -> None:
    budget = Budget(3, 1, clock=clock)
    assert taken(budget, 50) == 1
    for _ in range(2):
        budget.give_back()
        assert takes(budget)
    budget.give_back()

    assert not takes(budget), "three pieces, and each was one"
    assert budget.under_way == 0


def test_without_a_limit_at_once_nothing_has_to_be_given_back(clock: StillClock) -> None:
    budget = Budget(10, clock=clock)
    for _ in range(100):
        assert taken(budget, 10) == 10
        clock.advance(1)


def test_the_wall_clock_fills_nothing(clock: StillClock) -> None:
    budget = Budget(3, clock=clock)
    taken(budget, 3)
    clock.wall += 3600
    assert not takes(budget)
    clock.wall -= 7200
    clock.ticks += 1

    assert taken(budget, 5) == 3


def test_two_budgets_share_nothing(clock: StillClock) -> None:
    one, other = Budget(2, 2, clock=clock), Budget(2, 2, clock=clock)
    assert taken(one, 9) == 2

    assert taken(other, 9) == 2


@pytest.mark.parametrize("back", [0.001, 1.0, 1000.0], ids=str)
def test_a_clock_that_goes_back_gives_nothing_away(clock: StillClock, back: float) -> None:
    budget = Budget(4, clock=clock)
    taken(budget, 4)
    for _ in range(10):
        clock.ticks -= back
        assert not takes(budget)
        clock.ticks += back
        assert not takes(budget)
    clock.advance(1)

    assert taken(budget, 9) == 4, "where the clock was before, the budget is as it would be"


# Dyadic steps keep the arithmetic of floats exact, so that a model in fractions must agree to the piece.
Steps = list[tuple[str, float]]
_STEP = st.one_of(
    st.tuples(st.just("take"), st.just(0.0)),
    st.tuples(st.just("give"), st.just(0.0)),
    st.tuples(st.just("wait"), st.integers(0, 128).map(lambda ticks: ticks / 64)),
)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 16), st.none() | st.integers(1, 4), st.lists(_STEP, max_size=120))
def test_a_budget_is_what_it_says_to_the_piece(per_second: int, at_once: int | None, steps: Steps) -> None:
    clock = StillClock()
    budget = Budget(per_second, at_once, clock=clock)
    left, under_way, refused = Fraction(per_second), 0, 0
    for what, seconds in steps:
        if what == "wait":
            clock.advance(seconds)
            left = min(Fraction(per_second), left + per_second * Fraction(seconds))
        elif what == "give" and under_way:
            budget.give_back()
            under_way -= 1
        elif what == "take":
            expected = left >= 1 and (at_once is None or under_way < at_once)
            assert takes(budget) is expected
            left, under_way, refused = left - expected, under_way + expected, refused + (not expected)
        assert (budget.under_way, budget.refused) == (under_way, refused)
        assert 0 <= budget._balance <= per_second


@settings(max_examples=150, deadline=None)
@given(
    st.floats(1, 5000),
    st.lists(st.one_of(st.just(0.0), st.floats(0, 0.01), st.floats(0, 3)), min_size=1, max_size=60),
)
@example(1.0, [0.0, 1.0, 0.999999999999, 1e-13, 1.0])
def test_no_stretch_of_time_sees_more_than_rate_and_burst(per_second: float, pauses: list[float]) -> None:
    clock = StillClock()
    budget = Budget(per_second, clock=clock)
    moments: list[tuple[float, int]] = []
    for pause in pauses:
        clock.advance(pause)
        moments.append((clock.monotonic(), taken(budget, int(per_second) + 2 if per_second < 50 else 50)))
        assert budget._balance >= 0
    for first, (begun, _) in enumerate(moments):
        passed = 0
        for ended, pieces in moments[first:]:
            passed += pieces
            assert passed <= per_second * (ended - begun) + per_second + 1e-6


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 16), st.lists(st.integers(-256, 256).map(lambda ticks: ticks / 64), max_size=60))
def test_a_clock_that_goes_to_and_fro_gives_no_more_than_its_furthest_reading(per_second: int, steps: list[float]) -> None:
    clock = StillClock()
    begun = furthest = clock.monotonic()
    budget = Budget(per_second, clock=clock)
    passed = 0
    for step in steps:
        clock.ticks += step
        furthest = max(furthest, clock.ticks)
        passed += taken(budget, per_second + 1)
        assert passed <= per_second * (furthest - begun) + per_second


# --- the breaker


@pytest.fixture
def breaker(clock: StillClock) -> Breaker:
    return Breaker(clock=clock, failures=FAILURES, pause=PAUSE)


def open_up(breaker: Breaker) -> None:
    """Let questions fail until none passes."""
    for _ in range(FAILURES):
        assert takes(breaker)
        breaker.fail()
    assert not takes(breaker)


def test_a_breaker_starts_closed(breaker: Breaker) -> None:
    assert breaker.closed
    assert taken(breaker, 100) == 100


def test_it_opens_after_so_many_failures_in_a_row(breaker: Breaker) -> None:
    for _ in range(FAILURES - 1):
        breaker.fail()
        assert breaker.closed
        assert taken(breaker, 3) == 3
    breaker.fail()

    assert not breaker.closed
    assert taken(breaker, 100) == 0


def test_five_failures_in_a_row_are_followed_by_five_seconds(clock: StillClock) -> None:
    """As issuers have it, who tell it nothing."""
    breaker = Breaker(clock=clock)
    for _ in range(5):
        assert takes(breaker)
        breaker.fail()
    clock.advance(4.9)
    assert not takes(breaker)
    clock.advance(0.1)
    assert takes(breaker)


def test_one_answer_in_between_and_the_count_begins_anew(breaker: Breaker) -> None:
    for _ in range(3):
        for _ in range(FAILURES - 1):
            breaker.fail()
        breaker.succeed()
    for _ in range(FAILURES - 1):
        breaker.fail()

    assert breaker.closed


def test_time_alone_forgives_nothing(breaker: Breaker, clock: StillClock) -> None:
    for _ in range(FAILURES - 1):
        breaker.fail()
        clock.advance(3600)
    breaker.fail()

    assert not breaker.closed


@pytest.mark.parametrize(("seconds", "passes"), [(0.0, 0), (4.9, 0), (5.0, 1), (5.1, 1), (1e6, 1)], ids=str)
def test_after_the_pause_exactly_one_question_passes(breaker: Breaker, clock: StillClock, seconds: float, passes: int) -> None:
    open_up(breaker)
    clock.advance(seconds)

    assert taken(breaker, 100) == passes
    assert not breaker.closed, "a question is no answer"


def test_its_answer_closes(breaker: Breaker, clock: StillClock) -> None:
    open_up(breaker)
    clock.advance(PAUSE)
    assert taken(breaker, 9) == 1
    breaker.succeed()

    assert breaker.closed
    assert taken(breaker, 9) == 9


def test_its_failure_opens_for_another_pause(breaker: Breaker, clock: StillClock) -> None:
    open_up(breaker)
    for _ in range(20):
        clock.advance(PAUSE)
        assert taken(breaker, 9) == 1
        clock.advance(2)
        breaker.fail()
        clock.advance(PAUSE - 0.1)
        assert taken(breaker, 9) == 0
        clock.advance(0.1)
        assert taken(breaker, 9) == 1
        breaker.fail()


def test_a_question_that_is_never_answered_blocks_one_pause_and_no_more(breaker: Breaker, clock: StillClock) -> None:
    open_up(breaker)
    clock.advance(PAUSE)
    for _ in range(10):
        assert taken(breaker, 9) == 1
        clock.advance(PAUSE / 2)
        assert taken(breaker, 9) == 0
        clock.advance(PAUSE / 2)


def test_a_late_failure_prolongs_the_pause(breaker: Breaker, clock: StillClock) -> None:
    """Of questions that went out before it opened."""
    open_up(breaker)
    clock.advance(PAUSE - 1)
    breaker.fail()
    clock.advance(1)
    assert not takes(breaker)
    clock.advance(PAUSE - 1)

    assert takes(breaker)


def test_a_late_answer_closes(breaker: Breaker) -> None:
    open_up(breaker)
    breaker.succeed()

    assert breaker.closed
    assert taken(breaker, 9) == 9


@pytest.mark.parametrize(
    ("told", "seconds"),
    [(None, PAUSE), (0.0, 0.0), (2.0, 2.0), (30.0, 30.0), (3600.0, 3600.0), (3601.0, MAX_REST), (999_999_999.0, MAX_REST)],
    ids=str,
)
def test_a_rest_lasts_as_long_as_is_wanted_and_an_hour_at_most(
    breaker: Breaker, clock: StillClock, told: float | None, seconds: float
) -> None:
    breaker.rest(told)
    if seconds:
        assert not breaker.closed
        clock.advance(seconds - 0.5)
        assert (breaker.closed, taken(breaker, 9)) == (False, 0)
        clock.advance(0.5)

    assert (breaker.closed, taken(breaker, 9)) == (True, 9)


def test_an_answer_ends_no_rest(breaker: Breaker, clock: StillClock) -> None:
    """It is that of a question which went out before."""
    breaker.rest(30)
    breaker.succeed()
    assert (breaker.closed, taken(breaker, 9)) == (False, 0)
    clock.advance(30)

    assert breaker.closed


def test_a_rest_is_no_failure(breaker: Breaker, clock: StillClock) -> None:
    for _ in range(3 * FAILURES):
        assert takes(breaker)
        breaker.rest(1)
        clock.advance(1)
    assert breaker.closed
    for _ in range(FAILURES - 1):
        breaker.fail()

    assert breaker.closed


def test_a_rest_forgives_no_failure(breaker: Breaker, clock: StillClock) -> None:
    open_up(breaker)
    breaker.rest(60)
    clock.advance(59)
    assert taken(breaker, 9) == 0
    clock.advance(1)

    assert taken(breaker, 9) == 1
    assert not breaker.closed


def test_a_failure_ends_no_rest(breaker: Breaker, clock: StillClock) -> None:
    breaker.rest(60)
    breaker.fail()
    clock.advance(59)
    assert taken(breaker, 9) == 0
    clock.advance(1)

    assert taken(breaker, 9) == 9


@pytest.mark.parametrize("shorter", [None, 0.0, 2.0], ids=str)
def test_a_shorter_rest_does_not_cut_a_longer_one(breaker: Breaker, clock: StillClock, shorter: float | None) -> None:
    """Of several questions under way one is told a minute, and the next one less or nothing: the minute was promised."""
    breaker.rest(60)
    breaker.rest(shorter)
    clock.advance(59)
    assert (breaker.closed, taken(breaker, 9)) == (False, 0)
    clock.advance(1)

    assert breaker.closed


def test_the_wall_clock_opens_nothing(breaker: Breaker, clock: StillClock) -> None:
    open_up(breaker)
    clock.wall += 1e6
    assert not takes(breaker)
    clock.ticks += PAUSE
    clock.wall -= 2e6

    assert takes(breaker)


Events = list[tuple[str, float]]
_EVENT = st.one_of(
    st.tuples(st.sampled_from(["take", "take", "fail", "fail", "succeed"]), st.just(0.0)),
    st.tuples(st.just("rest"), st.sampled_from([0.0, 1.0, 20.0, 5000.0])),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 4.5, 5.0, 60.0])),
)


@settings(max_examples=250, deadline=None)
@given(st.integers(1, 4), st.lists(_EVENT, max_size=80))
def test_whatever_happens_a_breaker_lets_pass_what_its_rules_say(failures: int, events: Events) -> None:
    clock = StillClock(0)
    breaker = Breaker(clock=clock, failures=failures, pause=PAUSE)
    in_a_row = 0
    blocked_until = resting_until = float("-inf")
    for what, seconds in events:
        now = clock.monotonic()
        match what:
            case "take":
                resting, broken = now < resting_until, in_a_row >= failures
                passes = takes(breaker)
                assert passes is not (resting or (broken and now < blocked_until))
                if breaker.closed:
                    assert passes
                if passes:
                    blocked_until = now + PAUSE
            case "fail":
                breaker.fail()
                in_a_row, blocked_until = in_a_row + 1, now + PAUSE
            case "succeed":
                breaker.succeed()
                in_a_row = 0
            case "rest" if now >= resting_until:
                breaker.rest(seconds)
                resting_until = now + min(seconds, 3600)
            case "wait":
                clock.advance(seconds)
        assert breaker.closed is (in_a_row < failures and clock.monotonic() >= resting_until)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 20), min_size=1, max_size=100))
def test_somebody_who_is_down_gets_one_question_a_pause(waits: list[float]) -> None:
    clock = StillClock(0)
    breaker = Breaker(clock=clock, failures=FAILURES, pause=PAUSE)
    open_up(breaker)
    begun, passed = clock.monotonic(), 0
    for wait in waits:
        clock.advance(wait)
        for _ in range(10):
            if takes(breaker):
                passed += 1
                breaker.fail()
    assert passed <= (clock.monotonic() - begun) / PAUSE + 1e-6
