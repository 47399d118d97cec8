"""What holds where nobody says anything: the values that stand for what a caller leaves out, and what a repr shows."""

from __future__ import annotations

import re

import pytest

from extauthz.core import act_as, paths
from extauthz.core.act_as import ActAs
from extauthz.core.credentials import Credential, Kind
from extauthz.core.identity import IdentityHeaders
from extauthz.core.jwt import Key
from extauthz.core.model import AuthType, HeaderEdits, Identity, Request

RULES = ActAs(allow=re.compile("[^@]*@acme.com"))
KEY = Key("k", "RS256", "thumbprint", lambda signed, signature: signed == signature)


def test_what_a_request_shows_holds_no_credential() -> None:
    """Its path may hold a token in the query, and its headers do."""
    headers = {"authorization": "Bearer hunter2", "cookie": "session=hunter2"}
    shown = repr(Request("GET", "/a?access_token=hunter2", "api.acme.com", headers, True, "5eed" * 8))
    assert shown.startswith("Request(method='GET', host='api.acme.com', raw=True,")
    assert "hunter2" not in shown
    assert repr(Credential(Kind.OAUTH, "hunter2")) == "Credential(oauth)"


@pytest.mark.parametrize(
    ("thing", "fields"),
    [
        (KEY, ["id", "algorithm", "thumbprint"]),
        (RULES, ["headers", "allow", "deny"]),
        (IdentityHeaders(), ["prefix", "keep", "act_as", "overrides", "auth_type"]),
    ],
    ids=lambda part: type(part).__name__,
)
def test_what_follows_from_the_other_fields_is_not_shown(thing: object, fields: list[str]) -> None:
    assert re.findall(r"(\w+)=", repr(thing)) == fields


def test_what_is_kept_with_a_value_is_no_part_of_it() -> None:
    """Edits keep their serialised form, an identity its usual edits."""
    one, other = (HeaderEdits((("x-user", "ana@acme.com"),), ()) for _ in range(2))
    object.__setattr__(one, "encoded", "its bytes")
    assert one == other
    identity = Identity(AuthType.USER, "token:b", "ana@acme.com", frozenset(), 1.0)
    object.__setattr__(identity, "usual_edits", (None, one))
    assert re.findall(r"(\w+)=", repr(one)) == ["set", "remove"]
    assert re.findall(r"(\w+)=", repr(identity)) == ["auth_type", "actor", "user", "scopes", "expires_at", "client_id", "token_id"]


def test_rules_that_say_the_same_are_equal() -> None:
    """Each remembers addresses of its own."""
    assert ActAs(allow=re.compile("[^@]*@acme.com")) == RULES != ActAs()


@pytest.mark.parametrize("remembered", [RULES.permits, act_as._address, paths._remembered], ids=["act-as", "addresses", "paths"])
def test_what_is_remembered_of_what_clients_write_is_bounded(remembered: object) -> None:
    assert remembered.cache_info().maxsize == 4096  # type: ignore[attr-defined]


def test_a_request_has_nothing_that_it_does_not_bring() -> None:
    request = Request("GET", "/", "api.acme.com", {}, raw=True, decision_id="0" * 32)
    assert (request.traceparent, request.source, request.filtered) == ("", "", False)


def test_an_address_may_hold_an_exclamation_mark_unless_it_may_stand_for_another_byte() -> None:
    assert act_as.address("Ana!x@acme.com") == "ana!x@acme.com"
    assert act_as.address("Ana!x@acme.com", raw=False) is None
