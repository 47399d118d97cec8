"""Suite files: what they say, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.config.loader import Configuration, load
from extauthz.core.credentials import Kind
from extauthz.core.model import Identity, Reason
from extauthz.errors import ConfigurationError
from extauthz.tools.suite_cases import MAX_EACH, Suite, files_of, read_suites, unwired, wire
from tests.support.command_line import configured

BROKEN: dict[str, list[str]] = {
    "": ["1: write a mapping with the key cases, like cases: [{request: GET /items/7, who: nobody, expect: deny}]"],
    "- a\n": ["1: write a mapping with the key cases, like cases: [{request: GET /items/7, who: nobody, expect: deny}]"],
    "people: {}\n": ["1: cases: is missing: write it, like cases: [{request: GET /items/7, who: nobody, expect: deny}]"],
    "cases: []\n": ["1: cases: is empty: name at least one"],
    "cases:\n": ["1: cases: has no value: write one, like cases: [{request: GET /items/7, who: nobody, expect: deny}]"],
    "cases: [{request: GET /a, expect: deny}]\nperson: {}\n": [
        "2: person: unknown key: the keys here are people, host, time, cases",
    ],
    "cases:\n  - {reqest: GET /a, expect: deny}\n": ["2: cases[0].reqest: unknown key, did you mean 'request'?"],
    "cases: [{request: GET /a, expect: deny}]\npeopel: {}\n": ["2: peopel: unknown key, did you mean 'people'?"],
    "cases:\n  - {expect: deny}\n": ["2: cases[0].request: is missing: write it, like request: GET /items/7"],
    "cases:\n  - {request: GET /a}\n": ["2: cases[0].expect: is missing: write it, like expect: allow"],
    "cases:\n  - {request: GET /a, expect: alow}\n": [
        "2: cases[0].expect: unknown decision or reason 'alow', did you mean 'allow'?"
    ],
    "cases:\n  - {request: GET /a, expect: x}\n": [
        "2: cases[0].expect: unknown decision or reason 'x': write allow, deny, or a reason like scope_missing"
    ],
    "cases:\n  - {request: GET /a, expect: {}}\n": ["2: cases[0].expect: is empty: write what you expect, like expect: allow"],
    "cases:\n  - {request: GET /a, expect: {decison: deny}}\n": [
        "2: cases[0].expect.decison: unknown key, did you mean 'decision'?",
    ],
    "cases:\n  - {request: GET /a, expect: {decision: refuse}}\n": [
        "2: cases[0].expect.decision: write 'allow', 'deny' or 'would_deny', not 'refuse'"
    ],
    "cases:\n  - {request: GET /a, expect: {reason: scope_mising}}\n": [
        "2: cases[0].expect.reason: unknown reason 'scope_mising', did you mean 'scope_missing'?"
    ],
    "cases:\n  - {request: GET /a, expect: {public_reason: token_revoked}}\n": [
        "2: cases[0].expect.public_reason: no client is told 'token_revoked', it is told 'token_invalid'"
    ],
    "cases:\n  - {request: GET /a, expect: {reason: }}\n": [
        "2: cases[0].expect: reason has no value: write one, or leave the key out"
    ],
    "cases:\n  - {request: GET /a, expect: {status: '403'}}\n": ["2: cases[0].expect.status: write a whole number, not '403'"],
    "cases:\n  - {request: GET /a, expect: {decision: deny, headers: {a: b}}}\n": [
        "2: cases[0].expect: headers is what the upstream gets, and a refused request has none: leave it out"
    ],
    "cases:\n  - {request: GET /a, expect: {decision: allow, body: x}}\n": [
        "2: cases[0].expect: body is what a refusal tells the client: leave it out"
    ],
    "cases:\n  - {request: GET /a, expect: {body: [x]}}\n": [
        "2: cases[0].expect.body: write the whole body as text, or the members of its JSON as a mapping"
    ],
    "cases:\n  - {request: GET /a, expect: {absent: []}}\n": [
        "2: cases[0].expect.absent: is empty: name at least one, or leave the key out"
    ],
    "cases:\n  - {request: GTE /a, expect: deny}\n": ["2: cases[0].request: 'GTE' is no method, did you mean 'GET'?"],
    "cases:\n  - {request: /a, expect: deny}\n": [
        "2: cases[0].request: '/a' is no method: write a method in upper case, one space and a path, like GET /items/7"
    ],
    "cases:\n  - {request: 'GET ', expect: deny}\n": [
        "2: cases[0].request: 'GET ': write a method, one space and a path, like GET /items/7"
    ],
    "cases:\n  - {request: GET /a, who: ann, expect: deny}\npeople: {anna: nobody}\n": [
        "2: cases[0].who: nobody here is called 'ann', did you mean 'anna'?"
    ],
    "cases:\n  - {request: GET /a, who: ann, expect: deny}\n": [
        "2: cases[0].who: nobody here is called 'ann': define it in `people`, or write a caller like 'GLOBAL scopes=SEARCH'",
    ],
    "cases:\n  - {request: GET /a, who: GLOBAL scopes=SERCH, expect: deny}\n": [
        "2: cases[0].who: unknown scope 'SERCH', did you mean 'SEARCH'?"
    ],
    "people: {ana: USER user=ana}\ncases:\n  - {request: GET /a, who: ana, expect: deny}\n": [
        "1: people.ana: USER needs scopes: write scopes=SEARCH,CHAT, or scopes=* for all"
    ],
    "people: {user of ours: nobody}\ncases:\n  - {request: GET /a, expect: deny}\n": [
        "1: people.'user of ours': 'user' begins a caller in words: choose another name"
    ],
    "cases:\n  - {request: GET /a, time: soon, expect: deny}\n": [
        "2: cases[0].time: 'soon' is not a time: write one like 2027-01-31T12:00:00Z"
    ],
    "time: soon\ncases:\n  - {request: GET /a, expect: deny}\n": [
        "1: time: 'soon' is not a time: write one like 2027-01-31T12:00:00Z"
    ],
    "cases:\n  - {request: GET /a, headers: {a b: x}, expect: deny}\n": ["2: cases[0].headers.'a b': 'a b' is no name of a header"],
    "cases:\n  - {request: GET /a, headers: {A: x, a: x}, expect: deny}\n": [
        "2: cases[0].headers: the header 'a' is written twice: keep one, with a comma between its values"
    ],
    "cases:\n  - {request: GET /a, act_as: a@b.example, headers: {X-Scio-ActAs: a@b.example}, expect: deny}\n": [
        "2: cases[0].headers.x-scio-actas: is the header of `act_as`, which is written too: keep one"
    ],
    "cases:\n  - {request: GET /a, headers: {authorization: 'Bearer ${token}'}, expect: deny}\n": [
        "2: cases[0].headers: nobody sends a token: write `who` beside ${token}"
    ],
    "cases:\n  - {request: GET /a, who: GLOBAL scopes=*, headers: {authorization: Bearer x}, expect: deny}\n": [
        "2: cases[0].headers.authorization: `who` sends a token: write ${token} in its place, or leave one of the two out"
    ],
    "cases:\n  - {request: GET /a, each: {who: []}, expect: deny}\n": [
        "2: cases[0].each.who: is empty: name at least one, or leave the key out"
    ],
    "cases:\n  - {request: GET /a, each: {path: [a, b]}, expect: deny}\n": [
        "2: cases[0].each.path: no text of the case says ${path}: write it where it belongs"
    ],
    "cases:\n  - {request: GET /a, each: {request: [GET /b]}, expect: deny}\n": [
        "2: cases[0].request: stands in `each` as well: write request once"
    ],
    "cases:\n  - {request: 'GET /${pth}', each: {path: [a]}, headers: {a: '${path}'}, expect: deny}\n": [
        "2: cases[0].request: unknown variable ${pth}, did you mean 'path'?"
    ],
    "cases:\n  - {request: 'GET /${a', expect: deny}\n": [
        "2: cases[0].request: '${' begins a variable, like ${reason}: close it with '}', or write '$${' for these characters"
    ],
    "cases:\n  - {request: GET /a, each: {a b: [x]}, expect: deny}\n": [
        "2: cases[0].each.'a b': 'a b' is no name of a variable: write letters, digits and '_', a letter first"
    ],
    "cases:\n  - {request: GET /a, each: {why: [scope_mising]}, expect: '${why}'}\n": [
        "2: cases[0].expect.reason: unknown reason 'scope_mising', did you mean 'scope_missing'?"
    ],
    "cases:\n  - {request: GET /a, expect: deny}\n  - {request: GET /b, request: GET /c, expect: deny}\n": [
        "3: cases[1].request: duplicate key, first in line 3"
    ],
    "cases: [\n": ["2: not YAML: write a value before every comma, and close every bracket and brace"],
}
"""What is wrong in a file, and everything that is said about it, without the name of the file."""


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return load(configured(tmp_path) / "extauthz.yaml")


def suite_of(text: str, configuration: Configuration) -> Suite:
    file = configuration.file.parent / "suite.yaml"
    file.write_text(text)
    (suite,) = read_suites([file], configuration)
    return suite


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_wrong_is_said_with_its_line_and_a_hint(text: str, configuration: Configuration) -> None:
    with pytest.raises(ConfigurationError) as caught:
        suite_of(text, configuration)
    found = [str(problem).removeprefix(f"{configuration.file.parent / 'suite.yaml'}:") for problem in caught.value.problems]
    assert [message.partition(" (")[0] for message in found] == BROKEN[text]


def test_ten_errors_are_ten_messages(configuration: Configuration) -> None:
    broken = [text for text in BROKEN if text.startswith("cases:\n  - {request: GET /a, expect: {")][:9]
    lines = "".join(text.partition("\n")[2] for text in broken)
    with pytest.raises(ConfigurationError) as caught:
        suite_of(f"person: {{}}\ncases:\n{lines}", configuration)
    assert [problem.line for problem in caught.value.problems] == [1, *range(3, 12)]


def test_an_each_that_makes_too_many_cases_is_refused_before_it_makes_them(configuration: Configuration) -> None:
    many = ", ".join("a" for _ in range(50))
    each = ", ".join(f"{name}: [{many}]" for name in "abc")
    assert MAX_EACH < 50**3
    with pytest.raises(ConfigurationError, match=r"cases\[0\].each: makes 125,000 cases, and 100,000 are the most: write fewer"):
        suite_of(f"cases:\n  - {{request: 'GET /${{a}}${{b}}${{c}}', each: {{{each}}}, expect: deny}}\n", configuration)


def test_each_is_a_cross_product_in_the_order_of_its_lists(configuration: Configuration) -> None:
    suite = suite_of(
        """
