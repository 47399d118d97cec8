"""Whether a stored record makes an issued token good: the digest covers what the token may do, and a missing pepper nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from extauthz.core import tokens
from extauthz.core.model import AuthType, Identity, Reason
from extauthz.core.tokens import ENTROPY_BYTES, TokenRecord, TokenText, mint, parse, usable, verify

NOW = 1_800_000_000
PEPPER = b"a pepper for tests, 32 bytes long"
PEPPERS = {"p0": b"another pepper of thirty-two bytes", "p1": PEPPER}
TOKEN = mint("glean", bytes(range(ENTROPY_BYTES)))


def stored(*, pepper: bytes = PEPPER, latest: int | None = NOW + 600, **changes: object) -> TokenRecord:
    """Return the record of TOKEN as it was made, and then changed."""
    scopes = frozenset({"CHAT", "SEARCH"})
    digest = tokens.digest(
        TOKEN.text, pepper, permission=AuthType.USER, user="ana@acme.com", scopes=scopes, created_at=NOW - 60, latest=latest
    )
    record = TokenRecord(
        id=TOKEN.id,
        description="",
        permission=AuthType.USER,
        user="ana@acme.com",
        scopes=scopes,
        created_at=NOW - 60,
        created_by="root",
        expires_at=NOW + 60,
        pepper_id="p1",
        digest=digest,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("latest", [None, NOW + 60, NOW + 600])
def test_a_token_that_is_as_it_was_made_is_good(latest: int | None) -> None:
    found = verify(TOKEN, stored(latest=latest), PEPPERS, NOW)
    assert isinstance(found, Identity)
    assert (found.auth_type, found.actor, found.user) == (AuthType.USER, f"token:{TOKEN.id}", "ana@acme.com")
    assert (found.scopes, found.expires_at, found.client_id) == ({"CHAT", "SEARCH"}, NOW + 60, None)


@pytest.mark.parametrize(
    "record",
    [
        stored(permission=AuthType.GLOBAL),
        stored(user="eva@acme.com"),
        stored(user=None),
        stored(scopes=frozenset({"SEARCH"})),
        stored(scopes=frozenset({"CHAT", "SEARCH", "DOCUMENTS"})),
        stored(created_at=NOW - 61),
        stored(latest=NOW + 59),  # expires later than it ever may
        stored(pepper_id="p0"),
        stored(pepper=PEPPERS["p0"]),
        # Without its pepper anybody could make the digest, under a key that everybody knows.
        *(stored(pepper_id="gone", pepper=key, latest=latest) for key in (b"", b"XXXX") for latest in (NOW + 600, None)),
        stored(digest=b""),
        stored(digest=bytes(40)),
        replace(stored(), digest=stored().digest[:32]),
        replace(stored(), digest=stored().digest[:-1] + b"\xff"),
    ],
)
def test_a_record_that_somebody_changed_verifies_nothing(record: TokenRecord) -> None:
    assert verify(TOKEN, record, PEPPERS, NOW) is Reason.TOKEN_SECRET_WRONG


def test_another_secret_with_the_same_id_is_wrong() -> None:
    other = mint("glean", bytes(range(16)) + bytes(32))
    assert other.id == TOKEN.id
    assert verify(other, stored(), PEPPERS, NOW) is Reason.TOKEN_SECRET_WRONG


@pytest.mark.parametrize("peppers", [PEPPERS, {}])
def test_an_unknown_id_is_unknown_also_without_any_pepper(peppers: dict[str, bytes]) -> None:
    assert verify(TOKEN, None, peppers, NOW) is Reason.TOKEN_UNKNOWN


@pytest.mark.parametrize(
    ("changes", "now", "expected"),
    [
        ({}, NOW + 59.9, None),
        ({}, NOW + 60, Reason.TOKEN_EXPIRED),
        ({"revoked_at": NOW}, NOW, Reason.TOKEN_REVOKED),
        ({"revoked_at": 0}, NOW, Reason.TOKEN_REVOKED),
        ({"revoked_at": NOW}, NOW + 60, Reason.TOKEN_REVOKED),
    ],
)
def test_a_record_counts_until_it_expires_or_is_revoked(changes: dict[str, int], now: float, expected: Reason | None) -> None:
    assert usable(stored(**changes), now) is expected
    if expected is not None:
        assert verify(TOKEN, stored(**changes), PEPPERS, now) is expected


@pytest.mark.parametrize("pepper", [PEPPER, PEPPERS["p0"]])
def test_a_pepper_is_named_by_sixteen_digits_of_its_own(pepper: bytes) -> None:
    names = {tokens.fingerprint(one) for one in PEPPERS.values()}
    assert len(names) == 2
    assert tokens.fingerprint(pepper) in names
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)


def test_the_forms_are_those_of_tokens_that_are_out() -> None:
    """Tokens, digests and fingerprints of before have to verify for ever."""
    assert TokenText("xkEgOGusQGwp", "glean_xkEgOGusQGwp_3oDH4mEVFvp7u7ED6UzpF5eHPrBI5AHumY7UBpOQIJz1pCq8t") == TOKEN
    assert tokens.fingerprint(PEPPER) == "d51f1a8a922d46da"
    assert stored().digest.hex() == "15eb4ba9d7f4c4185373543e4195f9270dcdd0294eb5710431bd77ab521a9936000000006b49d458"
    assert stored(latest=None).digest.hex() == "6e649a6e7b25932c3a8390219a44b1f9bcd544b941cbdf9ea8f87790729649a6"
    assert tokens.latest_expiry(stored()) == NOW + 600
    assert tokens.latest_expiry(stored(latest=None)) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TOKEN.text, TOKEN),
        (TOKEN.text[:-1] + ("a" if TOKEN.text[-1] != "a" else "b"), Reason.TOKEN_CHECKSUM),
        (TOKEN.text.replace("glean_", "other_"), Reason.TOKEN_MALFORMED),
        (TOKEN.text + "a", Reason.TOKEN_MALFORMED),
        (TOKEN.text[:-1], Reason.TOKEN_MALFORMED),
        ("", Reason.TOKEN_MALFORMED),
    ],
)
def test_a_text_is_read_or_refused_before_anything_is_looked_up(text: str, expected: TokenText | Reason) -> None:
    assert parse(text, frozenset({"glean", "acme"})) == expected


def test_the_representation_of_a_token_is_its_public_id() -> None:
    assert repr(TOKEN) == f"TokenText({TOKEN.id})"


@pytest.mark.parametrize("size", [0, ENTROPY_BYTES - 1, ENTROPY_BYTES + 1])
def test_a_token_is_made_of_all_its_entropy_or_not_at_all(size: int) -> None:
    with pytest.raises(ValueError, match=f"not {size}"):
        mint("glean", bytes(size))
