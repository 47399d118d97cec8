"""What the API reads: each refusal names its place, and nothing is read that others would read otherwise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from extauthz.console.api.operations import BASE
from extauthz.console.api.reading import MAX_BODY, read_body
from extauthz.console.api.values import Moment
from tests.support.console_api import GLOBAL, ApiWorld, api_world
from tests.support.virtual_time import in_virtual_time

BODY = {"description": "CI", "permission": "ANONYMOUS", "scopes": ["SEARCH"], "expires_in": 3600}
SECRET = "glean_4fK2pQ9sXb1Z_" + "aB3" * 16 + "x"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiWorld]:
    """A world for all cases, which change nothing in it."""
    with api_world(tmp_path_factory.mktemp("api")) as world:
        world.settings()
        yield world


def problem(answer: Any, status: int) -> dict[str, Any]:
    """Return a problem, after a look at its form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found.keys() <= {"type", "title", "status", "detail", "errors", "token_id"}
    assert (found["type"], found["status"]) == ("about:blank", status)
    assert isinstance(found, dict)
    return found


def places(answer: Any, status: int = 422) -> list[str]:
    """Return where a problem says that something is wrong."""
    errors = problem(answer, status).get("errors", [])
    assert [error for error in errors if not error["detail"]] == []
    return [error["at"] for error in errors]


WITHOUT = {name: {key: value for key, value in BODY.items() if key != name} for name in BODY}
USER = BODY | {"permission": "USER"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        *((WITHOUT[name], [f"body/{name}"]) for name in BODY),
        ({}, ["body/permission"]),
        ([], ["body"]),
        ("text", ["body"]),
        (BODY | {"permission": "OAUTH"}, ["body/permission"]),
        (BODY | {"permission": SECRET}, ["body/permission"]),
        (BODY | {"permission": None}, ["body/permission"]),
        (BODY | {"user": "ana@acme.com"}, ["body/user"]),
        (USER, ["body/user"]),
        (USER | {"user": "ana"}, ["body/user"]),
        (USER | {"user": None}, ["body/user"]),
        (USER | {"user": "ana@evil.com"}, ["body/user"]),
        (BODY | {"description": ""}, ["body/description"]),
        (BODY | {"description": " "}, ["body/description"]),
        (BODY | {"description": "a\nb"}, ["body/description"]),
        (BODY | {"description": "x" * 201}, ["body/description"]),
        (BODY | {"description": 7}, ["body/description"]),
        (BODY | {"scopes": []}, ["body/scopes"]),
        (BODY | {"scopes": ["SEARCH", "SEARCH"]}, ["body/scopes"]),
        (BODY | {"scopes": ["SEARCH", "7EARCH"]}, ["body/scopes/1"]),
        (BODY | {"scopes": ["SEARCH", "search"]}, ["body/scopes"]),
        (BODY | {"scopes": ["PINS"]}, ["body/scopes"]),
        (BODY | {"scopes": "SEARCH"}, ["body/scopes"]),
        (BODY | {"scopes": {"SEARCH": 1}}, ["body/scopes"]),
        (BODY | {"scopes": [["SEARCH"]]}, ["body/scopes/0"]),
        *(
            (BODY | {"expires_in": value}, ["body/expires_in"])
            for value in (0, -1, 1.5, "60", True, None, [], 10**30, 365 * 86400 + 1)
        ),
        (BODY | {"more": 1}, ["body/more"]),
        (BODY | {SECRET: 1}, ["body"]),
        (BODY | {"description": "", "scopes": [], "expires_in": 0}, ["body/description", "body/scopes", "body/expires_in"]),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_each_wrong_member_is_named(api: ApiWorld, body: Any, expected: list[str]) -> None:
    answer = api.ask("POST", "/tokens", json=body)
    assert places(answer) == expected
    assert SECRET not in answer.text


@pytest.mark.parametrize("value", [3600, 3600.0])
def test_a_whole_number_is_one_however_it_is_written(api: ApiWorld, value: float) -> None:
    answer = api.ask("POST", "/tokens", json=BODY | {"expires_in": value})
    assert answer.status_code == 201, answer.text
    assert answer.json()["token"]["expires_at"] == "2027-01-15T09:00:00Z"


def text_of(**changes: str) -> str:
    """Return a body as text, with members as they are written."""
    members = {name: json.dumps(value) for name, value in BODY.items()} | changes
    return "{" + ", ".join(f'"{name}": {value}' for name, value in members.items()) + "}"


UNREADABLE = {
    "nothing": b"",
    "a half": text_of().encode()[:-1],
    "more behind": text_of().encode() + b"x",
    "a member twice": b'{"permission": "GLOBAL", ' + text_of().encode()[1:],
    "a member twice inside": text_of(description='{"a": 1, "a": 2}').encode(),
    "NaN": text_of(expires_in="NaN").encode(),
    "Infinity": text_of(expires_in="-Infinity").encode(),
    "a byte order mark": b"\xef\xbb\xbf" + text_of().encode(),
    "UTF-16": text_of().encode("utf-16"),
    "Latin-1": text_of(description='"\u00e9"').encode("latin-1"),
    "a form": b"permission=GLOBAL",
    "deep": b"[" * 30_000 + b"]" * 30_000,
    "21 deep": b"[" * 21 + b"]" * 21,
    "too many digits": text_of(expires_in="9" * 6000).encode(),
    "NUL": b"\0" + text_of().encode(),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_body_that_is_no_json_is_refused(api: ApiWorld, name: str) -> None:
    before = api.store.audit_head()
    answer = api.ask("POST", "/tokens", content=UNREADABLE[name], headers={"Content-Type": "application/json"})
    assert problem(answer, 400)["detail"].startswith("the body cannot be read: ")
    assert api.store.audit_head() == before


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (text_of(description='"\\ud800"'), "body"),
        ("null", "body"),
        (text_of(expires_in="1e999"), "body/expires_in"),
        (text_of(description='"\\u0000"'), "body/description"),
    ],
)
def test_values_that_no_database_keeps_are_refused(api: ApiWorld, content: str, place: str) -> None:
    answer = api.ask("POST", "/tokens", content=content, headers={"Content-Type": "application/json"})
    assert places(answer) == [place]


