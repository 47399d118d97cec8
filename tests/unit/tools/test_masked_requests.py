"""What of a request is known to be a secret is hidden wherever it occurs; of what other people wrote words are shown."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.config.patterns import parse_match
from extauthz.core.policy import Policy
from extauthz.core.routes import Route, compile_routes
from extauthz.tools.calls import PLACEHOLDER
from extauthz.tools.masking import HIDDEN, Mask, mask_of, shown_record

SECRET, ODD, SHORT = "correct-horse-battery", "corrEct horse", "horse+12"
"""Nothing of them has the form of a token."""


@pytest.mark.parametrize(
    ("headers", "path", "hidden", "shown"),
    [
        # (headers, path) of a request, and parts of texts about it
        ({"authorization": f"Bearer {SECRET}"}, "", [SECRET, f"Bearer {SECRET}"], ["bearer", "horse"]),
        ({"proxy-authorization": f"Bearer {SECRET}"}, "", [SECRET], ["horse"]),
        ({"authorization": f"Basic {SHORT}"}, "", [SHORT], ["horse", "Basic"]),
        ({"authorization": "Basic horse+1"}, "", [], ["horse+1"]),
        ({"authorization": quote(SECRET, safe="").replace("-", "%2D")}, "", [SECRET, SECRET.replace("-", "%2D")], []),
        ({"authorization": f'Digest user="{SECRET}", "another-word"'}, "", [SECRET, "another-word"], ["Digest", "user"]),
        ({"authorization": f"Bearer {PLACEHOLDER}"}, "", [], [PLACEHOLDER]),
        ({"cookie": f"session={SECRET}; theme=a-dark-one"}, "", [SECRET], ["a-dark-one", "session"]),
        ({"cookie": "session=sixteen-letters-"}, "", ["sixteen-letters-"], []),
        ({"cookie": "session=fifteen-letters"}, "", [], ["fifteen-letters"]),
        ({}, f"/a?access_token={SECRET}&page=2", [SECRET], ["/a", "access_token", "page=2"]),
        ({}, f"/a?t={SECRET.replace('-', '%2D')}", [SECRET, SECRET.replace("-", "%2D")], ["/a"]),
        ({}, f"/a?next=/b?t={SECRET}&page=2?3", [SECRET], ["/a", "/b", "page=2"]),
        ({}, f"/{SECRET}/a?page=2", [], [SECRET]),
        ({}, f"/{SECRET}/a", [], [SECRET]),
        ({"x-request-id": SECRET, "authorization": "Bearer another-secret"}, "", ["another-secret"], [SECRET]),
    ],
)
def test_what_a_request_holds_is_hidden_wherever_it_occurs(
    headers: Mapping[str, str], path: str, hidden: list[str], shown: list[str]
) -> None:
    mask = mask_of(headers, path)
    for part in hidden:
        text = f"refused {part}, because {part} is unknown"
        assert mask.tokens(text) == mask(text) == f"refused {HIDDEN}, because {HIDDEN} is unknown"
    for part in shown:
        text = f"refused {part}, because {part} is unknown"
        assert mask.tokens(text) == mask(text) == text


def test_secrets_that_are_named_beside_a_request_are_hidden_too() -> None:
    mask = mask_of({"authorization": "Bearer another-secret"}, "", [SECRET, "short"])
    assert mask.tokens(f"{SECRET} another-secret short") == f"{HIDDEN} {HIDDEN} short"


def test_of_a_secret_within_another_nothing_is_left_over() -> None:
    mask = mask_of({"authorization": f"Bearer {SECRET} {SECRET}-staple {SECRET}-staple-and-more"})
    assert mask.tokens(f"{SECRET}-staple-and-more {SECRET}-staple {SECRET}") == " ".join([HIDDEN] * 3)
    assert mask.tokens(f"{SECRET}-staple {SECRET}") == f"{HIDDEN} {HIDDEN}"


def test_a_mask_is_no_place_to_read_secrets_from() -> None:
    mask = mask_of({"authorization": f"Bearer {SECRET}"})
    assert SECRET in mask.secrets
    assert repr(mask) == f"Mask({len(mask.secrets)})"


def test_plain_data_is_masked_in_every_text_and_every_name() -> None:
    mask = mask_of({"authorization": f"Bearer {SECRET}"})
    document = {
        SECRET: [SECRET, ("a", f"b {SECRET}"), {"name": SECRET}],
        "count": 3,
        "none": None,
        "is_over": True,
        "share": 0.5,
    }
    assert mask.document(document) == {
        HIDDEN: [HIDDEN, ["a", f"b {HIDDEN}"], {"name": HIDDEN}],
        "count": 3,
        "none": None,
        "is_over": True,
        "share": 0.5,
    }


LONGEST_SHOWN, LONG = "a1" * 10, "a1" * 12
UUID = "6f1c2f0e-8d2b-4b6e-9a53-0d8c7e0b7a11"


@pytest.mark.parametrize(
    ("text", "is_hidden"),
    [
        (LONGEST_SHOWN, False),
        ("a1" * 10 + "b", True),
        ("a" * 40, False),
        ("1" * 20, False),
        ("1" * 40, True),
        (UUID, True),
        (UUID.upper(), True),
        (UUID + "0", True),
        (f"x{UUID}", True),
        ("getDocumentPermissionsById", False),
        ("getDocumentPermissionsByIdV2", True),
    ],
)
def test_a_long_run_of_letters_and_digits_that_somebody_else_wrote_is_hidden(text: str, is_hidden: bool) -> None:
    for form in ("{}", "see {}, they said", "/a/{}/b"):
        assert Mask()(form.format(text)) == form.format(HIDDEN if is_hidden else text)
    assert Mask().tokens(text) == text


OF_A_TOKEN = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=",;&=:\"'%[]")


@given(st.text(), st.text(OF_A_TOKEN, min_size=8).filter(lambda secret: secret != PLACEHOLDER), st.text())
def test_no_credential_is_shown_whatever_stands_around_it(before: str, secret: str, behind: str) -> None:
    shown = mask_of({"authorization": f"Bearer {secret}"}).tokens(f"{before}{secret}{behind}")
    assert secret not in shown


def test_what_the_routes_of_every_host_are_called_is_shown() -> None:
    own, other, line = "searchOfDocuments2026ByAna01", "chatOfTheWholeCompany2026x1", "peopleByDepartment2026AndName9"
    tables = [compile_routes([Route(name, parse_match(f"GET /{line}"), ("S",))]) for name in (own, other)]
    mask = Mask().of(Policy(tables[0], {"chat.acme.com": tables[1]}))
    text = f"{own} {other} /{line}"
    assert mask(text) == text
    assert mask(f"{own}0 /{line}/{other}0") == f"{HIDDEN} /{line}/{HIDDEN}"
    assert Mask()(text) == f"{HIDDEN} {HIDDEN} /{HIDDEN}"


def test_of_a_record_only_what_a_client_chose_is_looked_at() -> None:
    record = {"decision_id": "7bc9ebf6868218883a8d1d1c05171de8", "status": 403, "method": LONGEST_SHOWN, "user": None, "path": 5}
    assert shown_record(record) == record
    assert shown_record({"method": LONG, "path": f"/a/{LONG}", "user": f"{LONG}@acme.com"}) == {
        "method": HIDDEN,
        "path": f"/a/{HIDDEN}",
        "user": f"{HIDDEN}@acme.com",
    }