people: {ana: USER user=Ana@acme.com scopes=CHAT, bob: nobody}
host: api.acme.com
time: 2027-01-31
cases:
  - each: {method: [GET, POST], who: [ana, bob]}
    request: ${method} /search?of=${who}
    headers: {X-Who: "${who}"}
    expect: {decision: deny, headers: {}}
  - {request: GET /b, who: "oauth reason=token_issuer", host: other, time: "2027-01-31T01:00:00+01:00", expect: token_issuer}
""".replace(", headers: {}}", "}"),
        configuration,
    )
    *product, last = suite.cases
    assert [(case.label, case.call.method, case.call.path, case.call.headers["x-who"]) for case in product] == [
        ("cases[0][0][0]", "GET", "/search?of=ana", "ana"),
        ("cases[0][0][1]", "GET", "/search?of=bob", "bob"),
        ("cases[0][1][0]", "POST", "/search?of=ana", "ana"),
        ("cases[0][1][1]", "POST", "/search?of=bob", "bob"),
    ]
    assert [case.name for case in product[:2]] == ["GET /search?…, as ana", "GET /search?…, as bob"]
    assert isinstance(ana := product[0].call.caller.evidence, Identity)
    assert (ana.user, ana.scopes, product[1].call.caller.kind) == ("ana@acme.com", {"CHAT"}, None)
    assert {(case.line, case.call.host, case.now) for case in product} == {(6, "api.acme.com", 1801353600.0)}
    assert (last.line, last.call.host, last.now, last.expected) == (10, "other", 1801353600.0, {"reason": "token_issuer"})
    assert (last.call.caller.kind, last.call.caller.evidence) == (Kind.OAUTH, Reason.TOKEN_ISSUER)


def test_dollars_that_begin_no_variable_stay(configuration: Configuration) -> None:
    (case,) = suite_of("cases:\n  - {request: 'GET /a$b$${c}', who: nobody, expect: deny}\n", configuration).cases
    assert case.call.path == "/a$b${c}"


def test_suites_of_a_folder_are_read_in_order_and_once(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c/d.yaml", "requests.sh", "c/e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [str(file.relative_to(tmp_path)) for file in files_of([tmp_path / "b.yaml", tmp_path])] == [
        "b.yaml",
        "a.yml",
        "c/d.yaml",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="empty: no suite is here: `extauthz test --init` writes one"):
        files_of([tmp_path / "empty"])


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_is_read_back_as_it_was_sent(text: str) -> None:
    assert unwired(wire(text)) == text
