"""What is told of a change: of the shipped map line by line, and of everything that a configuration can say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml

from extauthz.config.files import Files
from extauthz.config.loader import Configuration, load
from extauthz.tools.curl_line import curl_line
from extauthz.tools.diff import differences
from extauthz.tools.diff_settings import role_of
from extauthz.tools.diff_shape import (
    CallerChange,
    DecisionSummary,
    Differences,
    FailOn,
    Impact,
    RouteDifference,
    RoutePair,
    RouteReference,
    SettingChange,
    SettingRole,
)
from extauthz.tools.diff_text import as_data, as_markdown, as_text
from tests.support.compared import Told, configuration, told_by
from tests.support.project import ROOT

FILE, MAP = ROOT / "config/extauthz.yaml", ROOT / "config/routes/glean-client-api.yaml"
LINES = MAP.read_text().splitlines()
ROUTES = [number for number, line in enumerate(LINES) if line.startswith("  - {")]
TOKENS = {"oauth", "USER", "GLOBAL"}
WIDENED, NARROWED, HEADERS, REASON = Impact


@pytest.fixture(scope="module")
def shipped() -> Configuration:
    """The shipped configuration."""
    return load(FILE)


def changed(shipped: Configuration, number: int, line: str) -> Configuration:
    """Return the shipped configuration with another line in the map."""
    text = "\n".join([*LINES[:number], line, *LINES[number + 1 :]])
    return load(FILE, Files(shipped.files.contents | {MAP: text.encode()}))


def changes(number: int) -> Iterator[tuple[str, set[Told]]]:
    """Yield other texts of a line, and what each of them decides."""
    line = yaml.safe_load(LINES[number])[0]
    name = line["match"]
    everybody = {"nobody", "ANONYMOUS", *TOKENS}
    holders = TOKENS | ({"ANONYMOUS"} if line.get("anonymous") else set())
    is_denied = "deny" in line
    scopes = line.get("all_of") or [line.get("scope")]
    more = ", anonymous: true" if line.get("anonymous") else ""
    yield "", told(REASON if is_denied else NARROWED, name, None, everybody if is_denied else holders)
    public = told(WIDENED, name, name, everybody)
    yield written(name, "public: true"), public if is_denied else public | told(HEADERS, name, name, holders)
    if is_denied:
        yield written(name, "scope: CHAT"), told(WIDENED, name, name, TOKENS)
        return
    yield written(name, "deny: true"), told(NARROWED, name, name, holders)
    # Tokens of the provider hold every scope, so that another one is nothing to them.
    other = next(scope for scope in ("CHAT", "SEARCH") if scope not in scopes)
    affected = holders - {"oauth"}
    yield written(name, f"scope: {other}{more}"), told(WIDENED, name, name, affected) | told(NARROWED, name, name, affected)
    yield written(name, f"all_of: [{', '.join([*scopes, other])}]{more}"), told(NARROWED, name, name, affected)
    yield written(name, f"any_of: [{', '.join([*scopes, other])}]{more}"), told(WIDENED, name, name, affected)
    yield written(name, f"all_of: [{', '.join(scopes)}], accept: [user]"), told(NARROWED, name, name, holders - {"USER"})


def written(name: str, rest: str) -> str:
    return f'  - {{match: "{name}", {rest}}}'


def told(impact: Impact, old: str, new: str | None, kinds: set[str]) -> set[Told]:
    return {(impact, old, new, kind) for kind in kinds}


def check_line(shipped: Configuration, number: int) -> None:
    place = f"{MAP}:{number + 1}"
    for text, expected in changes(number):
        found = differences(shipped, changed(shipped, number, text))
        assert (told_by(found), found.settings, found.incomplete) == (expected, (), ()), text
        for each in found.findings:
            (pair,) = each.routes
            assert pair.old.place == place
            assert pair.new.place == (place if text else None)


def test_a_configuration_does_not_differ_from_itself(shipped: Configuration) -> None:
    for other in (shipped, load(FILE)):
        found = differences(shipped, other)
        assert found == Differences((), (), ())
        assert not found.fails(FailOn.ANY)
        assert [*as_text(found)] == ["No difference: every request is decided as before."]


# One line of each kind; all the others are among the long tests.
@pytest.mark.parametrize("part", ["activity", "chat-files", "autocomplete", "messages", "createauthtoken", "actions"])
def test_a_changed_line_is_told_as_what_it_decides(part: str, shipped: Configuration) -> None:
    check_line(shipped, next(number for number in ROUTES if f"/{part}" in LINES[number]))


@pytest.mark.long
@pytest.mark.parametrize("number", ROUTES, ids=lambda number: str(number + 1))
def test_each_line_of_the_shipped_map_is_told_as_what_it_decides(number: int, shipped: Configuration) -> None:
    check_line(shipped, number)


def test_no_line_of_the_map_but_routes_decides_anything(shipped: Configuration) -> None:
    others = {line.partition("#")[0].strip() for number, line in enumerate(LINES) if number not in ROUTES}
    assert others == {"", "routes:"}
    assert len(ROUTES) == len(shipped.route_places)


ROUTE = {"match": "GET /a/{id}", "scope": "CHAT"}
ANA = 'curl https://$HOST/a/x -H "Authorization: Bearer $TOKEN"'
OAUTH = {
    "provider": "okta",
    "issuer": "https://acme.okta.com/oauth2/default",
    "client_ids": ["0oa1example"],
    "audience": "api://default",
}
TOKENS_SECTION = {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]}

# (routes or files, sections) of both sides, and lines that are told among others
CASES: dict[str, tuple[tuple[Any, Any], tuple[Any, Any], list[str]]] = {
    "one more provider scope": (
        ([ROUTE], {"oauth": OAUTH | {"scopes": ["SEARCH"]}}),
        ([ROUTE], {"oauth": OAUTH | {"scopes": ["SEARCH", "CHAT"]}}),
        ["WIDENED: refused before, goes on now", "    oauth: 403 scope_missing -> allowed"],
    ),
    "another provider": (
        ([ROUTE], {}),
        (
            [ROUTE],
            {
                "oauth": {
                    "providers": [
                        OAUTH,
                        OAUTH | {"name": "second", "issuer": "https://b.okta.com/oauth2/default", "client_ids": ["0oa2"]},
                    ]
                }
            },
        ),
        ["    oauth of second: 401 token_issuer -> allowed", "  oauth (extauthz.yaml:9 -> extauthz.yaml:9)"],
    ),
    "OAuth off": (
        ([ROUTE], {}),
        ([ROUTE], {"oauth": OAUTH | {"enabled": False}}),
        ["    oauth: allowed -> 401 credential_disabled"],
    ),
    "act-as for more": (
        ([ROUTE], {}),
        ([ROUTE], {"act_as": {"allow": ["*@acme.com"]}}),
        ["    GLOBAL holding CHAT, acting for ceo@acme.com: 403 act_as_forbidden -> allowed"],
    ),
    "a second act-as header": (
        ([ROUTE], {}),
        ([ROUTE], {"act_as": {"allow": ["*@acme.com"], "deny": ["ceo@acme.com"], "headers": ["X-Acme-ActAs"]}}),
        [
            "    GLOBAL holding CHAT, x-acme-actas: a@acme.com: 400 act_as_missing -> allowed",
            "    USER holding CHAT, with x-acme-actas: allowed -> 400 act_as_not_allowed",
        ],
    ),
    "kinds told by the token": (
        ([ROUTE], {}),
        ([ROUTE], {"auth_type": "by_token"}),
        ["    oauth, no header that tells the kind of its token: 401 token_malformed -> allowed"],
    ),
    "another prefix": (
        ([ROUTE], {}),
        ([ROUTE], {"tokens": TOKENS_SECTION | {"prefix": "acme"}}),
        [
            "    USER holding CHAT, prefix acme: 401 token_malformed -> allowed",
            "    USER holding CHAT, prefix glean: allowed -> 401 token_malformed",
        ],
    ),
    "longer tokens": (
        ([ROUTE], {"server": {"listen": "127.0.0.1:9001", "max_token_size": "1KiB"}}),
        ([ROUTE], {"server": {"listen": "127.0.0.1:9001", "max_token_size": "2KiB"}}),
        ["    USER holding CHAT, a token of 1,025 bytes or more: 400 authorization_malformed -> allowed"],
    ),
    "other identity headers": (
        ([ROUTE], {}),
        ([ROUTE], {"identity": {"prefix": "x-acme-"}}),
        ["HEADERS: goes on as before, with other headers for the upstream"],
    ),
    "a method in the query": (
        ({"r.yaml": {"routes": [ROUTE], "upstream": {"method_override": "query"}}}, {}),
        ({"r.yaml": {"routes": [ROUTE], "upstream": {"method_override": "none"}}}, {}),
        ["    USER holding CHAT, with ?_method=DELETE: 400 method_in_query -> allowed"],
    ),
    "monitor mode": (
        ([ROUTE], {}),
        ([ROUTE | {"mode": "monitor"}], {}),
        ["    without a token: 401 credential_missing -> forwarded in spite of credential_missing"],
    ),
    "preflights": (
        ({"r.yaml": {"routes": [ROUTE]}}, {}),
        ({"r.yaml": {"routes": [ROUTE], "preflight": True}}, {}),
        [
            "    without a token: 403 method_not_allowed -> public",
            "      curl -X OPTIONS https://$HOST/a/x -H 'Origin: https://app.example' -H 'Access-Control-Request-Method: GET'",
        ],
    ),
    "encoded slashes": (
        ([ROUTE], {}),
        ([ROUTE | {"encoded_slashes": True}], {}),
        ['      curl https://$HOST/a/x%2Fx -H "Authorization: Bearer $TOKEN"'],
    ),
    "letter case": (
        ({"r.yaml": {"routes": [ROUTE]}}, {}),
        ({"r.yaml": {"routes": [ROUTE], "upstream": {"case": "insensitive"}}}, {}),
        ['      curl https://$HOST/A/x -H "Authorization: Bearer $TOKEN"', "  GET /a/{id} (GET)"],
    ),
    "a host": (
        ({"r.yaml": {"routes": [ROUTE]}}, {}),
        ({"r.yaml": {"routes": [ROUTE], "hosts": ["api.acme.com"]}}, {}),
        ["  GET /a/{id} (GET, host any other, not one host)", "    USER holding CHAT: allowed -> 403 route_unknown"],
    ),
    "an audience": (
        (
            [ROUTE],
            {
                "internal_token": {
                    "issuer": "https://a.example",
                    "audience": "https://b.example",
                    "keys": [{"id": "k", "file": "k"}],
                }
            },
        ),
        (
            [ROUTE | {"audience": "https://c.example"}],
            {
                "internal_token": {
                    "issuer": "https://a.example",
                    "audience": "https://b.example",
                    "keys": [{"id": "k", "file": "k"}],
                }
            },
        ),
        ["    USER holding CHAT: other x-extauthz-token"],
    ),
    "peppers, which decide who is verified": (
        ([ROUTE], {}),
        ([ROUTE], {"tokens": TOKENS_SECTION | {"peppers": [{"id": "p1", "file": "another"}]}}),
        [
            "No difference: every request is decided as before.",
            "NOT COMPUTED HERE: these settings changed, and have a part in who is let through",
            "  tokens.peppers (extauthz.yaml:30 -> extauthz.yaml:30)",
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_change_is_told(name: str) -> None:
    old, new, expected = CASES[name]
    found = differences(configuration(*old), configuration(*new))
    lines = [*as_text(found)]
    for line in expected:
        if re.search(r"yaml:\d+", line):
            line = line.partition(" (")[0]
            assert any(each.startswith(line) for each in lines), lines
        else:
            assert line in lines, "\n".join(lines)
    assert found.fails(FailOn.ANY)
    # The way back is told too, with both sides changed.
    back = {(told_impact, new_name, old_name, kind) for told_impact, old_name, new_name, kind in told_by(found)}
    turned = {WIDENED: NARROWED, NARROWED: WIDENED}
    returned = told_by(differences(configuration(*new), configuration(*old)))
    assert {(turned.get(one[0], one[0]), *one[1:]) for one in back} == returned


def test_a_map_that_explodes_is_said_to_be_incomplete() -> None:
    def map_of(scope: str) -> list[dict[str, str]]:
        patterns = ["".join(f"/w{place}" if place == literal else f"/{{p{place}}}" for place in range(14)) for literal in range(14)]
        return [{"match": f"GET {pattern}", "scope": scope} for pattern in patterns]

    old, new = configuration(map_of("CHAT")), configuration(map_of("SEARCH"))
    found = differences(old, new, budget=2_000)
    assert found.incomplete
    assert all(found.fails(on) for on in FailOn)
    assert "NOT COMPARED" in [*as_text(found)]
    assert differences(old, configuration(map_of("CHAT")), budget=10) == Differences((), (), ())


def test_one_setting_is_one_difference_of_all_routes() -> None:
    routes = [{"match": f"GET /r{number}", "scope": ("CHAT", "SEARCH")[number % 2]} for number in range(7)]
    found = differences(configuration(routes), configuration(routes, {"act_as": {"allow": ["*@acme.com"]}}))
    lines = [*as_text(found)]
    assert lines[0] == "1 difference: 1 widened"
    assert "  7 routes, like GET /r0 (GET)" in lines
    assert "    and 2 more routes" in lines
    who = "GLOBAL holding what the route asks for, like CHAT, acting for ceo@acme.com"
    assert f"    {who}: 403 act_as_forbidden -> allowed" in lines


def test_nothing_that_is_told_holds_more_than_placeholders() -> None:
    old, new, _ = CASES["kinds told by the token"]
    found = differences(configuration(*old), configuration(*new))
    for line in (*as_text(found), *as_markdown(found), str(as_data(found))):
        assert "described" not in line


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({}, "X-Scio-ActAs: ana@acme.com"),
        ({"headers": ["X-ACME-User"], "only": True}, "X-ACME-User: ana@acme.com"),
        ({"headers": ["x-acme-user"], "only": True}, "X-Acme-User: ana@acme.com"),
    ],
    ids=str,
)
def test_examples_spell_headers_as_the_configuration_does(section: dict[str, Any], told: str) -> None:
    settings = {"act_as": {"allow": ["ana@acme.com"], **section}}
    found = differences(configuration([], settings), configuration([ROUTE], settings))
    lines = {caller.curl for finding in found.findings for caller in finding.callers if caller.kind == "GLOBAL"}
    assert [line for line in lines if told in line] != []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("GET", "/a/b", "", {}), ["curl", "https://$HOST/a/b"]),
        (("HEAD", "/a$(b)", "h.example", {}), ["curl", "--head", "https://h.example/a$(b)"]),
        (("PUT", "/", "[::1]", {}), ["curl", "-X", "PUT", "--globoff", "https://[::1]/"]),
        (("GET", "/", "not one", {"x-a": "it's"}), ["curl", "https://$HOST/", "-H", "Host: not one", "-H", "X-A: it's"]),
        (("GET", "/", "", {"x-scio-actas": "a"}), ["curl", "https://$HOST/", "-H", "X-Scio-ActAs: a"]),
        (("GET", "/", "", {"x-on-me": "a"}, ("X-ON-me",)), ["curl", "https://$HOST/", "-H", "X-ON-me: a"]),
        (("GET", "/", "", {"authorization": "Bearer secret"}), ["curl", "https://$HOST/", "-H", "Authorization: Bearer $TOKEN"]),
    ],
)
def test_curl_lines_are_what_a_shell_reads(arguments: tuple[Any, ...], words: list[str]) -> None:
    assert shlex.split(curl_line(*arguments)) == words


def test_markdown_shows_names_as_code() -> None:
    routes = [{"match": "GET /a", "scope": "CHAT", "name": "<b>`|x"}]
    text = "\n".join(as_markdown(differences(configuration(routes), configuration([]))))
    assert "#### ``<b>`\\|x (GET)``" in text
    assert "### Narrowed: went on before, refused now" in text


@pytest.mark.parametrize("letter", ["\n", "\r", "\x1b", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\u200b", "\U000e0001"])
def test_markdown_holds_nothing_that_is_not_for_reading(letter: str) -> None:
    injected = f"a{letter}```{letter}## Approved"
    summary = DecisionSummary("deny", injected, 403)
    changed = replace(summary, decision="allow")
    side = RouteReference(injected, injected)
    caller = CallerChange(injected, injected, (injected,), (injected,), summary, changed, (injected,), injected)
    finding = RouteDifference(Impact.WIDENED, (RoutePair(side, side),), (injected,), (injected,), (caller,))
    setting = SettingChange(injected, SettingRole.NO_PART, injected, injected)
    lines = [*as_markdown(Differences((finding,), (setting,), (injected,)))]
    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if line.startswith("```")] == ["```sh", "```"]


@pytest.mark.parametrize(
    ("key", "role"),
    [
        ("act_as.allow", SettingRole.COMPUTED),
        ("oauth.client_ids", SettingRole.NOT_COMPUTED),
        ("tokens.store", SettingRole.NOT_COMPUTED),
        ("server.check_timeout", SettingRole.NOT_COMPUTED),
        ("limits.verdicts", SettingRole.NOT_COMPUTED),
        ("a_key_of_tomorrow", SettingRole.NOT_COMPUTED),
        ("grpc.connections", SettingRole.NO_PART),
        ("server.listen", SettingRole.NO_PART),
    ],
)
def test_keys_have_a_role(key: str, role: SettingRole) -> None:
    assert role_of(tuple(key.split("."))) is role


def test_what_fails() -> None:
    widened = differences(configuration([]), configuration([ROUTE]))
    narrowed = differences(configuration([ROUTE]), configuration([]))
    assert [widened.fails(on) for on in FailOn] == [True, False, True]
    assert [narrowed.fails(on) for on in FailOn] == [False, True, True]