TYPES = [
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/jsonx",
    "application/json; charset=latin-1",
    "multipart/form-data",
]


@pytest.mark.parametrize("kind", TYPES)
def test_another_content_type_is_refused(api: ApiWorld, kind: str) -> None:
    answer = api.ask("POST", "/tokens", content=text_of(), headers={"Content-Type": kind} if kind else {})
    assert problem(answer, 415)["detail"] == "send a body of the content type application/json"


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"']
)
def test_the_content_type_is_read_in_any_case(api: ApiWorld, kind: str) -> None:
    assert api.ask("POST", "/tokens", content=text_of(), headers={"Content-Type": kind}).status_code == 201


@pytest.mark.parametrize(("size", "status"), [(MAX_BODY, 201), (MAX_BODY + 1, 413)])
def test_a_body_has_a_limit(api: ApiWorld, size: int, status: int) -> None:
    content = text_of().ljust(size)
    assert api.ask("POST", "/tokens", content=content, headers={"Content-Type": "application/json"}).status_code == status


def test_a_body_without_an_end_is_not_waited_for(api: ApiWorld) -> None:
    sent = []

    def parts() -> Iterator[bytes]:
        for _ in range(1000):
            sent.append(1)
            yield b" " * 1024

    answer = api.ask("POST", "/tokens", content=parts(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


QUERIES = [
    ("/tokens?limit=0", ["query/limit"]),
    ("/tokens?limit=1001", ["query/limit"]),
    ("/tokens?limit=1_0", ["query/limit"]),
    ("/tokens?limit=%2B5", ["query/limit"]),
    ("/tokens?limit=5.0", ["query/limit"]),
    ("/tokens?limit=true", ["query/limit"]),
    ("/tokens?limit=", ["query/limit"]),
    ("/tokens?limit=%D9%A3", ["query/limit"]),
    ("/tokens?limit=1&limit=1", ["query/limit"]),
    ("/tokens?Limit=1", ["query/Limit"]),
    ("/tokens?cursor=x", ["query/cursor"]),
    (f"/tokens?{SECRET}=x", ["query"]),
    ("/tokens?status=dead", ["query/status"]),
    ("/tokens?permission=OAUTH", ["query/permission"]),
    ("/tokens?permission=global", ["query/permission"]),
    ("/tokens?scope=7earch", ["query/scope"]),
    ("/tokens?user=ana", ["query/user"]),
    ("/tokens?text=a%00b", ["query/text"]),
    ("/tokens?text=a%0Ab", ["query/text"]),
    (f"/tokens?text={'x' * 201}", ["query/text"]),
    (f"/tokens?text={'aB3' * 12}", ["query/text"]),
    ("/tokens?created_by=%00", ["query/created_by"]),
    ("/tokens?pepper_id=../x", ["query/pepper_id"]),
    ("/tokens?expires_after=1800000000", ["query/expires_after"]),
    ("/tokens?expires_after=2027-01-15", ["query/expires_after"]),
    ("/tokens?expires_before=2027-02-30T00:00:00Z", ["query/expires_before"]),
    ("/tokens?expiring_within=0", ["query/expiring_within"]),
    ("/tokens?unused_for=3153600001", ["query/unused_for"]),
    ("/tokens?never_used=1", ["query/never_used"]),
    ("/tokens?sort=age", ["query/sort"]),
    ("/tokens?after=x", ["query/after"]),
    ("/tokens?after=before-1-a-000000000000", ["query/after"]),
    ("/tokens?limit=0&sort=x", ["query/sort", "query/limit"]),
    ("/audit?after=-1", ["query/after"]),
    ("/audit?limit=0", ["query/limit"]),
    ("/audit?limit=1001", ["query/limit"]),
    ("/audit?before=0", ["query/before"]),
    ("/audit?token_id=x", ["query/token_id"]),
    ("/audit?actor=%00", ["query/actor"]),
    ("/audit?action=a%0Ab", ["query/action"]),
    ("/audit?since=2027-01-15", ["query/since"]),
    ("/audit?until=x&since=x", ["query/since", "query/until"]),
    ("/activity?x=1", ["query/x"]),
    ("/audit/verification?head=1", ["query/head"]),
    ("/audit/verification?limit=1", ["query/limit"]),
    ("/settings/oauth/versions?before=0", ["query/before"]),
    ("/settings/oauth?x=1", ["query/x"]),
    ("/routes?text=%00", ["query/text"]),
    ("/sessions?limit=1", ["query/limit"]),
    ("/tokens/aaaaaaaaaaaa?x", ["query"]),
]


@pytest.mark.parametrize(("path", "expected"), QUERIES, ids=[path[:50] for path, _ in QUERIES])
def test_each_wrong_parameter_is_named(api: ApiWorld, path: str, expected: list[str]) -> None:
    answer = api.ask("GET", path)
    if expected == ["query"] and "=" not in path:
        assert problem(answer, 400)["detail"].startswith("the query cannot be read")
        return
    assert places(answer) == expected
    assert (SECRET in answer.text, "aB3aB3" in answer.text) == (False, False)


@pytest.mark.parametrize("query", ["text=%ff", "text=%ed%a0%80", "&".join(f"a{number}=1" for number in range(51)), "a&b"])
def test_a_query_that_cannot_be_read_is_refused(api: ApiWorld, query: str) -> None:
    problem(api.ask("GET", f"/tokens?{query}"), 400)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("Idempotency-Key", "")], "header/idempotency-key"),
        ([("Idempotency-Key", "a b")], "header/idempotency-key"),
        ([("Idempotency-Key", "x" * 201)], "header/idempotency-key"),
        ([("Idempotency-Key", "a"), ("Idempotency-Key", "a")], "header/idempotency-key"),
    ],
)
def test_a_wrong_idempotency_key_is_named(api: ApiWorld, headers: list[tuple[str, str]], expected: str) -> None:
    sent = [*api.bearer().items(), *headers]
    answer = api.client.post(f"{BASE}/tokens", json=BODY, headers=sent)
    assert places(answer) == [expected]


