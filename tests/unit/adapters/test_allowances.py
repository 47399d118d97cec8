"""An allow that is put together from parts is the answer that protobuf writes, for its own caller and its own route."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.envoy import allowances
from extauthz.adapters.envoy.allowances import MAX_KEPT, Allowances, EncodedEdits, serialised
from extauthz.core.identity import IdentityHeaders
from extauthz.core.model import DECISION_ID as PLACEHOLDER
from extauthz.core.model import Allow, AuthType, HeaderEdits, Identity, Reason
from tests.support.world import DECISION_ID

SCOPES = frozenset({"SEARCH", "CHAT"})
ANA = Identity(AuthType.USER, "token:b", "ana@acme.com", SCOPES, 1.0, token_id="b")
CALLERS = [
    (None, None),
    (Identity(AuthType.GLOBAL, "token:a", None, SCOPES, 1.0, token_id="a"), "eva@acme.com"),
    (ANA, "ana@acme.com"),
    (Identity(AuthType.ANONYMOUS, "token:c", None, SCOPES, 1.0, token_id="c"), None),
    (Identity(AuthType.OAUTH, f"oauth:okta:{PLACEHOLDER}", "ana@acme.com", SCOPES, 1.0, "client"), "ana@acme.com"),
    (Identity(AuthType.OAUTH, "oauth:okta:é" * 60, "ana@acme.com", SCOPES, 1.0, "client"), "ana@acme.com"),
]
TOKEN = "x-extauthz-token"
RULES = IdentityHeaders(keep=frozenset({"x-scio-actas"}))
USUAL = RULES.edits((), ANA, ANA.user)
EDITS = [
    USUAL,
    *(edits for identity, user in CALLERS if isinstance(edits := RULES.edits(["x_extauthz_user"], identity, user), HeaderEdits)),
    HeaderEdits((("x-user", "ana@acme.com"),), ()),
    HeaderEdits((("x-user", PLACEHOLDER), ("x-id", PLACEHOLDER)), ("x-a",)),
    HeaderEdits((("x-user", f"a{PLACEHOLDER}"),), ("x-a", "x-user")),
    HeaderEdits((("x-user", f"a{PLACEHOLDER}"), ("x-id", PLACEHOLDER)), (TOKEN,)),
    HeaderEdits((("x-id", PLACEHOLDER),), (f"x-{PLACEHOLDER}", "x-id", TOKEN)),
    HeaderEdits((("x-id", PLACEHOLDER), ("x-long", "a" * 9000)), ("b" * 9000,)),
    HeaderEdits((("x-id", PLACEHOLDER), (TOKEN, "own")), ()),
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(EDITS),
            st.sampled_from(CALLERS),
            st.sampled_from([(Reason.ALLOWED, "POST /search"), (Reason.PUBLIC, "POST /search"), (Reason.ALLOWED, "r" * 300)]),
            st.none() | st.sampled_from([(TOKEN, "signed"), (TOKEN, "a" * 20_000), (TOKEN, PLACEHOLDER), ("x-user", "b")]),
            st.text("0123456789abcdef", min_size=32, max_size=32),
        ),
        max_size=8,
    )
)
def test_whatever_was_written_before_an_allow_is_the_one_that_protobuf_writes(rows: list[tuple[object, ...]]) -> None:
    """Also where the same edits serve another caller: what the metadata tell is about the one of this decision."""
    written = Allowances()
    for edits, (identity, user), (reason, route), header, decision_id in rows:  # type: ignore[misc]
        decision = Allow(reason, route, edits, identity, user)
        expected = serialised(decision, decision_id, header)
        for _ in range(2):
            answer = written.write(decision, decision_id, header)
            assert pb.CheckResponse.FromString(answer) == pb.CheckResponse.FromString(expected)
            if header is None:
                assert answer == expected


def test_the_parts_of_a_caller_are_serialised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str | None] = []
    encode = allowances._encoded

    def noted(decision: Allow, header: str | None) -> EncodedEdits | None:
        made.append(header)
        return encode(decision, header)

    monkeypatch.setattr(allowances, "_encoded", noted)
    edits = HeaderEdits((("x-id", PLACEHOLDER),), (TOKEN,))
    for route in ("POST /search", "POST /chat", "POST /search"):
        Allowances().write(Allow(Reason.ALLOWED, route, edits, ANA, ANA.user), DECISION_ID, None)
    assert made == [None]
    for value in ("one", "two"):
        Allowances().write(Allow(Reason.ALLOWED, "r", edits, ANA, ANA.user), DECISION_ID, (TOKEN, value))
    assert made == [None, TOKEN]
    Allowances().write(Allow(Reason.ALLOWED, "r", edits, ANA, "eva@acme.com"), DECISION_ID, (TOKEN, "two"))
    assert made == [None, TOKEN, TOKEN]
    made.pop()
    again = Identity(AuthType.USER, ANA.actor, ANA.user, SCOPES, 2.0, token_id="other")
    Allowances().write(Allow(Reason.ALLOWED, "r", edits, again, ANA.user), DECISION_ID, (TOKEN, "two"))
    assert made == [None, TOKEN, TOKEN]


@pytest.mark.parametrize(("extra", "is_kept"), [(0, True), (1, False)])
def test_parts_that_are_long_are_not_kept(extra: int, is_kept: bool) -> None:
    def sized(padding: int) -> tuple[HeaderEdits, int]:
        edits = HeaderEdits((("x-id", PLACEHOLDER), ("x-long", "a" * padding)), ("x-removed",))
        size = len(Allowances().write(Allow(Reason.ALLOWED, "", edits, ANA, ANA.user), DECISION_ID, None))
        return edits, size

    # Whatever the parts do not hold has one size: of two answers that are this long.
    edits, size = sized(1500)
    kept = edits.encoded
    assert isinstance(kept, EncodedEdits)
    parts = (kept.before, kept.after, kept.caller, kept.rest, kept.removals)
    other, other_size = sized(1500 + MAX_KEPT - sum(map(len, parts)) + extra)
    assert other_size - size == MAX_KEPT - sum(map(len, parts)) + extra
    assert (other.encoded is not None) is is_kept


def test_the_part_of_a_route_is_the_same_for_all_callers() -> None:
    made: list[tuple[str, str]] = []

    class Counting(Allowances):
        def _route(self, decision: Allow) -> bytes:
            made.append((decision.reason, decision.route))
            return super()._route(decision)

    written = Counting()
    for reason, route in [(Reason.ALLOWED, "a"), (Reason.ALLOWED, "b"), (Reason.PUBLIC, "a")] * 2:
        for user in ("ana@acme.com", "eva@acme.com"):
            edits = HeaderEdits((("x-id", PLACEHOLDER), ("x-user", user)), ())
            answer = pb.CheckResponse.FromString(written.write(Allow(reason, route, edits, ANA, user), DECISION_ID, None))
            told = answer.dynamic_metadata.fields
            assert (told["reason"].string_value, told["route"].string_value) == (reason, route)
    assert made == [(Reason.ALLOWED, "a"), (Reason.ALLOWED, "b"), (Reason.PUBLIC, "a")]


@pytest.mark.parametrize(
    ("number", "data"), [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (16_383, b"\xff\x7f"), (16_384, b"\x80\x80\x01")]
)
def test_a_length_is_as_short_as_it_can_be(number: int, data: bytes) -> None:
    assert allowances._varint(number) == data


def test_routes_make_room_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowances, "MAX_ROUTES", 3)
    written = Allowances()
    for number in range(5):
        written.write(Allow(Reason.ALLOWED, f"{number}", HeaderEdits((("x-id", PLACEHOLDER),), ())), DECISION_ID, None)
    assert [route for _, route in written._routes] == ["2", "3", "4"]


def test_edits_that_remove_the_same_names_share_the_bytes() -> None:
    """A hundred thousand callers lose the same headers."""
    kept = []
    for number in range(2):
        identity = replace(ANA, actor=f"token:{number}")
        edits = RULES.edits(["x_extauthz_user"], identity, ANA.user)
        assert isinstance(edits, HeaderEdits)
        Allowances().write(Allow(Reason.ALLOWED, "r", edits, identity, ANA.user), DECISION_ID, None)
        kept.append(edits.encoded)
    one, other = kept
    assert isinstance(one, EncodedEdits)
    assert isinstance(other, EncodedEdits)
    assert one.removals is other.removals


def test_long_names_that_are_removed_do_not_stay_in_memory() -> None:
    allowances._removals_of.cache_clear()
    for length in (2048, 2049):
        edits = HeaderEdits((("x-id", PLACEHOLDER),), ("x" * length,))
        Allowances().write(Allow(Reason.ALLOWED, "r", edits), DECISION_ID, None)
    assert allowances._removals_of.cache_info().currsize == 1
