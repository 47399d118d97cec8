"""Quoted texts are read back as they were, and nothing in them is unseen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.config.document import Document, parse
from extauthz.tools.yaml_text import quoted


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_is_read_back_as_it_was_quoted(text: str) -> None:
    document = Document("file.yaml")
    parse(f"a: {quoted(text)}\n".encode(), document)
    assert (document.data, document.problems) == ({"a": text}, [])
    assert quoted(text).isprintable()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("GET /café/{id}", '"GET /café/{id}"'),
        ('a "b" \\', '"a \\"b\\" \\\\"'),
        ("\t\x85\xa0", '"\\x09\\x85\\xa0"'),
        ("a\u200b\u202e", '"a\\u200b\\u202e"'),
        ("\U000e0001", '"\\U000e0001"'),
    ],
)
def test_what_nobody_would_see_is_an_escape(text: str, written: str) -> None:
    assert quoted(text) == written
