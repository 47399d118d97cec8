"""Lines that get a hint when they are written: which route a request without one is most like.

To find it takes a millisecond or two, so the thread that writes does it, a few times a second at most: strangers can ask for paths
without end, and every other line goes on as it is.
"""

from __future__ import annotations

import logging
from json.encoder import encode_basestring_ascii as _quoted

from extauthz.core.model import Request
from extauthz.core.policy import Policy
from extauthz.telemetry.nearest_route import nearest_route

PER_SECOND = 2
"""Lines of a process that get a hint: so many a second, and so many at once after a second without any."""
MAX_TARGET = 512
"""Characters of path and query of a request that gets one."""

_log = logging.getLogger(__name__)


class LineOfUnknownRoute(bytes):
    """A line, and method, path and host that match no route; `hinted` is the line as it is written, itself until that is known."""

    asked: tuple[str, str, str]
    hinted: bytes


class Hints:
    """Chooses the lines that get a hint, and writes it; `policy` has the routes, None for no hints."""

    def __init__(self, policy: Policy | None = None) -> None:
        """Begin with a full second's share."""
        self.policy = policy
        self._balance = float(PER_SECOND)
        self._filled_at = 0.0
        self._is_logged = False

    def chosen(self, line: bytes, request: Request, moment: float) -> bytes:
        """Return the line of an unknown route, marked if it is to have a hint; `moment` is in seconds of the epoch.

        Called where decisions are recorded.
        """
        if self.policy is None or len(request.path) > MAX_TARGET or not self._take(moment):
            return line
        marked = LineOfUnknownRoute(line)
        marked.asked = request.method, request.path.partition("?")[0], request.host
        marked.hinted = line
        return marked

    def _take(self, moment: float) -> bool:
        """Take one hint out of the share; a clock that was set back fills nothing up."""
        self._balance = min(PER_SECOND, self._balance + max(0.0, moment - self._filled_at) * PER_SECOND)
        self._filled_at = moment
        if self._balance < 1:
            return False
        self._balance -= 1
        return True

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
        line.hinted = line[:-2] + hint if len(line) - 2 + len(hint) <= longest else bytes(line)
        return line.hinted
