"""A route file made of descriptions has every operation, opens nothing more, and keeps what people wrote in it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extauthz.config import routes, tables
from extauthz.config.files import Files
from extauthz.config.openapi_map import OpenapiMap
from extauthz.core.credentials import Kind
from extauthz.core.model import Allow, AuthType, Deny, Identity
from extauthz.core.policy import Policy
from extauthz.errors import ConfigurationError
from extauthz.tools.callers import NOBODY, Caller
from extauthz.tools.calls import Call, decided_call
from extauthz.tools.openapi import DescribedOperation, read
from extauthz.tools.openapi_access import Accesses
from extauthz.tools.openapi_asking import Question
from extauthz.tools.openapi_coverage import DescriptionCoverage, coverage
from extauthz.tools.openapi_update import GONE, Update, update

FILE = Path("routes/api.yaml")
VOCABULARY = ("SEARCH", "CHAT", "ADMIN")
RULES: dict[str, Any] = {"rules": [{"security": "read", "scope": "SEARCH"}, {"tag": "chat", "scope": "CHAT"}]}
READ: dict[str, Any] = {"security": [{"o": ["read"]}]}


def operations(folder: Path, paths: object, **rest: object) -> list[DescribedOperation]:
    file = folder / "spec.json"
    file.write_text(json.dumps({"openapi": "3.0.3", "paths": paths} | rest))
    return read([file])


def mapping(rules: dict[str, Any] | None = None) -> OpenapiMap:
    return OpenapiMap.model_validate(RULES if rules is None else rules, context=VOCABULARY)


def imported(before: str | None, described: Sequence[DescribedOperation], rules: dict[str, Any] | None = None) -> Update:
    return update(FILE, None if before is None else before.encode(), described, mapping(rules), VOCABULARY)


def policy_of(text: str) -> tuple[Policy, dict[str, str]]:
    """Return what serves these routes, and where they stand."""
    placed, problems = routes.read(FILE, VOCABULARY, Files({FILE: text.encode()}))
    table, hosts, wrong, _ = tables.compile_tables(placed)
    assert problems + wrong == []
    return Policy(table, hosts), {entry.route.name: entry.place for entry in placed}


def covered(text: str, described: Sequence[DescribedOperation], rules: dict[str, Any] | None = None) -> DescriptionCoverage:
    policy, places = policy_of(text)
    return coverage(Question(policy, places, described, mapping(rules), VOCABULARY))


def rows(text: str) -> list[str]:
    """Return the lines of a file without the space in front of comments."""
    return [re.sub(" +#", " #", row) for row in text.splitlines()]


def test_a_new_file_has_a_line_for_every_operation(tmp_path: Path) -> None:
    paths = {
        "/pets/{id}": {"get": {"operationId": "getPet", **READ}, "put": {"tags": ["chat"], "security": [{"key": []}]}},
        "/files/{id}.json": {"get": READ},
        "/open": {"get": {"security": []}},
    }
    result = imported(None, operations(tmp_path, paths, servers=[{"url": "https://acme.com/v1"}]))
    assert rows(result.text)[1:] == [
        "routes:",
        '  - {match: "GET /v1/pets/{id}", scope: SEARCH, name: "getPet"} # imported: scope SEARCH (security read)',
        '  - {match: "PUT /v1/pets/{id}", scope: CHAT} # imported: scope CHAT (rule 2, tag chat)',
        '  - {match: "GET /v1/files/{id}", deny: true} # imported: deny (a pattern has no segment like {id}.json; write the scope '
        "here if all that the pattern matches may be called with it, or say mixed_segments: parameter in the mapping file)",
        '  - {match: "GET /v1/open", deny: true} # imported: deny (the description asks for no security: add a rule that says '
        "public or a scope, or write it here)",
    ]
    assert [change.route for change in result.denied] == ["GET /v1/files/{id}", "GET /v1/open"]


def test_operations_that_share_a_pattern_need_what_all_of_them_need(tmp_path: Path) -> None:
    chat = {"tags": ["chat"], "security": [{"key": []}]}
    paths = {
        "/a/{x}": {"get": READ},
        "/a/{y}": {"get": chat},
        "/b": {"get": READ},
        "/b#of-me": {"get": {}},
        "/c/{x}": {"get": READ},
    }
    paths |= {"/c/{x}.json": {"get": chat}, "/d/{x}": {"get": READ}, "/d/{x};v": {"get": {}}}
    result = imported(None, operations(tmp_path, paths))
    assert {change.route: change.access for change in result.added} == {
        "GET /a/{x}": "all_of CHAT SEARCH",
        "GET /b": "deny",
        "GET /c/{x}": "all_of CHAT SEARCH",
        "GET /d/{x}": "scope SEARCH",
    }


def test_mixed_segments_and_wildcards_are_opened_where_the_mapping_file_says_so(tmp_path: Path) -> None:
    described = operations(tmp_path, {"/a/{x}.json": {"get": READ}, "/b/{x*}": {"get": READ}, "/c/*": {"get": READ}})
    result = imported(None, described, RULES | {"mixed_segments": "parameter", "wildcards": "rest"})
    assert {change.route: change.access for change in result.added} == {
        "GET /a/{x}": "scope SEARCH",
        "GET /b/{x}/**": "scope SEARCH",
        "GET /c/{segment}": "deny",
    }


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (("a", "b"), {"a", "b"}),
        (("a", "a"), {"GET /x", "GET /y"}),
        (("a", "GET /x"), {"a", "GET /y"}),
        (("a", "n" * 201), {"a", "GET /y"}),
        (("a", "b\u200b"), {"a", "GET /y"}),
        (("a: {b}", "é"), {"a: {b}", "é"}),
        (("a", 'q"\\'), {"a", 'q"\\'}),
    ],
)
def test_a_route_is_named_like_its_operation_where_that_is_one_name(ids: tuple[str, str], names: set[str], tmp_path: Path) -> None:
    paths = {path: {"get": {"operationId": name}} for path, name in zip(("/x", "/y"), ids, strict=True)}
    assert set(policy_of(imported(None, operations(tmp_path, paths)).text)[1]) == names


# --- wildcards, which no pattern says

EVERYBODY: dict[str, Any] = {"security": [], "tags": ["open"]}
BOTH: dict[str, Any] = {"security": [{"o": ["read", "write"]}]}
OPENED = {
    "rules": [
        {"tag": "open", "public": True},
        {"security": "read", "scope": "SEARCH"},
        {"security": "write", "scope": "CHAT"},
        {"security": "admin", "scope": "ADMIN"},
    ]
}
ADMIN: dict[str, Any] = {"security": [{"o": ["admin"]}]}
SEGMENT, REST = "segment", "rest"
SHARED: dict[str, tuple[dict[str, Any], str, dict[str, str]]] = {
    "what stands behind a wildcard": (
        {"/{p*}": {"get": EVERYBODY}, "/{p*}/a": {"get": READ}},
        REST,
        {"GET /{p}/**": "scope SEARCH", "GET /{p}/a": "scope SEARCH"},
    ),
    "what stands behind a wildcard, and nothing else is opened": (
        {"/{p*}": {"get": EVERYBODY}, "/{p*}/a": {"get": READ}},
        SEGMENT,
        {"GET /{p}": "public", "GET /{p}/a": "scope SEARCH"},
    ),
    "neither is a part of the other": (
        {"/{p*}/a": {"put": READ}, "/{id}/{id}/{p*}": {"put": EVERYBODY}},
        SEGMENT,
        {"PUT /{p}/a": "scope SEARCH", "PUT /{id}/{id}/{p}": "scope SEARCH"},
    ),
    "a part with other needs": (
        {"/{p*}": {"get": BOTH}, "/{id}/{p*}": {"get": EVERYBODY}, "/{p*}/{id}/{x}": {"get": READ}},
        SEGMENT,
        {"GET /{p}": "all_of CHAT SEARCH", "GET /{id}/{p}": "public", "GET /{p}/{id}/{x}": "scope SEARCH"},
    ),
    "a literal behind a wildcard comes before a parameter": (
        {"/{id}/{x}": {"get": ADMIN}, "/{p*}/a": {"get": READ}},
        SEGMENT,
        {"GET /{id}/{x}": "scope ADMIN", "GET /{p}/a": "scope SEARCH"},
    ),
    "more segments come to parameters": (
        {"/f/{p*}": {"get": ADMIN}, "/{x}/{y}": {"get": READ}, "/{x}/{y}/{z}": {"get": READ}},
        SEGMENT,
        {"GET /f/{p}": "scope ADMIN", "GET /{x}/{y}": "scope SEARCH", "GET /{x}/{y}/{z}": "all_of ADMIN SEARCH"},
    ),
    "more segments have a pattern": (
        {"/f/{p*}": {"get": ADMIN}, "/{x}/{y}/{z}": {"get": READ}},
        REST,
        {"GET /f/{p}/**": "scope ADMIN", "GET /{x}/{y}/{z}": "scope SEARCH"},
    ),
    "another method": (
        {"/{p*}": {"get": EVERYBODY}, "/{p*}/a": {"put": READ}},
        REST,
        {"GET /{p}/**": "public", "PUT /{p}/a": "scope SEARCH"},
    ),
    "a part of a segment": (
        {"/{p*}": {"get": EVERYBODY}, "/{p*}.json": {"get": READ}},
        REST,
        {"GET /{p}/**": "scope SEARCH", "GET /{p}": "scope SEARCH"},
    ),
    "a pattern with more paths than a segment of which it is a part": (
        {"/{p*}": {"get": READ}, "/{id}.json": {"get": EVERYBODY}},
        REST,
        {"GET /{p}/**": "scope SEARCH", "GET /{id}": "scope SEARCH"},
    ),
    "a last slash": (
        {"/{p*}": {"get": EVERYBODY}, "/{p*}/": {"get": READ}},
        REST,
        {"GET /{p}/**": "scope SEARCH", "GET /{p}/": "scope SEARCH"},
    ),
    "a pattern of another method has more paths than its template, and all others are of other templates": (
        {"/{x}/{id}.json": {"put": READ}, "/{id}/{p*}": {"get": EVERYBODY}, "/{id}/{x}/{p*}": {"put": ADMIN}},
        REST,
        {
            "PUT /{x}/{id}": "scope SEARCH",
            "GET /{id}/{p}/**": "public",
            "PUT /{id}/{x}/{p}/**": "scope ADMIN",
            "GET /{x}/{id}": "public",
        },
    ),
    "more ways than are tried": (
        {f"/{'/a/'.join(['{p*}'] * 8)}": {"get": READ}, "/{x}/{y}": {"get": EVERYBODY}},
        SEGMENT,
        {f"GET /{'/a/'.join(['{p}'] * 8)}": "scope SEARCH", "GET /{x}/{y}": "scope SEARCH"},
    ),
    "all paths are of other templates": (
        {"/{id}/{p*}": {"post": EVERYBODY}, "/{p*}": {"put": EVERYBODY}, "/{id}": {"get": EVERYBODY}},
        REST,
        {"POST /{id}/{p}/**": "public", "PUT /{p}/**": "public", "GET /{id}": "public"},
    ),
    "a part with one segment, and others with more": (
        {"/{id}/b/{id}": {"get": EVERYBODY}, "/{p*}/b/{p*}": {"put": EVERYBODY}},
        REST,
        {"GET /{id}/b/{id}": "public", "PUT /{p}/b/{p}/**": "public"},
    ),
}


@pytest.mark.parametrize("name", SHARED)
def test_no_line_opens_paths_of_a_wildcard_wider_than_their_operation(name: str, tmp_path: Path) -> None:
    paths, wildcards, expected = SHARED[name]
    described = operations(tmp_path, paths)
    rules = OPENED | {"wildcards": wildcards, "mixed_segments": "parameter"}
    result = imported(None, described, rules)
    assert {change.route: change.access for change in result.added} == expected
    assert covered(result.text, described, rules).findings == ()


@pytest.mark.parametrize(("case", "access"), [("insensitive", "all_of ADMIN SEARCH"), ("sensitive", "scope SEARCH")])
def test_an_upstream_reads_paths_of_wildcards_as_it_reads_those_of_routes(case: str, access: str, tmp_path: Path) -> None:
    described = operations(tmp_path, {"/F/{p*}/a": {"get": ADMIN}, "/f/{x}/{y}/{z}/": {"get": READ}})
    before = f"upstream: {{case: {case}, trailing_slash: ignored}}\nroutes: []\n"
    result = imported(before, described, OPENED)
    assert {change.route: change.access for change in result.added}["GET /f/{x}/{y}/{z}/"] == access
    assert covered(result.text, described, OPENED).findings == ()


def test_a_line_for_what_a_pattern_of_another_method_hides_says_so(tmp_path: Path) -> None:
    paths = {"/{x};v": {"put": READ}, "/{p*}": {"get": READ | {"operationId": "all"}}}
    described = operations(tmp_path, paths)
    rules = OPENED | {"wildcards": REST}
    result = imported(None, described, rules)
    assert rows(result.text)[3:] == [
        '  - {match: "GET /{p}/**", scope: SEARCH, name: "all"} # imported: scope SEARCH (security read)',
        '  - {match: "GET /{x}", scope: SEARCH} # imported: scope SEARCH (security read; a part of GET /{p}/**)',
    ]
    assert imported(result.text, described, rules).text == result.text


def test_a_line_that_becomes_stricter_says_which_operation_it_shares_paths_with(tmp_path: Path) -> None:
    described = operations(tmp_path, {"/f/{p*}": {"get": ADMIN}, "/{x}/{y}/{z}": {"get": READ}})
    row = rows(imported(None, described, OPENED).text)[-1]
    assert row.endswith("# imported: all_of ADMIN SEARCH (security read; GET /f/{p*} shares paths and is stricter)")


# --- the second time

BY_HAND = """\
# Our own head.
hosts: [api.acme.com]   # the one host
upstream: {case: insensitive, trailing_slash: ignored}

