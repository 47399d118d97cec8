"""`extauthz envoy-config`: what it prints is what Envoy starts with, and what the sidecar needs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from extauthz.addresses import Address
from extauthz.config.loader import load
from extauthz.core.act_as import ACT_AS_HEADERS
from extauthz.core.credentials import AUTH_TYPE
from extauthz.core.identity import FORWARDED_HOST_HEADERS, OVERRIDE_HEADERS, IdentityHeaders
from extauthz.envoy_config import mutations
from extauthz.envoy_config.bootstrap import Part, Tls
from extauthz.envoy_config.reading import domains_of, sidecar_of
from extauthz.envoy_config.templates import scalar
from tests.support.envoy import Reply, refusal, validation
from tests.support.envoy_config import (
    ALL_OVERRIDES,
    SEPARATORS,
    WANTED,
    certificates,
    configured,
    file_and_flags,
    identity,
    manager_of,
    part_of,
    printed,
    run,
)
from tests.support.project import ROOT

__all__ = ["certificates"]

SHIPPED = ROOT / "envoy" / "envoy.yaml"


def test_the_shipped_file_is_what_the_default_configuration_prints() -> None:
    """After a change of a template: extauthz envoy-config > envoy/envoy.yaml."""
    assert printed(ROOT / "config" / "extauthz.yaml") == SHIPPED.read_text(encoding="utf-8")


# The rule for header names


WORDS = st.text("abcxyz01", min_size=1, max_size=4)
IDENTITIES = st.builds(
    lambda prefix, names, hosts, kind: identity(f"x-{'-'.join(prefix)}-", *names, hosts=hosts, auth_type=kind),
    st.lists(WORDS, min_size=1, max_size=2),
    st.lists(st.lists(WORDS, min_size=1, max_size=3).map("-".join).map("u{}".format), max_size=1),
    st.booleans(),
    st.sampled_from([AUTH_TYPE, "token-kind", ""]),
)


def spellings(rules: IdentityHeaders) -> st.SearchStrategy[str]:
    """Names that are ours, nearly ours, or spelled otherwise."""
    near = st.sampled_from([*rules.always_listed, rules.prefix, f"{rules.prefix}more", *ALL_OVERRIDES, "host", "x"])
    changed = st.builds(
        lambda name, old, new: name.replace(old, new, 1), near, st.sampled_from("-xeas"), st.sampled_from(f"{SEPARATORS}ax0")
    )
    return st.one_of(near, changed, st.builds("{}{}".format, near, st.sampled_from(f"{SEPARATORS}a")))


@given(st.data())
def test_the_rule_lets_pass_exactly_what_the_sidecar_may_set_or_remove(data: st.DataObject) -> None:
    rules = data.draw(IDENTITIES)
    name = data.draw(spellings(rules))
    matched = re.fullmatch(mutations.allow_expression(rules), name) is not None
    ours = rules.owns(name) or name in rules.always_listed
    assume(name not in FORWARDED_HOST_HEADERS or not ours)
    # A name with an odd character passes whatever it is; an override in its own spelling never comes to the sidecar.
    expected = not re.fullmatch("[a-z0-9-]*", name) or (ours and name not in OVERRIDE_HEADERS)
    assert matched == expected


MANY = [
    identity(),
    identity("x-a-"),
    identity("x-acme-gateway-"),
    identity("x-acme-", "x-acme2-user"),
    identity("x-acme-", "x-acme"),
    identity("x-acme-", "x-glean", "x-glean-actas-user", "x-glean-auth"),
    identity("x-acme-", "on-behalf-of"),
    identity("x-acme-", "on--behalf", "on-"),
    identity("x-some-very-long-company-name-", "x-user"),
    identity("x-b-", *(f"x-c{number}" for number in range(6))),
    identity("x-b-", *(f"h{number}-c" for number in range(5))),
    identity("x-b-", "a", "ab", "abc", "a-b", "a-b-c"),
    identity("x-extauthz-", "x-acme-user", "on-behalf-of", "x-user"),
    identity("x-extauthz-", "x-extauth", "x-extauthzz", "authorization-of", "auth", "x"),
    identity(hosts=True),
    identity("x-acme-gateway-", "x-acme-behalf", hosts=True),
    *(
        identity(f"x-{chr(97 + number) * number}-", *(f"{chr(97 + count)}-x{number}" for count in range(number)))
        for number in range(1, 20)
    ),
]


def test_the_estimate_of_the_rules_size_is_never_too_small(tmp_path: Path) -> None:
    """RE2 tells how long its programs are when Envoy is asked to warn of every one."""
    listed = [(rules.prefix, [*mutations._listed(rules), *rules.overrides[len(OVERRIDE_HEADERS) :]]) for rules in MANY]
    estimates = {mutations.expression(*names): mutations.instructions(*names) for names in listed}
    data = yaml.safe_load(SHIPPED.read_text())
    manager = data["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["virtual_hosts"][0]["routes"] = [
        {"match": {"safe_regex": {"regex": text}}, "direct_response": {"status": 200}} for text in estimates
    ]
    levels = {"re2.max_program_size.warn_level": 0, "re2.max_program_size.error_level": 10_000}
    data["layered_runtime"] = {"layers": [{"name": "sizes", "static_layer": levels}]}
    told = validation(tmp_path, yaml.safe_dump(data)).stderr
    sizes = {text: int(size) for text, size in re.findall(r"regex '(\S+)' RE2 program size of (\d+) > max", told)}

    assert estimates.keys() <= sizes.keys()
    assert {text: (sizes[text], estimate) for text, estimate in estimates.items() if not 0 <= estimate - sizes[text] <= 20} == {}


def test_the_names_of_hosts_stand_in_the_rule_where_there_is_room_and_too_many_names_are_refused(tmp_path: Path) -> None:
    """Envoy removes them before the check; proxies in front of it send them with every request."""
    short, long = identity(hosts=True), identity("x-extauthz-", "x-acme-user", "on-behalf-of", "x-user", hosts=True)
    for name in FORWARDED_HOST_HEADERS:
        assert re.fullmatch(mutations.allow_expression(short), name)
        assert not re.fullmatch(mutations.allow_expression(long), name)
        assert name in mutations.header_removals(short)
        assert name in mutations.header_removals(long)
    file = configured(
        tmp_path, act_as={"headers": [f"X-On-Behalf-Of-{name}" for name in ("Somebody", "Anybody", "Everybody", "Nobody")]}
    )
    result = run(file)
    assert result.exit_code == 1
    assert re.search(r"act_as\.headers: Envoy would need about \d+ instructions .* name fewer act-as headers", result.output)


# What Envoy reads


@pytest.mark.parametrize("part", [part.value for part in Part])
def test_json_says_the_same(part: str, tmp_path: Path) -> None:
    file = configured(tmp_path)
    assert json.loads(printed(file, "--part", part, "--format", "json")) == yaml.safe_load(printed(file, "--part", part))


def test_an_expression_that_is_too_long_for_envoy_is_refused_by_it(tmp_path: Path) -> None:
    """Keeps the validation above from passing whatever the expression is."""
    longer = SHIPPED.read_text().replace('regex: "^(?:authorization|', f'regex: "^(?:authorization|{"y" * 60}|')
    assert "RE2 program size" in refusal(tmp_path, longer)


# What is printed


def test_what_is_kept_is_not_removed_from_headers_but_from_trailers(tmp_path: Path) -> None:
    file = configured(tmp_path, identity={"prefix": "x-acme-", "keep": ["authorization", "x-rewrite-url"]})
    mutation = yaml.safe_load(printed(file, "--part", "filter"))[0]["typed_config"]["mutations"]
    headers = [entry["remove"] for entry in mutation["request_mutations"] if "remove" in entry]
    trailers = [entry["remove"] for entry in mutation["request_trailers_mutations"] if "remove" in entry]
    assert set(OVERRIDE_HEADERS) - set(headers) == {"x-rewrite-url"}
    assert {*OVERRIDE_HEADERS, "authorization", "x-glean-auth-type", *ACT_AS_HEADERS} <= set(trailers)
    for entries in mutation.values():
        assert {"remove_on_match": {"key_matcher": {"prefix": "x-acme-", "ignore_case": True}}} in entries


@pytest.mark.parametrize(
    ("check_timeout", "timeout", "max_interval"),
    [("50ms", "0.1s", "2s"), ("150ms", "0.2s", "2s"), ("900ms", "1s", "2s"), ("3s", "3.1s", "6.2s"), ("123ms", "0.173s", "2s")],
)
def test_envoy_waits_longer_than_the_sidecar(check_timeout: str, timeout: str, max_interval: str, tmp_path: Path) -> None:
    file = configured(tmp_path, server={"check_timeout": check_timeout})
    service = yaml.safe_load(printed(file, "--part", "filter"))[1]["typed_config"]["grpc_service"]
    assert service["timeout"] == timeout
    assert service["retry_policy"]["retry_back_off"]["max_interval"] == max_interval
    assert "retry_policy" not in service["envoy_grpc"]


def test_domains_are_the_hosts_of_the_route_files(tmp_path: Path) -> None:
    hosts = ("b.acme.com", "a.acme.com")
    file = configured(tmp_path, hosts=hosts, others=False)
    result = run(file)
    assert result.stderr == ""
    assert manager_of(result.stdout)["route_config"]["virtual_hosts"][0]["domains"] == ["a.acme.com", "b.acme.com"]
    file = configured(tmp_path, hosts=hosts)
    assert "warning: route files without `hosts` serve other hosts too: name those with --domain" in run(file).stderr
    more = run(file, "--domain", "www.acme.com", "--domain", "a.acme.com")
    assert more.stderr == ""
    assert manager_of(more.stdout)["route_config"]["virtual_hosts"][0]["domains"] == ["a.acme.com", "b.acme.com", "www.acme.com"]


@pytest.mark.parametrize(
    ("changes", "flags", "code", "message"),
    [
        ({"server": {"listen": "0.0.0.0:9001"}}, (), 1, "every address of the machine: say with --sidecar where it is reached"),
        ({"server": {"listen": "unix:///run/check.sock"}}, ("--sidecar", "a"), 1, "a unix socket is not reached at a host"),
        ({"hosts": ("a.acme.com",), "others": False}, ("--domain", "b.acme.com"), 1, "no route serves 'b.acme.com'"),
        ({}, ("--domain", "*"), 1, "'*' is not one host"),
        ({}, ("--domain", "A.acme.com:80"), 1, "is not one host: write it in lower case, without port"),
        ({}, ("--listener", "example.com:80"), 2, "is not an IP address"),
        ({}, ("--upstream", "api:0"), 2, "write a host and a port, like api.internal:8080"),
        ({}, ("--part", "everything"), 2, "'everything' is not one of 'all', 'filter', 'cluster', 'mutation'"),
        ({"scopes": []}, (), 3, "1 error"),
        ({}, ("--cors", "https://app.acme.com/"), 1, "is no origin: write scheme, host and port in lower case"),
        ({}, ("--cors", "app.acme.com"), 1, "is no origin"),
        ({}, ("--cors", "null"), 1, "is no origin"),
        ({}, ("--cors", "https://*.acme.com"), 1, "is no origin"),
        ({}, ("--cors", "https://App.acme.com"), 1, "is no origin"),
        ({}, ("--cors", "https://app.acme.com:443"), 1, "browsers leave this port out: write https://app.acme.com"),
        ({}, ("--trusted-hops", "0"), 2, "0 is not in the range 1<=x<=10"),
        ({}, ("--limit-denials", "0"), 2, "0 is not in the range"),
    ],
)
def test_what_cannot_be_printed_says_why(
    changes: dict[str, Any], flags: tuple[str, ...], code: int, message: str, tmp_path: Path
) -> None:
    result = run(configured(tmp_path, **changes), *flags)
    assert result.exit_code == code
    assert message in result.output


def test_a_short_drain_is_worth_a_warning(tmp_path: Path) -> None:
    result = run(configured(tmp_path, server={"drain": "2s"}))
    assert result.exit_code == 0
    assert "warning: server.drain is 2 s, and Envoy needs 2 s to turn away" in result.stderr


def test_nothing_else_comes_through_unless_it_is_asked_for(tmp_path: Path) -> None:
    data = yaml.safe_load(printed(configured(tmp_path)))
    manager, (listener,) = manager_of(yaml.safe_dump(data)), data["static_resources"]["listeners"]
    assert not manager.keys() & {"upgrade_configs", "xff_num_trusted_hops"}
    assert "allow_connect" not in manager["http2_protocol_options"]
    assert "listener_filters" not in listener
    assert [each["name"].rpartition(".")[2] for each in manager["http_filters"]] == ["header_mutation", "ext_authz", "router"]
    # It lets nothing more in, and a client that may not send its body is told so before it does.
    assert manager["proxy_100_continue"] is True


def test_the_filters_of_the_flags_stand_before_the_check(tmp_path: Path) -> None:
    filters = part_of(configured(tmp_path), WANTED["traffic"].flags, "filter")
    assert [each["name"].rpartition(".")[2] for each in filters] == ["grpc_web", "cors", "lua", "header_mutation", "ext_authz"]


def policy_of(file: Path, *flags: str) -> dict[str, Any]:
    policy: dict[str, Any] = part_of(file, flags, "virtual-host")["typed_per_filter_config"]["envoy.filters.http.cors"]
    return policy


def test_the_policy_for_browsers_is_that_of_the_configuration(tmp_path: Path) -> None:
    answers = {
        "reasons": {"scope_missing": {"headers": {"x-hint": "no"}}, "token_expired": {"headers": {"x-renew": "1", "x-hint": "a"}}}
    }
    file = configured(tmp_path, act_as={"headers": ["X-Acme-User"]}, answers=answers, identity={"prefix": "x-gateway-"})
    policy = policy_of(file, "--cors", "https://app.acme.com", "--cors", "capacitor://localhost")
    assert policy["allow_origin_string_match"] == [{"exact": "https://app.acme.com"}, {"exact": "capacitor://localhost"}]
    allowed = ["authorization", "content-type", "x-glean-auth-type", "x-scio-actas", "x-glean-actas", "x-acme-user"]
    exposed = ["www-authenticate", "x-gateway-decision-id", "retry-after", "x-hint", "x-renew"]
    assert sorted(policy["allow_headers"].split(", ")) == sorted(allowed)
    assert policy["expose_headers"].split(", ") == exposed
    assert policy["allow_methods"] == "GET, HEAD, POST"
    web = policy_of(file, "--cors", "https://app.acme.com", "--grpc-web")
    assert sorted(web["allow_headers"].split(", ")) == sorted([*allowed, "x-grpc-web", "x-user-agent", "grpc-timeout"])
    assert web["expose_headers"].split(", ") == [*exposed, "grpc-status", "grpc-message"]


@pytest.mark.parametrize("auth_type", [{"header": "X-Acme-Kind"}, "by_token"])
def test_with_names_of_ones_own_those_of_another_vendor_are_printed_only_to_be_removed(tmp_path: Path, auth_type: Any) -> None:
    own = {"headers": ["X-Acme-User"], "only": True}
    file = configured(tmp_path, act_as=own, identity={"prefix": "x-acme-gateway-"}, auth_type=auth_type)
    text = printed(file, "--cors", "https://app.acme.com")
    assert "x-extauthz" not in text
    lines = [line.strip() for line in text.splitlines() if re.search("(?i)glean|scio", line)]
    names = ["x-glean-auth-type", "x-scio-actas", "x-glean-actas"]
    assert lines[:-1] == [f"- remove: {name}" for name in names], "from the trailers"
    rule = re.compile(yaml.safe_load(lines[-1])["regex"])
    assert [name for name in names if not rule.fullmatch(name)] == []
    assert ("x-acme-kind" in text) is (auth_type != "by_token")
    assert policy_of(file, "--cors", "https://app.acme.com")["allow_headers"].split(", ") == [
        *("authorization", "content-type"),
        *(["x-acme-kind"] if auth_type != "by_token" else []),
        "x-acme-user",
    ]


@pytest.mark.parametrize(
    ("matches", "methods"),
    [
        (["GET /a", "PATCH /b/{c}/**", "DELETE /b/{d}"], "DELETE, GET, PATCH"),
        (["* /a", "QUERY /a"], "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, QUERY"),
    ],
)
def test_the_methods_for_browsers_are_those_of_the_routes(matches: list[str], methods: str, tmp_path: Path) -> None:
    file = configured(tmp_path)
    routes = [{"match": match, "scope": "SEARCH"} for match in matches] + [{"match": "PUT /denied", "deny": True}]
    (tmp_path / "routes.yaml").write_text(yaml.safe_dump({"routes": routes}))
    assert policy_of(file, "--cors", "https://app.acme.com")["allow_methods"] == methods


def test_without_origins_the_policy_is_a_comment_that_can_be_taken_away(tmp_path: Path) -> None:
    file = configured(tmp_path)
    host = printed(file, "--part", "virtual-host")
    assert yaml.safe_load(host).keys() == {"domains"}
    uncommented = yaml.safe_load(re.sub(r"^# (?=typed| )", "", host, flags=re.MULTILINE))
    assert uncommented["typed_per_filter_config"]["envoy.filters.http.cors"] == policy_of(file, "--cors", "https://app.example.com")


@pytest.mark.parametrize(
    ("flags", "warned"),
    [
        (("--cors", "*"), ["--cors '*': a script of any site may call"]),
        (
            ("--part", "filter", "--websocket", "--trusted-hops", "1"),
            ["--websocket changes nothing here", "--trusted-hops changes nothing"],
        ),
        (
            ("--part", "manager", "--proxy-protocol", "--cors", "https://a.b"),
            ["print --part listener with it", "print --part filter and --part virtual-host"],
        ),
        (("--part", "virtual-host", "--grpc-web", "--cors", "https://a.b"), []),
        (("--part", "filter", "--grpc-web", "--limit-denials", "9", "--cors", "https://a.b"), []),
        (
            ("--part", "cluster", "--grpc-web", "--limit-denials", "9"),
            ["--grpc-web changes nothing", "--limit-denials changes nothing"],
        ),
    ],
)
def test_a_flag_that_does_nothing_is_worth_a_warning(flags: tuple[str, ...], warned: list[str], tmp_path: Path) -> None:
    lines = run(configured(tmp_path), *flags).stderr.splitlines()
    assert len(lines) == len(warned), lines
    for line, text in zip(lines, warned, strict=True):
        assert text in line


HOPS = {"envoy": {"client_address": {"trusted_hops": 2}}}


@pytest.mark.parametrize(
    ("changes", "flags", "hops", "warned"),
    [
        ({}, (), None, ""),
        (HOPS, (), 2, ""),
        (HOPS, ("--trusted-hops", "2"), 2, ""),
        (HOPS, ("--trusted-hops", "3"), 3, "envoy.client_address trusts 2: write envoy: {client_address: {trusted_hops: 3}}"),
        (
            {},
            ("--trusted-hops", "1"),
            1,
            "envoy.client_address is peer, so that the decision log names the last proxy: write envoy:",
        ),
        ({"envoy": {"client_address": "x-envoy-external-address"}}, ("--trusted-hops", "1"), 1, ""),
        ({"envoy": {"client_address": "x-envoy-external-address"}}, (), None, ""),
    ],
)
def test_envoy_and_the_decision_log_trust_the_same_proxies(
    changes: dict[str, Any], flags: tuple[str, ...], hops: int | None, warned: str, tmp_path: Path
) -> None:
    result = run(configured(tmp_path, **changes), "--part", "manager", *flags)
    assert yaml.safe_load(result.stdout).get("xff_num_trusted_hops") == hops
    assert (warned in result.stderr) if warned else result.stderr == ""


def test_the_name_for_tls_is_that_of_the_certificate(tmp_path: Path, certificates: Path) -> None:
    file, flags = file_and_flags(tmp_path, WANTED["tls"], certificates)
    context = yaml.safe_load(printed(file, *flags, "--part", "cluster"))[0]["transport_socket"]["typed_config"]
    assert context["sni"] == "localhost"
    assert context["common_tls_context"]["alpn_protocols"] == ["h2"]
    assert "tls_certificates" not in context["common_tls_context"]
    named = yaml.safe_load(printed(file, *flags, "--part", "cluster", "--tls-name", "checks.acme.com"))[0]
    names = named["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
    assert names == [{"san_type": "DNS", "matcher": {"exact": "checks.acme.com"}}]


@pytest.mark.parametrize("value", ["on", "y", "null", "1e3", "0x1f", "1.5", "::1", "a b", 'a"b', "/a: b", "~", "localhost", "a.b"])
def test_a_text_stays_a_text(value: str) -> None:
    assert yaml.safe_load(f"[{scalar(value)}]") == [value]


# Alive


Found = Callable[[Reply], dict[str, Any]]


def test_envoy_rejects_encoded_slashes_unless_a_route_takes_them(tmp_path: Path) -> None:
    """Nothing else of the connection manager changes."""
    manager = manager_of(printed(configured(tmp_path)))
    assert manager["path_with_escaped_slashes_action"] == "REJECT_REQUEST"
    routes = 'routes: [{match: "GET /projects/{id}", public: true, encoded_slashes: true, name: NAME}]'
    other = manager_of(printed(configured(tmp_path, hosts=("api.acme.com",), others=False, routes=routes)))
    assert other["path_with_escaped_slashes_action"] == "KEEP_UNCHANGED"
    assert manager["normalize_path"] is other["normalize_path"] is True


def test_the_sidecar_and_envoy_agree_on_a_loaded_configuration(tmp_path: Path) -> None:
    loaded = load(configured(tmp_path, hosts=("a.acme.com",), others=False, server={"max_in_flight": 7}))
    told = sidecar_of(loaded, tls=Tls(name="a", authority="/ca"))
    assert told.addresses == (Address(host="127.0.0.1", port=9001),)
    assert (told.max_in_flight, told.identity) == (7, loaded.policy.identity)
    assert domains_of(loaded) == ("a.acme.com",)
