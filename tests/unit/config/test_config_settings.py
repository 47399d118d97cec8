"""What a valid configuration comes to: warnings, paths, secrets, values with units, names, hosts, digests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from extauthz.cli import main
from extauthz.config.answers import AnswersSection
from extauthz.config.decision_log import DecisionLogSection, Place
from extauthz.config.effective import explained
from extauthz.config.internal_token import InternalTokenSection
from extauthz.config.loader import MIN_PEPPER_BYTES, Configuration, load
from extauthz.config.oauth import OAuthCommon, ProviderEntry
from extauthz.config.settings import TokensSection
from extauthz.config.units import MAX_DURATION, duration, size
from extauthz.config.values import Section
from extauthz.config.vocabulary import kept_scope, scope
from extauthz.core.act_as import ACT_AS_HEADERS
from extauthz.core.credentials import AuthTypes, Kind
from extauthz.core.model import AuthType, Reason
from extauthz.core.paths import parse
from extauthz.core.providers import Verification
from extauthz.core.routes import Route
from extauthz.errors import ConfigurationError
from extauthz.telemetry.decision_record import RecordField

HEAD = """\
version: 1
scopes: [SEARCH, CHAT, DOC_PERMISSIONS]
routes: [routes.yaml]
"""
SERVER = "server: {listen: 127.0.0.1:9001}\n"
TOKENS = """\
tokens:
  store: sqlite:///tokens.db
  peppers: [{id: p1, file: pepper}]
"""
OAUTH = """\
oauth:
  provider: okta
  issuer: https://acme.okta.com/oauth2/default
  client_ids: [0oa1example]
  audience: api://default
"""
ASKING = "server: {listen: 127.0.0.1:9001, check_timeout: 900ms}\n"
OKTA_ORG = """\
oauth:
  provider: okta
  issuer: https://acme.okta.com
  client_ids: [0oa1example]
"""
GSUITE = """\
oauth:
  provider: gsuite
  client_ids: [1.apps.googleusercontent.com]
  domains: [acme.com]
"""
ONELOGIN = """\
oauth:
  provider: onelogin
  issuer: https://acme
  client_ids: [0b2f1a40]
"""
CLIENT_SECRET = "hunter2 hunter2"
ACT_AS = 'act_as: {allow: ["*@acme.com"]}\n'
ROUTES = 'routes:\n  - {match: "POST /search", scope: SEARCH}\n'
PEPPER = "a pepper of 32 bytes, kept apart"

Configure = Callable[..., Configuration]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Return a function that writes extauthz.yaml (behind HEAD) and one or two route files, and loads them."""

    def load_texts(more: str = SERVER + TOKENS + ACT_AS, routes: str = ROUTES, second: str | None = None) -> Configuration:
        head = HEAD if second is None else HEAD.replace("[routes.yaml]", "[routes.yaml, second.yaml]")
        (tmp_path / "extauthz.yaml").write_text(head + more)
        (tmp_path / "routes.yaml").write_text(routes)
        if second is not None:
            (tmp_path / "second.yaml").write_text(second)
        return load(tmp_path / "extauthz.yaml")

    return load_texts


def warnings(configuration: Configuration) -> list[str]:
    """Write the warnings without the folder, as config check shows them to somebody who is in it."""
    return [str(warning).replace(f"{configuration.file.parent}/", "") for warning in configuration.warnings]


def lines(*routes: str) -> str:
    return "routes:\n" + "".join(f"  - {{{route}}}\n" for route in routes)


# Warnings


def test_what_is_as_it_should_be_has_no_warning(configure: Configure) -> None:
    assert warnings(configure()) == []
    assert warnings(configure(SERVER + OAUTH)) == []
    for told in ("by_token", "{header: X-Glean-AUTH-Type, oauth: SSO}"):
        assert warnings(configure(SERVER + OAUTH + f"auth_type: {told}\n")) == []
    # `envoy-config` prints the rules for it, and `doctor --envoy-admin` compares them.
    assert warnings(configure(SERVER + TOKENS + ACT_AS + "identity:\n  prefix: x-acme-\n")) == []
    for more in ("trusted_proxies: [10.0.0.0/8]", "tls: {certificate: tls.crt, key: tls.key}"):
        console = f"console:\n  public_url: https://console.acme.com\n  {more}\n"
        assert warnings(configure(SERVER + TOKENS + ACT_AS + console)) == []


RULES = (
    "is not the default: decoder_header_mutation_rules of your Envoy must allow these names, else it answers 500; "
    "extauthz envoy-config prints what fits"
)


@pytest.mark.parametrize(
    ("more", "warning"),
    [
        (
            "server:\n  listen: 0.0.0.0:9001\n" + TOKENS + ACT_AS,
            "extauthz.yaml:5: server.listen: can be reached by other machines, which can then try tokens: "
            "listen on loopback or a unix socket, or write tls.client_ca",
        ),
        (
            "server:\n  listen: '[::1]:9001'\n  ops: 10.0.0.7:9090\n" + TOKENS + ACT_AS,
            "extauthz.yaml:6: server.ops: can be reached by other machines, which can then read metrics and readiness: "
            "listen on loopback or a unix socket",
        ),
        (
            SERVER + TOKENS + 'act_as:\n  allow: ["*@*"]\n  headers: [X-Scio-ActAs, X-Acme-User]\n',
            f"extauthz.yaml:10: act_as.headers: {RULES}",
        ),
        (SERVER + TOKENS + ACT_AS + "auth_type:\n  header: X-Acme-Kind\n", f"extauthz.yaml:10: auth_type.header: {RULES}"),
        (
            SERVER + TOKENS + ACT_AS + "console:\n  public_url: https://console.acme.com\n",
            "extauthz.yaml:10: console.public_url: ends at a proxy, of whose visitors the addresses are not known: "
            "write its networks into console.trusted_proxies, else all visitors share its address and its limits",
        ),
        (SERVER + TOKENS, "extauthz.yaml:1: act_as.allow: is empty: no GLOBAL token can act for anybody"),
        (
            SERVER + TOKENS + 'act_as:\n  deny: ["ceo@acme.com"]\n  allow: []\n',
            "extauthz.yaml:10: act_as.allow: is empty: no GLOBAL token can act for anybody",
        ),
        (SERVER, "extauthz.yaml:1: neither oauth nor tokens is on: only public routes are open"),
        (
            SERVER + TOKENS + "  enabled: false\n" + OAUTH + "  enabled: false\n",
            "extauthz.yaml:1: neither oauth nor tokens is on: only public routes are open",
        ),
    ],
)
def test_a_risk_in_the_settings(configure: Configure, more: str, warning: str) -> None:
    assert warnings(configure(more)) == [warning]


IS_ASKED = (
    "its tokens are verified by asking the issuer, which takes longer than server.check_timeout waits: "
    "write check_timeout: 900ms, and 1s as the ext_authz timeout in Envoy"
)
EVERYBODY = "lets in everybody who makes a Google account: hosted_domains or users would keep others out"
FIRST_CLIENT = (
    "introspection asks as the first of these clients, and okta may know nothing of tokens of the others: "
    "name one client, or write verification: userinfo, which works for all, and leave client_secret out"
)


