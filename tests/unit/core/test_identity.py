"""Which headers an upstream gets and loses."""

from __future__ import annotations

import pytest

from extauthz.core.identity import FIELDS, MAX_VALUE, IdentityHeaders, encoded
from extauthz.core.model import DECISION_ID, AuthType, HeaderEdits, Identity, Reason

RULES = IdentityHeaders()
KEEPING = IdentityHeaders(keep=frozenset({"authorization", "x-scio-actas", "x-original-url"}))
SCOPES = frozenset({"SEARCH", "CHAT"})
HOLDERS = {
    AuthType.GLOBAL: Identity(AuthType.GLOBAL, "token:a", None, SCOPES, 1.0),
    AuthType.USER: Identity(AuthType.USER, "token:b", "ana@acme.com", SCOPES, 1.0),
    AuthType.ANONYMOUS: Identity(AuthType.ANONYMOUS, "token:c", None, SCOPES, 1.0),
    AuthType.OAUTH: Identity(AuthType.OAUTH, "oauth:okta:é", "ana@acme.com", SCOPES, 1.0, "client"),
}


def found(rules: IdentityHeaders, holder: Identity | None, user: str | None, *names: str) -> tuple[dict[str, str], set[str]]:
    changes = rules.edits(names, holder, user)
    assert isinstance(changes, HeaderEdits)
    assert not dict(changes.set).keys() & set(changes.remove)
    return dict(changes.set), set(changes.remove)


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        *((f"x-extauthz-{field}", True) for field in FIELDS),
        *((name, True) for name in ("x-extauthz-", "x-extauthz-anything", "X-ExtAuthz-User", "x_extauthz_user", "x.extauthz!user")),
        *((name, True) for name in ("x-glean-auth-type", "X_Glean_Auth_Type", "x-scio-actas", "x-glean-actas", "X-Scio-ActAs")),
        *((name, True) for name in ("x-original-url", "x_http_method_override", "path-info", "SCRIPT_NAME")),
        *((name, False) for name in ("x-extauthz", "authorization", "x-request-id", "x-scio-acta", "x-scio-actas2", "accept", "")),
    ],
)
def test_a_name_is_ours_however_it_is_spelt(name: str, is_ours: bool) -> None:
    assert RULES.owns(name) is is_ours


@pytest.mark.parametrize(
    ("kind", "user", "expected"),
    [
        (AuthType.GLOBAL, "eva@acme.com", {"user": "eva@acme.com", "actor": "token:a"}),
        (AuthType.USER, "ana@acme.com", {"user": "ana@acme.com", "actor": "token:b"}),
        (AuthType.ANONYMOUS, None, {"actor": "token:c"}),
        (AuthType.OAUTH, "ana@acme.com", {"user": "ana@acme.com", "actor": "oauth:okta:%C3%A9", "client-id": "client"}),
    ],
)
def test_an_upstream_is_told_who_asks_and_as_whom(kind: AuthType, user: str | None, expected: dict[str, str]) -> None:
    spellings = {"x.extauthz.user", "x-extauthz user"}
    sets, removes = found(RULES, HOLDERS[kind], user, "accept", *spellings)
    common = {"auth-type": kind.value, "scopes": "CHAT,SEARCH", "decision-id": DECISION_ID}
    assert sets == {f"x-extauthz-{name}": value for name, value in (expected | common).items()}
    absent = {f"x-extauthz-{name}" for name in FIELDS if name not in expected | common}
    assert removes == absent | {"authorization", "x-glean-auth-type", "x-scio-actas", "x-glean-actas"} | spellings


@pytest.mark.parametrize("kind", AuthType)
def test_a_kept_act_as_header_goes_on_behind_a_global_token_alone(kind: AuthType) -> None:
    user = HOLDERS[kind].user or ("eva@acme.com" if kind is AuthType.GLOBAL else None)
    sets, removes = found(KEEPING, HOLDERS[kind], user, "x-scio-actas", "x-original-url", "authorization")
    assert sets.get("x-scio-actas") == ("eva@acme.com" if kind is AuthType.GLOBAL else None)
    assert ("x-scio-actas" in removes) is (kind is not AuthType.GLOBAL)
    assert removes.isdisjoint({"authorization", "x-original-url"})
    assert "x-glean-actas" in removes


@pytest.mark.parametrize(("length", "is_short"), [(MAX_VALUE, True), (MAX_VALUE + 1, False)])
def test_a_value_has_512_bytes_at_most(length: int, is_short: bool) -> None:
    changes = RULES.edits((), HOLDERS[AuthType.GLOBAL], "a" * length)
    assert isinstance(changes, HeaderEdits) if is_short else changes is Reason.IDENTITY_TOO_LONG


@pytest.mark.parametrize("refused", [True, False])
def test_monitor_mode_leaves_credentials_and_names_nobody_who_is_refused(refused: bool) -> None:
    plain = KEEPING.edits((), HOLDERS[AuthType.GLOBAL], "eva@acme.com")
    assert isinstance(plain, HeaderEdits)
    changes = HeaderEdits(plain.set, (*plain.remove, "x_extauthz_other"))
    done = KEEPING.monitored_edits(changes, refused=refused)
    credentials = {"authorization", "x-glean-auth-type", "x-scio-actas", "x-glean-actas"}
    assert credentials.isdisjoint({*dict(done.set), *done.remove})
    assert "x_extauthz_other" in done.remove
    if refused:
        assert done.set == (("x-extauthz-decision", "would-deny"),)
        assert "x-extauthz-user" in done.remove
    else:
        assert dict(done.set) == {name: value for name, value in plain.set if name not in credentials}
    assert not dict(done.set).keys() & set(done.remove)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("!~", "!~"),
        (" ", "%20"),
        ("%", "%25"),
        ("\x7f", "%7F"),
        ("é", "%C3%A9"),
        ("a\nb", "a%0Ab"),
        ("a$b&c", "a$b&c"),
        ("", ""),
        ("!~é\x7f%&", "!~%C3%A9%7F%25&"),
    ],
)
def test_every_byte_that_is_not_plain_is_encoded(value: str, expected: str) -> None:
    assert encoded(value) == expected
