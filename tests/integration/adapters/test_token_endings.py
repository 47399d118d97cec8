"""Tokens that end soon, counted on both databases: the ones that somebody has to do something about."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from extauthz.adapters.store.endings import Ending, token_endings
from extauthz.core.model import AuthType
from tests.support.postgresql import ANA, FINGERPRINT, NOW, Place, token, use

pytest_plugins = ["tests.support.postgresql"]

DAY = 86_400
WEEK = 7 * DAY
AT = NOW + 60 * DAY
ENDS = {
    "a": AT + DAY - 1,
    "b": AT + DAY,
    "c": AT + WEEK - 1,
    "d": AT + WEEK,
    "e": AT,
    "f": AT + 60,
    "g": AT + 60,
    "h": AT + 60,
    "i": AT + 60,
}
"""When tokens end, by the letter of their ids; all were made sixty days before."""


@pytest.mark.parametrize("within", [DAY, WEEK])
def test_tokens_that_end_soon_are_counted_by_permission_and_use(place: Place, within: int) -> None:
    with closing(place.open()) as store:
        assert token_endings(store, AT, within, used_since=AT - WEEK) == {}
        for letter, end in ENDS.items():
            store.add(token(letter * 12, expires_at=end), FINGERPRINT)
        store.add(replace(token("k" * 12, expires_at=AT + 60), permission=AuthType.GLOBAL, user=None), FINGERPRINT)
        store.revoke(["f" * 12], None, ANA)
        store.rotate("g" * 12, token("m" * 12, created_at=AT, expires_at=AT + 90 * DAY), AT + 60, FINGERPRINT, ANA)
        # Made to end soon, as a job's are: of the same length as what is looked at.
        store.add(token("n" * 12, created_at=AT - 4 * within + 61, expires_at=AT + 60), FINGERPRINT)
        use(store, {"h" * 12: (AT - WEEK - 1, "10.0.0.0/24"), "i" * 12: (AT - 60, "10.0.0.0/24"), "a" * 12: (AT, "10.0.0.0/24")})

        unused = {DAY: ["h"], WEEK: ["b", "c", "h"]}[within]
        assert token_endings(store, AT, within, used_since=AT - WEEK) == {
            Ending(AuthType.USER, is_used=True): len(["a", "i"]),
            Ending(AuthType.USER, is_used=False): len(unused),
            Ending(AuthType.GLOBAL, is_used=False): 1,
        }
