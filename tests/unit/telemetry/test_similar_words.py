"""How much two words have in common, against the definition, and which words are looked up among many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.telemetry.similar_words import FEW, SIMILAR, Comparisons, Word

WORD = st.text("abé-", max_size=12)
MANY = [f"service-{number}" for number in range(5 * FEW)]


def longest_common(one: str, other: str) -> int:
    """Work out the length of the longest common subsequence row by row, as textbooks do."""
    above = [0] * (len(other) + 1)
    for letter in one:
        row = [0]
        for place, against in enumerate(other):
            row.append(above[place] + 1 if letter == against else max(above[place + 1], row[place]))
        above = row
    return above[-1]


@given(WORD, WORD)
def test_the_ratio_is_that_of_the_longest_common_subsequence(one: str, other: str) -> None:
    length = len(one) + len(other)
    assert Word(one.upper()).ratio(other) == (2 * longest_common(one, other) / length if length else 0)


@given(WORD.filter(bool), st.lists(WORD))
def test_what_is_left_out_before_comparing_is_not_similar(one: str, others: list[str]) -> None:
    word = Word(one)
    expected = {other for other in others if word.ratio(other) >= SIMILAR}
    assert {name for name, _ in word.similar(others, Comparisons(100_000))} == expected


@pytest.mark.parametrize(
    "text",
    ["service-499", "servce-499", "servicee-499", "sevrice-499", "serwice-499", "SERVICE-499", "service-499s", "service-499es"],
)
def test_one_typing_error_is_seen_among_many_words_before_the_budget_ends(text: str) -> None:
    budget = Comparisons(1_200)
    assert "service-499" in [name for name, _ in Word(text).similar(MANY, budget)]
    assert budget.left < 0


@pytest.mark.parametrize(
    ("text", "meant"), [("category", "categories"), ("categories", "category"), ("box", "boxes"), ("boxes", "box")]
)
def test_singular_and_plural_are_looked_up(text: str, meant: str) -> None:
    assert (meant, Word(text).ratio(meant)) in list(Word(text).similar(dict.fromkeys([*MANY, meant]), Comparisons(50)))


@pytest.mark.parametrize("text", ["a", "ab", "abc"])
def test_a_word_that_is_looked_up_is_similar_too(text: str) -> None:
    assert list(Word(text).similar(dict.fromkeys(["y", "s", "ies", *MANY]), Comparisons(10_000))) == []


@given(st.integers(0, 300))
def test_no_more_is_compared_than_the_budget_has(characters: int) -> None:
    assert len(list(Word("service-1").similar(MANY[:FEW], Comparisons(characters)))) <= characters / len("service-1")
