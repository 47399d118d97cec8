"""Which traceparent is one (W3C Trace Context 3.2), and what it says of sampling."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.telemetry import traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (SAMPLED, SAMPLED),
        (NOT_SAMPLED, NOT_SAMPLED),
        (f"00-{TRACE}-{SPAN}-03", SAMPLED),
        (f"00-{TRACE}-{SPAN}-02", NOT_SAMPLED),
        (f"00-{TRACE}-{SPAN}-ff", SAMPLED),
        (f"00-{TRACE}-{SPAN}-fe", NOT_SAMPLED),
        (f"cc-{TRACE}-{SPAN}-01", SAMPLED),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", SAMPLED),
        (f"cc-{TRACE}-{SPAN}-01.what-the-future-will-be-like", ""),
        (f"cc-{TRACE}-{SPAN}-01-{'x' * 300}", ""),
        (f"00-{TRACE}-{SPAN}-01-more", ""),
        (f"ff-{TRACE}-{SPAN}-01", ""),
        (f"00-{'0' * 32}-{SPAN}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (SAMPLED.upper(), ""),
        (f"00-{TRACE}-{SPAN}-1", ""),
        (f"00-{TRACE}-{SPAN}", ""),
        (f" {SAMPLED}", ""),
        (f"{SAMPLED}\n", ""),
        (f"{SAMPLED},{SAMPLED}", ""),
        (f"00-{TRACE[:-1]}٣-{SPAN}-01", ""),
        ("", ""),
        ("-" * 55, ""),
    ],
)
def test_what_is_read(text: str, read: str) -> None:
    assert traceparent.read(text) == read
    assert traceparent.is_sampled(read) == read.endswith("-01")


@given(st.text() | st.from_regex(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z"))
def test_what_is_read_reads_the_same_again(text: str) -> None:
    read = traceparent.read(text)
    assert re.fullmatch("(00-[0-9a-f]{32}-[0-9a-f]{16}-0[01])?", read)
    assert traceparent.read(read) == read
    assert read[3:53] in text


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1))
def test_what_is_written_is_read(trace_id: int, span_id: int) -> None:
    text = traceparent.write(trace_id, span_id)
    assert traceparent.read(text) == text
    assert traceparent.is_sampled(text)
    assert (int(text[traceparent.TRACE_ID], 16), int(text[traceparent.SPAN_ID], 16)) == (trace_id, span_id)
