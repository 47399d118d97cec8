"""The headers that answers name: those of the configuration, and none for OAuth where that is of no use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from extauthz.core.act_as import ACT_AS_HEADERS, ActAs
from extauthz.core.credentials import AuthTypes, Kind
from extauthz.core.identity import IdentityHeaders
from extauthz.core.model import Reason
from extauthz.core.policy import Policy
from extauthz.responses.client_headers import ClientHeaders, spelled

OWN = Policy(
    auth_types=AuthTypes("x-acme-kind", "sso"),
    act_as=ActAs(("x-acme-user", "x-other")),
    identity=IdentityHeaders("x-acme-"),
)


def test_by_default_the_sentences_are_those_of_the_reasons() -> None:
    assert ClientHeaders.of(Policy(), "OAUTH") == ClientHeaders()
    assert ClientHeaders().messages().items() <= {reason: reason.message for reason in Reason}.items()


def test_names_of_ones_own_are_named() -> None:
    headers = ClientHeaders.of(OWN, "Sso")
    assert headers == ClientHeaders("X-Acme-User", "X-Acme-Kind", "Sso", "x-acme-decision-id")
    texts = " ".join(headers.messages().values())
    assert not [name for name in ("Glean", "Scio", "OAUTH") if name in texts]
    assert headers.messages()[Reason.TOKEN_REVOKED].endswith("An OAuth access token needs the header X-Acme-Kind: Sso.")


def test_a_header_is_told_as_the_configuration_spells_it() -> None:
    headers = ClientHeaders.of(OWN, "Sso", ("X-ACME-User", "X-Acme-KIND", "X-Acme-User"))
    assert (headers.act_as, headers.auth_type) == ("X-ACME-User", "X-Acme-KIND")
    assert headers.messages()[Reason.ACT_AS_MISSING] == "Required header missing: X-ACME-User."


def test_of_several_act_as_headers_the_added_one_is_named() -> None:
    assert ClientHeaders.of(replace(OWN, act_as=ActAs((*ACT_AS_HEADERS, "on-behalf-of"))), "OAUTH").act_as == "On-Behalf-Of"


@pytest.mark.parametrize(
    ("policy", "is_advised"),
    [
        (Policy(), True),
        (Policy(kinds=frozenset({Kind.OAUTH})), True),
        (Policy(kinds=frozenset({Kind.ISSUED})), False),
        (Policy(auth_types=AuthTypes("", issued=("glean_",))), False),
    ],
)
def test_nobody_is_advised_in_vain(policy: Policy, is_advised: bool) -> None:
    messages = ClientHeaders.of(policy, "OAUTH").messages()
    advised = {reason for reason, text in messages.items() if "An OAuth access token needs" in text}
    assert advised == ({reason for reason in Reason if reason.public_name == "token_invalid"} if is_advised else set())


@pytest.mark.parametrize(
    ("name", "written", "told"),
    [
        ("x-scio-actas", (), "X-Scio-ActAs"),
        ("on-behalf-of", ("X-Acme-User",), "On-Behalf-Of"),
        ("on-behalf-of", ("on-behalf-of", "On-BEHALF-of"), "On-BEHALF-of"),
        ("on-behalf-of", ("on-behalf-of",), "On-Behalf-Of"),
        ("", ("",), ""),
    ],
)
def test_names_are_spelled_as_people_write_them(name: str, written: tuple[str, ...], told: str) -> None:
    assert spelled(name, written) == told
