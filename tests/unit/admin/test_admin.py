"""The use cases of `admin/` without a command line: every right, every refusal by its field, and what a store holds after them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin import audit_search, audits, leaks, revocation, rights, stores, tokens, transfer, verification
from extauthz.admin.administration import Administration, audit_keys
from extauthz.admin.leaks import LeakOutcome
from extauthz.admin.metadata import token_metadata, utc
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Operation, Role, may, role_of
from extauthz.admin.token_requests import TokenRequest, TokenRules
from extauthz.admin.token_search import TokenSearch, TokenStatus
from extauthz.config.patterns import compile_patterns
from extauthz.core.act_as import ActAs
from extauthz.core.model import AuthType
from extauthz.core.tokens import TokenText
from extauthz.errors import StoreError

NOW = 1_800_000_000
DAY = 86_400
PEPPER = b"a pepper for tests, 32 bytes long"
PEPPERS = {"p1": PEPPER}
RULES = TokenRules("glean", frozenset({"SEARCH", "CHAT"}), 90.0 * DAY, ActAs(allow=compile_patterns(["*@acme.com"])))
VIEWER, ADMIN, SUPER_ADMIN = (Actor(f"{role}@acme.com", role, "a test") for role in Role)
TOKEN = TokenRequest("Ana's notebook", AuthType.USER, frozenset({"SEARCH"}), NOW, ADMIN.name, NOW + 30 * DAY, "ana@acme.com")
GLOBAL = replace(TOKEN, permission=AuthType.GLOBAL, user=None)


@pytest.fixture
def administration(tmp_path: Path) -> Iterator[Administration]:
    """An empty installation."""
    with closing(SqlTokenStore(tmp_path / "tokens.db", create=True)) as store:
        store.migrate()
        yield Administration(store, RULES, frozenset({"glean"}), lambda: PEPPERS)


def fields(outcome: object) -> list[str]:
    """Return the fields that a refusal names."""
    assert isinstance(outcome, Refused), outcome
    return [refusal.field for refusal in outcome.refusals]


def made(administration: Administration, *requests: TokenRequest, actor: Actor = SUPER_ADMIN) -> list[tokens.NewToken]:
    """Create tokens that nothing stands against."""
    outcome = tokens.create(administration, actor, requests, NOW)
    assert not isinstance(outcome, Refused), outcome
    return list(outcome)


def rows(administration: Administration) -> int:
    """Return how many changes the audit tells of."""
    return administration.store.audit_head()[0]


# --- rights

OF_TOKENS = frozenset({Operation.CREATE, Operation.ROTATE, Operation.REVOKE, Operation.IMPORT})
# Listed one by one, so that nobody forgets to decide who may do what is new.
OF_THE_STORE = frozenset({Operation.EXPORT_DIGESTS, Operation.ACCEPT_RESTORE, Operation.MIGRATE, Operation.BACK_UP})
OF_KEYS = frozenset({Operation.READ_KEYS, Operation.CREATE_KEY, Operation.REVOKE_KEY})
OF_THE_CONSOLE = OF_KEYS | {Operation.SESSIONS, Operation.ACCOUNTS, Operation.SETTINGS}
ALLOWED: Mapping[Role, Mapping[AuthType | None, frozenset[Operation]]] = {
    Role.VIEWER: {},
    Role.ADMIN: dict.fromkeys(
        (None, AuthType.USER, AuthType.ANONYMOUS),
        OF_TOKENS,
    ),
    Role.SUPER_ADMIN: {
        None: OF_TOKENS | OF_THE_STORE | OF_THE_CONSOLE,
        **dict.fromkeys(
            (AuthType.USER, AuthType.ANONYMOUS, AuthType.GLOBAL),
            OF_TOKENS,
        ),
    },
}
CELLS = [
    (actor, operation, permission)
    for actor, operation in itertools.product((VIEWER, ADMIN, SUPER_ADMIN), Operation)
    for permission in ((None, *AuthType) if operation in OF_TOKENS else (None,))
]


@pytest.mark.parametrize(("actor", "operation", "permission"), CELLS)
def test_every_right(actor: Actor, operation: Operation, permission: AuthType | None) -> None:
    allowed = operation is Operation.READ or operation in ALLOWED[actor.role].get(permission, frozenset())
    refusal = rights.refusal(actor, operation, permission)
    assert may(actor, operation, permission) is allowed
    assert (refusal is None) is allowed
    if refusal is not None and (permission is None or permission in rights.PERMISSIONS):
        assert actor.name in refusal.message
        assert "see roles." in refusal.message


@pytest.mark.parametrize(
    ("email", "role"),
    [
        ("ana@acme.com", Role.ADMIN),
        ("sue@acme.com", Role.SUPER_ADMIN),
        ("bea@acme.com", Role.VIEWER),
        ("both@acme.com", Role.SUPER_ADMIN),
        ("seer@acme.com", Role.ADMIN),
        ("eve@acme.com", None),
        ("", None),
    ],
)
def test_the_highest_role_counts(email: str, role: Role | None) -> None:
    admins, super_admins = ["ana@acme.com", "both@acme.com", "seer@acme.com"], ["sue@acme.com", "both@acme.com"]
    assert role_of(email, admins, super_admins, ["bea@acme.com", "both@acme.com", "seer@acme.com"]) is role


# --- create


def test_a_token_is_created_once_and_told_once(administration: Administration) -> None:
    (new,) = made(administration, TOKEN, actor=ADMIN)
    stored = tokens.show(administration, VIEWER, new.record.id)
    assert not isinstance(stored, Refused)
    assert (stored.user, stored.created_by, stored.expires_at) == ("ana@acme.com", ADMIN.name, TOKEN.expires_at)
    assert new.text.text not in str(token_metadata(stored, NOW))
    assert (administration.store.audit_page()[0].actor, administration.store.audit_page()[0].source) == (ADMIN.name, "a test")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"description": ""}, ["description"]),
        ({"permission": AuthType.OAUTH, "user": None}, ["permission"]),
        ({"scopes": frozenset()}, ["scopes"]),
        ({"scopes": frozenset({"PINS"})}, ["scopes"]),
        ({"expires_at": NOW}, ["expires_at"]),
        ({"expires_at": NOW + 91 * DAY}, ["expires_at"]),
        ({"user": None}, ["user"]),
        ({"user": "ana@evil.com"}, ["user"]),
        ({"permission": AuthType.ANONYMOUS}, ["user"]),
        ({"permission": AuthType.GLOBAL, "user": None}, ["permission"]),
        ({"description": " ", "scopes": frozenset(), "user": "x"}, ["description", "scopes", "user"]),
    ],
    ids=str,
)
def test_a_request_is_refused_by_its_fields(
    administration: Administration, changes: dict[str, object], expected: list[str]
) -> None:
    request = replace(TOKEN, **changes)  # type: ignore[arg-type]
    assert fields(tokens.create(administration, ADMIN, [request], NOW)) == expected
    assert rows(administration) == 0


def test_all_are_created_or_none(administration: Administration) -> None:
    outcome = tokens.create(administration, ADMIN, [TOKEN, GLOBAL, replace(TOKEN, scopes=frozenset())], NOW)
    assert isinstance(outcome, Refused)
    assert [(refusal.position, refusal.field) for refusal in outcome.refusals] == [(1, "permission"), (2, "scopes")]
    assert rows(administration) == 0


def test_each_one_that_is_made_is_told_to_a_progress_bar(administration: Administration) -> None:
    steps: list[None] = []
    tokens.create(administration, ADMIN, [TOKEN] * 3, NOW, advance=lambda: steps.append(None))
    assert len(steps) == 3


def test_a_pepper_that_is_another_one_changes_nothing(administration: Administration) -> None:
    made(administration, TOKEN)
    other = replace(administration, read_peppers=lambda: {"p1": b"another pepper of 32 bytes length"})
    with pytest.raises(StoreError, match="'p1' is not the one"):
        tokens.create(other, ADMIN, [TOKEN], NOW)
    assert rows(administration) == 1


def test_a_missing_pepper_stops_every_change_but_revocations(administration: Administration) -> None:
    (new,) = made(administration, TOKEN)
    other = replace(administration, read_peppers=lambda: {"p2": b"another pepper of 32 bytes length"})
    with pytest.raises(StoreError, match="1 active token needs pepper 'p1'"):
        tokens.create(other, ADMIN, [TOKEN], NOW)
    outcome = revocation.revoke(other, ADMIN, [new.record.id], NOW)
    assert outcome == revocation.Revoked((new.record.id,))


# --- rotate


def test_a_rotation_has_a_successor_and_an_end(administration: Administration) -> None:
    (old,) = made(administration, TOKEN)
    outcome = tokens.rotate(administration, ADMIN, old.record.id, NOW + DAY, overlap=3600)
    assert isinstance(outcome, tokens.Rotation)
    assert (outcome.old.id, outcome.old.expires_at, outcome.old.rotated_to) == (
        old.record.id,
        NOW + DAY + 3600,
        outcome.new.record.id,
    )
    assert outcome.new.record.expires_at == NOW + 31 * DAY


@pytest.mark.parametrize(
    ("case", "actor", "expected"),
    [
        ("unknown", ADMIN, "id"),
        ("revoked", ADMIN, "id"),
        ("expired", ADMIN, "id"),
        ("rotated", ADMIN, "id"),
        ("active", VIEWER, "actor"),
        ("global", ADMIN, "permission"),
        ("scope", ADMIN, "successor.scopes"),
    ],
)
def test_what_is_not_rotated(administration: Administration, case: str, actor: Actor, expected: str) -> None:
    (new,) = made(administration, GLOBAL if case == "global" else TOKEN)
    token_id, at = new.record.id, NOW + 1
    match case:
        case "unknown":
            token_id = "x" * 12
        case "revoked":
            revocation.revoke(administration, ADMIN, [token_id], NOW)
        case "expired":
            at = TOKEN.expires_at
        case "rotated":
            tokens.rotate(administration, ADMIN, token_id, NOW, overlap=DAY)
        case "scope":
            administration = replace(administration, rules=replace(RULES, vocabulary=frozenset({"CHAT"})))
    before = rows(administration)
    assert fields(tokens.rotate(administration, actor, token_id, at, overlap=0)) == [expected]
    assert rows(administration) == before


# --- look


def test_an_unknown_id_is_refused(administration: Administration) -> None:
    assert fields(tokens.show(administration, VIEWER, "x" * 12)) == ["id"]


# --- revoke


def test_revocation_tells_what_was_done_before_and_what_is_unknown(administration: Administration) -> None:
    first, second = made(administration, TOKEN, TOKEN)
    revocation.revoke(administration, ADMIN, [first.record.id], NOW, why="lost")
    outcome = revocation.revoke(administration, ADMIN, [first.record.id, second.record.id, "x" * 12, "x" * 12], NOW + 1)
    assert isinstance(outcome, revocation.Revoked)
    assert (outcome.ids, outcome.unknown) == ((second.record.id,), ("x" * 12,))
    assert [(token.id, token.revoked_at, token.revoked_why) for token in outcome.before.values()] == [
        (first.record.id, NOW, "lost")
    ]


def test_a_chain_ends_as_a_whole(administration: Administration) -> None:
    (old,) = made(administration, TOKEN)
    rotation = tokens.rotate(administration, ADMIN, old.record.id, NOW, overlap=DAY)
    assert isinstance(rotation, tokens.Rotation)
    outcome = revocation.revoke(administration, ADMIN, [old.record.id], NOW, linked=True)
    assert isinstance(outcome, revocation.Revoked)
    assert set(outcome.ids) == {old.record.id, rotation.new.record.id}


@pytest.mark.parametrize(("actor", "which"), [(VIEWER, "user"), (ADMIN, "global")])
def test_one_that_may_not_be_revoked_stops_all(administration: Administration, actor: Actor, which: str) -> None:
    user, everything = made(administration, TOKEN, GLOBAL)
    before = rows(administration)
    outcome = revocation.revoke(administration, actor, [user.record.id, everything.record.id], NOW)
    assert fields(outcome) == ["ids"]
    stopped = user if which == "user" else everything
    assert isinstance(outcome, Refused)
    assert stopped.record.id in outcome.refusals[0].message
    assert rows(administration) == before


def test_all_tokens_of_a_user(administration: Administration) -> None:
    ana, bob, everything = made(administration, TOKEN, replace(TOKEN, user="bob@acme.com"), GLOBAL)
    assert revocation.count_active(administration, ADMIN, "ANA@acme.com", NOW) == 1
    outcome = revocation.revoke_user(administration, ADMIN, "ANA@acme.com", NOW, why="left")
    assert outcome == revocation.Revoked((ana.record.id,))
    left = tokens.list_tokens(administration, VIEWER, TokenSearch(status=TokenStatus.ACTIVE), NOW)
    assert isinstance(left, tokens.Page)
    assert {token.id for token in left.tokens} == {bob.record.id, everything.record.id}


@pytest.mark.parametrize(
    ("actor", "user", "expected"), [(ADMIN, "ana", "user"), (ADMIN, "bob@acme.com", "user"), (VIEWER, "ana@acme.com", "actor")]
)
def test_users_whose_tokens_are_not_revoked(administration: Administration, actor: Actor, user: str, expected: str) -> None:
    made(administration, TOKEN)
    assert fields(revocation.revoke_user(administration, actor, user, NOW)) == [expected]
    assert rows(administration) == 1


# --- leaked, verify


def test_leaked_tokens_end_where_their_secret_is_right(administration: Administration) -> None:
    user, everything, revoked, unknown = made(administration, TOKEN, GLOBAL, TOKEN, TOKEN)
    revocation.revoke(administration, ADMIN, [revoked.record.id], NOW)
    broken = unknown.text.text[:-1] + ("a" if unknown.text.text[-1] != "a" else "b")
    report = " ".join([user.text.text, everything.text.text, revoked.text.text, broken, user.text.text])
    texts = verification.tokens_in(f"({report})", administration.prefixes)
    assert len(texts) == 4
    outcomes = leaks.end_leaked(administration, ADMIN, texts, NOW, why="leaked")
    assert [(leak.id, leak.outcome) for leak in outcomes] == [
        (user.record.id, LeakOutcome.REVOKED),
        (everything.record.id, LeakOutcome.REFUSED),
        (revoked.record.id, LeakOutcome.REVOKED_BEFORE),
        (unknown.record.id, LeakOutcome.NO_TOKEN),
    ]
    assert [leak.refusal is not None for leak in outcomes] == [False, True, False, False]
    still = tokens.show(administration, VIEWER, everything.record.id)
    assert not isinstance(still, Refused)
    assert still.revoked_at is None


def test_a_viewer_ends_no_leaked_token(administration: Administration) -> None:
    (new,) = made(administration, TOKEN)
    assert [leak.outcome for leak in leaks.end_leaked(administration, VIEWER, [new.text.text], NOW, why="x")] == [
        LeakOutcome.REFUSED
    ]
    assert rows(administration) == 1


def test_a_leak_of_another_store_is_unknown(administration: Administration, tmp_path: Path) -> None:
    (new,) = made(administration, TOKEN)
    with closing(SqlTokenStore(tmp_path / "other.db", create=True)) as store:
        store.migrate()
        other = replace(administration, store=store)
        made(other, TOKEN)
        (leak,) = leaks.end_leaked(other, SUPER_ADMIN, [new.text.text], NOW, why="x")
        assert leak.outcome is LeakOutcome.UNKNOWN


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("", "malformed"),
        ("glean_x", "malformed"),
        ("ghp_0123456789ab_" + "0" * 49, "malformed"),
        ("glean_0123456789ab_" + "0" * 49, "wrong checksum"),
    ],
)
def test_the_form_of_what_is_no_token(text: str, verdict: str) -> None:
    outcome = verification.check_form(text, frozenset({"glean"}))
    assert isinstance(outcome, verification.VerificationResult)
    assert (outcome.verdict, outcome.is_good, outcome.id) == (verdict, False, None)


def test_a_token_of_another_prefix_is_named(administration: Administration) -> None:
    other = replace(administration, rules=replace(RULES, prefix="acme"))
    (new,) = made(other, TOKEN)
    outcome = verification.check_form(new.text.text, frozenset({"glean"}))
    assert outcome == verification.VerificationResult("unknown prefix 'acme'")


def test_what_the_store_says_of_a_token(administration: Administration) -> None:
    active, revoked = made(administration, TOKEN, TOKEN)
    revocation.revoke(administration, ADMIN, [revoked.record.id], NOW)
    wrong = replace(active.text, text=revoked.text.text)
    unknown = replace(active.text, id="x" * 12)
    expected = [(active.text, NOW, "active", True), (active.text, TOKEN.expires_at, "expired", True)]
    expected += [(revoked.text, NOW, "revoked", True), (wrong, NOW, "wrong secret", False), (unknown, NOW, "unknown", False)]
    for text, at, verdict, is_told in expected:
        assert isinstance(text, TokenText)
        outcome = verification.verify(administration, text, at)
        assert (outcome.verdict, outcome.token is not None, outcome.is_good) == (verdict, is_told, verdict == "active")


# --- export, import


def test_tokens_move_to_another_store_and_stay_good(administration: Administration, tmp_path: Path) -> None:
    new = made(administration, TOKEN, GLOBAL, replace(TOKEN, permission=AuthType.ANONYMOUS, user=None))
    lines = transfer.export(administration, SUPER_ADMIN, NOW)
    assert not isinstance(lines, Refused)
    prepared = transfer.prepare(list(lines), SUPER_ADMIN, NOW, rules=RULES, peppers=PEPPERS)
    assert isinstance(prepared, transfer.Import)
    with closing(SqlTokenStore(tmp_path / "other.db", create=True)) as store:
        store.migrate()
        other = replace(administration, store=store)
        ids = transfer.import_tokens(other, prepared, NOW)
        assert set(ids) == {each.record.id for each in new}
        assert [verification.verify(other, each.text, NOW).verdict for each in new] == ["active"] * 3
        assert fields(transfer.import_tokens(other, prepared, NOW)) == ["id"]


def test_digests_leave_only_with_a_super_admin(administration: Administration) -> None:
    made(administration, TOKEN)
    for actor in (VIEWER, ADMIN):
        assert fields(transfer.export(administration, actor, NOW)) == ["actor"]


def test_what_may_not_be_imported(administration: Administration) -> None:
    made(administration, TOKEN, GLOBAL)
    exported = transfer.export(administration, SUPER_ADMIN, NOW)
    assert not isinstance(exported, Refused)
    lines = sorted(exported, key=lambda line: "GLOBAL" in line)
    cases = [
        (lines, ADMIN, PEPPERS, [(1, "permission")]),
        (lines, VIEWER, PEPPERS, [(0, "actor"), (1, "permission")]),
        ([lines[0], "", lines[0]], ADMIN, PEPPERS, [(2, "id")]),
        ([lines[0]], ADMIN, {"p2": PEPPER}, [(0, "pepper_id")]),
        ([lines[0]], ADMIN, {"p1": b"another"}, [(0, "pepper_fingerprint")]),
        (["[]"], ADMIN, PEPPERS, [(0, "id")]),
        (["{"], ADMIN, PEPPERS, [(0, "id")]),
        ([], ADMIN, PEPPERS, [(None, "file")]),
        (["\n"], ADMIN, PEPPERS, [(None, "file")]),
        (itertools.repeat("{}"), ADMIN, PEPPERS, [(None, "file")]),
    ]
    for given, actor, peppers, expected in cases:
        outcome = transfer.prepare(given, actor, NOW, rules=RULES, peppers=peppers)
        assert isinstance(outcome, Refused), given
        assert [(refusal.position, refusal.field) for refusal in outcome.refusals] == expected


# --- audit, store


def test_the_audit_page_by_page_and_whole(administration: Administration) -> None:
    made(administration, *[TOKEN] * 3)
    page = audit_search.list_rows(administration, VIEWER, after=0, limit=2)
    assert isinstance(page, audit_search.AuditStretch)
    assert ([entry.row.number for entry in page.entries], page.after, page.before) == ([1, 2], 2, None)
    newest = audit_search.list_rows(administration, VIEWER, limit=2)
    assert isinstance(newest, audit_search.AuditStretch)
    assert ([entry.row.number for entry in newest.entries], newest.after, newest.before) == ([2, 3], None, 2)
    check = audits.verify(administration, VIEWER)
    assert isinstance(check, audits.AuditCheck)
    assert (check.checked.first_broken, check.checked.differences) == (None, ())
    lines = audits.export(administration, VIEWER)
    assert not isinstance(lines, Refused)
    assert len(list(lines)) == 4


def test_an_audit_whose_pepper_is_not_listed(administration: Administration) -> None:
    made(administration, TOKEN)
    check = audits.verify(replace(administration, read_peppers=lambda: {"p2": PEPPER}), VIEWER)
    assert isinstance(check, audits.AuditCheck)
    assert (check.checked.first_broken, check.is_without_pepper) == (1, True)


def test_the_state_of_a_store(administration: Administration) -> None:
    made(administration, TOKEN)
    found = stores.status(administration, VIEWER, NOW, listed=[])
    assert isinstance(found, stores.StoreStatus)
    assert (found.status.active, found.missing_peppers) == (1, ("p1",))
    listed = stores.status(administration, VIEWER, NOW, listed=["p1"])
    assert isinstance(listed, stores.StoreStatus)
    assert listed.missing_peppers == ()


@pytest.mark.parametrize("actor", [VIEWER, ADMIN], ids=lambda actor: actor.role)
def test_the_store_belongs_to_super_admins(administration: Administration, actor: Actor, tmp_path: Path) -> None:
    keys = audit_keys(PEPPERS)
    assert fields(stores.migrate(administration, actor)) == ["actor"]
    assert fields(stores.back_up(administration, actor, tmp_path / "copy.db")) == ["actor"]
    assert fields(stores.read_export(actor, [], keys)) == ["actor"]
    assert not (tmp_path / "copy.db").exists()
    assert stores.migrate(administration, SUPER_ADMIN) == administration.store.status(NOW).revision


def test_a_restore_is_accepted_with_the_export_of_its_own_audit(administration: Administration, tmp_path: Path) -> None:
    lost, kept = made(administration, TOKEN, TOKEN)
    copy = tmp_path / "copy.db"
    assert stores.back_up(administration, SUPER_ADMIN, copy) == administration.store.audit_head()
    revocation.revoke(administration, ADMIN, [lost.record.id], NOW)
    lines = audits.export(administration, VIEWER)
    assert not isinstance(lines, Refused)
    exported = list(lines)
    keys = audit_keys(PEPPERS)
    assert fields(stores.read_export(SUPER_ADMIN, exported[1:], keys)) == ["audit"]
    assert fields(stores.read_export(SUPER_ADMIN, ["x"], keys)) == ["audit"]
    read = stores.read_export(SUPER_ADMIN, exported, keys)
    assert not isinstance(read, Refused)
    first, export = read
    with closing(SqlTokenStore(copy)) as store:
        restored = replace(administration, store=store)
        assert fields(stores.prepare_restore(restored, SUPER_ADMIN, "00" * 32, export, NOW)) == ["audit"]
        restore = stores.prepare_restore(restored, SUPER_ADMIN, first, export, NOW)
        assert isinstance(restore, stores.Restore)
        assert restore.is_behind is False
        for actor in (VIEWER, ADMIN):
            assert fields(stores.prepare_restore(restored, actor, first, export, NOW)) == ["actor"]
            assert fields(stores.accept_restore(restored, actor, restore, NOW)) == ["actor"]
        outcome = stores.accept_restore(restored, SUPER_ADMIN, restore, NOW)
        assert not isinstance(outcome, Refused)
        assert outcome.revoked == (lost.record.id,)
        assert verification.verify(restored, lost.text, NOW).verdict == "revoked"
        assert verification.verify(restored, kept.text, NOW).verdict == "active"


def test_times_are_written_in_utc() -> None:
    assert (utc(NOW), utc(None)) == ("2027-01-15T08:00:00Z", None)
