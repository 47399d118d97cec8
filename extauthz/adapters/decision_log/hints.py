"""Lines that get a hint when they are written: which route a request without one is most like.

To find it takes a millisecond or two, so the thread that writes does it, ten times a second at most: strangers can ask for paths
without end, and every other line goes on as it is.
"""

from __future__ import annotations

import logging
from json.encoder import encode_basestring_ascii as _quoted

from extauthz.core.model import Reason, Request
from extauthz.core.policy import Policy
from extauthz.telemetry.nearest_route import nearest_route

INTERVAL = 0.1
"""Seconds between two lines that get a hint."""
MAX_TARGET = 512
"""Characters of path and query of a request that gets one."""

_log = logging.getLogger(__name__)


class LineOfUnknownRoute(bytes):
    """A line, and method, path and host that match no route."""

    asked: tuple[str, str, str]


class Hints:
    """Chooses the lines that get a hint, and writes it; `policy` has the routes, None for no hints."""

    def __init__(self, policy: Policy | None = None) -> None:
        """Begin with a line that may have one."""
        self.policy = policy
        self._chosen_at = float("-inf")
        self._is_logged = False

    def chosen(self, line: bytes, reason: Reason, request: Request, moment: float) -> bytes:
        """Return the line, marked if it is to have a hint; called where decisions are recorded."""
        if reason is not Reason.ROUTE_UNKNOWN or self.policy is None or len(request.path) > MAX_TARGET:
            return line
        if 0 <= moment - self._chosen_at < INTERVAL:
            return line
        self._chosen_at = moment
        marked = LineOfUnknownRoute(line)
        marked.asked = request.method, request.path.partition("?")[0], request.host
        return marked

    def written(self, line: bytes, longest: int) -> bytes:
        """Return the line as it is written, at most so many bytes long; called by the writing thread."""
        policy = self.policy
        if not isinstance(line, LineOfUnknownRoute) or policy is None:
            return bytes(line)
        try:
            name = nearest_route(policy, *line.asked)
        except Exception as error:  # noqa: BLE001 - the line counts, not its hint
            if not self._is_logged:
                _log.error("decision log: no nearest route", exc_info=error)
            self._is_logged = True
            name = None
        hint = f', "nearest_route": {_quoted(name)}}}\n'.encode("ascii") if name else b"}\n"
        return line[:-2] + hint if len(line) - 2 + len(hint) <= longest else bytes(line)
