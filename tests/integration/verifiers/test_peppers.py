"""Peppers that are missing: what stops the start, which tokens it names, and how a pepper is retired."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from extauthz.adapters.store.postgres import PostgresReader
from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.rows import check_peppers
from extauthz.core.tokens import TokenRecord, fingerprint
from extauthz.errors import StoreError
from tests.support.postgresql import ANA, NOW, Place, token
from tests.support.world import StillClock

pytest_plugins = ["tests.support.postgresql"]

PEPPERS = {name: name.encode() * 16 for name in ("p1", "p2", "p3")}
WAY_OUT = "list it again, behind the newest; if it is lost, revoke what needs it"


def made(letter: str, pepper_id: str = "p1", **changes: object) -> TokenRecord:
    """Return a token named by a letter; the later in the alphabet, the newer."""
    return token(letter * 12, pepper_id=pepper_id, created_at=NOW + ord(letter), **changes)


async def check(place: Place, peppers: Mapping[str, bytes], now: int = NOW) -> None:
    """Do what `serve` does at start."""
    if isinstance(place.where, Path):
        with closing(SqliteReader(place.where)) as reader:
            reader.check_peppers(peppers, now)
        return
    database = PostgresReader(place.where, peppers=peppers, clock=StillClock(now))
    try:
        await database.open()
    finally:
        await database.close()


def only(*names: str) -> dict[str, bytes]:
    return {name: PEPPERS[name] for name in names}


def described(letters: str) -> str:
    return ", ".join(letter * 12 for letter in letters)


CASES: dict[str, tuple[list[TokenRecord], tuple[str, ...], str | None]] = {
    "no tokens": ([], (), None),
    "listed": ([made("a")], ("p1",), None),
    "one": ([made("a")], ("p2",), f"1 active token needs pepper 'p1', which is not listed ({described('a')})"),
    "three": (
        [made("a"), made("b"), made("c")],
        (),
        f"3 active tokens need pepper 'p1', which is not listed ({described('cba')})",
    ),
    "more than are named": (
        [made(letter) for letter in "abcdefg"],
        ("p2", "p3"),
        f"7 active tokens need pepper 'p1', which is not listed ({described('gfe')}, …)",
    ),
    "two peppers": (
        [made("a"), made("b", "p2"), made("c", "p2"), made("d", "p3")],
        ("p3",),
        f"1 active token needs pepper 'p1', which is not listed ({described('a')}); "
        f"2 active tokens need pepper 'p2', which is not listed ({described('cb')})",
    ),
    "the dead do not count": (
        [made("a"), made("b", expires_at=NOW), made("c", revoked_at=NOW - 1, revoked_by="eve"), made("d", "p2")],
        ("p2",),
        f"1 active token needs pepper 'p1', which is not listed ({described('a')})",
    ),
    "only dead ones": (
        [made("b", expires_at=NOW), made("c", revoked_at=NOW - 1, revoked_by="eve"), made("d", "p2")],
        ("p2",),
        None,
    ),
}


@pytest.mark.parametrize(("records", "listed", "told"), CASES.values(), ids=CASES.keys())
async def test_a_missing_pepper_is_told_with_the_tokens_that_need_it(
    place: Place, records: list[TokenRecord], listed: tuple[str, ...], told: str | None
) -> None:
    """In the same words by `serve` on either store and by the command line."""
    with place.opened() as store:
        for record in records:
            store.add(record, fingerprint(PEPPERS[record.pepper_id]))
        known = store.pepper_fingerprints()
        needing = {name: store.needing(name, NOW) for name in known.keys() - listed}
    if told is None:
        await check(place, only(*listed))
        check_peppers(known, only(*listed), needing)
        return
    with pytest.raises(StoreError) as by_serve:
        await check(place, only(*listed))
    with pytest.raises(StoreError) as by_command:
        check_peppers(known, only(*listed), needing)
    assert str(by_serve.value) == str(by_command.value) == f"tokens.peppers: {told}: {WAY_OUT}"


async def test_a_pepper_is_retired_when_its_last_token_ends(place: Place) -> None:
    with place.opened() as store:
        store.add(made("a", expires_at=NOW + 60), fingerprint(PEPPERS["p1"]))
        store.add(made("b"), fingerprint(PEPPERS["p1"]))
        with pytest.raises(StoreError, match="2 active tokens"):
            await check(place, only("p2"), NOW + 59)
        with pytest.raises(StoreError, match="1 active token"):
            await check(place, only("p2"), NOW + 60)
        store.revoke(["b" * 12], None, ANA)
    await check(place, only("p2"), NOW + 60)


async def test_another_pepper_is_refused_although_nobody_needs_it(place: Place) -> None:
    """It would sign tokens that no other sidecar can verify."""
    with place.opened() as store:
        store.add(made("a", expires_at=NOW), fingerprint(PEPPERS["p1"]))
    with pytest.raises(
        StoreError, match="pepper 'p1' is not the one that the tokens in the store were made with: restore its file"
    ):
        await check(place, {"p1": PEPPERS["p2"]})