@pytest.mark.parametrize(
    "oauth",
    [
        OKTA_ORG,
        OKTA_ORG + "  client_secret: {env: OKTA}\n",
        GSUITE,
        GSUITE + '  users: {"1": ana@acme.com}\n',
        ONELOGIN,
    ],
)
def test_a_check_that_does_not_wait_for_an_issuer_is_a_risk(configure: Configure, oauth: str) -> None:
    assert warnings(configure(SERVER + oauth)) == [f"extauthz.yaml:6: oauth.provider: {IS_ASKED}"]
    assert len(warnings(configure(SERVER.replace("}", ", check_timeout: 499ms}") + oauth))) == 1
    assert warnings(configure(SERVER.replace("}", ", check_timeout: 500ms}") + oauth)) == []
    assert warnings(configure(SERVER + TOKENS + ACT_AS + oauth + "  enabled: false\n")) == []


@pytest.mark.parametrize("oauth", [OAUTH, ONELOGIN + '  users: {"1": ana@acme.com}\n'])
def test_a_provider_that_is_not_asked_about_tokens_needs_no_time(configure: Configure, oauth: str) -> None:
    assert warnings(configure(SERVER + oauth)) == []


@pytest.mark.parametrize(
    ("oauth", "warning"),
    [
        (OKTA_ORG.replace("[0oa1", "[a, 0oa1") + "  client_secret: {env: OKTA}\n", f"8: oauth.client_ids: {FIRST_CLIENT}"),
        (GSUITE.replace("[acme.com]", '"*"'), f"8: oauth.domains: '*' {EVERYBODY}"),
        (GSUITE.replace("[acme.com]", "[acme.com, GMail.com]"), f"8: oauth.domains: 'gmail.com' {EVERYBODY}"),
        (GSUITE.replace("acme.com", "googlemail.com"), f"8: oauth.domains: 'googlemail.com' {EVERYBODY}"),
    ],
)
def test_a_risk_in_the_oauth_section(configure: Configure, oauth: str, warning: str) -> None:
    assert warnings(configure(ASKING + oauth)) == [f"extauthz.yaml:{warning}"]


@pytest.mark.parametrize(
    "oauth",
    [
        OKTA_ORG.replace("[0oa1", "[a, 0oa1"),
        OKTA_ORG + "  client_secret: {env: OKTA}\n",
        GSUITE,
        GSUITE.replace("[acme.com]", '"*"') + "  hosted_domains: [acme.com]\n",
        GSUITE.replace("acme.com", "gmail.com") + '  users: {"1": ana@gmail.com}\n',
        OAUTH + '  domains: "*"\n',
    ],
)
def test_no_risk_in_the_oauth_section(configure: Configure, oauth: str) -> None:
    assert warnings(configure(ASKING + oauth)) == []


def test_the_risks_of_each_of_several_providers(configure: Configure) -> None:
    several = """\
oauth:
  providers:
    - {provider: okta, issuer: "https://acme.okta.com/oauth2/default", client_ids: [a], audience: b}
    - provider: gsuite
      client_ids: [a]
      domains: ["*"]
    - {provider: onelogin, issuer: "https://acme", client_ids: [a]}
"""
    assert warnings(configure(SERVER + several)) == [
        f"extauthz.yaml:10: oauth.providers[1].domains: '*' {EVERYBODY}",
        f"extauthz.yaml:8: oauth.providers[1].provider: {IS_ASKED}",
        f"extauthz.yaml:11: oauth.providers[2].provider: {IS_ASKED}",
    ]


@pytest.mark.parametrize("listen", ["127.0.0.1:9001", "127.9.9.9:9001", "'[::1]:9001'", "localhost:9001", "unix:///run/check.sock"])
def test_an_address_of_this_machine_alone_is_no_risk(configure: Configure, listen: str) -> None:
    assert warnings(configure(f"server: {{listen: {listen}, ops: null}}\n" + TOKENS + ACT_AS)) == []


# A route file that says so is not searched for what other upstreams would read otherwise.
TO_THE_LETTER = "upstream: {}\n"


@pytest.mark.parametrize(
    ("strict", "weaker"),
    [
        ('match: "* /admin/**", deny: true', 'match: "GET /admin/status", scope: CHAT'),
        ('match: "* /admin/**", deny: true', 'match: "GET /admin", scope: CHAT'),
        ('match: "* /admin/**", deny: true', 'match: "GET /admin/", scope: CHAT'),
        ('match: "* /admin/**", deny: true', 'match: "GET /admin/{page}", public: true'),
        ('match: "* /admin/**", deny: true', 'match: "GET /admin/users/**", scope: CHAT'),
        ('match: "GET /admin/{page}", deny: true', 'match: "* /admin/status", scope: CHAT'),
        ('match: "GET /admin/{page}/edit", deny: true', 'match: "GET /admin/status/{action}", scope: CHAT'),
        ('match: "* /**", scope: CHAT', 'match: "GET /", public: true'),
        ('match: "GET /chats/{id}", scope: CHAT', 'match: "GET|HEAD /chats/all", scope: CHAT, anonymous: true'),
        ('match: "GET /chats/{id}", scope: CHAT', 'match: "GET /chats/all", scope: CHAT, accept: [anonymous]'),
        ('match: "GET /chats/{id}", scope: CHAT, anonymous: true', 'match: "GET /chats/all", public: true'),
        ('match: "GET /chats/{id}", all_of: [CHAT, SEARCH]', 'match: "GET /chats/all", scope: CHAT'),
        ('match: "GET /chats/{id}", all_of: [CHAT, SEARCH]', 'match: "GET /chats/all", any_of: [CHAT, SEARCH]'),
        ('match: "GET /chats/{id}", scope: CHAT', 'match: "GET /chats/all", any_of: [SEARCH, CHAT]'),
        ('match: "GET /chats/{id}", any_of: [SEARCH, CHAT]', 'match: "GET /chats/all", any_of: [SEARCH, CHAT, DOCPERMISSIONS]'),
        ('match: "GET /chats/{id}", scope: CHAT, accept: [user]', 'match: "GET /chats/all", scope: CHAT'),
        ('match: "GET /{a}/x/**", deny: true', 'match: "GET /b/{x}/c", any_of: [CHAT, SEARCH]'),
    ],
)
def test_a_stricter_route_that_loses_a_part(configure: Configure, strict: str, weaker: str) -> None:
    """Both lines are named, whichever comes first; what asks for no token, or for any one scope, is told of in its own line."""
    text, of_strict = (line.split('"')[1] for line in (weaker, strict))
    why = None
    if "public" in weaker:
        why = "it asks for no token"
    elif "any_of" in weaker and "deny" not in strict:
        why = "one scope of its any_of is enough here"
    for routes in ((strict, weaker), (weaker, strict)):
        place = {route: f"routes.yaml:{line}" for line, route in enumerate(routes, 3)}
        one = f"'{text}' ({place[weaker]}) takes a part of this stricter route"
        told = f"{place[strict]}: routes[{routes.index(strict)}].match: {one}"
        if why:
            other = f"takes a part of the stricter route '{of_strict}' ({place[strict]}): {why}"
            told = f"{place[weaker]}: routes[{routes.index(weaker)}].match: {other}"
        assert warnings(configure(routes=TO_THE_LETTER + lines(*routes))) == [told]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # A parameter is never empty.
        ('match: "GET /admin/{page}", deny: true', 'match: "GET /admin/", public: true'),
        ('match: "GET /admin/{page}/**", deny: true', 'match: "GET /admin/", public: true'),
        # No path in common.
        ('match: "GET /admin/{page}", deny: true', 'match: "GET /admin/a/b", public: true'),
        ('match: "GET /admin/{page}/x", deny: true', 'match: "GET /admin/status/y", public: true'),
        ('match: "* /admin/**", deny: true', 'match: "GET /administration", public: true'),
        # No method in common: the request gets a 403 either way.
        ('match: "GET|HEAD /admin/{page}", deny: true', 'match: "POST /admin/status", public: true'),
        # Not weaker.
        ('match: "* /admin/**", deny: true', 'match: "GET /admin/status", deny: true, name: status'),
        ('match: "GET /chats/{id}", scope: CHAT', 'match: "GET /chats/all", scope: SEARCH'),
        ('match: "GET /chats/{id}", public: true', 'match: "GET /chats/all", scope: SEARCH'),
        ('match: "GET /chats/{id}", scope: CHAT', 'match: "GET /chats/all", scope: CHAT'),
        ('match: "GET /chats/{id}", scope: CHAT', 'match: "GET /chats/all", all_of: [CHAT, SEARCH]'),
        ('match: "GET /chats/{id}", any_of: [CHAT, SEARCH]', 'match: "GET /chats/all", scope: CHAT'),
        ('match: "GET /chats/{id}", any_of: [CHAT, SEARCH]', 'match: "GET /chats/all", all_of: [SEARCH, CHAT]'),
        ('match: "GET /chats/{id}", scope: CHAT', 'match: "GET /chats/all", scope: CHAT, accept: [user]'),
        ('match: "GET /chats/{id}", scope: CHAT, accept: [user]', 'match: "GET /chats/all", scope: CHAT, accept: [oauth]'),
        # Not more specific.
        ('match: "GET /chats/all", deny: true', 'match: "GET /chats/{id}", scope: CHAT'),
        ('match: "GET /a/{x}/b", deny: true', 'match: "GET /{y}/a/b", public: true'),
    ],
)
def test_a_stricter_route_that_stays_whole(configure: Configure, one: str, other: str) -> None:
    assert warnings(configure(routes=TO_THE_LETTER + lines(one, other))) == []