@pytest.mark.parametrize("value", ["x", '"', '"a', 'W/"a"', '"a", "b"', "", ","])
@pytest.mark.parametrize("path", ["rotate", "revoke"])
def test_an_etag_of_something_else_changes_nothing(api: ApiWorld, path: str, value: str) -> None:
    token_id = api.token(GLOBAL).record.id
    body = {"overlap": 0} if path == "rotate" else {}
    answer = api.ask("POST", f"/tokens/{token_id}/{path}", json=body, headers={"If-Match": value})
    assert places(answer, 412) == ["header/if-match"]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("rotate", {}, ["body/overlap"]),
        ("rotate", {"overlap": -1}, ["body/overlap"]),
        ("rotate", {"overlap": 10**12}, ["body/overlap"]),
        ("rotate", {"overlap": 1, "permission": "GLOBAL"}, ["body/permission"]),
        ("revoke", {"why": ""}, ["body/why"]),
        ("revoke", {"why": "x" * 201}, ["body/why"]),
        ("revoke", {"why": "a\nb"}, ["body/why"]),
        ("revoke", {"chain": "yes"}, ["body/chain"]),
        ("revoke", {"chain": 1}, ["body/chain"]),
    ],
    ids=str,
)
def test_changes_name_what_is_wrong(api: ApiWorld, path: str, body: Any, expected: list[str]) -> None:
    assert places(api.ask("POST", f"/tokens/{api.token().record.id}/{path}", json=body)) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/tokens/",
        "/tokens/aaaaaaaaaaaa/",
        "/tokens/aaaaaaaaaaaa/keep",
        "/tokens%2f",
        "/Tokens",
        "/tokens/aaaaaaaaaaaa%2frotate/x",
        "/openapi.json/",
        "/tokens%0A",
        "/%0A",
        "/tokens/aaaaaaaaaaaa/rotate%0a",
    ],
)
def test_nothing_is_elsewhere(api: ApiWorld, path: str) -> None:
    problem(api.ask("GET", path), 404)
    problem(api.ask("POST", path, json={}), 404)


