"""Edits in memory are the edits that would be made, for whomever they were made; what clients choose is bounded."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.core.identity import MAX_VALUE, OVERRIDE_HEADERS, IdentityHeaders
from extauthz.core.model import AuthType, HeaderEdits, Identity, Reason
from extauthz.responses import remembered_edits
from extauthz.responses.remembered_edits import MAX_NAME, MAX_NAMES, MAX_SIZE, RememberedIdentityHeaders

SCOPES = frozenset({"SEARCH", "CHAT"})
IDENTITIES = [
    None,
    Identity(AuthType.GLOBAL, "token:a", None, SCOPES, 1.0),
    Identity(AuthType.USER, "token:b", "ana@acme.com", SCOPES, 1.0),
    Identity(AuthType.USER, "token:c", "eva@acme.com", frozenset({"CHAT"}), 1.0),
    Identity(AuthType.ANONYMOUS, "token:d", None, SCOPES, 1.0),
    Identity(AuthType.OAUTH, "oauth:okta:1", "ana@acme.com", SCOPES, 1.0, "client"),
]
NAMES = ("accept", "authorization", "x-request-id", "x-extauthz-user", "x_extauthz_user", "x-glean-auth-type", "x.scio-actas")
USERS = (None, "ana@acme.com", "eva@acme.com", "a" * (MAX_VALUE + 1))
KEEP = frozenset({"authorization", "x-scio-actas"})


@given(
    st.lists(
        st.tuples(
            st.sampled_from(IDENTITIES),
            st.sampled_from(USERS),
            st.lists(st.sampled_from((*NAMES, *OVERRIDE_HEADERS)) | st.text("ax-_", max_size=70), unique=True, max_size=6),
        ),
        max_size=12,
    ),
    st.sets(st.sampled_from(("accept", "x-request-id", "x-long"))),
)
def test_whatever_came_before_the_edits_are_those_that_would_be_made(
    requests: list[tuple[Identity | None, str | None, list[str]]], popped: set[str]
) -> None:
    plain, kept = IdentityHeaders(keep=KEEP), RememberedIdentityHeaders(keep=KEEP)
    other = RememberedIdentityHeaders("x-other-")
    for identity, user, names in requests:
        expected = plain.edits(sorted(names), identity, user)
        for _ in range(2):
            assert same(kept.edits(names, identity, user), expected)
            kept.known.difference_update(popped, kept.always_listed[:2])
            assert other.edits(names, identity, user) == other.edits(names, identity, user)
        if isinstance(expected, HeaderEdits):
            for refused in (True, False):
                assert kept.monitored_edits(expected, refused=refused) == plain.monitored_edits(expected, refused=refused)


def same(one: HeaderEdits | Reason, other: HeaderEdits | Reason) -> bool:
    """Return whether two edits set the same, and remove the same names in whatever order."""
    if isinstance(one, HeaderEdits) and isinstance(other, HeaderEdits):
        return one.set == other.set and sorted(one.remove) == sorted(other.remove)
    return one is other


def test_the_usual_edits_go_with_their_identity_and_are_made_anew_by_other_rules() -> None:
    """A reload may change the names; a verdict outlives it."""
    ana = Identity(AuthType.USER, "token:b", "ana@acme.com", SCOPES, 1.0)
    rules, other = RememberedIdentityHeaders(), RememberedIdentityHeaders("x-acme-")
    first = rules.edits(["accept", "x-anything"], ana, "ana@acme.com")
    assert rules.edits(["x-more", "authorization"], ana, "ana@acme.com") is first
    changes = other.edits(["accept"], ana, "ana@acme.com")
    assert isinstance(changes, HeaderEdits)
    assert dict(changes.set)["x-acme-user"] == "ana@acme.com"
    assert [one.cache_info().currsize for one in (rules.for_users, rules.unusual)] == [0, 0]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("length", "is_remembered"), [(MAX_SIZE, True), (MAX_SIZE + 1, False)])
def test_long_names_like_ours_are_removed_and_not_remembered(length: int, is_remembered: bool) -> None:
    rules, ana = RememberedIdentityHeaders(), IDENTITIES[2]
    names = ["x-extauthz-".ljust(length - 20, "a"), "x_extauthz_".ljust(20, "a")]
    one, two = (rules.edits(names, ana, "ana@acme.com") for _ in range(2))
    assert isinstance(one, HeaderEdits)
    assert {*names} <= {*one.remove}
    assert dict(one.set)["x-extauthz-user"] == "ana@acme.com"
    assert dict(one.set)["x-extauthz-actor"] == "token:b"
    assert one == two
    assert (one is two) is is_remembered
    assert (rules.monitored_edits(one, refused=True) is rules.monitored_edits(one, refused=True)) is False
    short = HeaderEdits((), ("x" * length,))
    assert (rules.monitored_edits(short, refused=True) is rules.monitored_edits(short, refused=True)) is is_remembered


def test_users_that_a_token_works_for_push_out_nothing_but_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered_edits, "MAX_USERS", 3)
    rules, ana, globally = RememberedIdentityHeaders(), IDENTITIES[2], IDENTITIES[1]
    own = rules.edits((), ana, "ana@acme.com")
    made = {number: rules.edits((), globally, f"{number}@acme.com") for number in range(4)}
    assert rules.edits((), ana, "ana@acme.com") is own
    for number in range(10):
        rules.edits([f"x-extauthz-{number}"], ana, "ana@acme.com")
    assert all(rules.edits((), globally, f"{number}@acme.com") is made[number] for number in (1, 2, 3))
    assert rules.edits((), globally, "0@acme.com") is not made[0]


def test_names_that_clients_choose_make_room_one_by_one() -> None:
    rules = RememberedIdentityHeaders()
    sizes = set()
    for number in range(MAX_NAMES + 100):
        rules.edits([f"x-{number}", "y" * MAX_NAME, "z" * (MAX_NAME + 1)], None, None)
        sizes.add(len(rules.known))
    assert max(sizes) == MAX_NAMES
    assert len(rules.known) == MAX_NAMES
    assert "z" * (MAX_NAME + 1) not in rules.known
    assert "y" * MAX_NAME in rules.known


def test_a_name_of_ours_that_had_to_make_room_is_known_again() -> None:
    """Else each request that it comes with would be an unusual one for ever."""
    rules, ana = RememberedIdentityHeaders(), Identity(AuthType.USER, "token:b", "ana@acme.com", SCOPES, 1.0)
    first = rules.edits(["x-extauthz-user"], ana, "ana@acme.com")
    rules.known.discard("x-extauthz-user")
    assert rules.edits(["x-extauthz-user"], ana, "ana@acme.com") is first
    assert "x-extauthz-user" in rules.known


def test_what_is_remembered_has_bounds() -> None:
    rules = RememberedIdentityHeaders()
    caches = (rules.for_users, rules.unusual, rules.monitored)
    assert [cache.cache_parameters()["maxsize"] for cache in caches] == [16_384, 4096, 4096]  # type: ignore[attr-defined]


def test_what_an_identity_keeps_goes_with_it() -> None:
    """Each verification makes an identity of its own: what was kept for earlier ones must not add up."""
    rules = RememberedIdentityHeaders()

    def alive() -> int:
        gc.collect()
        return sum(isinstance(one, HeaderEdits) for one in gc.get_objects())

    before = alive()
    for number in range(100):
        identity = Identity(AuthType.USER, "token:b", f"{number}@acme.com", SCOPES, 1.0)
        rules.edits(("accept",), identity, identity.user)
        assert identity.usual_edits is not None
    assert alive() == before + 1
