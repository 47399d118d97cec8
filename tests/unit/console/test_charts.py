"""Charts are well-formed, to scale, without style, and hold no markup of others."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.console.activity import MINUTES, Layer
from extauthz.console.charts import BOTTOM, LEFT, MAX_LAYERS, NARROW, RIGHT, TOP, WIDE, Chart, Size, scale_of, short

SVG = "{http://www.w3.org/2000/svg}"
SIZES = (WIDE, NARROW)


def chart(*minutes: list[float], names: tuple[str, ...] = ()) -> Chart:
    titles = names or tuple(f"reason {number}" for number in range(len(minutes)))
    return Chart("denied", "denied", "Denied", tuple(Layer(name, tuple(each)) for name, each in zip(titles, minutes, strict=True)))


def drawn(of: Chart, size: Size = WIDE) -> ElementTree.Element:
    """Return what a browser makes of it: HTML gives the namespace."""
    return ElementTree.fromstring(  # noqa: S314 - our own text
        of.svg(size).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    )


def heights(of: Chart, size: Size = WIDE) -> list[list[float]]:
    """Return for each layer how high it stands in each minute, in pixels."""
    found = []
    for outline in of.paths(size):
        ys = [float(point.split()[1]) for point in outline[1:-1].split("L")]
        upper, lower = ys[: len(ys) // 2], ys[len(ys) // 2 :][::-1]
        found.append([below - above for above, below in zip(upper, lower, strict=True)])
    return found


CASES = {
    "empty": chart(),
    "one point": chart([5.0]),
    "all zero": chart([0.0] * MINUTES),
    "one layer": chart([float(minute) for minute in range(MINUTES)]),
    "several": chart([1.0] * MINUTES, [2.0] * MINUTES, [0.5] * MINUTES),
    "huge": chart([1e30] * MINUTES, [1e15] * MINUTES),
    "no numbers": chart([math.nan, math.inf, -math.inf, -5.0]),
    "hostile": chart([1.0], [2.0], [3.0], names=("<script>alert(1)</script>", '"><img src=x>', "a\0b\ud800&amp;]]>")),
}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)
@pytest.mark.parametrize("name", CASES)
def test_a_chart_is_well_formed_and_within_its_size(name: str, size: Size) -> None:
    svg = drawn(CASES[name], size)
    paths = [path.get("d", "") for path in svg.iter(f"{SVG}path")]
    outlines = list(filter(None, paths))
    points = [tuple(map(float, point.split())) for outline in outlines for point in outline[1:-1].split("L")]

    assert (len(outlines), len(paths)) == (len(CASES[name].layers), MAX_LAYERS)
    assert all(LEFT <= x <= size.width - RIGHT and TOP <= y <= size.height - BOTTOM for x, y in points)
    assert (svg.get("role"), svg.get("viewBox")) == ("img", f"0 0 {size.width} {size.height}")
    assert {element.tag.removeprefix(SVG) for element in svg.iter()} <= {"svg", "title", "desc", "line", "text", "path"}
    assert not [name for element in svg.iter() for name in element.attrib if name == "style" or name.startswith("on")]


def test_a_chart_says_what_it_shows() -> None:
    svg = drawn(chart([0.0, 1500.0], [3.0, 0.0]))
    title, description = svg.find(f"{SVG}title"), svg.find(f"{SVG}desc")

    assert title is not None
    assert description is not None
    assert (svg.get("aria-labelledby") or "").split() == [title.get("id"), description.get("id")]
    assert (title.text, description.text) == (
        "Denied",
        "1.5k in the last hour, at most 1.5k in a minute: reason 0 1.5k, reason 1 3.",
    )
    assert chart([0.0]).description == "Nothing in the last hour."
    assert "\0" not in CASES["hostile"].svg(WIDE)


def test_layers_stand_one_on_the_other_to_one_scale() -> None:
    first, second = heights(chart([100.0, 50.0], [0.0, 50.0]))
    whole = WIDE.height - TOP - BOTTOM

    assert scale_of(100.0) == (0, 25, 50, 75, 100)
    assert first == pytest.approx([whole, whole / 2], abs=0.11)
    assert second == pytest.approx([0, whole / 2], abs=0.11)


def test_one_minute_is_as_wide_as_the_chart() -> None:
    xs = [float(point.split()[0]) for point in chart([5.0]).paths(WIDE)[0][1:-1].split("L")]

    assert (min(xs), max(xs)) == (LEFT, WIDE.width - RIGHT)


@given(st.floats(0, 1e15))
def test_a_scale_is_round_and_holds_the_greatest(top: float) -> None:
    scale = scale_of(top)

    assert scale[0] == 0
    assert scale[-1] >= top * 0.9999
    assert len(scale) == 5
    assert scale[-1] <= max(4.0, top * 2.01), "most of the chart is empty"
    assert all(re.fullmatch(r"[0-9]{1,4}(\.[0-9])?[kMGT]?", short(step)) for step in scale)
    assert len(set(map(short, scale))) == len(scale), "two steps are written alike"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (12, "12"),
        (999, "999"),
        (999.6, "1k"),
        (1000, "1k"),
        (1234, "1.2k"),
        (123_456, "123k"),
        (999_999, "1M"),
        (7.3e9, "7.3G"),
        (2.5e12, "2.5T"),
        (1e30, "1000T"),
        (math.nan, "0"),
        (-4, "0"),
        (math.inf, "1000T"),
    ],
)
def test_counts_are_short(count: float, text: str) -> None:
    assert short(count) == text