@pytest.mark.parametrize("token_id", ["aaaaaaaaaaaa", "a", "%00", "%C3%A9", "a" * 5000, "%ff", "..%2f"])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/rotate"), ("POST", "/revoke")])
def test_an_unknown_id_is_not_found(api: ApiWorld, method: str, path: str, token_id: str) -> None:
    body = {"json": {"overlap": 1} if path == "/rotate" else {}} if method == "POST" else {}
    problem(api.ask(method, f"/tokens/{token_id}{path}", **body), 404)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/tokens", "GET, HEAD, POST"),
        ("/tokens/aaaaaaaaaaaa", "GET, HEAD"),
        ("/tokens/aaaaaaaaaaaa/rotate", "POST"),
        ("/settings/oauth", "GET, HEAD, PUT"),
        ("/sessions/aaaaaaaaaaaa", "DELETE"),
        ("/openapi.json", "GET, HEAD"),
    ],
)
def test_a_405_names_every_method_of_the_path(api: ApiWorld, path: str, allowed: str) -> None:
    others = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"} - set(allowed.split(", "))
    answers = {method: api.ask(method, path) for method in others}
    told = {method: (answer.status_code, answer.headers["allow"]) for method, answer in answers.items()}
    assert told == dict.fromkeys(others, (405, allowed))


def test_head_is_get_without_a_body(api: ApiWorld) -> None:
    answer = api.ask("HEAD", "/tokens")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")


# --- times


def seconds(text: str) -> int | None:
    """Read a moment as the API does."""
    try:
        return int(TypeAdapter(Moment).validate_python(text))
    except ValidationError:
        return None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2027-01-15T08:00:00Z", 1_800_000_000),
        ("2027-01-15t08:00:00.999z", 1_800_000_000),
        ("2027-01-15T09:30:00+01:30", 1_800_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800),
        ("2027-01-15 08:00:00Z", None),
        ("2027-01-15T08:00Z", None),
        ("2027-01-15T08:00:00", None),
        ("2027-01-15T08:00:61Z", None),
        ("2027-01-15T24:00:00Z", None),
        ("2027-13-15T08:00:00Z", None),
        ("0000-01-01T00:00:00Z", None),
        ("2027-01-15T08:00:00+24:00", None),
        ("2027-01-15T08:00:00Z\n", None),
        ("\u0662027-01-15T08:00:00Z", None),
        ("1800000000", None),
        ("", None),
    ],
)
def test_a_moment_is_read_as_rfc_3339_says(text: str, expected: int | None) -> None:
    assert seconds(text) == expected


@given(st.datetimes(timezones=st.timezones()))
def test_every_moment_that_is_written_is_read(moment: Any) -> None:
    offset = moment.utcoffset()
    if offset is None or offset.total_seconds() % 60 or not 2 <= moment.year <= 9998:
        return
    # A float of so many seconds has no room for all microseconds, and is rounded up.
    assert seconds(moment.isoformat()) == int(moment.replace(microsecond=0).timestamp() // 1)


def test_a_body_that_does_not_come_is_waited_for_five_seconds() -> None:
    async def receive() -> Any:
        await asyncio.sleep(1.0)  # why: each part comes in time, and the whole does not
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def work() -> tuple[Any, float]:
        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
        return await read_body(Request(scope, receive), TypeAdapter(dict)), asyncio.get_running_loop().time()

    answer, at = in_virtual_time(work)
    assert (answer.status, answer.headers, at) == (408, {"connection": "close"}, 5.0)
