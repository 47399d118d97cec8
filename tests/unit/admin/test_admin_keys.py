"""Admin keys: who makes them, what they are good for, and that nothing else is one."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from extauthz.admin import audit_search, audits, keys, tokens
from extauthz.admin.administration import Administration
from extauthz.admin.keys import KeyRequest, KeyStatus, NewKey, key_metadata
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Role
from extauthz.admin.token_requests import TokenRequest, TokenRules
from extauthz.admin.token_search import TokenSearch
from extauthz.config.patterns import compile_patterns
from extauthz.config.settings import RolesSection
from extauthz.core import tokens as core_tokens
from extauthz.core.act_as import ActAs
from extauthz.core.model import AuthType, Reason
from extauthz.core.tokens import TokenText
from extauthz.errors import StoreError
from extauthz.ports import ADMIN_KEY_PREFIX, RESOLUTION
from tests.support.console_api import empty_store

NOW, DAY = 1_800_000_000, 86_400
PEPPER = b"a pepper for tests, 32 bytes long"
PEPPERS = {"p1": PEPPER}
RULES = TokenRules("glean", frozenset({"SEARCH"}), 90.0 * DAY, ActAs(allow=compile_patterns(["*@acme.com"])))
VIEWER, ADMIN, SUPER_ADMIN = (Actor(f"{role}@acme.com", role, "a test") for role in Role)
ROLES = RolesSection(viewers=[VIEWER.name], admins=[ADMIN.name], super_admins=[SUPER_ADMIN.name])
REQUEST = KeyRequest("rotation in CI", Role.ADMIN, NOW + 30 * DAY)
TOKEN = TokenRequest("CI", AuthType.ANONYMOUS, frozenset({"SEARCH"}), NOW, "ana", NOW + DAY)
ADDRESS = "10.0.0.7"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file for a store."""
    return tmp_path / "tokens.db"


@pytest.fixture
def administration(file: Path) -> Iterator[Administration]:
    """An empty installation."""
    with closing(empty_store(file)) as store:
        yield Administration(store, RULES, frozenset({"glean"}), lambda: PEPPERS)


def made(administration: Administration, request: KeyRequest = REQUEST, maker: Actor = SUPER_ADMIN) -> NewKey:
    """Create a key that nothing stands against."""
    outcome = keys.create(administration, maker, request, NOW)
    assert isinstance(outcome, NewKey), outcome
    return outcome


def identified(administration: Administration, text: str, at: int = NOW, roles: RolesSection = ROLES) -> Actor | Refused:
    """Return whose key a text is."""
    return keys.identify(administration, text, at, address=ADDRESS, roles=roles)


def fields(outcome: object) -> list[str]:
    """Return the fields that a refusal names."""
    assert isinstance(outcome, Refused), outcome
    return [refusal.field for refusal in outcome.refusals]


