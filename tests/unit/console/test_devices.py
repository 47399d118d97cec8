"""The cookie of a browser that logged in before: whose, until when, and that nobody else makes one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from extauthz.console.devices import LIFETIME, device_value, is_device_of, set_device

ANA, NOW = "ana@acme.com", 1_800_000_000
NEW, OLD, OTHER = (bytes([number]) * 32 for number in range(3))
VALUE = device_value(ANA, {"p2": NEW, "p1": OLD}, NOW)


@pytest.mark.parametrize(
    ("email", "peppers", "now", "known"),
    [
        (ANA, {"p2": NEW}, NOW, True),
        (ANA, {"p3": OTHER, "p2": NEW}, NOW + LIFETIME - 1, True),
        (ANA, {"p2": NEW}, NOW + LIFETIME, False),
        ("bob@acme.com", {"p2": NEW}, NOW, False),
        ("", {"p2": NEW}, NOW, False),
        (ANA, {"p1": OLD}, NOW, False),
        (ANA, {}, NOW, False),
    ],
)
def test_it_is_good_for_its_account_its_time_and_its_pepper(email: str, peppers: dict[str, bytes], now: int, known: bool) -> None:
    assert is_device_of(VALUE, email, peppers, now) is known


@pytest.mark.parametrize(
    "change", [str.upper, lambda text: f"9{text}", lambda text: text[:-1], lambda text: f"{text}0", lambda _: ""]
)
def test_a_changed_one_is_none(change: object) -> None:
    assert not is_device_of(change(VALUE), ANA, {"p2": NEW}, NOW)  # type: ignore[operator]


@given(st.text(), st.text())
def test_what_strangers_write_is_none(value: str, ends: str) -> None:
    mac = VALUE.partition(".")[2]
    assert not any(is_device_of(text, ANA, {"p2": NEW}, NOW) for text in (value, f"{ends}x.{mac}", f"{value}.{value}"))


def test_the_cookie_is_for_this_site_alone_and_for_no_script() -> None:
    response = Response()
    set_device(response, VALUE)
    (cookie,) = response.headers.getlist("set-cookie")
    name, *attributes = cookie.split("; ")
    assert name == f"__Host-device={VALUE}"
    assert {each.lower() for each in attributes} == {"max-age=7776000", "path=/", "secure", "httponly", "samesite=strict"}


def test_an_account_is_the_same_in_any_case_and_ends_to_the_second() -> None:
    assert VALUE.partition(".")[0] == str(NOW + 90 * 86_400)
    assert is_device_of(device_value("Ana@ACME.com", {"p1": OLD}, NOW), ANA, {"p1": OLD}, NOW)