def test_several_weaker_routes_are_counted(configure: Configure) -> None:
    routes = lines('match: "* /a/**", deny: true', *(f'match: "GET /a/{name}", scope: CHAT' for name in "bcd"))
    assert warnings(configure(routes=routes)) == [
        "routes.yaml:2: routes[0].match: 'GET /a/b' (routes.yaml:3) and 2 more takes a part of this stricter route"
    ]


def test_a_cut_across_two_files(configure: Configure) -> None:
    strict, weaker = lines('match: "* /a/**", deny: true'), lines('match: "GET /a/b", scope: CHAT')
    assert warnings(configure(routes=strict, second=weaker)) == [
        "routes.yaml:2: routes[0].match: 'GET /a/b' (second.yaml:2) takes a part of this stricter route"
    ]
    assert warnings(configure(routes=strict, second="hosts: [acme.com]\n" + weaker)) == []


@pytest.mark.parametrize(
    ("upstream", "keep", "told"),
    [
        ("{forwarded_host: trusted}", "[X-Forwarded-Host]", True),
        ("{forwarded_host: trusted}", "[forwarded, authorization]", True),
        ("{forwarded_host: trusted}", "[authorization]", False),
        ("{forwarded_host: ignored}", "[x-forwarded-host]", False),
    ],
)
def test_a_host_that_is_trusted_and_kept(configure: Configure, upstream: str, keep: str, *, told: bool) -> None:
    found = warnings(configure(f"{SERVER}{OAUTH}identity: {{keep: {keep}}}\n", routes=f"upstream: {upstream}\n{ROUTES}"))
    assert ["identity.keep: keeps a header" in text for text in found] == [True] * told


def test_a_question_mark_in_a_pattern(configure: Configure) -> None:
    assert warnings(configure(routes=lines('match: "GET /a?b=c", scope: CHAT'))) == [
        "routes.yaml:2: routes[0].match: '?' in a pattern is the character of a path (%3F): queries are not matched"
    ]


def test_a_map_with_too_many_choices(configure: Configure) -> None:
    """Each level that has a literal beside a parameter doubles what a look-up may visit."""

    def patterns(levels: int) -> str:
        mixed = ["".join(f"/{'{p}' if level >> bit & 1 else 'a'}" for bit in range(levels)) for level in range(2**levels)]
        return lines(*(f'match: "GET {pattern}", scope: CHAT' for pattern in mixed))

    assert warnings(configure(routes=patterns(5))) == []
    assert warnings(configure(routes=patterns(6))) == [
        "routes.yaml:1: routes: a look-up can visit 127 nodes, because literals and parameters share levels: look for a simpler map"
    ]


# Paths


def test_paths_are_relative_to_the_file_they_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "etc"
    (folder / "routes").mkdir(parents=True)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "pepper").write_text(PEPPER)
    (folder / "routes" / "api.yaml").write_text(ROUTES)
    text = (HEAD + SERVER + TOKENS + ACT_AS).replace("routes.yaml", "routes/api.yaml")
    text = text.replace("sqlite:///tokens.db", "sqlite:///../data/tokens.db").replace("file: pepper", "file: ../secrets/pepper")
    (folder / "extauthz.yaml").write_text(text)
    monkeypatch.chdir("/")
    configuration = load(folder / "extauthz.yaml")
    assert (configuration.store_place, configuration.pepper_file()) == (
        folder / "../data/tokens.db",
        folder / "../secrets/pepper",
    )
    assert configuration.peppers({}) == {"p1": PEPPER.encode()}
    assert allowed(configuration, "POST", "/search").name == "POST /search"


def test_absolute_paths_stay(configure: Configure, tmp_path: Path) -> None:
    tokens = TOKENS.replace("tokens.db", "/var/lib/tokens.db").replace("pepper}", "/run/secrets/pepper}")
    configuration = configure(SERVER + tokens + ACT_AS)
    assert (configuration.store_place, configuration.pepper_file()) == (Path("/var/lib/tokens.db"), Path("/run/secrets/pepper"))


def test_a_store_that_is_off_has_no_path(configure: Configure) -> None:
    assert configure(SERVER + TOKENS + "  enabled: false\n" + OAUTH).store_place is None
    assert configure(SERVER + OAUTH).store_place is None
    assert configure(SERVER + OAUTH).pepper_file() is None


# Secrets


def two_peppers(configure: Configure) -> Configuration:
    return configure(SERVER + TOKENS.replace("[{id", "[{id: p2, env: NEW_PEPPER}, {id") + ACT_AS)


def test_peppers_come_from_files_and_the_environment_newest_first(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "pepper").write_text(f"\n {PEPPER}\n")
    configuration = two_peppers(configure)
    peppers = configuration.peppers({"NEW_PEPPER": f"{PEPPER[::-1]}\n"})
    assert list(peppers.items()) == [("p2", PEPPER[::-1].encode()), ("p1", PEPPER.encode())]
    assert (configuration.pepper_file(0), configuration.pepper_file(1)) == (None, tmp_path / "pepper")


def test_a_pepper_that_is_no_utf8_is_kept_as_it_is(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "pepper").write_bytes(b"\xff" * 32)
    in_environment = (b"\xfe" * 32).decode("utf-8", "surrogateescape")
    assert two_peppers(configure).peppers({"NEW_PEPPER": in_environment}) == {"p2": b"\xfe" * 32, "p1": b"\xff" * 32}


