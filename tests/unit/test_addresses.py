"""Where each of several workers listens."""

from __future__ import annotations

import pytest

from extauthz.addresses import parse_address

WORKERS = [
    ("127.0.0.1:9001", 1, ["127.0.0.1:9001"]),
    ("127.0.0.1:9001", 3, ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]),
    ("[::1]:65534", 2, ["[::1]:65534", "[::1]:65535"]),
    ("unix:///run/check.sock", 1, ["unix:///run/check.sock"]),
    ("unix:///run/check.sock", 2, ["unix:///run/check-0.sock", "unix:///run/check-1.sock"]),
    ("unix:///run/check", 2, ["unix:///run/check-0", "unix:///run/check-1"]),
    ("127.0.0.1:0", 1, ["127.0.0.1:0"]),
]
IMPOSSIBLE = [
    ("127.0.0.1:65535", 2, "127.0.0.1:65535: 2 workers need so many successive ports: write one from 1 to 65534"),
    ("127.0.0.1:0", 2, "127.0.0.1:0: 2 workers need so many successive ports: write one from 1 to 65534"),
    (f"unix:///{'x' * 105}", 2, f"unix:///{'x' * 105}: with the number of a worker the path has more than 106 bytes"),
]


@pytest.mark.parametrize(("listen", "count", "expected"), WORKERS)
def test_each_worker_has_an_address_of_its_own(listen: str, count: int, expected: list[str]) -> None:
    assert [str(address) for address in parse_address(listen).of_workers(count)] == expected


@pytest.mark.parametrize(("listen", "count", "message"), IMPOSSIBLE, ids=["last port", "any port", "long path"])
def test_addresses_that_do_not_exist(listen: str, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_address(listen).of_workers(count)
    assert str(caught.value) == message
