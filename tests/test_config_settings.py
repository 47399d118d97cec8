"""What a valid configuration comes to: warnings, paths, secrets, values with units, names, hosts, digests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.config.document import ConfigurationError
from extauthz.config.loader import MIN_PEPPER_BYTES, Configuration, load
from extauthz.config.values import MAX_DURATION, duration, scope, size
from extauthz.core.act_as import ACT_AS_HEADERS
from extauthz.core.credentials import Kind
from extauthz.core.model import AuthType, Reason
from extauthz.core.paths import parse
from extauthz.core.routes import Route

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


RULES = "is not the default: decoder_header_mutation_rules of your Envoy must allow these names, else it answers 500"


@pytest.mark.parametrize(
    ("more", "warning"),
    [
        (
            "server:\n  listen: 0.0.0.0:9001\n" + TOKENS + ACT_AS,
            "extauthz.yaml:5: server.listen: can be reached by other machines, which can then try tokens: "
            "listen on loopback or a unix socket",
        ),
        (
            "server:\n  listen: '[::1]:9001'\n  ops: 10.0.0.7:9090\n" + TOKENS + ACT_AS,
            "extauthz.yaml:6: server.ops: can be reached by other machines, which can then read metrics and readiness: "
            "listen on loopback or a unix socket",
        ),
        (SERVER + TOKENS + ACT_AS + "identity:\n  prefix: x-acme-\n", f"extauthz.yaml:10: identity.prefix: {RULES}"),
        (
            SERVER + TOKENS + 'act_as:\n  allow: ["*@*"]\n  headers: [X-Scio-ActAs, X-Acme-User]\n',
            f"extauthz.yaml:10: act_as.headers: {RULES}",
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


@pytest.mark.parametrize("listen", ["127.0.0.1:9001", "127.9.9.9:9001", "'[::1]:9001'", "localhost:9001", "unix:///run/check.sock"])
def test_an_address_of_this_machine_alone_is_no_risk(configure: Configure, listen: str) -> None:
    assert warnings(configure(f"server: {{listen: {listen}, ops: null}}\n" + TOKENS + ACT_AS)) == []


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
    """Both lines are named, whichever comes first."""
    text = weaker.split('"')[1]
    assert warnings(configure(routes=lines(strict, weaker))) == [
        f"routes.yaml:2: routes[0].match: '{text}' (routes.yaml:3) takes a part of this stricter route"
    ]
    assert warnings(configure(routes=lines(weaker, strict))) == [
        f"routes.yaml:3: routes[1].match: '{text}' (routes.yaml:2) takes a part of this stricter route"
    ]


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
    assert warnings(configure(routes=lines(one, other))) == []


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
    assert (configuration.store_path, configuration.pepper_file()) == (
        folder / "../data/tokens.db",
        folder / "../secrets/pepper",
    )
    assert configuration.peppers({}) == {"p1": PEPPER.encode()}
    assert allowed(configuration, "POST", "/search").name == "POST /search"


def test_absolute_paths_stay(configure: Configure, tmp_path: Path) -> None:
    tokens = TOKENS.replace("tokens.db", "/var/lib/tokens.db").replace("pepper}", "/run/secrets/pepper}")
    configuration = configure(SERVER + tokens + ACT_AS)
    assert (configuration.store_path, configuration.pepper_file()) == (Path("/var/lib/tokens.db"), Path("/run/secrets/pepper"))


def test_a_store_that_is_off_has_no_path(configure: Configure) -> None:
    assert configure(SERVER + TOKENS + "  enabled: false\n" + OAUTH).store_path is None
    assert configure(SERVER + OAUTH).store_path is None
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
    assert [str(mistake) for mistake in raised.value.mistakes] == [
        f"{file}[0]: the environment variable NEW_PEPPER is not set",
        f"{file}[1]: {tmp_path}/pepper: No such file or directory; 'extauthz token create' makes the first pepper file",
    ]


@pytest.mark.parametrize("empty", ["", " \n"])
def test_a_short_pepper_is_told_by_its_name_alone(configure: Configure, tmp_path: Path, empty: str) -> None:
    short = "hunter2".ljust(MIN_PEPPER_BYTES - 1, "!")
    (tmp_path / "pepper").write_text(f"{short}\n")
    with pytest.raises(ConfigurationError) as raised:
        two_peppers(configure).peppers({"NEW_PEPPER": empty or short})
    assert [mistake.message for mistake in raised.value.mistakes] == [
        f"pepper '{name}' is shorter than {MIN_PEPPER_BYTES} bytes" for name in ("p2", "p1")
    ]
    assert "hunter2" not in f"{raised.value} {raised.value!r}"


def test_a_folder_is_no_pepper(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "pepper").mkdir()
    with pytest.raises(ConfigurationError) as raised:
        configure().peppers({})
    assert [mistake.message for mistake in raised.value.mistakes] == [f"{tmp_path}/pepper: Is a directory"]


def test_a_pepper_of_exactly_the_least_length(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "pepper").write_bytes(b"x" * MIN_PEPPER_BYTES)
    assert configure().peppers({}) == {"p1": b"x" * MIN_PEPPER_BYTES}


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
    for read in (duration, size, scope):
        try:
            read(text)
        except ValueError as error:
            assert repr(text) in str(error)  # noqa: PT017 - most texts raise, some do not


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SEARCH", "SEARCH"),
        ("search", "SEARCH"),
        ("DocPermissions", "DOCPERMISSIONS"),
        ("DOC_PERMISSIONS", "DOCPERMISSIONS"),
        ("doc_permissions", "DOCPERMISSIONS"),
        ("triggers:read", "TRIGGERS:READ"),
        ("a" * 64, "A" * 64),
    ],
)
def test_a_scope_name_in_any_case(text: str, name: str) -> None:
    assert scope(text) == name


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
    assert [mistake.path for mistake in raised.value.mistakes] == [path]


def test_duplicates_and_names_are_found_across_files(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        configure(second=lines('match: "POST /search", scope: CHAT', 'match: "GET /a", scope: CHAT, name: "POST /search"'))
    first = f"{tmp_path}/routes.yaml:2"
    assert [str(mistake) for mistake in raised.value.mistakes] == [
        f"{tmp_path}/second.yaml:2: routes[0].match: the same pattern and method as in {first}: remove one of them",
        f"{tmp_path}/second.yaml:3: routes[1].name: the name 'POST /search' is that of {first}: give one of them another `name`",
    ]


def test_the_same_line_for_two_hosts_needs_two_names(configure: Configure) -> None:
    one, other = "hosts: [a.com]\n" + ROUTES, "hosts: [b.com]\n" + ROUTES
    with pytest.raises(ConfigurationError) as raised:
        configure(routes=one, second=other)
    assert [(mistake.path, mistake.line) for mistake in raised.value.mistakes] == [("routes[0].name", 3)]
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
    assert [mistake.path for mistake in raised.value.mistakes] == ["routes[0].scope"]


def test_ten_thousand_routes_load_in_seconds(configure: Configure) -> None:
    routes = lines(*(f'match: "POST /service{number % 50}/item{number}/{{id}}", scope: SEARCH' for number in range(10_000)))
    started = time.process_time()
    configuration = configure(routes=routes)
    assert time.process_time() - started < 10.0
    assert allowed(configuration, "POST", "/service49/item9999/x").name == "POST /service49/item9999/{id}"


def test_ten_thousand_mistakes_are_all_told(configure: Configure) -> None:
    with pytest.raises(ConfigurationError) as raised:
        configure(routes=lines(*(f'match: "POST /item{number}", scope: SERCH' for number in range(10_000))))
    assert [mistake.line for mistake in raised.value.mistakes] == list(range(2, 10_002))


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