def test_every_pepper_that_cannot_be_used_is_told(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        two_peppers(configure).peppers({})
    file = f"{tmp_path}/extauthz.yaml:7: tokens.peppers"
    assert [str(problem) for problem in raised.value.problems] == [
        f"{file}[0]: the environment variable NEW_PEPPER is not set",
        f"{file}[1]: {tmp_path}/pepper: No such file or directory; 'extauthz token create' makes the first pepper file",
    ]


@pytest.mark.parametrize("empty", ["", " \n"])
def test_a_short_pepper_is_told_by_its_name_alone(configure: Configure, tmp_path: Path, empty: str) -> None:
    short = "hunter2".ljust(MIN_PEPPER_BYTES - 1, "!")
    (tmp_path / "pepper").write_text(f"{short}\n")
    with pytest.raises(ConfigurationError) as raised:
        two_peppers(configure).peppers({"NEW_PEPPER": empty or short})
    assert [problem.message for problem in raised.value.problems] == [
        f"pepper '{name}' is shorter than {MIN_PEPPER_BYTES} bytes" for name in ("p2", "p1")
    ]
    assert "hunter2" not in f"{raised.value} {raised.value!r}"


def test_a_folder_is_no_pepper(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "pepper").mkdir()
    with pytest.raises(ConfigurationError) as raised:
        configure().peppers({})
    assert [problem.message for problem in raised.value.problems] == [f"{tmp_path}/pepper: Is a directory"]


def test_a_pepper_of_exactly_the_least_length(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "pepper").write_bytes(b"x" * MIN_PEPPER_BYTES)
    assert configure().peppers({}) == {"p1": b"x" * MIN_PEPPER_BYTES}


SEVERAL_SECRETS = """\
oauth:
  providers:
    - {provider: okta, issuer: "https://a", client_ids: [a], client_secret: {env: OKTA_A}}
    - {provider: okta, issuer: "https://b", client_ids: [b], client_secret: {file: secret}, name: b}
    - {provider: okta, issuer: "https://c", client_ids: [c], name: c}
"""


def test_client_secrets_come_from_files_and_the_environment(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f" {CLIENT_SECRET}\n")
    expected = {"okta": b"other", "b": CLIENT_SECRET.encode()}
    assert configure(ASKING + SEVERAL_SECRETS).client_secrets({"OKTA_A": "other\n"}) == expected
    one = configure(ASKING + OKTA_ORG + "  client_secret: {env: OKTA}\n  name: sso\n")
    assert one.client_secrets({"OKTA": CLIENT_SECRET}) == {"sso": CLIENT_SECRET.encode()}


def test_a_section_that_is_off_needs_no_client_secret(configure: Configure) -> None:
    assert configure(ASKING + OKTA_ORG + "  client_secret: {env: OKTA}\n  enabled: false\n").client_secrets({}) == {}
    assert configure().client_secrets({}) == configure(SERVER + OAUTH).client_secrets({}) == {}


def test_every_client_secret_that_is_missing_is_told(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        configure(ASKING + SEVERAL_SECRETS).client_secrets({"OKTA_A": ""})
    file = f"{tmp_path}/extauthz.yaml"
    assert [str(problem) for problem in raised.value.problems] == [
        f"{file}:7: oauth.providers[0].client_secret: the environment variable OKTA_A is not set",
        f"{file}:8: oauth.providers[1].client_secret: {tmp_path}/secret: No such file or directory",
    ]


@pytest.mark.parametrize(
    "unusable", [b"", b" \n", b"hunter2\nhunter2", b"hunter2\x00", b"hunter2\x7f", "hunter2ü".encode(), b"\xff"]
)
def test_what_is_no_client_secret_is_told_and_not_repeated(configure: Configure, tmp_path: Path, unusable: bytes) -> None:
    """An empty one would be sent, and one that is no text would end the process without a word."""
    (tmp_path / "secret").write_bytes(unusable)
    with pytest.raises(ConfigurationError) as raised:
        configure(ASKING + OKTA_ORG + "  client_secret: {file: secret}\n").client_secrets({})
    assert [str(problem) for problem in raised.value.problems] == [
        f"{tmp_path}/extauthz.yaml:9: oauth.client_secret: what stands there is no secret that could be sent: "
        "put one line of printable ASCII there"
    ]
    assert "hunter2" not in f"{raised.value} {raised.value!r}"


@pytest.mark.parametrize("place", ["{env: OKTA_PLACE}", "{file: okta-place}"])
@pytest.mark.parametrize("several", [False, True])
def test_config_show_writes_issuers_out_and_no_client_secret(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, several: bool
) -> None:
    (tmp_path / "okta-place").write_text(CLIENT_SECRET)
    monkeypatch.setenv("OKTA_PLACE", CLIENT_SECRET)
    entry = f"{{provider: okta, issuer: 'https://acme', client_ids: [a], client_secret: {place}}}"
    configuration = configure(ASKING + (f"oauth: {{providers: [{entry}]}}\n" if several else f"oauth: {entry}\n"))
    assert configuration.client_secrets({"OKTA_PLACE": CLIENT_SECRET}) == {"okta": CLIENT_SECRET.encode()}
    result = CliRunner().invoke(main, ["config", "show", "--config", str(configuration.file)])
    assert result.exit_code == 0
    shown = json.loads(result.stdout)["oauth"]
    shown = shown["providers"][0] if several else shown
    assert (shown["issuer"], shown["verification"]) == ("https://acme.okta.com", "introspection")
    for text in (result.output, repr(configuration), repr(configuration.settings), str(configuration.settings)):
        assert not any(secret in text.lower() for secret in (CLIENT_SECRET, "okta_place", "okta-place"))
    assert shown["client_secret"] == "hidden"


def test_no_repr_shows_where_secrets_are_or_what_they_are(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "pepper").write_text(PEPPER)
    configuration = configure()
    configuration.peppers({})
    assert PEPPER not in f"{configuration!r} {configuration.settings!r} {configuration.settings}"
    assert "sqlite:///tokens.db" not in repr(configuration)


# Values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("150ms", 0.15), ("0s", 0.0), ("10s", 10.0), ("5m", 300.0), ("24h", 86_400.0), ("90d", 7_776_000.0), ("36500d", MAX_DURATION)],
)
def test_a_duration(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(("text", "count"), [("0B", 0), ("512B", 512), ("16KiB", 16_384), ("1MiB", 1_048_576)])
def test_a_size(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "s",
        "1.5s",
        "-1s",
        "+1s",
        " 1s",
        "1s ",
        "1 s",
        "1S",
        "1w",
        "1_0s",
        "１s",
        "1s\n",
        10,
        1.5,
        None,
        True,
        ["1s"],
        "9" * 400 + "s",
    ],
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="write"):
        duration(text)


@pytest.mark.parametrize("text", ["", "10", "1kB", "1KB", "1GiB", "1.5KiB", "-1B", "1 B", "１B", 16, None, "9" * 400 + "B"])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        size(text)


@given(st.integers(0, MAX_DURATION))
def test_a_unit_multiplies(seconds: int) -> None:
    assert duration(f"{seconds}s") == seconds
    assert duration(f"{seconds // 86_400}d") == seconds // 86_400 * 86_400


@given(st.text())
def test_no_text_makes_a_unit_raise_anything_else(text: str) -> None:
    for read, kind in ((duration, float), (size, int), (scope, str)):
        try:
            found: object = read(text)
        except ValueError as error:
            assert repr(text) in str(error)  # noqa: PT017 - most texts raise, some do not
        else:
            assert isinstance(found, kind)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SEARCH", "SEARCH"),
        ("search", "SEARCH"),
        ("DocPermissions", "DOCPERMISSIONS"),
        ("DOC_PERMISSIONS", "DOCPERMISSIONS"),
        ("doc_permissions", "DOCPERMISSIONS"),
        ("TRIGGERS:READ", "triggers:read"),
        ("read:items", "read:items"),
        ("Read:Items", "Read:Items"),
        ("READ:ITEMS", "READ:ITEMS"),
        ("CHAT", "CHAT"),
        ("chat", "chat"),
        ("a" * 64, "a" * 64),
    ],
)
def test_a_scope_name_is_written_as_in_the_vocabulary(text: str, name: str) -> None:
    assert scope(text, ["SEARCH", "DOCPERMISSIONS", "triggers:read", "read:items"]) == name


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("READ:ITEMS", "read:items"),
        ("read:items", "read:items"),
        ("Read:Items", "Read:Items"),
        ("DOCPERMISSIONS", "doc_permissions"),
    ],
)
def test_a_name_that_was_kept_in_upper_case_is_the_one_of_the_vocabulary(name: str, written: str) -> None:
    assert kept_scope(name, ["read:items", "doc_permissions"]) == written


