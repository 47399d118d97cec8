"""What a path becomes besides what the tables say: its canonical text, and how much of it is remembered."""

from __future__ import annotations

import pytest

from extauthz.core import paths
from extauthz.core.model import Reason
from extauthz.core.paths import MAX_BYTES, MAX_MEMO, MAX_SEGMENTS, Path, parse, parse_with_slashes


@pytest.mark.parametrize("path", ["/~!$&'()*+,=:@", "/a@b:c/d+e", "/a%20b", "/caf%C3%A9", "/100%25", "/a/"])
def test_the_canonical_text_encodes_what_a_path_may_not_hold_and_nothing_else(path: str) -> None:
    found = parse(path)
    assert isinstance(found, Path)
    assert found.canonical == path


def test_an_encoded_slash_is_encoded_in_the_canonical_text() -> None:
    found = parse_with_slashes("/a%2fb/c%2Fd")
    assert isinstance(found, Path)
    assert (found.canonical, found.segments) == ("/a%2Fb/c%2Fd", ("a\0b", "c\0d"))


@pytest.mark.parametrize("read", [parse, parse_with_slashes])
def test_long_paths_are_read_like_short_ones_and_not_remembered(read: object) -> None:
    assert callable(read)
    paths._remembered.cache_clear()
    for length, remembered in ((256, 1), (257, 1)):
        slash = "%2F" if read is parse_with_slashes else "%20"
        raw = "/b" + slash + "b" * (length - 2 - len(slash))
        found = read(raw)
        assert isinstance(found, Path)
        assert found.text == f"/b{paths.SLASH if read is parse_with_slashes else ' '}{'b' * (length - 2 - len(slash))}"
        assert paths._remembered.cache_info().currsize == remembered
    assert read("/b%2Fb" + "b" * MAX_MEMO) == (Reason.PATH_AMBIGUOUS if read is parse else Path("/b\0b" + "b" * MAX_MEMO))


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/" + "a" * (MAX_BYTES - 1), True),
        ("/" + "a" * MAX_BYTES, False),
        ("/a" * MAX_SEGMENTS, True),
        ("/a" * MAX_SEGMENTS + "/", False),
        ("/a" * (MAX_SEGMENTS + 1), False),
    ],
)
def test_a_path_is_bounded_in_bytes_and_segments(path: str, is_one: bool) -> None:
    assert parse(path) == (Path(path) if is_one else Reason.PATH_MALFORMED)
    assert parse_with_slashes(path) == (Path(path) if is_one else Reason.PATH_MALFORMED)
