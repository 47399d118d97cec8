"""A decision as one line, as wide as the terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from extauthz.cli.rendering import CUT
from extauthz.cli.terminal import Styled, can_show, printable
from extauthz.tools.log_lines import LogLine
from extauthz.tools.masking import Mask

_COLOURS = {"allow": "green", "would_deny": "yellow", "deny": "red"}
_GAP = "  "
_TIME, _REASON, _ID = 9, 23, 32
_USER, _ROUTE = 24, 28
"""Cells of what is left out where the terminal is narrow."""
_ENDLESS = 1 << 20
_REQUEST = 28
"""Cells of method and path that are worth more than what is beside them."""


def decision_line(line: LogLine, width: int | None) -> list[str | Styled]:
    """Return the parts of a line of at most so many cells: time, reason, request; and where there is room id, user and route.

    Without a width it has all of them, whole.
    """
    from rich.cells import set_cell_size

    mark = CUT if can_show(CUT) else "~"

    def fitted(text: str, cells: int) -> str:
        text = printable(text, lines=False)
        if width is None:
            return text
        cut = set_cell_size(text, cells)
        return cut if cut.startswith(text) else set_cell_size(text, cells - 1) + mark

    room = (_ENDLESS if width is None else width) - _TIME - _REASON - 2 * len(_GAP)
    parts: list[str] = []
    mask = Mask()
    for text, cells in ((line.decision_id, _ID), (mask(_told(line.user)), _USER), (line.route, _ROUTE)):
        if room - cells - len(_GAP) >= _REQUEST:
            room -= cells + len(_GAP)
            parts.append(fitted(_told(text), cells))
    request = fitted(mask(f"{_told(line.method)} {_told(line.path)}"), max(room, 1))
    reason = Styled(fitted(line.reason_name or "-", _REASON), fg=_COLOURS.get(line.outcome))
    rest = _GAP.join([request, *parts[1:], *parts[:1]]).rstrip()
    return [f"{_moment(line)}{_GAP}", reason, f"{_GAP}{rest}"]


def _told(text: str | None) -> str:
    return "-" if text is None else text


def _moment(line: LogLine) -> str:
    return "-" * _TIME if line.time is None else f"{datetime.fromtimestamp(line.time, UTC):%H:%M:%S}Z"