def test_a_vocabulary_keeps_its_case_and_has_no_two_names_that_differ_in_it_alone(tmp_path: Path) -> None:
    def with_scopes(scopes: str, routes: str) -> Configuration:
        file = tmp_path / "extauthz.yaml"
        file.write_text(f"version: 1\nscopes: {scopes}\nroutes: [routes.yaml]\n{SERVER}{OAUTH}")
        (tmp_path / "routes.yaml").write_text(routes)
        return load(file)

    configuration = with_scopes('["read:items", writeItems]', lines('match: "GET /a", scope: "read:items"'))
    assert configuration.settings.scopes == ["read:items", "writeItems"]
    assert configuration.providers[0].scopes == frozenset({"read:items", "writeItems"})
    assert allowed(configuration, "GET", "/a").scopes == ("read:items",)
    with pytest.raises(ConfigurationError, match=r"unknown scope 'Read:Items', did you mean 'read:items'\?"):
        with_scopes('["read:items"]', lines('match: "GET /a", scope: "Read:Items"'))
    with pytest.raises(ConfigurationError, match=r"scopes\[1\]: READ and read are one scope in tokens that were made"):
        with_scopes("[read, READ]", ROUTES)


@pytest.mark.parametrize(
    "text", ["", " SEARCH", "1SEARCH", "SE ARCH", "SEARCH,CHAT", "SEARCH\n", "a" * 65, "admın", "ſearch", "groß", None, 7]
)
def test_what_is_no_scope_name(text: object) -> None:
    """Upper case must not make an ASCII name of another one: the upper case of a dotless i is I, of a sharp s SS."""
    with pytest.raises(ValueError, match="is not a scope name"):
        scope(text)


def test_scopes_have_one_name_in_routes_vocabulary_and_ceiling(configure: Configure) -> None:
    routes = lines('match: "GET /a", scope: docpermissions', 'match: "GET /b", any_of: [Doc_Permissions, chat]')
    configuration = configure(SERVER + OAUTH + "  scopes: [Doc_Permissions]\n", routes)
    assert configuration.settings.scopes == ["SEARCH", "CHAT", "DOCPERMISSIONS"]
    assert configuration.providers[0].scopes == frozenset({"DOCPERMISSIONS"})
    assert allowed(configuration, "GET", "/a").scopes == ("DOCPERMISSIONS",)
    assert allowed(configuration, "GET", "/b").permits(frozenset({"CHAT"}))


def test_without_a_ceiling_oauth_tokens_hold_the_vocabulary(configure: Configure) -> None:
    assert configure(SERVER + OAUTH).providers[0].scopes == frozenset({"SEARCH", "CHAT", "DOCPERMISSIONS"})


@pytest.mark.parametrize("written", ["[0oa1, 0oa2]", "0oa1,0oa2", '" 0oa1 , 0oa2, "', "\n    - 0oa1\n    - 0oa2"])
def test_client_ids_are_a_list_or_one_text_with_commas(configure: Configure, written: str) -> None:
    configuration = configure(SERVER + OAUTH.replace("[0oa1example]", written))
    assert configuration.providers[0].client_ids == frozenset({"0oa1", "0oa2"})


def test_one_audience_and_domains_in_lower_case(configure: Configure) -> None:
    rules = configure(SERVER + OAUTH + "  domains: Acme.com, acme.co.uk\n").providers[0]
    assert (rules.audience, rules.domains) == (frozenset({"api://default"}), frozenset({"acme.com", "acme.co.uk"}))


@pytest.mark.parametrize("domains", ["", '  domains: ["*"]\n', '  domains: ["*", acme.com]\n'])
def test_every_domain(configure: Configure, domains: str) -> None:
    assert configure(SERVER + OAUTH + domains).providers[0].domains is None


def test_the_provider_is_called_by_its_name(configure: Configure) -> None:
    assert configure(SERVER + OAUTH).providers[0].name == "okta"
    assert configure(SERVER + OAUTH + "  name: acme-sso\n").providers[0].name == "acme-sso"


# OAuth

TENANT = "88888888-4444-4444-4444-121212121212"


@pytest.mark.parametrize(
    ("provider", "written", "issuer"),
    [
        ("azure", f"{TENANT}/v2.0", f"https://login.microsoftonline.com/{TENANT}/v2.0"),
        ("azure", f"https://login.microsoftonline.com/{TENANT}/v2.0", None),
        ("azure", f"https://sts.windows.net/{TENANT}/", None),
        ("okta", "https://acme", "https://acme.okta.com"),
        ("okta", "https://acme.okta.com", None),
        ("okta", "https://acme.okta.com/oauth2/default", None),
        ("okta", "https://acme.oktapreview.com/oauth2/ausAbC", None),
        ("okta", "https://sso.acme.com", None),
        ("okta", "https://acme.onelogin.com", None),
        ("onelogin", "https://acme", "https://acme.onelogin.com/oidc/2"),
        ("onelogin", "https://acme.onelogin.com", "https://acme.onelogin.com/oidc/2"),
        ("onelogin", "https://acme.onelogin.com/oidc/2", None),
        ("onelogin", "https://sso.acme.com/oidc/2", None),
        ("gsuite", None, "https://accounts.google.com"),
    ],
)
def test_the_short_issuers_of_the_admin_form(configure: Configure, provider: str, written: str | None, issuer: str | None) -> None:
    """What is no short form is taken as it is; gsuite has only one."""
    custom = provider == "okta" and "/oauth2/" in str(written)
    more = {"gsuite": "  domains: [acme.com]\n", "okta": "  audience: api://default\n" if custom else ""}.get(provider, "")
    line = f"  issuer: {written}\n" if written else ""
    configuration = configure(ASKING + f"oauth:\n  provider: {provider}\n  client_ids: [a]\n{line}{more}")
    assert [rules.issuer for rules in configuration.providers] == [issuer or written]
    result = CliRunner().invoke(main, ["config", "show", "--config", str(configuration.file)])
    assert json.loads(result.stdout)["oauth"]["issuer"] == (issuer or written)


