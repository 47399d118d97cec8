"""No text that a tool prints holds a token, and names of an API stay readable."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import re
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.admin import token_search
from extauthz.cli.decision_lines import decision_line
from extauthz.cli.refusals import EVER, RefusalReport
from extauthz.cli.terminal import Styled
from extauthz.core import tokens
from extauthz.core.credentials import AUTHORIZATION
from extauthz.tools import masking
from extauthz.tools.log_lines import read_record
from extauthz.tools.masking import HIDDEN, PLACEHOLDER, Mask, mask_of, shown_record
from extauthz.tools.replay import Replay
from extauthz.tools.replay_report import ReplayReport
from tests.support.compared import configuration
from tests.support.pasted_tokens import PASTED, is_shown, issued

READABLE = [
    "/rest/api/v1/getDocumentPermissionsById",
    "/rest/api/v1/getdocumentvisibility",
    "GET /rest/api/v1/{documentIdentifier}/permissionsOfCollection/**",
    "/files/annual-report-2026-final-version.pdf",
    "oauth:okta:00u1exampleABC",
    "/users/10820426803331137451/items",
    "SEARCH_ALL_DOCUMENTS_OF_EVERYBODY",
    "route_unknown",
]
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYS0xIn0.eyJpc3MiOiJodHRwczovL2FjbWUifQ.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
PLACES = ["/a/{}", "/a/{}/b", "/a?access_token={}", "/a?q=1&t={}", "{}", "x={}; y", "/a/prefix-{}", "{} {}", "'{}'", "[{}]"]


@pytest.mark.parametrize("text", READABLE)
def test_names_stay(text: str) -> None:
    assert Mask()(text) == text


@pytest.mark.parametrize("secret", [JWT.partition(".")[2], JWT.replace(".", "%2E"), JWT.replace(".", "%252E"), "a" * 41, "1" * 21])
def test_parts_of_tokens_and_encoded_ones_do_not(secret: str) -> None:
    shown = Mask()(f"/a/{secret}/b")
    assert HIDDEN in shown
    assert not is_shown(secret, shown)


@given(PASTED, st.sampled_from(PLACES), st.sampled_from(["_", "%5F", "%255F"]))
def test_no_token_of_any_family_is_shown_anywhere(secret: str, place: str, underscore: str) -> None:
    shown = Mask()(place.replace("{}", secret.replace("_", underscore)))
    assert not is_shown(secret, shown)
    assert HIDDEN in shown


@given(issued(), st.sampled_from(PLACES), st.integers(0, 40))
def test_no_issued_token_is_shown_even_if_it_is_cut(text: str, place: str, cut: int) -> None:
    """What is left of it has its secret part, or a piece of that."""
    assert text.split("_")[2][:8] not in Mask()(place.replace("{}", text[: len(text) - cut]))


@given(st.binary(min_size=33, max_size=64))
def test_no_random_text_in_base64url_is_shown(data: bytes) -> None:
    text = base64.urlsafe_b64encode(hashlib.sha256(data).digest() + data).rstrip(b"=").decode()
    assert text not in Mask()(f"/a/{text}")


@given(PASTED, st.sampled_from(["path", "method", "user"]), st.sampled_from(["{}", "/x/{}", "{}@acme.com", "/a?t={}"]))
def test_no_tool_that_reads_decisions_shows_what_a_client_pasted(secret: str, name: str, form: str) -> None:
    """Where the log has it: it writes down paths, methods, and whom a request was made for."""
    fields = {"decision": "deny", "reason": "route_unknown", "method": "GET", "path": "/x", "user": "ana@acme.com", "time": 1.8e9}
    record = fields | {name: form.replace("{}", secret)}
    line = json.dumps(record).encode()
    replayed = ReplayReport(Replay(configuration([]).policy))
    replayed.add(line)
    by_user = RefusalReport(by=("user",))
    by_user.add(line, *EVER)
    texts = [part.text if isinstance(part, Styled) else part for part in decision_line(read_record(record), None)]
    shown = (
        repr(replayed.changed) + repr(replayed.undecidable) + repr(by_user.ordered()) + "".join(texts) + repr(shown_record(record))
    )
    assert not is_shown(secret, shown)


def test_what_the_configuration_says_itself_is_shown() -> None:
    name = "getDocumentPermissionsByIdV2"
    routes = [
        {"match": f"GET /rest/{name}/{{id}}", "scope": "SEARCH"},
        {"match": "GET /x", "name": f"{name}OfAll", "scope": "CHAT"},
    ]
    mask = mask_of({AUTHORIZATION: "Bearer 0a1b2c3d4e5f"}).of(configuration(routes).policy)
    text = f"GET /rest/{name}/7 {name}OfAll {name}3 0a1b2c3d4e5f"
    assert mask(text) == f"GET /rest/{name}/7 {name}OfAll {HIDDEN} {HIDDEN}"


def test_words_are_shown_beside_hidden_tokens() -> None:
    token = tokens.mint("glean", bytes(range(tokens.ENTROPY_BYTES))).text
    text = f"get_organization_members of a {PLACEHOLDER} caller"
    assert mask_of({AUTHORIZATION: f"Bearer {PLACEHOLDER}"}).tokens(text) == text
    assert mask_of({}).tokens(f"{text}: {token}") == f"{text}: {HIDDEN}"


@pytest.mark.parametrize("module", [masking, token_search])
def test_no_look_ahead_reads_on_without_a_bound(module: ModuleType) -> None:
    """One that reads to the end of a run from each of its letters is quadratic, in the loop of the console."""
    patterns = [each for each in vars(module).values() if isinstance(each, re.Pattern)]
    assert patterns != []
    parser = importlib.import_module("re._parser")
    assert [width for each in patterns for width in look_ahead_widths(parser.parse(each.pattern)) if width > 200] == []


PARTS = ["get_", "organization_", "glean_", "4fK2pQ9sXb1Z_", "hVb", "eyJ", " ", ".", "a", "_"]


@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join))
def test_what_has_the_form_of_a_token_is_hidden_unless_it_is_of_words(text: str) -> None:
    form = r"(?=\w*[0-9A-Z])[a-z][a-z0-9]{0,15}_[0-9A-Za-z]{12}_[0-9A-Za-z]*"
    assert Mask().tokens(text) == re.sub(rf"{form}|eyJ[0-9A-Za-z_-]{{4,}}(?:\.[0-9A-Za-z_-]*)*", HIDDEN, text)


def look_ahead_widths(parsed: Any) -> list[int]:
    """Return how many letters each assertion of a parsed pattern reads at most."""
    widths = []
    for operation, argument in parsed:
        for part in argument if isinstance(argument, tuple) else (argument,):
            for inner in part if operation.name == "BRANCH" and isinstance(part, list) else (part,):
                if not hasattr(inner, "getwidth"):
                    continue
                if operation.name.startswith("ASSERT"):
                    widths.append(inner.getwidth()[1])
                widths += look_ahead_widths(inner)
    return widths
