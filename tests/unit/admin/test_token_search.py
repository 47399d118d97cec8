"""Lists of tokens as people ask for them: what they type, the ends of pages, and no secret in a query, a log or an error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from extauthz.adapters.store.records import Sort, TokenFilter
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin import tokens
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Role
from extauthz.admin.token_requests import TokenRequest, TokenRules
from extauthz.admin.token_search import TokenSearch, TokenStatus
from extauthz.config.patterns import compile_patterns
from extauthz.core.act_as import ActAs
from extauthz.core.model import AuthType
from extauthz.core.tokens import mint
from extauthz.errors import StoreError

NOW = 1_800_000_000
DAY = 86_400
PEPPERS = {"p1": b"a pepper for tests, 32 bytes long"}
RULES = TokenRules("glean", frozenset({"SEARCH"}), 90.0 * DAY, ActAs(allow=compile_patterns(["*@acme.com"])))
VIEWER, SUPER_ADMIN = (Actor(f"{role}@acme.com", role, "a test") for role in (Role.VIEWER, Role.SUPER_ADMIN))
TOKEN = TokenRequest("Ana's notebook", AuthType.USER, frozenset({"SEARCH"}), NOW, "ana", NOW + 30 * DAY, "ana@acme.com")
GLEAN = frozenset({"glean"})
ID = "4fK2pQ9sXb1Z"
HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
SECRET = "gJ7nB2mXq0RvT5yLc8KdWz3HfPs6UaEo1iN4tMbVxQ9rA7kYw"


@pytest.fixture(scope="module")
def administration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administration]:
    """An installation with five tokens, each made a second after the one before, which no test changes."""
    with closing(SqlTokenStore(tmp_path_factory.mktemp("search") / "tokens.db", create=True)) as store:
        store.migrate()
        opened = Administration(store, RULES, GLEAN, lambda: PEPPERS)
        for number in range(5):
            made = tokens.create(opened, SUPER_ADMIN, [replace(TOKEN, created_at=NOW + number)], NOW)
            assert not isinstance(made, Refused)
        yield opened


def page(administration: Administration, search: TokenSearch = TokenSearch(), **how: Any) -> tokens.Page:  # noqa: B008 - frozen
    """Return a page that nothing stands against."""
    outcome = tokens.list_tokens(administration, VIEWER, search, how.pop("at", NOW + 10), **how)
    assert isinstance(outcome, tokens.Page), outcome
    return outcome


def times(found: tokens.Page) -> list[int]:
    """Return how many seconds after the first each token was made."""
    return [token.created_at - NOW for token in found.tokens]


def refused(outcome: object) -> tuple[str, str]:
    """Return field and message of the one refusal."""
    assert isinstance(outcome, Refused), outcome
    (refusal,) = outcome.refusals
    return refusal.field, refusal.message


# --- pages


def test_pages_lead_to_each_other(administration: Administration) -> None:
    first = page(administration, limit=2)
    second = page(administration, limit=2, cursor=first.after)
    third = page(administration, limit=2, cursor=second.after)
    assert [times(each) for each in (first, second, third)] == [[4, 3], [2, 1], [0]]
    assert (first.before, third.after) == (None, None)
    back = page(administration, limit=2, cursor=third.before)
    assert (back.tokens, back.after, back.before) == (second.tokens, second.after, second.before)
    start = page(administration, limit=2, cursor=back.before)
    assert (start.tokens, start.after, start.before) == (first.tokens, first.after, None)


def test_the_first_page_that_is_the_last_one_leads_nowhere(administration: Administration) -> None:
    for limit in (5, 6, tokens.MAX_PAGE):
        only = page(administration, limit=limit, sort=Sort.OLDEST)
        assert (times(only), only.after, only.before) == ([0, 1, 2, 3, 4], None, None)


def test_a_cursor_stays_good_while_time_passes(administration: Administration) -> None:
    search = TokenSearch(status=TokenStatus.ACTIVE, expiring_within=60 * DAY, text=" NOTEBOOK ")
    first = page(administration, search, limit=3)
    assert times(page(administration, search, limit=3, cursor=first.after, at=NOW + DAY)) == [1, 0]
    assert page(administration, search, limit=3, cursor=first.after, at=NOW + 30 * DAY) == tokens.Page((), None, None)


@pytest.mark.parametrize(
    "search",
    [
        TokenSearch(text="x"),
        *(TokenSearch(status=status) for status in TokenStatus),
        TokenSearch(permission=AuthType.USER),
        TokenSearch(scope="SEARCH"),
        TokenSearch(user="ana@acme.com"),
        TokenSearch(created_by="ana"),
        TokenSearch(pepper_id="p1"),
        TokenSearch(expires_after=NOW),
        TokenSearch(expires_before=NOW),
        TokenSearch(expiring_within=NOW),
        TokenSearch(unused_for=1),
        TokenSearch(never_used=True),
    ],
)
def test_a_cursor_of_another_search_is_refused(administration: Administration, search: TokenSearch) -> None:
    cursor = page(administration, limit=2).after
    outcome = tokens.list_tokens(administration, VIEWER, search, NOW, cursor=cursor)
    assert refused(outcome) == ("cursor", "this is of a list with other filters or another order: begin at its first page")


def test_every_field_of_a_search_is_tried_above() -> None:
    (mark,) = [each for each in test_a_cursor_of_another_search_is_refused.pytestmark if each.name == "parametrize"]  # type: ignore[attr-defined]
    differing = {item.name for search in mark.args[1] for item in fields(TokenSearch) if getattr(search, item.name) != item.default}
    assert differing == {item.name for item in fields(TokenSearch)}


@pytest.mark.parametrize("sort", [sort for sort in Sort if sort is not Sort.NEWEST])
def test_a_cursor_of_another_order_is_refused(administration: Administration, sort: Sort) -> None:
    cursor = page(administration, limit=2).after
    assert refused(tokens.list_tokens(administration, VIEWER, TokenSearch(), NOW, sort=sort, cursor=cursor))[0] == "cursor"


@pytest.mark.parametrize("sort", [Sort.NEWEST, Sort.RECENTLY_USED])
@pytest.mark.parametrize(
    "change",
    [
        lambda _: "",
        lambda _: "1800000000-4fK2pQ9sXb1Z",
        lambda cursor: cursor[:-1],
        lambda cursor: f"{cursor}\n",
        lambda cursor: cursor.replace("after", "beside"),
        lambda cursor: cursor.replace("after-", "after--"),
        lambda cursor: cursor.replace("-", "- ", 1),
        lambda cursor: cursor.replace("after-", "after-" + "1" * 17),
        lambda cursor: cursor.replace("after-", "after-\N{ARABIC-INDIC DIGIT ONE}"),
    ],
)
def test_a_cursor_that_cannot_be_read_is_refused(administration: Administration, sort: Sort, change: Any) -> None:
    cursor = change(page(administration, limit=2, sort=sort).after)
    outcome = tokens.list_tokens(administration, VIEWER, TokenSearch(), NOW, sort=sort, cursor=cursor)
    assert refused(outcome) == ("cursor", "write what the end of the page before says")


def test_only_an_order_by_use_knows_tokens_that_were_never_used(administration: Administration) -> None:
    cursor = page(administration, limit=2).after
    assert cursor is not None
    _, _, token_id, fingerprint = cursor.split("-")
    forged = f"after-never-{token_id}-{fingerprint}"
    assert refused(tokens.list_tokens(administration, VIEWER, TokenSearch(), NOW, cursor=forged))[0] == "cursor"
    by_use = page(administration, limit=2, sort=Sort.RECENTLY_USED).after
    assert by_use is not None
    assert by_use.startswith("after-never-")
    assert times(page(administration, limit=9, sort=Sort.RECENTLY_USED, cursor=by_use)) == [2, 1, 0]


@pytest.mark.parametrize("limit", [0, -1, tokens.MAX_PAGE + 1])
def test_a_page_has_bounds(administration: Administration, limit: int) -> None:
    assert refused(tokens.list_tokens(administration, VIEWER, TokenSearch(), NOW, limit=limit))[0] == "limit"


# --- what a search means


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        (TokenSearch(), TokenFilter()),
        (TokenSearch(text="x"), TokenFilter(text="x")),
        (TokenSearch(status=TokenStatus.ACTIVE), TokenFilter(active_at=NOW)),
        (TokenSearch(status=TokenStatus.EXPIRED), TokenFilter(expired_at=NOW)),
        (TokenSearch(status=TokenStatus.REVOKED), TokenFilter(revoked=True)),
        (
            TokenSearch(permission=AuthType.GLOBAL, scope="A", user="u"),
            TokenFilter(permission=AuthType.GLOBAL, scope="A", user="u"),
        ),
        (TokenSearch(created_by="root", pepper_id="p1"), TokenFilter(created_by="root", pepper_id="p1")),
        (TokenSearch(expires_after=3, expires_before=7), TokenFilter(expires_after=3, expires_before=7)),
        (TokenSearch(expiring_within=5), TokenFilter(expires_before=NOW + 5)),
        (TokenSearch(expiring_within=5, expires_before=NOW + 6), TokenFilter(expires_before=NOW + 5)),
        (TokenSearch(expiring_within=5, expires_before=NOW + 4), TokenFilter(expires_before=NOW + 4)),
        (TokenSearch(expiring_within=0, unused_for=0), TokenFilter(expires_before=NOW, unused_since=NOW)),
        (TokenSearch(unused_for=5, never_used=True), TokenFilter(unused_since=NOW - 5, never_used=True)),
    ],
)
def test_a_search_is_a_filter_at_a_time(search: TokenSearch, expected: TokenFilter) -> None:
    assert search.filter(NOW) == expected


# --- secrets


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("", ""),
        ("  ", ""),
        (" Ana's notebook\n", "Ana's notebook"),
        (ID, ID),
        ("4fK2pQ9sXb1Z nightly", "4fK2pQ9sXb1Z nightly"),
        (f"glean_{ID}_{SECRET}", ID),
        (f"  glean_{ID}_{SECRET}\n", ID),
        (f"Authorization: Bearer glean_{ID}_{SECRET}", ID),
        (f'curl -H "authorization: bearer glean_{ID}_{SECRET}" https://acme.com', ID),
        (f"glean_{ID}_{SECRET[:30]}\n{SECRET[30:]}", ID),
        (f"glean_{ID}_{SECRET}{SECRET}", ID),
        (f"glean_{ID}_{SECRET[:3]}", ID),
        (f"glean_{ID}_", ID),
        (f"glean_{ID}", ID),
        (f"other_{ID}_{SECRET}", ID),
        (f"_{ID}_{SECRET}", ID),
        (f"{ID}_{SECRET}", ID),
        (f"GLEAN_{ID}_{SECRET}", ID),
        (f"{'x' * 500} glean_{ID}_{SECRET}", ID),
        (f"glean_{ID}_{SECRET}\x00", ID),
        ("team_productionab_nightly", "team_productionab_nightly"),
        (
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ),
        ("AuthorizationPolicyEnforcementPoint", "AuthorizationPolicyEnforcementPoint"),
    ],
)
def test_of_a_token_that_is_typed_only_the_id_is_kept(typed: str, text: str) -> None:
    search = TokenSearch(text=typed).without_secret(GLEAN)
    assert isinstance(search, TokenSearch)
    assert search.text == text


@pytest.mark.parametrize(
    "typed",
    [
        SECRET,
        SECRET[:43],
        SECRET[6:36],
        f"x {SECRET}",
        f"glean_{ID[1:]}_{SECRET}",
        f"glean{ID}{SECRET}",
        f"{ID} {SECRET}",
        "aB" * 22,
    ],
)
def test_what_may_be_a_secret_is_refused_and_not_repeated(typed: str) -> None:
    outcome = TokenSearch(text=typed).without_secret(GLEAN)
    assert refused(outcome) == ("text", "this may be a secret, and was not looked for: write the id of the token")


@pytest.mark.parametrize("typed", ["x " * 101, "a\x00b", "a\nb", "\udc80"])
def test_what_no_description_can_be_is_refused(typed: str) -> None:
    assert refused(TokenSearch(text=typed).without_secret(GLEAN)) == ("text", "write at most 200 printable characters")


def test_a_secret_gets_into_no_query_log_or_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The control looks for the id, which has to be where the secret must not."""
    caplog.set_level(logging.INFO, "sqlalchemy.engine")
    minted = mint("glean", bytes(range(48)))
    asked: list[str] = []
    outcomes: list[object] = []
    with closing(SqlTokenStore(tmp_path / "tokens.db", create=True)) as store:
        store.migrate()
        administration = Administration(store, RULES, GLEAN, lambda: PEPPERS)
        sa.event.listen(
            store._database._writers,
            "before_cursor_execute",
            lambda _connection, _cursor, statement, parameters, *_: asked.append(f"{statement} {parameters}"),
        )
        searches = [TokenSearch(text=form.format(minted.text)) for form in ("{}", "Bearer {}", "{}x", "x {} y", "{}\n", "\udc80{}")]
        for search in searches:
            outcomes += [search, tokens.list_tokens(administration, VIEWER, search, NOW)]
            outcomes.append(tokens.list_tokens(administration, VIEWER, search, NOW, cursor="x"))
        assert sum(minted.id in text for text in asked) == len(searches)
        with store._database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE token_usage RENAME TO gone")
        for search in searches:
            with pytest.raises(StoreError) as caught:
                tokens.list_tokens(administration, VIEWER, search, NOW)
            outcomes += [str(caught.value), repr(caught.value.__cause__)]
    everything = "\n".join([*asked, caplog.text, *map(repr, outcomes)])
    assert "SELECT" in caplog.text
    secret = minted.text.split("_")[2]
    for piece in (secret[:12], secret[12:24], secret[-12:]):
        assert piece not in everything