@pytest.mark.parametrize(
    ("provider", "written"),
    [
        *(
            ("azure", written)
            for written in ("https://acme", f"x{TENANT}/v2.0", f"{TENANT}/v1.0", f"{TENANT}/v2.0x", "common/v2.0")
        ),
        *(("okta", written) for written in ("acme", "https://acme/", "https://acme/x", "http://acme", "https://", "https://a b")),
        *(
            ("onelogin", written)
            for written in ("acme", "https://acme.okta.com", "https://acme.eu.onelogin.com", "https://acme/oidc")
        ),
    ],
)
def test_what_only_looks_like_a_short_issuer(configure: Configure, provider: str, written: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        configure(ASKING + f"oauth:\n  provider: {provider}\n  client_ids: [a]\n  issuer: {written}\n")
    assert [problem.path for problem in raised.value.problems] == ["oauth.issuer"]


@pytest.mark.parametrize(
    ("oauth", "verification", "claim"),
    [
        (OAUTH, Verification.JWKS, "sub"),
        (OAUTH + "  verification: jwks\n", Verification.JWKS, "sub"),
        (OAUTH + "  verification:\n", Verification.JWKS, "sub"),
        (OKTA_ORG, Verification.USERINFO, "email"),
        (OKTA_ORG + "  client_secret: {env: OKTA}\n", Verification.INTROSPECTION, "username"),
        (OKTA_ORG + "  verification:\n  client_secret: {env: OKTA}\n", Verification.INTROSPECTION, "username"),
        (OKTA_ORG + "  verification: userinfo\n", Verification.USERINFO, "email"),
        (GSUITE, Verification.TOKENINFO, "email"),
        (ONELOGIN, Verification.JWKS, "email"),
    ],
)
def test_a_secret_is_for_introspection(configure: Configure, oauth: str, verification: Verification, claim: str) -> None:
    (rules,) = configure(ASKING + oauth).providers
    assert (rules.verification, rules.user_claims) == (verification, (claim,))


@pytest.mark.parametrize(
    ("oauth", "asked"),
    [
        (OAUTH, False),
        (OKTA_ORG, False),
        (GSUITE, False),
        (GSUITE + "  hosted_domains: acme.com\n", True),
        (GSUITE + '  hosted_domains: acme.com\n  users: {"1": ana@acme.com}\n', True),
        (ONELOGIN, True),
        (ONELOGIN + '  users: {"1": ana@acme.com}\n', False),
    ],
)
def test_userinfo_is_asked_besides_for_what_nothing_else_tells(configure: Configure, oauth: str, asked: bool) -> None:
    (rules,) = configure(ASKING + oauth).providers
    assert rules.userinfo is asked


def test_ids_of_users_are_text_with_or_without_quotes(configure: Configure) -> None:
    """A key is never read as a number: 007 stays 007."""
    ids = ("12345", "'12346'", "007", "1.5", "null")
    users = "  users:\n" + "".join(f"    {user_id}: ana@acme.com\n" for user_id in ids)
    (rules,) = configure(ASKING + ONELOGIN + users).providers
    assert rules.users is not None
    assert set(rules.users) == {"12345", "12346", "007", "1.5", "null"}
    assert rules.user_claims == ("sub",)


def test_users_are_read_by_an_id_of_ones_choice(configure: Configure) -> None:
    users = '  users: {"1": ana@acme.com}\n'
    (by_default,) = configure(ASKING + GSUITE + users).providers
    (chosen,) = configure(ASKING + GSUITE + users + "  user_claim: employee\n").providers
    (azure,) = configure(f"{SERVER}oauth:\n  provider: azure\n  issuer: {TENANT}/v2.0\n  client_ids: [a]\n{users}").providers
    assert (by_default.user_claims, chosen.user_claims, azure.user_claims) == (("sub",), ("employee",), ("oid",))


def test_hosted_domains_in_lower_case(configure: Configure) -> None:
    (rules,) = configure(ASKING + GSUITE + "  hosted_domains: [Acme.com]\n").providers
    assert rules.hosted_domains == frozenset({"acme.com"})


def test_limits_and_durations_of_remote_verification(configure: Configure) -> None:
    settings = configure(SERVER + OAUTH).settings
    assert settings.oauth is not None
    assert (settings.oauth.remote_timeout, settings.oauth.remote_verdict_ttl) == (2.0, 60.0)
    limits = "limits: {verdicts: 1000, signatures_per_second: 1, remote_in_flight: 1, remote_per_second: 1,\n"
    limits += "  store_in_flight: 1, store_per_second: 1, known_ids: 1, internal_tokens: 1000}\n"
    settings = configure(SERVER + OAUTH + "  remote_timeout: 10s\n  remote_verdict_ttl: 1s\n" + limits).settings
    assert settings.oauth is not None
    assert (settings.oauth.remote_timeout, settings.oauth.remote_verdict_ttl) == (10.0, 1.0)
    assert set(settings.limits.model_dump().values()) == {1000, 1}


PEPPERED = {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]}
SIGNING = {"issuer": "https://a.example", "audience": "https://b.example", "keys": [{"id": "k1", "file": "k1.pem"}]}
OKTA = {"provider": "okta", "issuer": "https://acme.okta.com", "client_ids": ["a"]}


@pytest.mark.parametrize(
    ("section", "others", "key", "good", "bad"),
    [
        (TokensSection, PEPPERED, "poll_interval", ["250ms", "60s"], ["249ms", "61s"]),
        (OAuthCommon, {}, "refresh", ["1m", "1h"], ["59s", "3601s"]),
        (OAuthCommon, {}, "verdict_ttl", ["1h"], ["3601s"]),
        (OAuthCommon, {}, "remote_verdict_ttl", ["1h"], ["3601s"]),
        (OAuthCommon, {}, "remote_timeout", ["10s"], ["11s"]),
        (ProviderEntry, OKTA, "leeway", ["0s", "60s"], ["61s"]),
        (InternalTokenSection, SIGNING, "lifetime", ["10s", "5m"], ["9s", "301s"]),
        (AnswersSection, {}, "retry_after", ["1s", "1d"], ["999ms", "86401s"]),
    ],
)
def test_a_duration_has_bounds(section: type[Section], others: dict[str, Any], key: str, good: list[str], bad: list[str]) -> None:
    assert good
    assert bad
    for text in good:
        assert getattr(section.model_validate({**others, key: text}), key) == duration(text)
    for text in bad:
        with pytest.raises(ValidationError, match=key):
            section.model_validate({**others, key: text})


def test_a_section_that_is_off_has_no_provider_and_no_kind(configure: Configure) -> None:
    configuration = configure(SERVER + OAUTH + "  enabled: false\n" + TOKENS + ACT_AS)
    assert (configuration.providers, configuration.policy.kinds) == ((), frozenset({Kind.ISSUED}))


def test_an_octal_socket_mode_needs_no_quotes(configure: Configure) -> None:
    more = "server: {listen: unix:///run/check.sock, socket_mode: 0600}\n" + OAUTH
    assert configure(more).settings.server.socket_mode == "0600"


def test_two_ports_of_the_systems_choice_are_different(configure: Configure) -> None:
    assert configure("server: {listen: 127.0.0.1:0, ops: 127.0.0.1:0}\n" + OAUTH).settings.server.ops is not None


