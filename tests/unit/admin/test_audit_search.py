"""Lists of the audit as people ask for them, their files, and the numbers of the overview."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.adapters.store.records import AuditFilter, AuditRow
from extauthz.adapters.store.schema import token_usage
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin import audit_search, overview, revocation, tokens
from extauthz.admin.administration import Administration
from extauthz.admin.audit_search import AuditListing, FieldChange, changes_of
from extauthz.admin.exporting import csv_line
from extauthz.admin.outcomes import Refused
from extauthz.admin.overview import KEPT, SOON, Overviews
from extauthz.admin.rights import Actor, Role
from extauthz.admin.token_requests import TokenRequest, TokenRules
from extauthz.admin.token_search import TokenSearch, TokenStatus
from extauthz.config.patterns import compile_patterns
from extauthz.core.act_as import ActAs
from extauthz.core.model import AuthType

NOW = 1_800_000_000
DAY = 86_400
PEPPERS = {"p1": b"a pepper for tests, 32 bytes long"}
RULES = TokenRules("glean", frozenset({"SEARCH"}), 90.0 * DAY, ActAs(allow=compile_patterns(["*@acme.com"])))
VIEWER, SUPER_ADMIN = (Actor(f"{role}@acme.com", role, "a test") for role in (Role.VIEWER, Role.SUPER_ADMIN))
TOKEN = TokenRequest("Ana's notebook", AuthType.USER, frozenset({"SEARCH"}), NOW, "ana", NOW + 60 * DAY, "ana@acme.com")
SECRET = "glean_4fK2pQ9sXb1Z_gJ7nB2mXq0RvT5yLc8KdWz3HfPs6UaEo1iN4tMbVxQ9rA7kYw"


@pytest.fixture(scope="module")
def administration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administration]:
    """Seven tokens made by two actors, of which one is revoked: eight rows. The last three were used, the revoked one too."""
    with closing(SqlTokenStore(tmp_path_factory.mktemp("audit") / "tokens.db", create=True)) as store:
        store.migrate()
        opened = Administration(store, RULES, frozenset({"glean"}), lambda: PEPPERS)
        for number in range(7):
            permission = (AuthType.USER, AuthType.GLOBAL, AuthType.ANONYMOUS)[number % 3]
            request = replace(
                TOKEN,
                description='=HYPERLINK("http://evil.example")' if number == 6 else f"token {number}",
                permission=permission,
                user="ana@acme.com" if permission is AuthType.USER else None,
                expires_at=NOW + (number + 1) * 10 * DAY,
            )
            who = replace(SUPER_ADMIN, name="bob@acme.com") if number % 2 else SUPER_ADMIN
            made = tokens.create(opened, who, [request], NOW + number)
            assert not isinstance(made, Refused)
        assert not isinstance(revocation.revoke(opened, SUPER_ADMIN, [made[0].record.id], NOW + 9, why="lost"), Refused)
        with store.writing() as connection:
            latest = sorted(store.list_tokens(), key=lambda token: token.expires_at)[-3:]
            uses = [{"token_id": token.id, "last_used_at": NOW, "last_used_from": ""} for token in latest]
            connection.execute(token_usage.insert(), uses)
        yield opened


def listing(administration: Administration, search: AuditFilter | None = None, **how: object) -> AuditListing:
    """Return a page that nothing stands against."""
    outcome = audit_search.list_entries(administration, VIEWER, search or AuditFilter(), **how)  # type: ignore[arg-type]
    assert isinstance(outcome, AuditListing), outcome
    return outcome


def numbers(found: AuditListing) -> list[int]:
    return [entry.row.number for entry in found.entries]


def refused(outcome: object) -> str:
    """Return the field of the one refusal, which repeats no secret."""
    assert isinstance(outcome, Refused), outcome
    (refusal,) = outcome.refusals
    assert SECRET[19:] not in refusal.message
    return refusal.field


# --- pages


def test_pages_lead_to_older_rows_and_back(administration: Administration) -> None:
    first = listing(administration, limit=3)
    second = listing(administration, limit=3, cursor=first.older)
    third = listing(administration, limit=3, cursor=second.older)
    back = listing(administration, limit=3, cursor=third.newer)

    assert [numbers(each) for each in (first, second, third, back)] == [[8, 7, 6], [5, 4, 3], [2, 1], [5, 4, 3]]
    assert (first.newer, third.older) == (None, None)
    assert listing(administration, limit=3, cursor=back.newer) == replace(first, newer=None)
    assert listing(administration, limit=8).older is None
    assert listing(administration, AuditFilter(actor="nobody")) == AuditListing((), None, None)


def test_filters_are_trimmed_and_a_whole_token_becomes_its_id(administration: Administration) -> None:
    token_id = next(entry.row.token_id for entry in listing(administration).entries)
    assert token_id is not None

    assert numbers(listing(administration, AuditFilter(actor=" bob@acme.com "))) == [6, 4, 2]
    assert numbers(listing(administration, AuditFilter(token_id=f" {token_id} "))) == [8, 7]
    assert numbers(listing(administration, AuditFilter(token_id=f"glean_{token_id}_{SECRET[19:]}"))) == [8, 7]
    assert audit_search.readable(administration, AuditFilter(token_id=SECRET)) == AuditFilter(token_id="4fK2pQ9sXb1Z")
    assert audit_search.readable(administration, AuditFilter("", " ", "")) == AuditFilter()


@pytest.mark.parametrize(
    ("search", "how", "field"),
    [
        (AuditFilter(token_id=SECRET[19:]), {}, "token"),
        (AuditFilter(actor="a\0"), {}, "actor"),
        (AuditFilter(actor="a" * 255), {}, "actor"),
        (AuditFilter(action="\n"), {}, "action"),
        (AuditFilter(since=-1), {}, "since"),
        (AuditFilter(until=2**80), {}, "until"),
        *((AuditFilter(), {"limit": limit}, "limit") for limit in (0, -1, 1001)),
        *(
            (AuditFilter(), {"cursor": text}, "cursor")
            for text in ("", "x", "below-0", "below-x", "above-" + "9" * 17, "1", SECRET)
        ),
    ],
)
def test_what_is_no_list_is_refused_by_its_field(
    administration: Administration, search: AuditFilter, how: dict[str, object], field: str
) -> None:
    assert refused(audit_search.list_entries(administration, VIEWER, search, **how)) == field  # type: ignore[arg-type]


def test_the_rows_of_one_token(administration: Administration) -> None:
    token_id = listing(administration).entries[0].row.token_id
    assert token_id is not None
    found = audit_search.of_token(administration, VIEWER, token_id)
    assert not isinstance(found, Refused)

    assert [(entry.row.action, len(entry.changes)) for entry in found] == [("revoke", 3), ("create", 9)]
    assert audit_search.of_token(administration, VIEWER, "no such id") == ()
    assert audit_search.actions(administration, VIEWER) == ["create", "revoke"]


# --- what a row changed

CHANGES = {
    "a new one": ("null", '{"id": "x", "user": null}', [FieldChange("id", None, "x")]),
    "the end of one": ('{"id": "x"}', "null", [FieldChange("id", "x", None)]),
    "a time": ('{"expires_at": 1800000000}', '{"expires_at": 0}', [("expires_at", "2027-01-15T08:00:00Z", "1970-01-01T00:00:00Z")]),
    "no time": ('{"expires_at": -1}', '{"expires_at": 1e99}', [("expires_at", "-1", "1e+99")]),
    "the same": ('{"a": 1, "b": 2}', '{"b": 3, "a": 1}', [("b", "2", "3")]),
    "lists": ('{"scopes": []}', '{"scopes": ["A", "B"]}', [("scopes", "", "A, B")]),
    "nested": ('{"a": {"b": [1]}}', '{"a": {"b": [2]}}', [("a", '{"b": [1]}', '{"b": [2]}')]),
    "truth": ('{"enabled": false}', '{"enabled": true}', [("enabled", "no", "yes")]),
    "no mapping": ("[1]", '"x"', [("value", "[1]", "x")]),
    "no JSON": ("{", "null", [("value", "{", None)]),
    "nothing": ("null", "null", []),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_told_by_field(name: str) -> None:
    before, after, expected = CHANGES[name]
    row = AuditRow(1, NOW, "ana", "x", None, "", before, after, "p1", b"")

    assert [(each.field, each.before, each.after) for each in changes_of(row)] == [
        (each.field, each.before, each.after) if isinstance(each, FieldChange) else each for each in expected
    ]


# --- files


def test_a_file_holds_what_is_filtered(administration: Administration, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_search, "_BATCH", 2)
    search = AuditFilter(action="create")
    texts = [audit_search.export(administration, VIEWER, search, as_csv=as_csv) for as_csv in (True, False)]
    assert not isinstance(texts[0], Refused)
    assert not isinstance(texts[1], Refused)
    rows, lines = list(csv.DictReader(io.StringIO("".join(texts[0])))), list(map(json.loads, "".join(texts[1]).splitlines()))

    assert [int(row["number"]) for row in rows] == [line["number"] for line in lines] == [7, 6, 5, 4, 3, 2, 1]
    assert rows[0]["at"] == lines[0]["at"] == "2027-01-15T08:00:06Z"
    assert lines[0]["after"]["description"].startswith("=HYPERLINK")
    assert json.loads(rows[0]["after"]) == lines[0]["after"]
    assert refused(audit_search.export(administration, VIEWER, AuditFilter(token_id=SECRET[19:]), as_csv=True)) == "token"


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=4))
def test_csv_reads_back_and_no_cell_is_a_formula(values: list[str]) -> None:
    (cells,) = csv.reader(io.StringIO(csv_line(values), newline=""), strict=True)

    assert [cell.removeprefix("'") if cell != value else cell for cell, value in zip(cells, values, strict=True)] == values
    assert not any(cell[:1] in tuple("=+-@\t\r\n") for cell in cells)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"])
def test_formulas_are_neutralised(text: str) -> None:
    assert csv_line([text, None, ["A", "B"], 5]) == f'"\'{text}","","A B","5"\r\n'


# --- the overview


def test_every_number_is_that_of_its_list(administration: Administration) -> None:
    at = NOW + 15 * DAY
    found = Overviews().current(administration, VIEWER, at)
    assert not isinstance(found, Refused)
    counted = [found.expiring, found.never_used, *(each for statuses in found.by_status.values() for each in statuses.values())]
    for each in counted:
        page = tokens.list_tokens(administration, VIEWER, each.search, at)
        assert not isinstance(page, Refused)
        assert len(page.tokens) == each.count, each

    assert [each.count for each in found.by_status[AuthType.USER].values()] == [1, 1, 1]
    assert (found.total, found.expiring.count, found.never_used.count) == (7, 3, 3)
    assert found.expiring.search == TokenSearch(status=TokenStatus.ACTIVE, expiring_within=SOON)


def test_numbers_are_kept_for_some_seconds(tmp_path: Path) -> None:
    with closing(SqlTokenStore(tmp_path / "tokens.db", create=True)) as store:
        store.migrate()
        administration, kept = Administration(store, RULES, frozenset({"glean"}), lambda: PEPPERS), Overviews()

        def total(at: int) -> int:
            found = kept.current(administration, VIEWER, at)
            assert not isinstance(found, Refused)
            return found.total

        assert total(NOW) == 0
        assert not isinstance(tokens.create(administration, SUPER_ADMIN, [TOKEN], NOW), Refused)
        assert [total(NOW + KEPT - 1), total(NOW + KEPT), total(NOW - 1)] == [0, 1, 1], "a clock that goes back keeps nothing"
        assert overview.overview((), NOW).total == 0
