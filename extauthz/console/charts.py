"""Charts as SVG: stacked areas of what was counted in each minute. They carry classes and no style, as the policy of pages asks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from extauthz.console.activity import MAX_REASONS, Layer

MAX_LAYERS = MAX_REASONS + 1
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 10, 22
"""Room beside the areas, for the numbers of the scale."""
STEPS = 4
"""Parts of every scale, so that a drawing can be brought up to date without a line more or less."""
_ROUND = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
_NAMES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_MAX_COUNT = 1e15


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a drawing, in CSS pixels: its text is not scaled, so each width has its own. `marks` stand on the time axis."""

    name: str
    width: int
    height: int
    marks: int


WIDE = Size("desktop", 760, 180, 6)
NARROW = Size("phone", 340, 150, 3)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart in one size. A template takes it as it is: every text in it is escaped already."""

    name: str
    markup: str

    def __html__(self) -> str:
        """Return the element."""
        return self.markup


@dataclass(frozen=True, slots=True)
class Chart:
    """At most MAX_LAYERS that stand one on the other, the first one at the bottom, each as many points as there are minutes.

    `identifier` tells this chart from others of a page; `kind` is the class that gives the colours.
    """

    identifier: str
    kind: str
    title: str
    layers: tuple[Layer, ...]

    @property
    def top(self) -> float:
        """The greatest sum of a minute."""
        return max(self._sums(len(self.layers)), default=0.0)

    @property
    def description(self) -> str:
        """The chart in a sentence, for whoever does not see it."""
        total = sum(map(_plain, (layer.total for layer in self.layers)))
        if not total:
            return "Nothing in the last hour."
        parts = ", ".join(f"{layer.name} {short(layer.total)}" for layer in self.layers)
        return f"{short(total)} in the last hour, at most {short(self.top)} in a minute: {parts}."

    def svg(self, size: Size) -> str:
        """Draw it; every text in it is escaped."""
        name = f"{self.identifier}-{size.name}"
        inner = "".join((*self._grid(size), *self._areas(size), *self._marks(size)))
        return (
            f'<svg class={quoteattr(f"chart {self.kind} {size.name}")} viewBox="0 0 {size.width} {size.height}" '
            f'width="{size.width}" height="{size.height}" role="img" '
            f"aria-labelledby={quoteattr(f'{name}-title {name}-description')}>"
            f"<title id={quoteattr(f'{name}-title')}>{_text(self.title)}</title>"
            f"<desc id={quoteattr(f'{name}-description')}>{_text(self.description)}</desc>{inner}</svg>"
        )

    def drawing(self, size: Size) -> Drawing:
        """Draw it for a template."""
        return Drawing(size.name, self.svg(size))

    def paths(self, size: Size) -> tuple[str, ...]:
        """Return the outline of each layer, as the `d` of a path."""
        scale = scale_of(self.top)[-1]
        outlines = []
        for index in range(len(self.layers)):
            upper, lower = self._sums(index + 1), self._sums(index)
            points = [*_points(upper, size, scale), *reversed(list(_points(lower, size, scale)))]
            outlines.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z")
        return tuple(outlines)

    def scale_texts(self) -> tuple[str, ...]:
        """Return the numbers of the scale, from the bottom up."""
        return tuple(map(short, scale_of(self.top)))

    def _sums(self, count: int) -> list[float]:
        """Return what the first layers make together in each minute."""
        minutes = max((len(layer.minutes) for layer in self.layers), default=0)
        return [sum(_plain(layer.minutes[index]) for layer in self.layers[:count]) for index in range(minutes)]

    def _grid(self, size: Size) -> Iterable[str]:
        steps = scale_of(self.top)
        for step in steps:
            y = _y(step, size, steps[-1])
            yield f'<line class="grid" x1="{LEFT}" x2="{size.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text class="scale" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_text(short(step))}</text>'

    def _areas(self, size: Size) -> Iterable[str]:
        outlines = self.paths(size)
        for index in range(MAX_LAYERS):
            outline = outlines[index] if index < len(outlines) else ""
            yield f'<path class="layer layer-{index}" d="{outline}"/>'

    def _marks(self, size: Size) -> Iterable[str]:
        for mark in range(size.marks + 1):
            x = LEFT + (size.width - LEFT - RIGHT) * mark / size.marks
            minutes = 60 - 60 * mark // size.marks
            anchor = "start" if mark == 0 else "end" if mark == size.marks else "middle"
            words = f"{minutes} min" if minutes else "now"
            yield f'<text class="time" x="{x:.1f}" y="{size.height - 5}" text-anchor="{anchor}">{words}</text>'


def scale_of(top: float) -> tuple[float, ...]:
    """Return five round, whole numbers from 0 to at least `top`."""
    least = max(_plain(top) / STEPS, 1.0)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(each * power for each in _ROUND if each * power >= least * 0.9999 and each * power % 1 == 0)
    return tuple(step * index for index in range(STEPS + 1))


def short(count: float) -> str:
    """Write a count in at most five characters, like 12, 3.4k or 1.2M."""
    count = _plain(count)
    for size, name in _NAMES:
        # What rounds up to a thousand has the next name.
        if count >= size * 0.9995:
            value = count / size
            return f"{value:.0f}{name}" if value >= 99.95 else f"{value:.1f}".removesuffix(".0") + name
    return f"{count:.0f}"


def _plain(count: float) -> float:
    """Return a number that can be drawn."""
    return min(max(count, 0.0), _MAX_COUNT) if count == count else 0.0


def _points(sums: Sequence[float], size: Size, scale: float) -> Iterable[tuple[float, float]]:
    # One minute alone is drawn over the whole width.
    sums = [*sums, *sums] if len(sums) == 1 else sums
    for index, count in enumerate(sums):
        yield LEFT + (size.width - LEFT - RIGHT) * index / (len(sums) - 1), _y(count, size, scale)


def _y(count: float, size: Size, scale: float) -> float:
    return TOP + (size.height - TOP - BOTTOM) * (1 - min(count / scale, 1.0))


def _text(text: str) -> str:
    """Escape a text, and leave out what XML cannot hold."""
    kept = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
    return escape(kept)