def test_act_as_headers_are_added_and_never_taken_away(configure: Configure) -> None:
    configuration = configure(SERVER + TOKENS + 'act_as: {allow: ["*@*"], headers: [X-Acme-User, X-Glean-ActAs]}\n')
    assert configuration.policy.act_as.headers == (*ACT_AS_HEADERS, "x-acme-user")
    assert configuration.policy.identity.act_as == (*ACT_AS_HEADERS, "x-acme-user")


@pytest.mark.parametrize(
    ("written", "types", "shown"),
    [
        ("", AuthTypes(), {"header": "X-Glean-Auth-Type", "oauth": "OAUTH"}),
        ("auth_type: by_token\n", AuthTypes("", issued=("glean_", "acme_")), "by_token"),
        (
            "auth_type: {header: X-Acme-Kind, oauth: Sso}\n",
            AuthTypes("x-acme-kind", "sso"),
            {"header": "X-Acme-Kind", "oauth": "Sso"},
        ),
    ],
)
def test_how_the_kind_of_a_token_is_told(configure: Configure, written: str, types: AuthTypes, shown: Any) -> None:
    configuration = configure(SERVER + TOKENS + "  accept_prefixes: [acme]\n" + ACT_AS + written)
    assert configuration.policy.auth_types == types
    assert configuration.policy.identity.auth_type == types.header
    assert explained(configuration)["settings"]["auth_type"] == shown
    assert configure(SERVER + OAUTH + "auth_type: by_token\n").policy.auth_types == AuthTypes("")


def test_act_as_headers_of_ones_own_alone(configure: Configure) -> None:
    configuration = configure(SERVER + TOKENS + 'act_as: {allow: ["*@*"], headers: [X-Acme-User], only: true}\n')
    assert configuration.policy.act_as.headers == configuration.policy.identity.act_as == ("x-acme-user",)


def test_an_act_as_header_of_ones_own_can_be_kept(configure: Configure) -> None:
    configuration = configure(
        SERVER + TOKENS + 'act_as: {allow: ["*@*"], headers: [X-Acme-User]}\nidentity: {keep: [X-Acme-User, Authorization]}\n'
    )
    assert configuration.policy.identity.keep == frozenset({"x-acme-user", "authorization"})


# Routes


def allowed(configuration: Configuration, method: str, path: str, host: str = "api.acme.com") -> Route:
    table = configuration.policy.table_for(host)
    target = parse(path)
    assert not isinstance(table, Reason)
    assert not isinstance(target, Reason)
    route = table.find(method, target)
    assert isinstance(route, Route), route
    return route


def test_what_a_line_accepts(configure: Configure) -> None:
    configuration = configure(
        routes=lines(
            'match: "GET /a", scope: CHAT',
            'match: "GET /b", scope: CHAT, anonymous: true',
            'match: "GET /c", scope: CHAT, accept: [user, oauth]',
            'match: "GET /d", scope: CHAT, accept: [user], anonymous: true',
        )
    )
    assert [allowed(configuration, "GET", f"/{name}").accept for name in "abcd"] == [
        {AuthType.OAUTH, AuthType.GLOBAL, AuthType.USER},
        {AuthType.OAUTH, AuthType.GLOBAL, AuthType.USER, AuthType.ANONYMOUS},
        {AuthType.OAUTH, AuthType.USER},
        {AuthType.USER, AuthType.ANONYMOUS},
    ]


def test_a_file_with_hosts_serves_them_alone(configure: Configure) -> None:
    configuration = configure(
        routes=lines('match: "GET /a", scope: CHAT, name: everywhere'),
        second='hosts: [acme.com, "[::1]"]\npreflight: true\n' + lines('match: "GET /a", public: true'),
    )
    assert allowed(configuration, "GET", "/a").name == "everywhere"
    assert [allowed(configuration, "GET", "/a", host).name for host in ("Acme.com.:443", "[::1]:8080")] == ["GET /a"] * 2
    assert allowed(configuration, "GET", "/a", "acme.com").preflight
    assert not allowed(configuration, "GET", "/a").preflight


def test_two_files_for_one_host_share_a_table(configure: Configure) -> None:
    configuration = configure(
        routes="hosts: [acme.com]\n" + lines('match: "GET /a", scope: CHAT'),
        second="hosts: [acme.com, acme.org]\n" + lines('match: "GET /b", scope: CHAT'),
    )
    assert allowed(configuration, "GET", "/a", "acme.com").name == "GET /a"
    assert allowed(configuration, "GET", "/b", "acme.com") is allowed(configuration, "GET", "/b", "acme.org")


@pytest.mark.parametrize(("hosts", "path"), [("[ACME.com]", "hosts[0]"), ("acme.com", "hosts"), ("[7]", "hosts[0]")])
def test_hosts_that_are_wrong_make_no_duplicates(configure: Configure, hosts: str, path: str) -> None:
    """A file whose hosts are wrong is not compared with those that serve every other host."""
    with pytest.raises(ConfigurationError) as raised:
        configure(second=f"hosts: {hosts}\n" + lines('match: "POST /search", public: true, name: other'))
    assert [problem.path for problem in raised.value.problems] == [path]


