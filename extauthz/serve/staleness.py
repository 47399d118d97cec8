"""Why what is served is not what stands in the files and in the store: kept until it is, and logged once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import StrEnum

from extauthz.config.saved_settings import Saved, SavedSettings
from extauthz.errors import Problem

_log = logging.getLogger(__name__)


class Source(StrEnum):
    """What is not what is served: the files, a version of the saved settings, or what the store says of later ones."""

    FILES = "files"
    SETTINGS = "settings"
    STORE = "store"


class LatestSettings:
    """The highest version of the saved settings that this process served, in whichever epoch of the store.

    Within an epoch no older one is taken. A restored backup begins another one, and so can whoever writes to the database: that
    is told, since nobody but the audit knows which it was.
    """

    def __init__(self, saved: Saved | None) -> None:
        """Begin with what is served, None where the file has the settings."""
        self._highest = self._served = 0
        self.serve(saved)

    @property
    def turned_back(self) -> bool:
        """Return whether an older version is served than one of before."""
        return self._served < self._highest

    def serve(self, saved: Saved | None) -> None:
        """Note what is served from now on; nothing that is not known is older."""
        if not isinstance(saved, SavedSettings):
            return
        if saved.version < self._served:
            message = (
                "the OAuth settings went back from version %d to %d: if nobody ran 'extauthz store accept-restore', see the audit"
            )
            _log.warning(message, self._served, saved.version)
        self._served, self._highest = saved.version, max(self._highest, saved.version)


class Staleness:
    """What is known of each source; a source without an entry is what is served."""

    def __init__(self) -> None:
        """Begin with everything in order."""
        self._entries: dict[Source, tuple[str, str]] = {}

    def __contains__(self, source: Source) -> bool:
        """Tell whether a source is not what is served."""
        return source in self._entries

    @property
    def problem(self) -> str | None:
        """Every cause on a line of its own, None if there is none."""
        return "\n".join(problem for problem, _ in self._entries.values()) or None

    @property
    def shown_problem(self) -> str | None:
        """Where the causes are, without what may be secret."""
        return ", ".join(shown for _, shown in self._entries.values()) or None

    def note(self, source: Source, causes: Sequence[Problem] | Sequence[str], result: str = "failed") -> None:
        """Note why a source is not what is served; without causes it is."""
        if not causes:
            self._entries.pop(source, None)
            return
        problem = "\n".join(map(str, causes))
        if source not in self._entries or problem != self._entries[source][0]:
            for cause in causes:
                _log.error("configuration not reloaded, the last good one goes on: %s", cause)
        # A message may name the place of a secret, or quote what should have been none.
        places = (f"{cause.place}: {cause.path}" if isinstance(cause, Problem) else result for cause in causes)
        self._entries[source] = problem, f"{', '.join(dict.fromkeys(places))}: the log says why"
