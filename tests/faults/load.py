"""Requests of every kind, again and again: each answer is decoded, and one that should never be ends the load at once."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any

from extauthz.core.model import Reason
from tests.faults.table import ENVOY, NOTHING, Kind
from tests.support.transports import eventually

PACE = 0.03
"""Seconds between two requests of one kind."""
CLIENT_TIMEOUT = 20.0
CLAIMED = ("X-Extauthz-User", "ceo@acme.com")
"""What every request claims to be, and never is."""
_TOLD = {reason.public_name for reason in Reason}


class NeverAllowed(AssertionError):
    """An answer that no fault excuses: an allow of what must be refused, or another user's identity."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and who the upstream must see: "" for nobody, None where it must not arrive."""

    line: str
    headers: tuple[tuple[str, str], ...]
    user: str | None


Source = Callable[[], Request]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request, between two moments of the monotonic clock."""

    began: float
    ended: float
    outcome: str

    @property
    def good(self) -> bool:
        """Whether the upstream answered."""
        return self.outcome == "200"


class Client:
    """One connection to Envoy, kept as long as it holds."""

    def __init__(self, port: int) -> None:
        """Connect with the first request."""
        self._port = port
        self._connection: HTTPConnection | None = None

    def ask(self, request: Request) -> Answer:
        """Send a request and judge the answer; raises NeverAllowed."""
        began = time.monotonic()
        outcome = self._outcome(request)
        return Answer(began, time.monotonic(), outcome)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _outcome(self, request: Request) -> str:
        method, _, path = request.line.partition(" ")
        if self._connection is None:
            self._connection = HTTPConnection("127.0.0.1", self._port, timeout=CLIENT_TIMEOUT)
        try:
            self._connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            body = b"{}" if method == "POST" else b""
            for name, value in (("Host", "localhost"), CLAIMED, *request.headers, ("Content-Length", str(len(body)))):
                self._connection.putheader(name, value)
            self._connection.endheaders(body)
            response = self._connection.getresponse()
            status, text = response.status, response.read().decode("utf-8", "replace")
        except (OSError, HTTPException):
            self.close()
            return NOTHING
        return judged(request, status, text)


def judged(request: Request, status: int, text: str) -> str:
    """Name an answer as the table does; raises NeverAllowed."""
    document = _document(text)
    if "upstream" in document:
        seen = document["headers"].get("x-extauthz-user", "")
        if request.user is None:
            raise NeverAllowed(f"{request.line} must be refused and reached the upstream as {seen or 'nobody'}")
        if seen != request.user:
            raise NeverAllowed(f"{request.line} of {request.user or 'nobody'} reached the upstream as {seen or 'nobody'}")
        if status != 200:
            raise NeverAllowed(f"{request.line} was answered with {status} by the upstream")
        return "200"
    if status < 400:
        raise NeverAllowed(f"{request.line} was answered with {status}, and not by the upstream: {text[:200]}")
    reason = document.get("reason")
    return f"{status} {reason if reason in _TOLD else ENVOY}"


def _document(text: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    return {}


@dataclass
class Load:
    """One thread for each kind; `refused` are requests that must be refused whatever happens."""

    port: int
    sources: dict[Kind, Source]
    refused: tuple[Source, ...]
    answers: dict[Kind, list[Answer]] = field(default_factory=dict)
    refusals: int = 0
    error: BaseException | None = None
    _ending: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise what ended the load, if something did."""
        if self.error is not None:
            raise self.error

    def since(self, moment: float, kinds: Iterable[Kind] | None = None) -> dict[Kind, list[Answer]]:
        """Return the answers to what was asked since."""
        return {kind: [one for one in list(self.answers[kind]) if one.began >= moment] for kind in kinds or self.sources}

    def wait(self, seconds: float, *, each: int = 3) -> None:
        """Go on for so long, and until every kind was answered so often meanwhile."""
        began = time.monotonic()
        self.until(lambda: time.monotonic() >= began + seconds and all(len(found) >= each for found in self.since(began).values()))

    def until(self, holds: Callable[[], object], *, seconds: float = 60.0, what: Callable[[], object] = lambda: "") -> None:
        """Wait until something holds; raises what ended the load."""

        def looked() -> bool:
            self.check()
            time.sleep(0.005)  # why: the pace of looks at a load that runs in other threads
            return bool(holds())

        eventually(looked, seconds=seconds, what=what)

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        """Ask inside the block."""
        self.answers = {kind: [] for kind in self.sources}
        threads = [threading.Thread(target=self._run, args=(kind, source)) for kind, source in self.sources.items()]
        threads.append(threading.Thread(target=self._refuse))
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ending.set()
            for thread in threads:
                thread.join()
        self.check()

    def _run(self, kind: Kind, source: Source) -> None:
        self._guarded(lambda client: self.answers[kind].append(client.ask(source())))

    def _refuse(self) -> None:
        def ask(client: Client) -> None:
            for source in self.refused:
                client.ask(source())
                self.refusals += 1

        self._guarded(ask)

    def _guarded(self, act: Callable[[Client], None]) -> None:
        client = Client(self.port)
        try:
            while not self._ending.is_set() and self.error is None:
                act(client)
                self._ending.wait(PACE)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self.error = self.error or error
        finally:
            client.close()