@pytest.mark.parametrize(
    ("upstream", "path"), [("{case: none}", "upstream.case"), ("express", "upstream"), ("{slash: 1}", "upstream.slash")]
)
def test_an_upstream_that_is_wrong_is_compared_with_no_other(configure: Configure, upstream: str, path: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        configure(
            routes=f"upstream: {{case: insensitive}}\n{ROUTES}",
            second=f"upstream: {upstream}\n" + lines('match: "GET /a", scope: CHAT'),
        )
    assert [problem.path for problem in raised.value.problems] == [path]


def test_duplicates_and_names_are_found_across_files(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        configure(second=lines('match: "POST /search", scope: CHAT', 'match: "GET /a", scope: CHAT, name: "POST /search"'))
    first = f"{tmp_path}/routes.yaml:2"
    assert [str(problem) for problem in raised.value.problems] == [
        f"{tmp_path}/second.yaml:2: routes[0].match: the same pattern and method as in {first}: remove one of them",
        f"{tmp_path}/second.yaml:3: routes[1].name: the name 'POST /search' is that of {first}: give one of them another `name`",
    ]


def test_the_same_line_for_two_hosts_needs_two_names(configure: Configure) -> None:
    one, other = "hosts: [a.com]\n" + ROUTES, "hosts: [b.com]\n" + ROUTES
    with pytest.raises(ConfigurationError) as raised:
        configure(routes=one, second=other)
    assert [(problem.path, problem.line) for problem in raised.value.problems] == [("routes[0].name", 3)]
    configuration = configure(routes=one, second=other.replace("SEARCH}", "SEARCH, name: other}"))
    assert allowed(configuration, "POST", "/search", "b.com").name == "other"


def test_a_star_and_a_method_share_a_pattern(configure: Configure) -> None:
    configuration = configure(routes=lines('match: "* /a/{x}", deny: true', 'match: "GET /a/{y}", scope: CHAT'))
    assert (allowed(configuration, "GET", "/a/1").deny, allowed(configuration, "POST", "/a/1").deny) == (False, True)


def test_a_route_file_with_a_nul_in_its_name(configure: Configure) -> None:
    file = configure().file
    file.write_text(file.read_text().replace("[routes.yaml]", '["rou\\0tes.yaml"]'))
    with pytest.raises(ConfigurationError, match="no such file"):
        load(file)


@pytest.mark.parametrize("unreadable", ["*x", "!x SEARCH"])
def test_a_scope_that_cannot_be_read_opens_no_route(configure: Configure, unreadable: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        configure(routes=lines(f'match: "GET /a", scope: {unreadable} '))
    assert [problem.path for problem in raised.value.problems] == ["routes[0].scope"]


def test_ten_thousand_routes_load_in_seconds(configure: Configure) -> None:
    routes = lines(*(f'match: "POST /service{number % 50}/item{number}/{{id}}", scope: SEARCH' for number in range(10_000)))
    started = time.process_time()
    configuration = configure(routes=routes)
    assert time.process_time() - started < 10.0
    assert allowed(configuration, "POST", "/service49/item9999/x").name == "POST /service49/item9999/{id}"


def test_ten_thousand_errors_are_all_told(configure: Configure) -> None:
    with pytest.raises(ConfigurationError) as raised:
        configure(routes=lines(*(f'match: "POST /item{number}", scope: SERCH' for number in range(10_000))))
    assert [problem.line for problem in raised.value.problems] == list(range(2, 10_002))


# Digests


def digests(configuration: Configuration, pepper: str = PEPPER, name: str = "p1") -> tuple[bytes, bytes]:
    return (
        configuration.section_digest(Kind.OAUTH, {}),
        configuration.section_digest(Kind.ISSUED, {name: pepper.encode()}),
    )


def test_a_digest_stays_while_nothing_changes(configure: Configure) -> None:
    first = digests(configure(SERVER + OAUTH + TOKENS + ACT_AS))
    second = digests(configure("server: {listen: 127.0.0.1:9002}\n" + ACT_AS + "# moved\n" + TOKENS + OAUTH + "realm: acme\n"))
    assert first == second
    assert first[0] != first[1]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("0oa1example", "0oa2example", {Kind.OAUTH}),
        ("api://default", "api://other", {Kind.OAUTH}),
        ("  provider: okta\n", "  provider: okta\n  leeway: 30s\n", {Kind.OAUTH}),
        ("  provider: okta\n", "  provider: okta\n  domains: [acme.com]\n", {Kind.OAUTH}),
        ("  provider: okta\n", "  provider: okta\n  scopes: [CHAT]\n", {Kind.OAUTH}),
        ("  provider: okta\n", '  provider: okta\n  users: {"1": ana@acme.com}\n', {Kind.OAUTH}),
        ("  provider: okta\n", "  provider: okta\n  remote_verdict_ttl: 5s\n", {Kind.OAUTH}),
        ("tokens.db", "other.db", {Kind.ISSUED}),
        ("id: p1", "id: p2", {Kind.ISSUED}),
        ("  store:", "  verdict_ttl: 5s\n  store:", {Kind.ISSUED}),
        ("  store:", "  accept_prefixes: [old]\n  store:", {Kind.ISSUED}),
    ],
)
def test_a_digest_changes_with_its_section(configure: Configure, old: str, new: str, changed: set[Kind]) -> None:
    text = SERVER + OAUTH + TOKENS + ACT_AS
    assert text.count(old) == 1
    before, after = digests(configure(text)), digests(configure(text.replace(old, new)))
    assert {kind for kind, one, other in zip((Kind.OAUTH, Kind.ISSUED), before, after, strict=True) if one != other} == changed


def test_both_digests_change_with_the_vocabulary(configure: Configure) -> None:
    configuration = configure(SERVER + OAUTH + TOKENS + ACT_AS)
    before = digests(configuration)
    configuration.file.write_text(configuration.file.read_text().replace("CHAT,", "CHAT, FEED,"))
    after = digests(load(configuration.file))
    assert (before[0] != after[0], before[1] != after[1]) == (True, True)


def test_a_digest_changes_with_the_pepper_and_its_name(configure: Configure) -> None:
    configuration = configure()
    found = {digests(configuration, pepper, name)[1] for pepper in (PEPPER, PEPPER[::-1]) for name in ("p1", "p2")}
    assert len(found) == 4
    assert not any(PEPPER.encode() in digest for digest in found)


def test_a_digest_changes_with_the_client_secret_and_not_with_its_place(configure: Configure) -> None:
    places = ("{env: OKTA}", "{env: OTHER}", "{file: secret}")
    settings = [configure(ASKING + OKTA_ORG + f"  client_secret: {place}\n") for place in places]
    secrets: list[dict[str, bytes]] = [{}, {"okta": b"one"}, {"okta": b"other"}, {"other": b"one"}]
    assert len({one.section_digest(Kind.OAUTH, secret) for one in settings for secret in secrets}) == len(secrets)


# The decision log


def test_the_decision_log_is_on_and_complete_unless_something_else_is_written(configure: Configure) -> None:
    section = configure(SERVER).settings.decision_log
    assert section.enabled
    assert section.to == Place()
    assert section.written_fields == frozenset(RecordField)
    assert section.sample == {}


def test_what_is_written_of_decisions(configure: Configure) -> None:
    text = """\
decision_log:
  to: {file: ../log/d.jsonl}
  path: false
  fields: [time, reason, time]
  sample: {allowed: 0.25, public: 0, internal: 1}
  capacity: 1
"""
    section = configure(SERVER + text).settings.decision_log
    assert section.to.file == "../log/d.jsonl"
    assert section.written_fields == {RecordField.TIME, RecordField.REASON}
    assert section.sample == {Reason.ALLOWED: 0.25, Reason.PUBLIC: 0.0, Reason.INTERNAL: 1.0}
    assert section != configure(SERVER).settings.decision_log
    assert section == configure(SERVER + text).settings.decision_log
    without_path = configure(SERVER + "decision_log: {path: false, to: stdout}\n").settings.decision_log
    assert without_path.written_fields == frozenset(RecordField) - {RecordField.PATH}


@pytest.mark.parametrize("to", ["stdout", {"file": "a"}, {"socket": "b"}])
def test_the_place_of_the_decision_log_is_shown_as_it_is_written(configure: Configure, to: object) -> None:
    section = configure(SERVER + f"decision_log: {{to: {json.dumps(to)}, sample: {{allowed: 0.5}}}}\n").settings.decision_log
    shown = section.model_dump(mode="json")
    assert (shown["to"], shown["sample"]) == (to, {"allowed": 0.5})
    assert DecisionLogSection.model_validate(shown) == section


def test_no_literal_takes_a_value_of_another_type() -> None:
    """1, 1.0 and true are equal to Python, and pydantic's Literal compares."""

    def sections(kind: type[Section]) -> Iterator[type[Section]]:
        for below in kind.__subclasses__():
            yield below
            yield from sections(below)

    def literals(annotation: Any) -> Iterator[bool | int]:
        if get_origin(annotation) is Literal:
            yield from (value for value in get_args(annotation) if isinstance(value, int))
        else:
            for part in get_args(annotation):
                yield from literals(part)

    fields = {
        (section.__name__, name, value): field
        for section in sections(Section)
        for name, field in section.model_fields.items()
        for value in literals(field.annotation)
    }
    assert {name for _, name, _ in fields} >= {"version", "public", "deny", "status"}
    for (_, _, value), field in fields.items():
        reader = TypeAdapter(Annotated[field.annotation, field])
        assert reader.validate_python(value) is value
        for other in (float(value), *([int(value)] if isinstance(value, bool) else [True] if value == 1 else [])):
            with pytest.raises(ValidationError):
                reader.validate_python(other)
