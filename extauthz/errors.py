"""Every exception that crosses a room: what the world outside can do to us, in words for whoever has to mend it.

A refusal of a request is no exception but a value (`Deny` of the core): these are for a world that is broken.
"""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.core.model import Reason


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, where, and a hint; line 0 where `file` names something that has no lines.

    `name` is that of a lint, for what is only worth a look; "" for an error.
    """

    file: str
    line: int
    path: str
    message: str
    name: str = ""

    @property
    def place(self) -> str:
        """Where it is: the file and its line."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def __str__(self) -> str:
        """Write it as file:line: key.path: message."""
        return f"{self.place}: {self.path + ': ' if self.path else ''}{self.message}"


class ConfigurationError(Exception):
    """The configuration cannot be used; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        """Keep the problems in the order of the files' lines."""
        self.problems = sorted(set(problems))
        super().__init__("\n".join(map(str, self.problems)))


class Unavailable(Exception):
    """A store or an issuer cannot be reached, and memory does not know; `reason` is one of the 503 reasons."""

    def __init__(self, reason: Reason) -> None:
        """Keep the reason as the only thing that is told."""
        super().__init__(reason.value)
        self.reason = reason


class StoreError(Exception):
    """The store cannot be used as it is; the text says what mends it."""


class ChangeRefused(StoreError):
    """The store is well, and the tokens that it holds stand against a change; nothing was changed."""


class TokenChanged(ChangeRefused):
    """A token is not as whoever changes it has read it; nothing was changed."""


class ListenError(Exception):
    """An address cannot be listened on; the text names it and the cause."""


class AddressInUseError(ListenError):
    """Another process listens there."""


class FetchError(Exception):
    """There is no usable answer; the text names the address and the cause, never the content or what was sent."""


class NothingThere(FetchError):
    """The server says that it has nothing at the address (404, 410)."""


class ProxyRefusal(FetchError):
    """The proxy does not take its user and password, or wants some (407)."""


class LiveError(Exception):
    """A running sidecar cannot be asked, or refuses; the text says where and why, and what to do."""


class DemoError(Exception):
    """The demo cannot start; the text says what is missing and a hint."""


class CurlError(ValueError):
    """A curl line that cannot be read; the message names the flag, and never its value."""


class LineError(ValueError):
    """A line that is no decision; the message holds nothing of it."""


class SourceError(Exception):
    """There is no such revision of a configuration, or no git to ask; the text says what to write."""


class CallerError(ValueError):
    """A description of a caller that cannot be read; the message says what to write."""
