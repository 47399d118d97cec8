"""What the API does: tokens, settings, sessions, routes and the audit, as a program sees them."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from extauthz.adapters.store.records import Sort
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin import audits
from extauthz.admin.rights import Actor, Role
from extauthz.console.activity import Activity, Layer, RouteCounts, SidecarState
from extauthz.console.api import activity
from extauthz.console.api.authentication import WINDOW, WRONG_KEYS
from extauthz.console.api.document import document, least_role
from extauthz.console.api.operations import BASE
from extauthz.console.api.table import OPERATIONS
from extauthz.console.api.token_models import TokenQuery
from extauthz.core import tokens as core_tokens
from tests.support.console_api import ANONYMOUS, DAY, GLOBAL, NOW, OKTA, USER, ApiWorld, api_world

BODY = {"description": "CI", "permission": "ANONYMOUS", "scopes": ["SEARCH"], "expires_in": 3600}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiWorld]:
    """An empty world."""
    with api_world(tmp_path) as world:
        yield world


def told(answer: Any, status: int = 200) -> Any:
    """Return the content of an answer."""
    assert answer.status_code == status, answer.text
    return answer.json()


def detail(answer: Any, status: int) -> str:
    """Return what a problem says."""
    return str(told(answer, status)["detail"])


# --- tokens


@pytest.mark.parametrize(("permission", "more"), [("GLOBAL", {}), ("USER", {"user": "Ana@ACME.com"}), ("ANONYMOUS", {})])
def test_a_token_is_made_and_its_secret_is_told_once(api: ApiWorld, permission: str, more: dict[str, str]) -> None:
    answer = api.ask("POST", "/tokens", json={**BODY, "permission": permission, **more})
    made = told(answer, 201)
    text = core_tokens.parse(made["secret"], frozenset({"glean"}))
    assert getattr(text, "id", None) == made["token"]["id"]
    assert answer.headers["location"] == f"{BASE}/tokens/{made['token']['id']}"
    assert made["token"] | {"user": more.get("user", "").lower() or None} == made["token"]
    assert (made["token"]["expires_at"], made["token"]["status"]) == ("2027-01-15T09:00:00Z", "active")
    read = api.ask("GET", f"/tokens/{made['token']['id']}")
    assert (told(read), read.headers["etag"]) == (made["token"], answer.headers["etag"])
    secret = made["secret"].split("_")[2]
    others = ["/tokens", f"/tokens/{made['token']['id']}", "/audit", "/audit/verification"]
    assert [path for path in others if secret in api.ask("GET", path).text] == []
    assert secret.encode() not in b"".join(file.read_bytes() for file in api.folder.iterdir())


def test_a_repeated_request_makes_one_token_and_tells_no_secret_again(api: ApiWorld) -> None:
    headers = {"Idempotency-Key": "job-7"}
    first = told(api.ask("POST", "/tokens", json=BODY, headers=headers), 201)
    api.now += 60
    again = api.ask("POST", "/tokens", json=BODY, headers=headers)
    problem = told(again, 409)
    assert problem["token_id"] == first["token"]["id"]
    assert again.headers["location"] == f"{BASE}/tokens/{first['token']['id']}"
    assert [error["at"] for error in problem["errors"]] == ["header/idempotency-key"]
    assert first["secret"].split("_")[2] not in again.text
    other = api.ask("POST", "/tokens", json=BODY | {"description": "CD"}, headers=headers)
    assert "was used for another request" in detail(other, 409)
    assert "token_id" not in other.json()
    assert api.store.status(int(api.now)).active == 1
    told(api.ask("POST", "/tokens", json=BODY, headers=headers, role=Role.ADMIN), 201)
    api.now += DAY
    told(api.ask("POST", "/tokens", json=BODY, headers=headers), 201)


def test_one_key_at_once_makes_one_token(api: ApiWorld) -> None:
    answers: list[Any] = []
    barrier = threading.Barrier(4)

    def run() -> None:
        barrier.wait(timeout=30)
        answers.append(api.ask("POST", "/tokens", json=BODY, headers={"Idempotency-Key": "job-7"}))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert [len(answer.json().get("secret", "")) > 0 for answer in answers].count(True) == 1


def followed(api: ApiWorld, path: str, relation: str) -> list[list[str]]:
    """Return the ids of each page, by the links of the answers."""
    pages = []
    while path:
        answer = api.client.get(path, headers=api.bearer())
        pages.append([token["id"] for token in told(answer)["tokens"]])
        links = dict(re.findall(r'<([^>]+)>; rel="(\w+)"', answer.headers.get("link", "")))
        path = {name: target for target, name in links.items()}.get(relation, "")
        if relation == "next":
            api.last = answer  # type: ignore[attr-defined]
    return pages


@pytest.mark.parametrize("sort", Sort)
def test_pages_follow_each_other_both_ways(api: ApiWorld, sort: Sort) -> None:
    for number in range(7):
        api.token(USER if number % 2 else ANONYMOUS, created_at=NOW + number, expires_at=NOW + DAY - number)
    whole = [token["id"] for token in told(api.ask("GET", f"/tokens?sort={sort}"))["tokens"]]
    pages = followed(api, f"{BASE}/tokens?sort={sort}&limit=3", "next")
    assert pages == [whole[:3], whole[3:6], whole[6:]]
    last = api.last.json()  # type: ignore[attr-defined]
    assert last["after"] is None
    back = followed(api, f"{BASE}/tokens?sort={sort}&limit=3&before={last['before']}", "prev")
    assert back == [whole[3:6], whole[:3]]


def test_a_link_keeps_what_was_asked_for_and_no_secret(api: ApiWorld) -> None:
    mine = api.token(USER)
    for _ in range(3):
        api.token(USER, description=f"after {mine.record.id}")
    same = "permission=USER&never_used=true&expires_after=2027-01-15T08:00:00Z&limit=1"
    link = api.ask("GET", f"/tokens?text=after&{same}").headers["link"]
    assert re.fullmatch(rf'<{BASE}/tokens\?[^>]*>; rel="next"', link)
    named = {"text=after", "permission=USER", "never_used=true", "expires_after=2027-01-15T08%3A00%3A00Z", "limit=1"}
    assert named < set(link[: -len('>; rel="next"')].partition("?")[2].split("&"))
    assert [len(page) for page in followed(api, f"{BASE}/tokens?text=after&{same}", "next")] == [1, 1, 1]

    # Of a whole token in the query only the id is used, also in the links.
    pasted = api.ask("GET", f"/tokens?text={mine.text.text}&limit=1")
    assert f"text={mine.record.id}" in pasted.headers["link"]
    assert mine.text.text.split("_")[2] not in pasted.text + str(pasted.headers)
    assert len(followed(api, f"{BASE}/tokens?text={mine.text.text}&limit=1", "next")) == 4


def test_cursors_of_other_lists_are_a_conflict(api: ApiWorld) -> None:
    for _ in range(3):
        api.token()
    page = told(api.ask("GET", "/tokens?limit=1"))
    cursor = page["after"]
    assert "other filters or another order" in detail(api.ask("GET", f"/tokens?after={cursor}&sort=oldest"), 409)
    before = told(api.ask("GET", f"/tokens?limit=1&after={cursor}"))["before"]
    assert "one of the two" in detail(api.ask("GET", f"/tokens?limit=1&after={cursor}&before={before}"), 409)
    answer = api.ask("GET", f"/tokens?before={before}&sort=oldest")
    assert [error["at"] for error in told(answer, 409)["errors"]] == ["query/before"]


def test_every_filter_finds_its_tokens(api: ApiWorld) -> None:
    api.token(GLOBAL, description="the crawler", expires_at=NOW + 9 * DAY)
    user = api.token(USER, scopes=frozenset({"CHAT"}), created_at=NOW - 30 * DAY, created_by="os:eve")
    revoked = api.token(ANONYMOUS)
    told(api.ask("POST", f"/tokens/{revoked.record.id}/revoke", json={}))
    found = {
        "text=CRAWL": 1,
        "status=active": 2,
        "status=revoked": 1,
        "status=expired": 0,
        "permission=USER": 1,
        "scope=CHAT": 1,
        "user=Ana@acme.com": 1,
        "created_by=os:eve": 1,
        "pepper_id=p1": 3,
        "pepper_id=p2": 0,
        "expires_after=2027-01-17T00:00:00Z": 1,
        "expires_before=2027-01-17T00:00:00Z": 2,
        f"expiring_within={2 * DAY}": 2,
        f"unused_for={7 * DAY}": 1,
        "never_used=true": 3,
        "never_used=false": 3,
        f"text={user.record.id}": 1,
    }
    assert {query: len(told(api.ask("GET", f"/tokens?{query}"))["tokens"]) for query in found} == found
    named = {query.partition("=")[0] for query in found}
    assert named == TokenQuery.model_fields.keys() - {"sort", "limit", "after", "before"}


def test_a_rotation_tells_the_new_secret_and_the_end_of_the_old_token(api: ApiWorld) -> None:
    old = api.token(USER)
    answer = api.ask("POST", f"/tokens/{old.record.id}/rotate", json={"overlap": 600})
    made = told(answer, 201)
    assert made["secret"].startswith(f"glean_{made['token']['id']}_")
    assert answer.headers["location"].endswith(made["token"]["id"])
    assert (made["token"]["rotated_from"], made["previous"]["rotated_to"]) == (old.record.id, made["token"]["id"])
    assert made["previous"]["expires_at"] == "2027-01-15T08:10:00Z"
    read = api.ask("GET", f"/tokens/{made['token']['id']}")
    assert (told(read), read.headers["etag"]) == (made["token"], answer.headers["etag"])
    assert "was rotated before" in detail(api.ask("POST", f"/tokens/{old.record.id}/rotate", json={"overlap": 0}), 409)
    told(api.ask("POST", f"/tokens/{made['token']['id']}/revoke", json={}))
    assert "is revoked" in detail(api.ask("POST", f"/tokens/{made['token']['id']}/rotate", json={"overlap": 0}), 409)


def test_a_successor_that_is_not_allowed_any_more_is_a_conflict(api: ApiWorld) -> None:
    old = api.token(scopes=frozenset({"SEARCH", "CHAT"}))
    rules = replace(api.administration.rules, vocabulary=frozenset({"SEARCH"}))
    api.administration = replace(api.administration, rules=rules)
    answer = api.ask("POST", f"/tokens/{old.record.id}/rotate", json={"overlap": 0})
    assert "'CHAT' is not one of SEARCH" in detail(answer, 409)
    assert told(api.ask("GET", f"/tokens/{old.record.id}"))["rotated_to"] is None


def test_a_revocation_is_for_good_and_may_be_sent_again(api: ApiWorld) -> None:
    old = api.token(USER)
    new = told(api.ask("POST", f"/tokens/{old.record.id}/rotate", json={"overlap": 600}), 201)["token"]
    first = told(api.ask("POST", f"/tokens/{old.record.id}/revoke", json={"why": "laptop stolen", "chain": True}))
    assert (sorted(first["revoked"]), first["token"]["revoked_why"]) == (sorted((old.record.id, new["id"])), "laptop stolen")
    again = told(api.ask("POST", f"/tokens/{old.record.id}/revoke", json={"why": "again"}))
    assert (again["revoked"], again["token"]["revoked_why"]) == ([], "laptop stolen")


def test_a_change_of_what_was_changed_meanwhile_is_refused(api: ApiWorld) -> None:
    token_id = api.token(USER).record.id
    etag = api.ask("GET", f"/tokens/{token_id}").headers["etag"]
    told(api.ask("POST", f"/tokens/{token_id}/rotate", json={"overlap": 600}, headers={"If-Match": etag}), 201)
    for path, body in (("rotate", {"overlap": 1}), ("revoke", {})):
        answer = api.ask("POST", f"/tokens/{token_id}/{path}", json=body, headers={"If-Match": etag})
        assert [error["at"] for error in told(answer, 412)["errors"]] == ["header/if-match"]
    now = api.ask("GET", f"/tokens/{token_id}").headers["etag"]
    assert now != etag
    answer = api.ask("POST", f"/tokens/{token_id}/revoke", json={}, headers={"If-Match": now})
    assert (answer.status_code, answer.headers["etag"]) == (200, api.ask("GET", f"/tokens/{token_id}").headers["etag"])
    told(
        api.ask(
            "POST",
            f"/tokens/{token_id}/revoke",
            json={},
            headers={"If-Match": f'"x", {api.ask("GET", f"/tokens/{token_id}").headers["etag"]}'},
        )
    )


WRITES: dict[str, dict[str, Any]] = {"rotate": {"overlap": 600}, "revoke": {}}


@pytest.mark.parametrize("other", WRITES)
@pytest.mark.parametrize("way", WRITES)
def test_of_two_writers_the_second_does_nothing(api: ApiWorld, monkeypatch: pytest.MonkeyPatch, way: str, other: str) -> None:
    """The other one writes after this request has read the token, and before its transaction begins."""
    path = f"/tokens/{api.token(ANONYMOUS).record.id}"
    # An empty member is none (RFC 9110 5.6.1).
    etag = {"If-Match": f'{api.ask("GET", path).headers["etag"]}, , "x"'}
    fingerprints = api.store.pepper_fingerprints

    def meanwhile() -> dict[str, str]:
        monkeypatch.undo()
        told(api.ask("POST", f"{path}/{other}", json=WRITES[other], headers=etag), 201 if other == "rotate" else 200)
        heads.append(api.store.audit_head())
        return fingerprints()

    heads: list[tuple[int, str]] = []
    monkeypatch.setattr(api.store, "pepper_fingerprints", meanwhile)
    late = api.ask("POST", f"{path}/{way}", json=WRITES[way], headers=etag)
    assert (late.status_code, late.json()["errors"][0]["at"]) == (412, "header/if-match"), late.text
    assert heads == [api.store.audit_head()]


# --- settings


def etag(number: int) -> dict[str, str]:
    """Return the header that names a version."""
    return {"If-Match": f'"{number}"'}


def test_settings_are_saved_behind_the_version_that_was_read(api: ApiWorld) -> None:
    empty = api.ask("GET", "/settings/oauth")
    assert (told(empty)["version"], told(empty)["enabled"], empty.headers["etag"]) == (0, False, '"0"')
    saved = api.ask("PUT", "/settings/oauth", json=OKTA, headers=etag(0))
    assert (told(saved)["version"], told(saved)["values"], saved.headers["etag"]) == (1, OKTA, '"1"')
    read = told(api.ask("GET", "/settings/oauth", role=Role.VIEWER))
    assert (read["is_managed"], read["version"], read["providers"], read["saved"]["problem"]) == (True, 1, [OKTA], None)
    late = api.ask("PUT", "/settings/oauth", json=OKTA | {"enabled": False}, headers=etag(0))
    assert [error["at"] for error in told(late, 412)["errors"]] == ["header/if-match"]
    assert "nothing differs" in detail(api.ask("PUT", "/settings/oauth", json=OKTA, headers=etag(1)), 409)
    missing = api.ask("PUT", "/settings/oauth", json=OKTA)
    assert [error["at"] for error in told(missing, 428)["errors"]] == ["header/if-match"]
    assert told(api.ask("GET", "/settings/oauth"))["version"] == 1


@pytest.mark.parametrize(
    ("changes", "places"),
    [
        ({"provider": "auth0"}, ["body/provider"]),
        ({"issuer": "http://acme.okta.com"}, ["body/issuer"]),
        ({"client_ids": []}, ["body/client_ids"]),
        ({"client_ids": "0oa1"}, ["body/client_ids"]),
        ({"scopes": ["PINS"]}, ["body/scopes"]),
        ({"enabled": "yes"}, ["body/enabled"]),
        ({"jwks_uri": "https://evil.com/keys"}, ["body/jwks_uri"]),
        ({"client_secret": "x"}, ["body/client_secret"]),
        ({"audience": None}, ["body/audience"]),
    ],
    ids=str,
)
def test_wrong_settings_are_named(api: ApiWorld, changes: dict[str, Any], places: list[str]) -> None:
    answer = api.ask("PUT", "/settings/oauth", json=OKTA | changes, headers=etag(0))
    assert [error["at"] for error in told(answer, 422)["errors"]] == places
    assert api.store.settings().version == 0


def test_an_earlier_version_is_saved_once_more(api: ApiWorld) -> None:
    for number in range(3):
        api.settings(number)
    assert [row["version"] for row in told(api.ask("GET", "/settings/oauth/versions"))["versions"]] == [3, 2, 1]
    page = api.ask("GET", "/settings/oauth/versions?limit=2")
    assert ([row["version"] for row in told(page)["versions"]], told(page)["before"]) == ([3, 2], 2)
    (target,) = re.findall(r'<([^>]+)>; rel="next"', page.headers["link"])
    rest = told(api.client.get(target, headers=api.bearer()))
    assert ([row["version"] for row in rest["versions"]], rest["before"]) == ([1], None)

    restored = api.ask("POST", "/settings/oauth/versions/1/restore", headers=etag(3))
    assert (told(restored)["version"], restored.headers["etag"]) == (4, '"4"')
    assert told(restored)["values"] == told(api.ask("GET", "/settings/oauth/versions"))["versions"][3]["values"]
    told(api.ask("POST", "/settings/oauth/versions/2/restore", headers=etag(3)), 412)
    told(api.ask("POST", "/settings/oauth/versions/2/restore"), 428)
    for unknown in ("5", "0", "-1", "x", "007", "9" * 40, "%D9%A3"):
        told(api.ask("POST", f"/settings/oauth/versions/{unknown}/restore", headers=etag(4)), 404)
    assert api.store.settings().version == 4


def test_settings_of_the_file_are_shown_and_not_changed(tmp_path: Path) -> None:
    with api_world(tmp_path, oauth={key: value for key, value in OKTA.items() if key != "enabled"}) as api:
        read = told(api.ask("GET", "/settings/oauth"))
        assert (read["is_managed"], read["enabled"], read["providers"], read["saved"]) == (False, True, [OKTA], None)
        assert re.search(r"extauthz\.yaml:\d+$", read["place"])
        answer = api.ask("PUT", "/settings/oauth", json=OKTA, headers=etag(0))
        assert "change them there" in detail(answer, 409)


# --- sessions, routes, audit


def test_sessions_are_listed_and_ended(api: ApiWorld) -> None:
    one, other = api.session("ana@acme.com"), api.session("bea@acme.com")
    listed = told(api.ask("GET", "/sessions"))["sessions"]
    assert {session["id"]: session["email"] for session in listed} == {one.id: "ana@acme.com", other.id: "bea@acme.com"}
    assert told(api.ask("DELETE", f"/sessions/{one.id}"))["email"] == "ana@acme.com"
    assert [session["id"] for session in told(api.ask("GET", "/sessions"))["sessions"]] == [other.id]
    told(api.ask("DELETE", f"/sessions/{one.id}"), 404)
    api.now += DAY
    assert told(api.ask("GET", "/sessions"))["sessions"] == []


def test_keys_are_listed_and_revoked(api: ApiWorld) -> None:
    new = api.key(Role.ADMIN, maker=Actor("gone@acme.com", Role.SUPER_ADMIN, "a test"))
    listed = {key["id"]: key for key in told(api.ask("GET", "/keys"))["keys"]}
    assert listed.keys() == {new.record.id, *(key.record.id for key in api.keys.values())}
    shown = listed[new.record.id]
    assert (shown["status"], shown["role"], shown["acts_as"]) == ("suspended", "admin", None)
    assert (shown["created_by"], shown["description"], shown["last_used_at"]) == ("gone@acme.com", "a admin", None)
    own = listed[api.keys[Role.SUPER_ADMIN].record.id]
    assert (own["status"], own["acts_as"], own["last_used_at"] is None) == ("active", "super_admin", False)
    revoked = told(api.ask("POST", f"/keys/{new.record.id}/revoke"))
    assert (revoked["id"], revoked["status"], revoked["revoked_at"]) == (new.record.id, "revoked", "2027-01-15T08:00:00Z")
    assert told(api.ask("POST", f"/keys/{new.record.id}/revoke")) == revoked
    assert new.record.id not in [key["id"] for key in told(api.ask("GET", "/keys"))["keys"]]
    assert new.record.id in [key["id"] for key in told(api.ask("GET", "/keys?all=true"))["keys"]]
    told(api.ask("POST", "/keys/aaaaaaaaaaaa/revoke"), 404)
    text = json.dumps([listed, revoked])
    assert [secret in text for secret in (new.text.text.split("_")[2], new.record.digest.hex(), "digest")] == [False, False, False]


def test_routes_are_those_that_were_loaded(api: ApiWorld) -> None:
    (route,) = told(api.ask("GET", "/routes"))["routes"]
    assert (route["match"], route["scopes"], route["rule"], route["hosts"]) == ("POST /search", ["SEARCH"], "scopes", [])
    assert re.search(r"routes\.yaml:\d+$", route["place"])
    assert [len(told(api.ask("GET", f"/routes?text={text}"))["routes"]) for text in ("/search", "chat")] == [1, 0]


def test_the_audit_is_read_page_by_page_and_verified(api: ApiWorld) -> None:
    made = api.token(GLOBAL)
    told(api.ask("POST", f"/tokens/{made.record.id}/revoke", json={"why": "<script>"}))
    rows = told(api.ask("GET", "/audit"))["rows"]
    assert [row["number"] for row in rows] == [1, 2, 3, 4, 5]
    assert (rows[-1]["action"], rows[-1]["token_id"], rows[-1]["after"]["revoked_why"]) == ("revoke", made.record.id, "<script>")
    page = api.ask("GET", "/audit?after=0&limit=2")
    assert ([row["number"] for row in told(page)["rows"]], told(page)["after"], told(page)["before"]) == ([1, 2], 2, None)
    assert page.headers["link"] == f'<{BASE}/audit?limit=2&after=2>; rel="next"'
    newest = api.ask("GET", "/audit?limit=2")
    assert ([row["number"] for row in told(newest)["rows"]], told(newest)["after"], told(newest)["before"]) == ([4, 5], None, 4)
    assert newest.headers["link"] == f'<{BASE}/audit?limit=2&before=4>; rel="prev"'
    older = told(api.ask("GET", "/audit?limit=2&before=4"))
    assert ([row["number"] for row in older["rows"]], older["after"], older["before"]) == ([2, 3], 3, 2)
    assert "one of the two" in detail(api.ask("GET", "/audit?after=1&before=3"), 409)
    assert told(api.ask("GET", "/audit?after=5")) == {"rows": [], "after": None, "before": None}
    verified = told(api.ask("GET", "/audit/verification"))
    assert (verified["whole"], verified["first_broken"], verified["differences"]) == (True, None, [])
    assert verified["head"] == f"5:{rows[-1]['mac']}"
    assert told(api.ask("GET", f"/audit/verification?head={verified['head']}"))["whole"] is True
    assert told(api.ask("GET", f"/audit/verification?head=6:{'0' * 64}"))["whole"] is False


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("actor=os:founder", [1, 2, 3, 4]),
        ("action=revoke", [5]),
        ("action=key-create&limit=2", [2, 3]),
        ("since=2027-01-15T08:00:01Z", [5]),
        ("until=2027-01-15T08:00:01Z", [1, 2, 3, 4]),
        ("since=1969-01-01T00:00:00Z&until=1970-01-01T00:00:00Z", []),
        ("actor=founder", []),
        ("after=0&action=revoke&limit=1", [5]),
        ("after=2&actor=os:founder&limit=1", [3]),
    ],
)
def test_the_audit_has_filters(api: ApiWorld, query: str, numbers: list[int]) -> None:
    made = api.token(GLOBAL)
    api.now += 60
    told(api.ask("POST", f"/tokens/{made.record.id}/revoke", json={}))
    assert [row["number"] for row in told(api.ask("GET", f"/audit?{query}"))["rows"]] == numbers
    assert [row["number"] for row in told(api.ask("GET", f"/audit?token_id={made.record.id}"))["rows"]] == [4, 5]


def test_one_verification_runs_at_a_time(api: ApiWorld) -> None:
    with audits.ONE_VERIFICATION:
        answer = api.ask("GET", "/audit/verification")
    assert "wait for it" in detail(answer, 429)
    assert answer.headers["retry-after"] == "5"
    assert told(api.ask("GET", "/audit/verification"))["whole"] is True


def test_activity_is_what_the_collector_knows(api: ApiWorld) -> None:
    empty = told(api.ask("GET", "/activity"))
    assert empty == {"at": "2027-01-15T08:00:00Z", "since": None, "error": None} | {
        name: [] for name in ("allowed", "denied", "routes", "sidecars")
    }
    minutes = (0.0,) * 58 + (2.0, 1.0)
    hour = Activity(
        at=NOW,
        since=NOW - 60.5,
        allowed=(Layer("ok", minutes),),
        denied=(Layer("<script>", minutes),),
        routes=(RouteCounts("POST /search", 3.0, 3.0),),
        sidecars=(SidecarState("http://127.0.0.1:9090", NOW - 5.0, error="no answer"),),
    )
    found = json.loads(activity.shown(hour).model_dump_json())
    assert found["since"] == "2027-01-15T07:58:59Z"
    assert (found["allowed"], found["denied"]) == tuple(
        [{"reason": reason, "total": 3.0, "minutes": list(minutes)}] for reason in ("ok", "<script>")
    )
    assert found["routes"] == [{"route": "POST /search", "allowed": 3.0, "denied": 3.0}]
    assert found["sidecars"] == [{"name": "http://127.0.0.1:9090", "since": "2027-01-15T07:59:55Z", "error": "no answer"}]


# --- who waits, and what is away


def test_too_many_wrong_keys_make_wrong_keys_wait_and_no_right_one(api: ApiWorld) -> None:
    wrong = {"Authorization": f"Bearer {core_tokens.mint('exadm', b'x' * 48).text}"}
    for _ in range(WRONG_KEYS):
        assert api.ask("GET", "/tokens", role=None, headers=wrong).status_code == 401
    answer = api.ask("GET", "/tokens", role=None, headers=wrong)
    assert "wait 6 s" in detail(answer, 429)
    assert answer.headers["retry-after"] == "6"
    assert api.ask("GET", "/tokens").status_code == 200
    api.now += WINDOW / WRONG_KEYS
    assert [api.ask("GET", "/tokens", role=None, headers=wrong).status_code for _ in range(2)] == [401, 429]
    assert api.ask("GET", "/tokens").status_code == 200


def test_right_keys_and_none_make_nobody_wait(api: ApiWorld) -> None:
    for _ in range(2 * WRONG_KEYS):
        assert api.ask("GET", "/routes").status_code == 200
        assert api.ask("GET", "/routes", role=None).status_code == 401


def test_a_store_that_is_away_is_said_and_comes_back(api: ApiWorld, caplog: pytest.LogCaptureFixture) -> None:
    good = api.administration
    with closing(SqlTokenStore(api.folder / "away.db", create=True)) as away:
        api.administration = replace(good, store=away)
        for method, path in (("GET", "/tokens"), ("POST", "/tokens"), ("GET", "/openapi.json")):
            answer = api.ask(method, path, json=BODY if method == "POST" else None)
            assert detail(answer, 503).startswith("the token store cannot be used now")
            assert answer.headers["retry-after"] == "5"
            assert "away.db" not in answer.text
    assert {"token store is empty" in record.__dict__["error"] for record in caplog.records} == {True}
    api.administration = good
    assert api.ask("GET", "/tokens").status_code == 200


def test_an_error_of_ours_is_logged_and_not_told(api: ApiWorld, caplog: pytest.LogCaptureFixture) -> None:
    del api.route_map
    answer = api.ask("GET", "/routes")
    assert detail(answer, 500) == "something in the console is broken: its log says what"
    assert answer.headers["content-type"] == "application/problem+json"
    assert "route_map" in caplog.text


def test_a_row_of_the_audit_that_somebody_broke_is_shown_as_it_is(api: ApiWorld) -> None:
    with closing(sqlite3.connect(api.folder / "store.db", isolation_level=None)) as connection:
        names = "number, at, actor, action, source, before, after, pepper_id, mac"
        connection.execute(f"INSERT INTO audit ({names}) VALUES (4, 1, 'eve', 'x', '', '{{', '7', 'p1', x'00')")  # noqa: S608
    (row,) = told(api.ask("GET", "/audit?after=3"))["rows"]
    assert (row["before"], row["after"]) == ("{", 7)
    assert told(api.ask("GET", "/audit/verification"))["first_broken"] == 4


# --- the document


def test_the_document_names_what_the_configuration_allows(api: ApiWorld) -> None:
    served = told(api.ask("GET", "/openapi.json", role=Role.VIEWER))
    assert served == document(["CHAT", "DOCPERMISSIONS", "SEARCH"], 365 * DAY)
    body = served["components"]["schemas"]["GlobalTokenBody"]["properties"]
    assert body["scopes"]["items"]["enum"] == ["CHAT", "DOCPERMISSIONS", "SEARCH"]
    assert body["expires_in"]["maximum"] == 365 * DAY


def test_every_reference_of_the_document_leads_somewhere() -> None:
    whole = document(["SEARCH"], DAY)
    references = set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(whole)))
    assert len(references) > 10
    for reference in references:
        found: Any = whole
        for part in reference.split("/"):
            found = found[part]
        assert found
    assert '"$defs"' not in json.dumps(whole)


def test_the_document_has_every_operation_with_its_role() -> None:
    paths = document(["SEARCH"], DAY)["paths"]
    described = {entry["operationId"]: entry for methods in paths.values() for entry in methods.values()}
    assert described.keys() == {operation.name for operation in OPERATIONS}
    for operation in OPERATIONS:
        assert described[operation.name]["description"] == f"Needs the role {least_role(operation)}."
        assert str(operation.status.value) in described[operation.name]["responses"]