routes:
  # Pets, which Bob knows about.
  - {match: "GET /pets", scope: ADMIN}                 # ours
  - match: "POST /pets"
    any_of:
      - CHAT   # for now
      - ADMIN

  - {match: "GET /a", scope: SEARCH, mode: monitor, name: "a"}    # imported: deny (because)  # extauthz: ignore x: y
  - {match: "GET /b", deny: true, accept: [oauth]}
# end
"""
BY_HAND = BY_HAND.replace(", accept: [oauth]", "")


def test_what_people_wrote_stays_letter_by_letter(tmp_path: Path) -> None:
    paths = {path: {"get": READ, "post": READ, "put": READ} for path in ("/a", "/Pets/", "/b", "/new")}
    result = imported(BY_HAND, operations(tmp_path, paths))
    new, old = result.text.splitlines(), BY_HAND.splitlines()
    assert [row for row in new if row in old] == old
    assert [change.route for change in result.added] == [
        "PUT /a",
        "POST /a",
        "PUT /pets",
        "PUT /b",
        "POST /b",
        "GET /new",
        "PUT /new",
        "POST /new",
    ]
    assert (result.changed, result.gone) == ((), ())
    assert result.kept == ("GET /pets", "POST /pets", "GET /a", "GET /b")
    places = {row.partition('match: "')[2].partition('"')[0]: number for number, row in enumerate(new) if "match: " in row}
    # New lines stand behind their neighbours, and "# end" stays last.
    assert places["PUT /a"] == places["GET /a"] + 1
    assert places["POST /b"] == places["GET /b"] + 2
    assert places["GET /new"] == places["POST /b"] + 1
    assert new[places["PUT /pets"] - 1] == "      - ADMIN"
    assert new[-1] == "# end"


def test_a_line_that_nobody_changed_is_brought_up_to_date(tmp_path: Path) -> None:
    described = operations(tmp_path, {"/a": {"get": READ}, "/b": {"get": READ}, "/c": {"get": {"security": []}}})
    before = imported(None, described, {}).text
    # Keys of their own and remarks do not make it theirs.
    before = before.replace('"GET /a", deny: true}', '"GET /a",   deny: true,  mode: "enforce" }').replace(
        "scope here)\n", "scope here) # ask Bob\n", 1
    )
    rules = RULES | {"rules": [*RULES["rules"], {"path": "/c", "public": True}]}
    result = imported(before, described, rules)
    assert [(change.route, change.access) for change in result.changed] == [
        ("GET /a", "scope SEARCH"),
        ("GET /b", "scope SEARCH"),
        ("GET /c", "public"),
    ]
    assert rows(result.text)[2] == (
        '  - {match: "GET /a", scope: SEARCH, mode: "enforce"} # imported: scope SEARCH (security read) # ask Bob'
    )
    again = imported(result.text, described, rules)
    assert (again.text, again.changed) == (result.text, ())


def test_keys_that_a_denied_route_cannot_have_are_kept_in_its_comment(tmp_path: Path) -> None:
    described = operations(tmp_path, {"/a": {"get": READ}})
    before = imported(None, described).text.replace("scope: SEARCH", "scope: SEARCH, accept: [oauth]", 1)
    result = imported(before, described, {})
    (row,) = result.text.splitlines()[2:]
    assert row.startswith('  - {match: "GET /a", deny: true} ')
    assert row.endswith(' was - {match: "GET /a", scope: SEARCH, accept: [oauth]}')
    opened = imported(result.text, described)
    assert opened.text.splitlines()[2].endswith(' was - {match: "GET /a", scope: SEARCH, accept: [oauth]}')


def test_an_operation_that_is_gone_keeps_its_line_with_a_comment(tmp_path: Path) -> None:
    both = operations(tmp_path, {"/a": {"get": READ}, "/b": {"get": READ}})
    before = imported(None, both).text + '  - {match: "GET /mine", scope: CHAT}\n'
    one = operations(tmp_path, {"/b": {"get": READ}})
    result = imported(before, one)
    assert result.gone == ("GET /a",)
    assert rows(result.text)[2] == f'  - {{match: "GET /a", scope: SEARCH}} # imported: scope SEARCH ({GONE})'
    assert result.text.splitlines()[3:] == before.splitlines()[3:]
    assert imported(result.text, one).text == result.text
    assert imported(result.text, both).text == before


def test_a_line_that_somebody_changed_is_theirs_even_if_the_operation_is_gone(tmp_path: Path) -> None:
    both = operations(tmp_path, {"/a": {"get": READ}, "/b": {"get": READ}})
    before = imported(None, both).text.replace("scope: SEARCH", "scope: ADMIN", 1)
    assert imported(before, both, {}).text.splitlines()[2] == before.splitlines()[2]
    gone = imported(before, operations(tmp_path, {"/b": {"get": READ}}))
    assert rows(gone.text)[2] == f'  - {{match: "GET /a", scope: ADMIN}} # imported: scope SEARCH ({GONE})'
    assert imported(gone.text, both).text == before


@pytest.mark.parametrize(
    ("theirs", "access"),
    [
        ("deny: true", "deny"),
        ("scope: ADMIN, accept: [oauth]", "deny"),
        ("all_of: [SEARCH, ADMIN]", "all_of ADMIN SEARCH"),
        ("scope: ADMIN", "all_of ADMIN SEARCH"),
        ("scope: SEARCH", "scope SEARCH"),
        ("public: true", "scope SEARCH"),
    ],
)
def test_no_new_line_opens_what_a_line_of_theirs_for_all_paths_refuses(theirs: str, access: str, tmp_path: Path) -> None:
    before = f'routes:\n  - {{match: "* /admin/**", {theirs}}}\n'
    described = operations(tmp_path, {"/admin/users": {"get": READ}, "/other": {"get": READ}})
    result = imported(before, described)
    assert {change.route: change.access for change in result.added} == {"GET /admin/users": access, "GET /other": "scope SEARCH"}
    assert imported(result.text, described).text == result.text


def test_line_ends_stay(tmp_path: Path) -> None:
    before = 'routes:\r\n  - {match: "GET /a", scope: SEARCH}\r\n'
    result = imported(before, operations(tmp_path, {"/a": {"get": READ, "put": READ}}))
    assert result.text.startswith(before)
    assert result.text.count("\n") == result.text.count("\r\n") == 3


@pytest.mark.parametrize("before", ["routes: []\n", "# a\nroutes:  [ ]  # none yet\nupstream: {}\n"])
def test_an_empty_list_becomes_one_with_lines(before: str, tmp_path: Path) -> None:
    result = imported(before, operations(tmp_path, {"/a": {"get": READ}}))
    kept = [row for row in before.splitlines() if "[" not in row]
    assert [row for row in result.text.splitlines() if row in kept] == kept
    assert list(policy_of(result.text)[1]) == ["GET /a"]


REFUSED = {
    'routes: [{match: "GET /a", scope: CHAT}]\n': "write one route below the other, each behind a '- '",
    'routes:\n  - {match: "GET /a", scope: CHAT}  # \u2028\n': "and end lines as usual",
    "routes:\n  - {match: GET /a}\n": "write exactly one of scope, all_of, any_of, public, deny",
    "routes:\n  []\n": "write `routes: []` in one line",
    "upstream: {case: insensitive}\n"
    'routes:\n  - {match: "GET /Users", scope: CHAT}\n  - {match: "GET /users", scope: CHAT}\n': "the same pattern and method",
}


@pytest.mark.parametrize("before", REFUSED)
def test_a_file_that_cannot_be_kept_as_it_is_is_refused(before: str, tmp_path: Path) -> None:
    described = operations(tmp_path, {"/b": {"get": READ}})
    with pytest.raises(ConfigurationError, match=re.escape(REFUSED[before])):
        imported(before, described)


def test_patterns_that_the_upstream_reads_as_one_are_written_alike(tmp_path: Path) -> None:
    before = "upstream: {case: insensitive, trailing_slash: ignored}\nroutes: []\n"
    paths = {"/Users": {"get": READ}, "/users/": {"put": READ, "get": {"tags": ["chat"], "security": [{"k": []}]}}}
    result = imported(before, operations(tmp_path, paths))
    assert [(change.route, change.access) for change in result.added] == [
        ("GET /Users", "all_of CHAT SEARCH"),
        ("PUT /Users", "scope SEARCH"),
    ]


# --- whatever is described

SEGMENTS = st.sampled_from(["a", "b", "{id}", "{x}", "{id}.json", "{p*}", "{p*}.json", "x;v", "*", "b%20c", ""])
PATHS = st.lists(SEGMENTS, min_size=1, max_size=3).map(lambda segments: "/" + "/".join(segments))
SECURITY = st.sampled_from(
    [
        None,
        [],
        [{}],
        [{"o": ["read"]}],
        [{"o": ["read", "write"]}],
        [{"o": ["write"]}, {"k": []}],
        [{"o": ["read"]}, {}],
        [{"k": []}],
    ]
)
OPERATION = st.builds(
    lambda security, tags, name: {
        **({} if security is None else {"security": security}),
        "tags": tags,
        **({"operationId": name} if name else {}),
    },
    SECURITY,
    st.lists(st.sampled_from(["chat", "admin"]), max_size=1),
    st.sampled_from([None, "one", "two", "three"]),
)
DESCRIPTIONS = st.dictionaries(PATHS, st.dictionaries(st.sampled_from(["get", "put", "post"]), OPERATION, min_size=1), max_size=6)
RULE = st.sampled_from(
    [
        {"security": "read", "scope": "SEARCH"},
        {"security": "write", "all_of": ["CHAT", "ADMIN"]},
        {"security": "write", "deny": True},
        {"security": "k", "any_of": ["SEARCH", "CHAT"], "anonymous": True},
        {"tag": "chat", "scope": "CHAT"},
        {"tag": "admin", "any_of": ["CHAT", "ADMIN"]},
        {"path": "/a/**", "public": True},
        {"method": "PUT", "scope": "ADMIN", "anonymous": True},
        {"operationId": "t*", "deny": True},
        {"path": "/**", "scope": "SEARCH"},
    ]
)
MAPPINGS = st.builds(
    lambda rules, mixed, wildcards: {"rules": rules, "mixed_segments": mixed, "wildcards": wildcards},
    st.lists(RULE, max_size=4),
    st.sampled_from(["deny", "parameter"]),
    st.sampled_from(["segment", "rest"]),
)
FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
FEWER = settings(FOLDER, max_examples=30)


@FOLDER
@given(DESCRIPTIONS, MAPPINGS)
def test_imported_twice_is_imported_once_and_covers_everything(tmp_path: Path, paths: Any, rules: Any) -> None:
    described = operations(tmp_path, paths)
    once = imported(None, described, rules)
    again = imported(once.text, described, rules)
    assert again.text == once.text
    assert (again.added, again.changed, again.gone, again.kept) == ((), (), (), ())
    found = covered(once.text, described, rules)
    assert found.findings == ()
    assert found.operations == len(described)


def expression(template: str, *, is_loose: bool) -> re.Pattern[str]:
    """Return what a template describes, worked out apart; `is_loose` takes a mixed segment for a whole one."""
    text = template.replace("%20", " ")
    if is_loose:
        text = text.replace("}.json", "}")
    parts = re.split(r"(\{[^{}]*\})", text)
    return re.compile("".join(".+" if part == "{p*}" else "[^/]+" if part[:1] == "{" else re.escape(part) for part in parts))


@FOLDER
@given(DESCRIPTIONS, MAPPINGS, st.lists(st.sampled_from(["a", "b", "b c", "7", "7.json", ""]), min_size=1, max_size=4), st.data())
def test_nothing_is_open_that_no_operation_describes(
    tmp_path: Path, paths: Any, rules: Any, segments: list[str], data: Any
) -> None:
    """Whoever gets in somewhere gets in by an operation that the path and the method belong to, and that lets them in."""
    described = operations(tmp_path, paths)
    policy, _ = policy_of(imported(None, described, rules).text)
    path = "/" + "/".join(segments)
    held = data.draw(st.frozensets(st.sampled_from(VOCABULARY)))
    method = data.draw(st.sampled_from(["GET", "PUT", "POST", "HEAD", "DELETE"]))
    kind = data.draw(st.sampled_from([AuthType.USER, AuthType.ANONYMOUS, None]))
    user = "ana@acme.com" if kind is AuthType.USER else None
    caller = NOBODY if kind is None else Caller(Kind.ISSUED, Identity(kind, "token:1", user, held, 2.0))
    decision = decided_call(policy, Call(method, path.replace(" ", "%20"), caller=caller), 1.0)
    if isinstance(decision, Deny):
        return
    assert isinstance(decision, Allow)
    accesses, is_loose = Accesses(mapping(rules), VOCABULARY), rules["mixed_segments"] == "parameter"
    letting_in = [
        accesses.of(each)
        for each in described
        if each.method == method and expression(each.path, is_loose=is_loose).fullmatch(path)
    ]
    if kind is None:
        assert any(access.public for access in letting_in)
    else:
        assert any(
            access.public or (any(names <= held for names in access.alternatives) and (access.anonymous or user))
            for access in letting_in
        )


EDITS = st.sampled_from(["scope: ADMIN", "deny: true", "any_of: [CHAT, ADMIN]", "scope: CHAT, mode: monitor", "public: true"])


@FEWER
@given(DESCRIPTIONS, DESCRIPTIONS, MAPPINGS, MAPPINGS, st.data())
def test_hand_edits_stay(tmp_path: Path, first: Any, second: Any, rules: Any, others: Any, data: Any) -> None:
    """Rows that people changed or added are there after any other import, in their order, letter by letter."""
    before = imported(None, operations(tmp_path, first), rules).text.splitlines()
    theirs = []
    for number, row in enumerate(before[2:], 2):
        edit = data.draw(st.none() | EDITS)
        if edit is not None and "match: " in row:
            before[number] = re.sub(
                r"(?:scope|all_of|any_of|public|deny|anonymous): (?:\[[^]]*\]|[A-Za-z]+)(?:, anonymous: true)?", edit, row, count=1
            )
        if before[number] != row:
            before[number] = before[number].partition("  # imported")[0] + "  # mine"
            theirs.append(before[number])
    mine = ["  # a remark", *(['  - {match: "GET /of-mine/**", scope: CHAT}'] if first else []), "# end"]
    before, theirs = before + mine, theirs + mine
    text = "\n".join(before) + "\n"
    described = operations(tmp_path, second)
    result = imported(text, described, others)
    assert [row for row in result.text.splitlines() if row in theirs] == theirs
    # No line vanishes, and none that is there is written twice.
    assert {row.partition("match: ")[2].partition(",")[0] for row in before} <= {
        row.partition("match: ")[2].partition(",")[0] for row in result.text.splitlines()
    }
    assert len(result.text.splitlines()) == len(before) + len(result.added)
    assert imported(result.text, described, others).text == result.text
    removed = [row for row in difflib.ndiff(text.splitlines(), result.text.splitlines()) if row.startswith("- ")]
    assert [row for row in removed if "# imported: " not in row and row != "- routes: []"] == []
