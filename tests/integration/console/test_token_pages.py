"""Tokens by pages: what each role can do, the secret that is shown once, and what is typed that must not stay."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from extauthz.admin.rights import Role
from extauthz.admin.tokens import NewToken
from extauthz.console.api.table import OPERATIONS
from extauthz.core.model import AuthType
from tests.support.console_world import DAY, NOW, ORIGIN, Browser, ConsoleWorld, console_world

GLOBAL, USER, ANONYMOUS = AuthType.GLOBAL, AuthType.USER, AuthType.ANONYMOUS
VIEWER, ADMIN, SUPER_ADMIN = Role.VIEWER, Role.ADMIN, Role.SUPER_ADMIN
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ConsoleWorld]:
    with console_world(tmp_path) as made:
        yield made


# --- who may do what

MADE = {GLOBAL: {"permission": "GLOBAL"}, USER: {"permission": "USER", "user": "bob@acme.com"}, ANONYMOUS: {}}
MAY_CREATE = {VIEWER: (), ADMIN: (USER, ANONYMOUS), SUPER_ADMIN: (GLOBAL, USER, ANONYMOUS)}


@pytest.mark.parametrize("permission", MADE)
@pytest.mark.parametrize("role", MAY_CREATE)
def test_who_may_make_which_token(world: ConsoleWorld, role: Role, permission: AuthType) -> None:
    answer = world.logged_in(role).create(**MADE[permission])
    may = permission in MAY_CREATE[role]
    assert answer.status_code == (201 if may else 422)
    assert [token.permission for token in world.store.list_tokens()] == [permission] * may


@pytest.mark.parametrize("permission", MADE)
@pytest.mark.parametrize("role", MAY_CREATE)
def test_who_may_rotate_which_token(world: ConsoleWorld, role: Role, permission: AuthType) -> None:
    token, browser = world.issue(permission), world.logged_in(role)
    path = f"/tokens/{token.record.id}/rotate"
    answer = browser.post(path, {"overlap": "24"})
    may = permission in MAY_CREATE[role]
    assert answer.status_code == (201 if may else 422)
    assert len(world.store.list_tokens()) == 1 + may


@pytest.mark.parametrize("permission", MADE)
@pytest.mark.parametrize("role", MAY_CREATE)
def test_who_may_revoke_which_token(world: ConsoleWorld, role: Role, permission: AuthType) -> None:
    token, browser = world.issue(permission), world.logged_in(role)
    answer = browser.post(f"/tokens/{token.record.id}/revoke", {"why": "left the company"})
    may = permission in MAY_CREATE[role]
    assert answer.status_code == (200 if may else 422)
    (stored,) = world.store.list_tokens()
    assert (stored.revoked_at, stored.revoked_why) == ((NOW, "left the company") if may else (None, None))


PAGES = [
    "/tokens",
    "/tokens/new",
    "/tokens/{id}",
    "/tokens/{id}/rotate",
    "/tokens/{id}/revoke",
    "/tokens/export.csv",
    "/tokens/preview",
]


@pytest.mark.parametrize("path", PAGES)
def test_nobody_reads_without_a_session(world: ConsoleWorld, path: str) -> None:
    token = world.issue(description="a secret plan")
    answer = world.visitor().get(path.format(id=token.record.id))
    assert (answer.status_code, "a secret plan" in answer.text) == (303, False)
    assert answer.headers["location"].startswith("/login?next=")


# --- forms of others

CHANGES = {
    "/tokens": {"description": "x", "permission": "ANONYMOUS", "scope": "SEARCH", "days": "90", "once": "1"},
    "/tokens/{id}/rotate": {"overlap": "24"},
    "/tokens/{id}/revoke": {"why": "x"},
    "/tokens/search": {"text": "x"},
    "/sessions/{id}/end": {},
    "/keys/{id}/revoke": {},
    "/settings/oauth": {"do": "save"},
    "/settings/oauth/back": {"version": "1"},
    "/confirm": {"password": "x"},
    "/logout": {},
}
FORGED = {
    "no token": ({"csrf": ""}, {}),
    "a made-up token": ({"csrf": "0" * 64}, {}),
    "another origin": ({}, {"origin": "https://evil.test"}),
    "another port": ({}, {"origin": f"{ORIGIN}:8443"}),
    "no origin": ({}, {"origin": ""}),
    "from another site": ({}, {"sec-fetch-site": "cross-site"}),
    "from the same site": ({}, {"sec-fetch-site": "same-site"}),
    "another content type": ({}, {"content-type": "text/plain"}),
    "as JSON": ({}, {"content-type": "application/json"}),
}


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ConsoleWorld, NewToken, Browser]]:
    """A world with a token and somebody who is logged in: one for all forms that do nothing."""
    with console_world(tmp_path_factory.mktemp("victim")) as made:
        yield made, made.issue(), made.logged_in(SUPER_ADMIN)


@pytest.mark.parametrize("forgery", FORGED)
@pytest.mark.parametrize("path", CHANGES)
def test_a_form_of_somebody_else_does_nothing(victim: tuple[ConsoleWorld, NewToken, Browser], path: str, forgery: str) -> None:
    world, token, browser = victim
    before = world.store.list_tokens()
    assert [stored.id for stored in before] == [token.record.id]
    fields, headers = FORGED[forgery]
    answer = browser.post(
        path.format(id=token.record.id), CHANGES[path] | fields, token=token_for(browser, path, token.record.id), headers=headers
    )
    assert answer.status_code in (400, 403), answer.text  # why: a body that is no form is 400, everything else is 403
    assert world.store.list_tokens() == before
    assert browser.get("/tokens").status_code == 200


def token_for(browser: Browser, path: str, token_id: str) -> str:
    """Return the right token of a form, so that only one thing is wrong."""
    pages = {"/tokens": "/tokens/new", "/tokens/search": "/tokens", "/logout": "/tokens", "/confirm": "/confirm"}
    action = path.format(id=token_id)
    if path in ("/settings/oauth", "/settings/oauth/back", "/sessions/{id}/end", "/keys/{id}/revoke"):
        return "0" * 64
    return browser.token(pages.get(path, action), action)


def test_a_token_of_another_form_or_session_does_nothing(world: ConsoleWorld) -> None:
    token, browser, other = world.issue(), world.logged_in(SUPER_ADMIN), world.logged_in(ADMIN)
    path = f"/tokens/{token.record.id}/revoke"
    for wrong in (browser.token("/tokens", "/tokens/search"), other.token(path, path)):
        assert browser.post(path, {"why": ""}, token=wrong).status_code == 403
    assert world.store.list_tokens()[0].revoked_at is None


def test_a_form_without_a_session_does_nothing(world: ConsoleWorld) -> None:
    browser = world.logged_in(SUPER_ADMIN)
    token = browser.token("/tokens/new", "/tokens")
    answer = world.visitor().post("/tokens", CHANGES["/tokens"], token=token)
    assert (answer.status_code, world.store.list_tokens()) == (401, [])


# --- the secret


def test_the_secret_is_in_one_answer(world: ConsoleWorld, caplog: pytest.LogCaptureFixture) -> None:
    browser = world.logged_in(SUPER_ADMIN)
    shown = browser.create(description="the crawler")
    (token,) = world.store.list_tokens()
    secret = secret_of(shown.text, token.id)
    assert shown.headers["cache-control"] == "no-store"
    assert shown.text.count(secret) == 1
    pages = [
        "/tokens",
        f"/tokens/{token.id}",
        f"/tokens/{token.id}/rotate",
        f"/tokens/{token.id}/revoke",
        f"/tokens/new?like={token.id}",
    ]
    pages += ["/tokens/export.csv", "/tokens/export.json", "/settings/oauth", "/sessions", "/keys"]
    hidden = secret.split("_")[2]
    assert [path for path in pages if hidden in browser.get(path).text] == []
    assert hidden not in caplog.text
    assert hidden not in "\n".join(world.store.export_audit())
    world.store.close()
    stored = b"".join(path.read_bytes() for path in world.folder.iterdir())
    assert (hidden.encode() in stored, token.id.encode() in stored) == (False, True)


def secret_of(page: str, token_id: str) -> str:
    """Return the token that a page shows."""
    start = page.index(f"glean_{token_id}_")
    return page[start : page.index("<", start)]


def test_a_form_that_is_sent_twice_makes_one_token(world: ConsoleWorld) -> None:
    browser = world.logged_in(ADMIN)
    once = browser.field("/tokens/new", "/tokens", "once")
    first, second = browser.create(once=once), browser.create(once=once)
    (token,) = world.store.list_tokens()
    assert (first.status_code, second.status_code) == (201, 409)
    assert f"made token {token.id}" in second.text
    assert f"glean_{token.id}_" not in second.text


def test_a_form_that_is_sent_twice_with_something_else_is_refused(world: ConsoleWorld) -> None:
    browser = world.logged_in(ADMIN)
    once = browser.field("/tokens/new", "/tokens", "once")
    browser.create(once=once)
    assert browser.create(once=once, description="another").status_code == 422
    assert len(world.store.list_tokens()) == 1


def test_a_rotation_shows_the_secret_of_the_successor(world: ConsoleWorld) -> None:
    token, browser = world.issue(description="the crawler"), world.logged_in(ADMIN)
    shown = browser.post(f"/tokens/{token.record.id}/rotate", {"overlap": "1"})
    new, old = world.store.list_tokens()[0], world.store.get(token.record.id)
    if old is None or old.rotated_to != new.id:
        new = next(each for each in world.store.list_tokens() if each.rotated_from == token.record.id)
    assert secret_of(shown.text, new.id)
    assert (new.description, new.scopes, new.rotated_from) == ("the crawler", frozenset({"SEARCH"}), token.record.id)
    assert old is not None
    assert old.expires_at == NOW + 3600
    chain = browser.get(f"/tokens/{new.id}").text
    assert (token.record.id in chain, "Rotations" in chain) == (True, True)


# --- what is wrong, beside its field

WRONG = {
    "no description": ({"description": ""}, "description-error", "write 1 to 200 printable characters"),
    "a long description": ({"description": "x" * 201}, "description-error", "write 1 to 200 printable characters"),
    "no scope": ({"scope": []}, "scopes-error", "name at least one scope"),
    "an unknown scope": ({"scope": ["NOPE"]}, "scopes-error", "is not one of CHAT, SEARCH"),
    "no user": ({"permission": "USER"}, "user-error", "needs one e-mail address"),
    "another user": ({"permission": "USER", "user": "eve@evil.test"}, "user-error", "does not allow eve@evil.test"),
    "no permission": ({"permission": ""}, "permission-error", "write GLOBAL, USER or ANONYMOUS"),
    "an unknown permission": ({"permission": "ROOT"}, "permission-error", "write GLOBAL, USER or ANONYMOUS"),
    "too long a life": ({"days": "366"}, "expires_at-error", "at most 365 days"),
    "no end": ({"days": ""}, "expires_at-error", "choose when the token ends"),
    "a negative life": ({"days": "-1"}, "expires_at-error", "choose when the token ends"),
    "a day that is over": ({"days": "date", "date": "2020-01-31"}, "expires_at-error", "must lie ahead"),
    "a day of no calendar": ({"days": "date", "date": "2027-02-31"}, "expires_at-error", "no day of the calendar"),
    "no day": ({"days": "date", "date": ""}, "expires_at-error", "choose when the token ends"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_stands_beside_its_field(world: ConsoleWorld, name: str) -> None:
    fields, place, says = WRONG[name]
    answer = world.logged_in(ADMIN).create(**fields)
    assert answer.status_code == 422
    start = answer.text.index(f'id="{place}"')
    assert says in answer.text[start : answer.text.index("</p>", start)]
    assert world.store.list_tokens() == []


def test_an_admin_sees_who_may_make_global_tokens(world: ConsoleWorld) -> None:
    page = world.logged_in(ADMIN).get("/tokens/new").text
    radio = page[page.index('value="GLOBAL"') :][:400]
    assert ("disabled" in radio, "cto@acme.com" in radio) == (True, True)


def test_another_like_this_begins_with_its_values(world: ConsoleWorld) -> None:
    token = world.issue(USER, description="Bob's notebook", scopes=frozenset({"CHAT"}))
    page = world.logged_in(ADMIN).get(f"/tokens/new?like={token.record.id}").text
    assert ('value="Bob&#39;s notebook"' in page, 'value="bob@acme.com"' in page) == (True, True)
    assert 'value="CHAT" checked' in page


# --- search and lists


def test_a_pasted_token_leaves_its_id_alone(world: ConsoleWorld, caplog: pytest.LogCaptureFixture) -> None:
    token, browser = world.issue(description="the crawler"), world.logged_in(VIEWER)
    world.issue(description="another")
    answer = browser.post("/tokens/search", {"text": token.text.text}, page="/tokens")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/tokens?text={token.record.id}")
    listed = browser.get(answer.headers["location"]).text
    assert ("the crawler" in listed, "another" in listed) == (True, False)
    assert token.text.text.split("_")[2] not in caplog.text + listed


def test_what_may_be_a_secret_is_not_repeated(world: ConsoleWorld) -> None:
    token, browser = world.issue(), world.logged_in(VIEWER)
    secret = token.text.text.split("_")[2]
    answer = browser.post("/tokens/search", {"text": secret}, page="/tokens")
    assert (answer.status_code, "may be a secret" in answer.text, secret in answer.text) == (422, True, False)


LISTED = {
    "": ["anonymous", "global", "user"],
    "permission=GLOBAL": ["global"],
    "scope=CHAT": ["user"],
    "user=BOB@acme.com": ["user"],
    "text=GLOB": ["global"],
    "status=revoked": ["anonymous"],
    "status=active": ["global", "user"],
    "created_by=os:founder": ["anonymous", "global", "user"],
    "created_by=nobody": [],
    "expiring=30": [],
    "expiring=90": ["user"],
    "unused=never": ["anonymous", "global", "user"],
    "unused=30": [],
    "sort=oldest": ["user", "global", "anonymous"],
    "status=nonsense&permission=nonsense&sort=nonsense&unknown=1": ["anonymous", "global", "user"],
}


@pytest.mark.parametrize("query", LISTED)
def test_lists_by_page_csv_and_json(world: ConsoleWorld, query: str) -> None:
    world.issue(USER, description="user", scopes=frozenset({"CHAT"}), expires_at=NOW + 60 * DAY)
    world.now += 1
    world.issue(GLOBAL, description="global", expires_at=NOW + 300 * DAY)
    world.now += 1
    ended = world.issue(description="anonymous", expires_at=NOW + 300 * DAY)
    browser = world.logged_in(SUPER_ADMIN)
    browser.post(f"/tokens/{ended.record.id}/revoke", {"why": ""})
    page = browser.get(f"/tokens?{query}").text
    positions = [(page.find(f">{name}</a>"), name) for name in ("anonymous", "global", "user") if f">{name}</a>" in page]
    assert [name for _, name in sorted(positions)] == LISTED[query]
    lines = browser.get(f"/tokens/export.json?{query}").text.splitlines()
    assert [json.loads(line)["description"] for line in lines] == LISTED[query]
    rows = list(csv.DictReader(io.StringIO(browser.get(f"/tokens/export.csv?{query}").text)))
    assert [row["description"] for row in rows] == LISTED[query]


def test_pages_go_on_and_back(world: ConsoleWorld) -> None:
    for number in range(120):
        world.issue(description=f"token {number:03}")
        world.now += 1
    browser = world.logged_in(VIEWER)
    first = browser.get("/tokens")
    second = browser.get(link(first.text, "next"))
    third = browser.get(link(second.text, "next"))
    assert [described(page.text) for page in (first, second, third)] == [
        [f"token {number:03}" for number in numbers] for numbers in (range(119, 69, -1), range(69, 19, -1), range(19, -1, -1))
    ]
    assert described(browser.get(link(third.text, "prev")).text) == described(second.text)
    assert ('rel="next"' in third.text, 'rel="prev"' in first.text) == (False, False)


def link(page: str, kind: str) -> str:
    """Return where a link to the next or the previous page leads."""
    start = page.index("href=", page.index(f'rel="{kind}"')) + 6
    return page[start : page.index('"', start)].replace("&amp;", "&")


def described(page: str) -> list[str]:
    """Return the descriptions on a page."""
    return [part.partition("</a>")[0] for part in page.split('">')[1:] if part.startswith("token ")]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(1)"])
def test_a_spreadsheet_calculates_nothing(world: ConsoleWorld, text: str) -> None:
    world.issue(description=text)
    (row,) = csv.DictReader(io.StringIO(world.logged_in(VIEWER).get("/tokens/export.csv").text))
    assert row["description"] == f"'{text}"


def test_an_empty_store_says_what_to_do(world: ConsoleWorld) -> None:
    assert "Add the first token" in world.logged_in(ADMIN).get("/tokens").text
    assert "Somebody with the role admin" in world.logged_in(VIEWER).get("/tokens").text
    assert "No token meets these filters" in world.logged_in(VIEWER).get("/tokens?scope=CHAT").text


def test_scripts_are_text(world: ConsoleWorld) -> None:
    browser = world.logged_in(SUPER_ADMIN)
    browser.create(description=SCRIPT)
    (token,) = world.store.list_tokens()
    browser.post(f"/tokens/{token.id}/revoke", {"why": SCRIPT})
    pages = ["/tokens", f"/tokens/{token.id}", f"/tokens/{token.id}/revoke", f"/tokens/new?like={token.id}"]
    pages += [
        f"/tokens?text={SCRIPT}",
        f"/tokens?user={SCRIPT}",
        f"/tokens?created_by={SCRIPT}",
        f"/login?next=/{SCRIPT}",
        f"/{SCRIPT}",
    ]
    assert [path for path in pages if SCRIPT in browser.get(path).text] == []
    assert "&lt;script&gt;alert(1)" in browser.get(f"/tokens/{token.id}").text


def test_what_a_token_can_call(world: ConsoleWorld) -> None:
    browser = world.logged_in(VIEWER)
    told = {
        query: browser.get(f"/tokens/preview?{query}").json()
        for query in ("permission=USER&scope=CHAT&scope=SEARCH", "permission=ANONYMOUS&scope=CHAT&scope=SEARCH", "permission=ROOT")
    }
    assert [answer["routes"] for answer in told.values()] == [["POST /search", "POST /chat"], ["POST /search"], []]


# --- a broken world


def test_without_a_store_pages_say_so_and_come_back(world: ConsoleWorld) -> None:
    browser = world.logged_in(ADMIN)
    token = browser.token("/tokens/new", "/tokens")
    file, aside = world.folder / "tokens.db", world.folder / "aside.db"
    world.store.close()
    file.rename(aside)
    for answer in (browser.get("/tokens"), browser.post("/tokens", CHANGES["/tokens"], token=token)):
        said = "cannot be used at the moment" in answer.text
        assert (answer.status_code, said, str(world.folder) in answer.text) == (503, True, False)
    aside.rename(file)
    assert browser.get("/tokens").status_code == 200
    assert world.store.list_tokens() == []


def test_a_page_that_fails_says_nothing_of_it(world: ConsoleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = world.logged_in(ADMIN)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the machine")

    monkeypatch.setattr("extauthz.admin.tokens.list_tokens", fail)
    answer = browser.get("/tokens")
    assert (answer.status_code, "a secret of the machine" in answer.text) == (500, False)


NOT_THERE = {"/nothing": 404, "/tokens/nothing0000": 404, "/static/none/console.css": 404, "/tokens/": 404, "/tokens/%00": 404}


@pytest.mark.parametrize("path", NOT_THERE)
def test_what_is_not_there(world: ConsoleWorld, path: str) -> None:
    assert world.logged_in(ADMIN).get(path).status_code == NOT_THERE[path]


def test_methods_that_a_page_lacks(world: ConsoleWorld) -> None:
    browser = world.logged_in(ADMIN)
    assert browser.client.delete("/tokens", headers={"origin": ORIGIN, "sec-fetch-site": "same-origin"}).status_code == 405
    assert browser.client.head("/tokens").status_code == 200


def test_the_page_of_the_api_names_every_operation(world: ConsoleWorld) -> None:
    page = world.logged_in(VIEWER).get("/api").text
    assert [operation.path for operation in OPERATIONS if f"</b> /api/v1{operation.path}</code>" not in page] == []
    assert page.count("<tr>") == len(OPERATIONS) + 1
