"""What a suite says of each part of an answer: every expectation can fail, and only what is written is compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from xmlschema import XMLSchema

from extauthz.config.loader import Configuration, load
from extauthz.tools.suite_cases import read_suites
from extauthz.tools.suite_junit import FileResults, described, junit_of
from extauthz.tools.suite_runs import Result, Runner
from tests.support import vectors
from tests.support.documents import CONFIG, EXAMPLE
from tests.support.project import TESTS
from tests.support.world import NOW

ROUTES = [{"match": "GET /a", "scope": "CHAT", "name": "chats"}, {"match": "GET /public", "public": True}]
ALLOWED = "request: GET /a, who: GLOBAL scopes=CHAT token=abc, act_as: ana@acme.com, headers: {x-a: b, x-b: é}"
REFUSED = "request: GET /a, who: GLOBAL scopes=SEARCH, act_as: ana@acme.com"
PASS = [
    (ALLOWED, "allow"),
    (ALLOWED, "allowed"),
    (ALLOWED, "{decision: allow, reason: allowed, status: 200, route: chats, user: ana@acme.com}"),
    (ALLOWED, "{headers: {x-extauthz-actor: 'token:abc', X-A: b, x-b: é, x-extauthz-decision-id: '${decision_id}'}}"),
    (ALLOWED, "{absent: [Authorization, x-scio-actas]}"),
    (REFUSED, "deny"),
    (REFUSED, "scope_missing"),
    (REFUSED, "{public_reason: scope_missing, status: 403, route: chats, user: ana@acme.com}"),
    (REFUSED, "{body: {error: insufficient_scope, scope: CHAT}, response_headers: {Cache-Control: no-store}}"),
    ("request: GET /x", "{reason: route_unknown, route: null, user: null}"),
    ("request: GET /a, who: USER reason=token_revoked", "{reason: token_revoked, public_reason: token_invalid, status: 401}"),
    ("request: GET /public, headers: {authorization: Bearer x, cookie: c}", "{reason: public, headers: {cookie: c}}"),
]
FAIL = {
    (ALLOWED, "deny"): "decision: expected deny, found allow",
    (ALLOWED, "scope_missing"): "reason: expected scope_missing, found allowed",
    (ALLOWED, "{status: 403}"): "status: expected 403, found 200",
    (ALLOWED, "{route: other}"): "route: expected other, found chats",
    (ALLOWED, "{user: null}"): "user: expected nothing, found ana@acme.com",
    (ALLOWED, "{public_reason: scope_missing}"): "public_reason: expected scope_missing, found nothing",
    (ALLOWED, "{headers: {x-a: c}}"): "headers.x-a: expected c, found b",
    (ALLOWED, "{headers: {x-c: ''}}"): "headers.x-c: expected '', found nothing",
    (ALLOWED, "{absent: [x-a]}"): "headers.x-a: expected nothing, found b",
    (ALLOWED, "{body: x}"): "body: expected x, found nothing",
    (ALLOWED, "{response_headers: {a: b}}"): "response_headers: expected {a: b}, found nothing",
    (REFUSED, "allow"): "decision: expected allow, found deny",
    (REFUSED, "{headers: {x-a: b}}"): "headers: expected {x-a: b}, found nothing",
    (REFUSED, "{absent: [x-c]}"): "absent: expected [x-c], found nothing",
    (REFUSED, "{body: {scope: SEARCH}}"): "body.scope: expected SEARCH, found CHAT",
    (REFUSED, "{body: no}"): 'body: expected no, found {"error": "insufficient_scope"',
    (REFUSED, "{response_headers: {cache-control: private}}"): "response_headers.cache-control: expected private, found no-store",
}
ISSUED = "glean_4fK2pQ9sXb1Z_" + "Zk4vX8bQ1nT6yR3mW7cJ5hD2gF9sL0pA4uE8iO6qB1rM3tY5x"
SECRETS = [
    ISSUED,
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbmEifQ.c2lnbmF0dXJl",
    "gho_16C7e42F292c6912E7710c838347Ae178B4a",
    "9f86d081884c7d659a2feaa0c55ad015",
]


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Configuration:
    return vectors.build(tmp_path_factory.mktemp("runs"), {"routes": ROUTES}, {}).world.configuration


def results_of(text: str, configuration: Configuration) -> list[Result]:
    file = configuration.file.parent / "suite.yaml"
    file.write_text(text, encoding="utf-8")
    (suite,) = read_suites([file], configuration)
    return list(Runner(configuration, NOW).run(suite.cases))


@pytest.mark.parametrize(("case", "expect"), PASS)
def test_what_is_as_expected_passes(case: str, expect: str, configuration: Configuration) -> None:
    (result,) = results_of(f"cases: [{{{case}, expect: {expect}}}]\n", configuration)
    assert result.passed, result.differences


@pytest.mark.parametrize(("case", "expect"), FAIL)
def test_what_is_not_as_expected_is_told(case: str, expect: str, configuration: Configuration) -> None:
    (result,) = results_of(f"cases: [{{{case}, expect: {expect}}}]\n", configuration)
    (difference,) = result.differences
    assert described(difference).startswith(FAIL[case, expect])


def test_the_time_of_a_case_comes_before_that_of_the_run(configuration: Configuration) -> None:
    case = "request: GET /a, who: USER user=ana@acme.com scopes=CHAT expires=2027-01-15T08:00:00Z"
    results = results_of(
        f"cases:\n  - {{{case}, expect: token_expired}}\n  - {{{case}, time: 2027-01-15T07:59:59Z, expect: allow}}\n", configuration
    )
    assert [result.passed for result in results] == [True, True]


def test_a_token_that_nobody_described_is_an_error_and_no_refusal(configuration: Configuration) -> None:
    (result,) = results_of("cases: [{request: GET /a, headers: {authorization: Bearer x}, expect: deny}]\n", configuration)
    assert (result.passed, result.decision) == (False, None)
    assert result.error == "tokens are not verified here: say in `who` whose token it is, and write ${token} in its place"


def test_an_answer_of_a_company_is_the_one_that_clients_get(tmp_path: Path) -> None:
    settings = yaml_with(EXAMPLE.read_text(), "  # reasons: {route_unknown", "  reasons: {route_unknown")
    (tmp_path / "routes").mkdir()
    (tmp_path / "routes" / "glean-client-api.yaml").write_text((CONFIG / "routes" / "glean-client-api.yaml").read_text())
    (tmp_path / "extauthz.yaml").write_text(settings)
    expect = "{reason: route_denied, status: 404, body: Not here., response_headers: {x-api: extauthz}}"
    case = f"cases: [{{request: POST /rest/api/v1/createauthtoken, expect: {expect}}}]\n"
    (result,) = results_of(case, load(tmp_path / "extauthz.yaml"))
    assert result.passed, result.differences


def yaml_with(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize("secret", SECRETS)
def test_junit_is_valid_and_holds_no_token(secret: str, configuration: Configuration) -> None:
    text = f"""
cases:
  - {{request: GET /a, who: nobody, expect: deny}}
  - name: "by {secret} \\a\\u2028\\U0001F600 <&>"
    request: GET /public
    headers: {{x-a: {secret}}}
    expect: {{headers: {{x-a: b}}}}
  - {{request: "GET /a/{secret}?access_token={secret}", expect: allow}}
  - {{request: GET /a, headers: {{authorization: Bearer {secret}}}, expect: deny}}
"""
    results = results_of(text, configuration)
    assert [result.passed for result in results] == [True, False, False, False]
    document = junit_of([FileResults(f"suites/{ISSUED}.yaml", results, 0.1234)], NOW)
    schema = XMLSchema(TESTS / "data" / "junit.xsd")
    schema.validate(document.decode())
    root = schema.to_dict(document.decode())
    assert (root["@tests"], root["@failures"], root["@errors"]) == (4, 2, 1)
    (suite,) = root["testsuite"]
    assert [set(case) & {"failure", "error"} for case in suite["testcase"]] == [set(), {"failure"}, {"failure"}, {"error"}]
    for part in (secret, ISSUED, *secret.split("."), *secret.split("_")[2:]):
        assert part.encode() not in document