def change_row(file: Path, statement: str) -> None:
    """Change a row behind the store's back."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        assert connection.execute(statement).rowcount == 1


# --- who makes them


@pytest.mark.parametrize("role", Role)
def test_a_key_acts_with_its_role_in_its_own_name(administration: Administration, role: Role) -> None:
    new = made(administration, replace(REQUEST, role=role))
    assert new.text.text.startswith(f"{ADMIN_KEY_PREFIX}_{new.record.id}_")
    assert identified(administration, new.text.text) == Actor(f"key:{new.record.id}", role, f"api {ADDRESS}")


@pytest.mark.parametrize("actor", [VIEWER, ADMIN, Actor("key:aaaaaaaaaaaa", Role.ADMIN)], ids=str)
@pytest.mark.parametrize("role", Role)
def test_only_a_super_admin_makes_and_ends_keys(administration: Administration, actor: Actor, role: Role) -> None:
    new = made(administration)
    assert fields(keys.create(administration, actor, replace(REQUEST, role=role), NOW)) == ["actor"]
    assert fields(keys.revoke(administration, actor, new.record.id, NOW)) == ["actor"]
    assert fields(keys.list_keys(administration, actor, NOW)) == ["actor"]
    assert keys.list_keys(administration, SUPER_ADMIN, NOW) == [new.record]
    assert isinstance(identified(administration, new.text.text), Actor)


def test_a_key_is_told_to_use_another_one(administration: Administration) -> None:
    outcome = keys.create(administration, Actor("key:aaaaaaaaaaaa", Role.ADMIN), REQUEST, NOW)
    assert isinstance(outcome, Refused)
    assert outcome.refusals[0].message.endswith("key:aaaaaaaaaaaa is an admin: use another admin key")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"description": ""}, ["description"]),
        ({"description": " "}, ["description"]),
        ({"description": "a\nb"}, ["description"]),
        ({"description": "x" * 201}, ["description"]),
        ({"expires_at": NOW}, ["expires_at"]),
        ({"expires_at": NOW + 90 * DAY + 1}, ["expires_at"]),
        ({"description": "", "expires_at": 0}, ["description", "expires_at"]),
    ],
    ids=str,
)
def test_a_request_is_refused_by_its_fields(
    administration: Administration, changes: dict[str, object], expected: list[str]
) -> None:
    request = replace(REQUEST, **changes)  # type: ignore[arg-type]
    assert fields(keys.create(administration, SUPER_ADMIN, request, NOW)) == expected
    assert administration.store.audit_head()[0] == 0


def test_the_longest_life_is_that_of_tokens(administration: Administration) -> None:
    assert made(administration, replace(REQUEST, expires_at=NOW + 90 * DAY)).record.expires_at == NOW + 90 * DAY


def test_a_key_is_audited_and_its_secret_is_nowhere(administration: Administration, file: Path) -> None:
    new = made(administration)
    keys.revoke(administration, SUPER_ADMIN, new.record.id, NOW + 5)
    listed = audit_search.list_rows(administration, VIEWER)
    assert not isinstance(listed, Refused)
    entries = [entry.row for entry in listed.entries]
    rows = [(row.action, row.token_id, row.actor, row.source, row.at) for row in entries]
    assert rows == [
        ("key-create", None, SUPER_ADMIN.name, "a test", NOW),
        ("key-revoke", None, SUPER_ADMIN.name, "a test", NOW + 5),
    ]
    assert [new.record.id in row.after for row in entries] == [True, True]
    secret = new.text.text.split("_")[2]
    shown = [repr(new), str(key_metadata(new.record, NOW, ROLES)), *(row.before + row.after for row in entries)]
    assert not any(secret in text or new.record.digest.hex() in text or repr(new.record.digest) in text for text in shown)
    contents = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert new.record.id.encode() in contents
    assert secret.encode() not in contents
    check = audits.verify(administration, VIEWER)
    assert not isinstance(check, Refused)
    assert (check.checked.first_broken, check.checked.differences) == (None, ())


def test_a_wrong_pepper_makes_no_key(administration: Administration) -> None:
    made(administration)
    other = replace(administration, read_peppers=lambda: {"p1": b"another pepper of 32 bytes length"})
    with pytest.raises(StoreError, match="'p1' is not the one"):
        keys.create(other, SUPER_ADMIN, REQUEST, NOW)


# --- which are good


def test_an_expired_key_is_refused_from_its_second_on(administration: Administration) -> None:
    text = made(administration).text.text
    assert isinstance(identified(administration, text, REQUEST.expires_at - 1), Actor)
    outcome = identified(administration, text, REQUEST.expires_at)
    assert isinstance(outcome, Refused)
    assert "expired at 2027-02-14" in outcome.refusals[0].message


def test_a_revoked_key_is_refused_and_stays_so(administration: Administration) -> None:
    new = made(administration)
    assert keys.revoke(administration, SUPER_ADMIN, new.record.id, NOW) == new.record
    outcome = identified(administration, new.text.text)
    assert isinstance(outcome, Refused)
    assert "was revoked" in outcome.refusals[0].message
    again = keys.revoke(administration, Actor("eve@acme.com", Role.SUPER_ADMIN), new.record.id, NOW + 9)
    assert not isinstance(again, Refused)
    assert (again.revoked_at, again.revoked_by) == (NOW, SUPER_ADMIN.name)
    assert administration.store.audit_head()[0] == 2


def test_lists_name_what_is_good_or_everything(administration: Administration) -> None:
    old, other, new = (made(administration, replace(REQUEST, expires_at=NOW + days * DAY)).record for days in (1, 2, 3))
    keys.revoke(administration, SUPER_ADMIN, other.id, NOW)
    at = NOW + DAY
    assert keys.list_keys(administration, SUPER_ADMIN, at) == [new]
    everything = keys.list_keys(administration, SUPER_ADMIN, at, everything=True)
    assert not isinstance(everything, Refused)
    assert {record.id: key_metadata(record, at, ROLES)["status"] for record in everything} == {
        old.id: "expired",
        other.id: "revoked",
        new.id: "active",
    }


@pytest.mark.parametrize("key_id", ["aaaaaaaaaaaa", "", "é", "\0", "x" * 99])
def test_an_unknown_id_is_refused(administration: Administration, key_id: str) -> None:
    assert fields(keys.revoke(administration, SUPER_ADMIN, key_id, NOW)) == ["id"]


def client_token(administration: Administration) -> TokenText:
    """Create a client token."""
    outcome = tokens.create(administration, SUPER_ADMIN, [TOKEN], NOW)
    assert isinstance(outcome, tuple)
    return outcome[0].text


def test_what_is_no_key_is_refused_in_the_same_words(administration: Administration) -> None:
    new = made(administration)
    text = new.text.text
    other = core_tokens.mint(ADMIN_KEY_PREFIX, b"x" * 48).text
    wrong_secret = core_tokens.mint(ADMIN_KEY_PREFIX, b"y" * 48).text.replace("_", f"_{new.record.id}_").split("_")
    body = f"{ADMIN_KEY_PREFIX}_{new.record.id}_{wrong_secret[3][:43]}"
    wrong = [
        "",
        "exadm",
        text[:-1],
        text[:-1] + ("a" if text[-1] != "a" else "b"),
        text.upper(),
        f"{text} ",
        f"{text}\n",
        f"{text}é",
        other,
        body + core_tokens._checksum(body),
        client_token(administration).text,
        new.record.id,
        "\0",
        "x" * 100_000,
    ]
    outcomes = [identified(administration, one) for one in wrong]
    assert [fields(outcome) for outcome in outcomes] == [["key"]] * len(wrong)
    assert len({str(outcome) for outcome in outcomes}) == 1


@pytest.mark.parametrize(
    "change",
    [
        "role = 'super_admin'",
        "role = 'operator'",
        f"expires_at = {NOW + 10**6}",
        f"created_at = {NOW - 1}",
        "created_by = 'os:root'",
        "pepper_id = 'p2'",
        "pepper_id = 'gone'",
        "digest = zeroblob(32)",
        "digest = x''",
    ],
)
def test_a_row_that_somebody_changed_is_no_key(administration: Administration, file: Path, change: str) -> None:
    text = made(administration).text.text
    change_row(file, f"UPDATE admin_keys SET {change}")  # noqa: S608
    more = replace(administration, read_peppers=lambda: PEPPERS | {"p2": b"another pepper of 32 bytes length"})
    assert fields(identified(more, text)) == ["key"]


@pytest.mark.parametrize("change", ["expires_at = 'late'", "digest = 'text'", "last_used_at = 'x'", "revoked_by = x'00'"])
def test_a_row_of_no_release_is_an_error_of_the_store(administration: Administration, file: Path, change: str) -> None:
    text = made(administration).text.text
    change_row(file, f"UPDATE admin_keys SET {change}")  # noqa: S608
    with pytest.raises(StoreError, match="no release wrote"):
        identified(administration, text)


def test_a_key_ends_with_its_pepper(administration: Administration) -> None:
    text = made(administration).text.text
    other = replace(administration, read_peppers=lambda: {"p2": b"another pepper of 32 bytes length"})
    assert fields(identified(other, text)) == ["key"]


# --- what becomes of a key when its maker's role changes

MAKER = Actor("mia@acme.com", Role.SUPER_ADMIN, "a test")


def roles_with(role: Role | None) -> RolesSection:
    """Return roles in which the maker has this one."""
    return RolesSection(
        viewers=[MAKER.name] if role is Role.VIEWER else [],
        admins=[MAKER.name] if role is Role.ADMIN else [],
        super_admins=[MAKER.name] if role is Role.SUPER_ADMIN else [],
    )


@pytest.mark.parametrize("now", [None, *Role], ids=str)
@pytest.mark.parametrize("role", Role)
def test_a_key_may_do_what_its_maker_may_do_now_and_no_more(administration: Administration, role: Role, now: Role | None) -> None:
    new, roles = made(administration, replace(REQUEST, role=role), MAKER), roles_with(now)
    outcome = identified(administration, new.text.text, roles=roles)
    order = list(Role)
    acts_as = None if now is None else order[min(order.index(role), order.index(now))]
    shown = key_metadata(new.record, NOW, roles)
    assert (shown["role"], shown["acts_as"]) == (role, acts_as)
    assert shown["status"] == (KeyStatus.ACTIVE if acts_as else KeyStatus.SUSPENDED)
    is_outlived = acts_as is not role
    assert [record.id for record in keys.outliving(administration.store, NOW, roles)] == [new.record.id] * is_outlived
    if acts_as is not None:
        assert outcome == Actor(f"key:{new.record.id}", acts_as, f"api {ADDRESS}")
        return
    assert isinstance(outcome, Refused)
    assert "mia@acme.com has no role any more" in outcome.refusals[0].message
    assert last_use(administration) is None


@pytest.mark.parametrize(("maker", "is_good"), [("os:ana", True), ("os:1000", True), ("key:aaaaaaaaaaaa", False), ("", False)])
def test_a_key_of_a_system_user_needs_no_role_and_nobody_else_is_one(
    administration: Administration, maker: str, is_good: bool
) -> None:
    new = made(administration, maker=Actor(maker, Role.SUPER_ADMIN, "a test"))
    assert isinstance(identified(administration, new.text.text, roles=RolesSection()), Actor) == is_good
    assert keys.outliving(administration.store, NOW, RolesSection()) == (() if is_good else (new.record,))


def test_only_who_has_the_secret_learns_of_the_maker(administration: Administration) -> None:
    new = made(administration, maker=MAKER)
    other = core_tokens.mint(ADMIN_KEY_PREFIX, b"y" * 48).text.split("_")[2]
    body = f"{ADMIN_KEY_PREFIX}_{new.record.id}_{other[:43]}"
    outcome = identified(administration, body + core_tokens._checksum(body), roles=RolesSection())
    assert isinstance(outcome, Refused)
    assert MAKER.name not in outcome.refusals[0].message


@pytest.mark.parametrize(("at", "is_revoked"), [(REQUEST.expires_at, False), (NOW, True)])
def test_what_has_ended_needs_no_look(administration: Administration, at: int, is_revoked: bool) -> None:
    new = made(administration, maker=MAKER)
    if is_revoked:
        keys.revoke(administration, SUPER_ADMIN, new.record.id, NOW)
    assert keys.outliving(administration.store, at, RolesSection()) == ()
    record = keys.list_keys(administration, SUPER_ADMIN, at, everything=True)
    assert not isinstance(record, Refused)
    assert key_metadata(record[0], at, RolesSection())["status"] == ("revoked" if is_revoked else "expired")


# --- one family is never the other


def test_a_sidecar_takes_no_key_for_a_token(administration: Administration) -> None:
    text = made(administration).text
    assert core_tokens.parse(text.text, administration.prefixes) is Reason.TOKEN_MALFORMED
    assert administration.store.get(text.id) is None
    assert tokens.list_tokens(administration, VIEWER, TokenSearch(), NOW) == tokens.Page((), None, None)


def test_no_digest_is_good_in_the_other_family(administration: Administration, file: Path) -> None:
    """Rows that somebody copies from one table into the other, with whatever prefix is accepted there."""
    key = made(administration)
    token = client_token(administration)
    record = administration.store.get(token.id)
    assert record is not None
    as_token = replace(record, id=key.record.id, digest=key.record.digest, created_at=NOW, expires_at=key.record.expires_at)
    for permission, user in itertools.product(AuthType, (None, "", "ana@acme.com")):
        forged = replace(as_token, permission=permission, user=user)
        assert core_tokens.verify(key.text, forged, PEPPERS, NOW) is Reason.TOKEN_SECRET_WRONG

    body = f"{ADMIN_KEY_PREFIX}_{token.text.removeprefix('glean_')[:-6]}"
    forged_text = body + core_tokens._checksum(body)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER admin_keys_once")
    for role, digest in itertools.product(
        Role,
        [
            record.digest[:32],
            core_tokens.digest(
                forged_text,
                PEPPER,
                permission=TOKEN.permission,
                user=None,
                scopes=TOKEN.scopes,
                created_at=NOW,
                latest=TOKEN.expires_at,
            )[:32],
        ],
    ):
        change_row(
            file,
            "INSERT OR REPLACE INTO admin_keys (id, description, role, created_at, created_by, expires_at, pepper_id, digest) "  # noqa: S608
            f"VALUES ('{token.id}', 'x', '{role}', {NOW}, 'eve', {TOKEN.expires_at}, 'p1', x'{digest.hex()}')",
        )
        assert fields(identified(administration, forged_text)) == ["key"]


# --- the last use


def last_use(administration: Administration) -> int | None:
    """Return when the only key was used."""
    listed = keys.list_keys(administration, SUPER_ADMIN, NOW, everything=True)
    assert not isinstance(listed, Refused)
    return listed[0].last_used_at


def test_a_use_is_written_once_in_a_quarter_of_an_hour(administration: Administration) -> None:
    text = made(administration).text.text
    assert last_use(administration) is None
    steps = [(0, 0), (1, 0), (RESOLUTION, 0), (RESOLUTION + 1, RESOLUTION + 1), (5, RESOLUTION + 1)]
    for later, expected in steps:
        assert isinstance(identified(administration, text, NOW + later), Actor)
        assert last_use(administration) == NOW + expected


def test_a_refused_key_was_not_used(administration: Administration) -> None:
    new = made(administration)
    keys.revoke(administration, SUPER_ADMIN, new.record.id, NOW)
    identified(administration, new.text.text)
    assert last_use(administration) is None


def test_a_use_that_cannot_be_written_refuses_nobody(administration: Administration, file: Path) -> None:
    text = made(administration).text.text
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("CREATE TRIGGER full BEFORE UPDATE ON admin_keys BEGIN SELECT RAISE(ABORT, 'no space'); END")
    assert isinstance(identified(administration, text), Actor)
    assert last_use(administration) is None
