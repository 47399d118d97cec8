"""A drawing of figures: horizontal bars, each of one part or of several, as an SVG that is read in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as Xml

WIDTH, LABELS, ROW, BAR, TOP = 760, 250, 30, 18, 64
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600; font-size: 15px }
.part0 { fill: #0969da } .part1 { fill: #bf8700 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .part0 { fill: #4493f8 } .part1 { fill: #d29922 } }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """A labelled bar; its parts stand one behind the other."""

    label: str
    parts: tuple[float, ...]


def draw(title: str, parts: Sequence[str], bars: Sequence[Bar]) -> str:
    """Return the SVG; `parts` names what each part of a bar is, at most two."""
    height = TOP + ROW * len(bars) + 10
    text = "; ".join(f"{bar.label}: {_figures(bar)}" for bar in bars)
    image = Xml.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {height}", role="img")
    Xml.SubElement(image, "title").text = title
    Xml.SubElement(image, "desc").text = text
    Xml.SubElement(image, "style").text = STYLE
    _text(image, 8, 22, title, kind="title")
    for number, name in enumerate(parts):
        key = 8 + number * 150
        Xml.SubElement(image, "rect", {"x": str(key), "y": "34", "width": "12", "height": "12", "class": f"part{number}"})
        _text(image, key + 18, 45, name)
    longest = max(sum(bar.parts) for bar in bars) or 1.0
    room = WIDTH - LABELS - 130
    for row, bar in enumerate(bars):
        top = TOP + ROW * row
        _text(image, 8, top + BAR - 4, bar.label)
        left = float(LABELS)
        for number, part in enumerate(bar.parts):
            width = part / longest * room
            place = {"x": f"{left:.1f}", "y": str(top), "width": f"{width:.1f}", "height": str(BAR), "class": f"part{number}"}
            Xml.SubElement(image, "rect", place)
            left += width
        _text(image, left + 6, top + BAR - 4, _figures(bar))
    return Xml.tostring(image, encoding="unicode") + "\n"


def _figures(bar: Bar) -> str:
    return " + ".join(f"{part:,.1f}" if part < 100 else f"{part:,.0f}" for part in bar.parts if part) or "0"


def _text(image: Xml.Element, left: float, baseline: float, text: str, *, kind: str = "") -> None:
    Xml.SubElement(image, "text", {"x": f"{left:.1f}", "y": f"{baseline:.1f}", "class": kind}).text = text
