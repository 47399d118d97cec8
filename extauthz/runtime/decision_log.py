"""From the section `decision_log` to a log that is open, and to another one when the section changes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine

from extauthz.adapters.decision_log.hints import Hints
from extauthz.adapters.decision_log.log import DecisionLog
from extauthz.adapters.decision_log.ring import DecisionRing
from extauthz.adapters.decision_log.sinks import File, Sink, StandardOutput, UnixSocket
from extauthz.config.decision_log import DecisionLogSection, Place
from extauthz.config.loader import Configuration
from extauthz.errors import ConfigurationError
from extauthz.ports import Recorder


def open_decision_log(configuration: Configuration) -> DecisionLog | None:
    """Open the log that is configured, None when there is none; raises ConfigurationError for a place that cannot be opened.

    Nobody has to listen on a socket yet.
    """
    section = configuration.settings.decision_log
    if not section.enabled:
        return None
    sink = _sink(configuration, section.to)
    hints = Hints(configuration.policy)
    return DecisionLog(sink, fields=section.written_fields, sample=section.sample, capacity=section.capacity, hints=hints)


class DecisionLogs:
    """The log that decisions go to, one after the other as configurations change, and the counts of all of them.

    When it is not `enabled`, no configuration opens one.
    """

    def __init__(self, configuration: Configuration, *, enabled: bool = True) -> None:
        """Open the log that is configured; raises ConfigurationError."""
        self._enabled = enabled
        self._section = configuration.settings.decision_log
        self._next: tuple[DecisionLogSection, DecisionLog | None] | None = None
        self._closing: list[DecisionLog] = []
        self._prepared = configuration
        self.recent = DecisionRing(0, 0, ())
        self._written_before = self._dropped_before = 0
        self.current = self._open(configuration)
        self._remember()

    @property
    def recorder(self) -> Recorder | None:
        """What hears of each decision: the log, which hands it on to those that are kept, or these alone."""
        if self.current is not None:
            return self.current
        return self.recent if self.recent.keeps_any else None

    @property
    def written(self) -> int:
        """Lines that were written."""
        return self._written_before + sum(log.written for log in self._open_logs())

    @property
    def dropped(self) -> int:
        """Decisions that were to be written and never will be."""
        return self._dropped_before + sum(log.dropped for log in self._open_logs())

    def prepare(self, configuration: Configuration) -> None:
        """Open the log of another configuration, if its section is another one; raises ConfigurationError."""
        self.discard()
        self._prepared = configuration
        if configuration.settings.decision_log != self._section:
            self._next = configuration.settings.decision_log, self._open(configuration)

    def commit(self) -> Coroutine[None, None, None] | None:
        """Make what was prepared the current one; return the work of closing the one of before, None when it stays."""
        if self._next is None:
            if self.current is not None:
                self.current.hints.policy = self._prepared.policy
            self._remember()
            return None
        before = self.current
        (self._section, self.current), self._next = self._next, None
        self._remember()
        if before is None:
            return None
        self._closing.append(before)
        return self._close(before)

    def discard(self) -> None:
        """Close what was prepared and is not wanted; nothing was recorded in it."""
        if self._next is not None and self._next[1] is not None:
            self._next[1].close(0.0)
        self._next = None

    def reopen(self) -> None:
        """Open the file anew, after a rotation."""
        if self.current is not None:
            self.current.reopen()

    def close(self) -> None:
        """Write what is left, for a second at most."""
        self.discard()
        for log in self._open_logs():
            log.close()

    def _open(self, configuration: Configuration) -> DecisionLog | None:
        return open_decision_log(configuration) if self._enabled else None

    def _remember(self) -> None:
        """Keep as many recent decisions as the configuration says, and show of them what it writes of others."""
        kept = self._prepared.settings.server.recent_decisions
        self.recent.use(kept.denials, kept.allows, self._section.written_fields)
        if self.current is not None:
            self.current.recent = self.recent if self.recent.keeps_any else None

    def _open_logs(self) -> list[DecisionLog]:
        return self._closing if self.current is None else [*self._closing, self.current]

    async def _close(self, log: DecisionLog) -> None:
        await asyncio.to_thread(log.close)
        self._closing.remove(log)
        self._written_before += log.written
        self._dropped_before += log.dropped


def _sink(configuration: Configuration, place: Place) -> Sink:
    folder = configuration.file.parent
    kind = "file" if place.file else "socket" if place.socket else None
    path = ("decision_log", "to", kind) if kind else ("decision_log", "to")
    try:
        if place.file:
            return File(folder / place.file)
        if place.socket:
            return UnixSocket(folder / place.socket)
        if sys.stdout is None:
            raise OSError("standard output is closed")
        return StandardOutput(sys.stdout.fileno())
    except (OSError, ValueError) as error:
        where = f"{folder / (place.file or place.socket or '')}: " if kind else ""
        hint = "name a place that this process may write to"
        message = f"{where}{getattr(error, 'strerror', None) or error}: {hint}"
        raise ConfigurationError([configuration.problem(path, message)]) from error
