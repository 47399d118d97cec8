"""Asks a running sidecar on its ops listener: what it decided lately, and for a recording of what comes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from extauthz.adapters.oauth.http import JsonFetcher
from extauthz.addresses import parse_address
from extauthz.config.loader import Configuration
from extauthz.errors import FetchError, LiveError

TIMEOUT = 10.0
"""Seconds for a whole answer: a sidecar waits two for a worker that is silent."""
MAX_BYTES = 16 * 1024 * 1024
UNIX = "unix://"
NO_RECORDING = "no recording"
"""How a refusal begins of a sidecar that knows the page, and not the recording that was asked for."""

_ENDED = frozenset({"RemoteProtocolError", "ReadError", "WriteError"})
"""What the client calls a connection that ended before there was an answer."""
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}").fullmatch
_EXAMPLES = "write one like 127.0.0.1:9090, https://ops.acme.com:9090 or unix:///run/ops.sock"


@dataclass(frozen=True, slots=True)
class OpsListener:
    """Where a sidecar is asked: an `origin` like http://127.0.0.1:9090, or a unix socket; `name` is for people.

    `ca` are the authorities that its certificate is verified with, in place of the system's; `certificate` are the files of a chain
    and of its key, which are shown.
    """

    name: str
    origin: str
    unix_socket: Path | None = None
    ca: Path | None = None
    certificate: tuple[Path, Path] | None = None


@dataclass(frozen=True, slots=True)
class RecentDecisions:
    """The records of decisions, newest first; of how many workers there are, and which of them did not answer.

    `is_cut`: an answer has a limit of bytes, and older ones did not fit. `started` tells one process from the next.
    """

    decisions: tuple[Mapping[str, Any], ...]
    workers: int
    silent: tuple[str, ...] = ()
    is_cut: bool = False
    started: float = 0.0


@dataclass(frozen=True, slots=True)
class RecordedRequests:
    """Requests that were recorded since the last time, how many were left out, and whether no more come; `silent` as above."""

    requests: tuple[Mapping[str, Any], ...]
    left_out: int
    is_over: bool
    silent: tuple[str, ...] = ()


def ops_listener(text: str, *, ca: Path | None = None, certificate: tuple[Path, Path] | None = None) -> OpsListener:
    """Read an address that somebody writes; raises LiveError."""
    address = text.strip().rstrip("/")
    if address.startswith(UNIX):
        return OpsListener(address, "http://localhost", Path(address.removeprefix(UNIX)))
    secure = ca is not None or certificate is not None
    origin = address if "://" in address else f"{'https' if secure else 'http'}://{address}"
    if not _ORIGIN(origin):
        # A password may stand beside a user.
        shown = "this" if "@" in text else repr(text)
        raise LiveError(f"{shown} is not the address of an ops listener: {_EXAMPLES}")
    return OpsListener(address, origin, None, ca, certificate)


def ops_listener_of(
    configuration: Configuration, *, ca: Path | None = None, certificate: tuple[Path, Path] | None = None
) -> OpsListener:
    """Return where the sidecar of a configuration is asked; raises LiveError where it has no ops listener."""
    server = configuration.settings.server
    if server.ops is None:
        raise LiveError("the configuration switches the ops listener off: write server.ops: 127.0.0.1:9090, or --ops ADDRESS")
    address = server.ops
    if address.path:
        return OpsListener(str(address), "http://localhost", Path(address.path))
    if address.host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not listened on
        address = parse_address(f"127.0.0.1:{address.port}" if address.host == "0.0.0.0" else f"[::1]:{address.port}")  # noqa: S104
    origin = f"{'https' if server.ops_tls is not None else 'http'}://{address}"
    return OpsListener(str(address), origin, None, ca, certificate)


class LiveSidecar:
    """A sidecar that is asked again and again over one connection."""

    def __init__(self, listener: OpsListener, *, timeout: float = TIMEOUT) -> None:
        """Open the client; raises LiveError for files that cannot be used."""
        self.listener = listener
        try:
            self._fetcher = JsonFetcher(
                timeout=timeout,
                trust=listener.ca.read_bytes() if listener.ca is not None else None,
                unix_socket=listener.unix_socket,
                max_bytes=MAX_BYTES,
                client_certificate=listener.certificate,
            )
        except (OSError, FetchError) as error:
            said = getattr(error, "strerror", None) or str(error)
            names_itself = listener.certificate is not None and str(listener.certificate[0]) in said
            raise LiveError(said if names_itself else f"{listener.ca or listener.name}: {said}") from error

    async def decisions(self, query: Mapping[str, str]) -> RecentDecisions:
        """Return recent decisions; `query` may have reason, route, user, id and limit. Raises LiveError."""
        document = await self.document("/decisions", query)
        with self._of_this_version():
            decisions = tuple(dict(one) for one in document["decisions"])
            workers, started = int(document["workers"]["asked"]), float(document["started"])
            return RecentDecisions(decisions, workers, _silent(document), bool(document.get("cut")), started)

    async def start_recording(self, query: Mapping[str, str]) -> str:
        """Start a recording and return its name; `query` may have reason, route, user, seconds and number. Raises LiveError."""
        document = await self.document("/recording/start", query, posts=True)
        with self._of_this_version():
            return str(document["recording"])

    async def next_recorded(self, recording: str) -> RecordedRequests:
        """Return what was recorded since the last time; raises LiveError."""
        document = await self.document("/recording/next", {"recording": recording}, posts=True)
        with self._of_this_version():
            requests = tuple(dict(one) for one in document["requests"])
            return RecordedRequests(requests, int(document["left_out"]), bool(document["over"]), _silent(document))

    async def end_recording(self, recording: str) -> None:
        """End a recording; raises LiveError."""
        await self.document("/recording/end", {"recording": recording}, posts=True)

    async def document(self, path: str, query: Mapping[str, str], *, posts: bool = False) -> Any:
        """Return the JSON of a page; raises LiveError with what the sidecar says where it refuses."""
        address = f"{self.listener.origin}{path}{'?' if query else ''}{urlencode(query)}"
        try:
            answer = await self._fetcher.ask(address, form={} if posts else None)
        except FetchError as error:
            raise LiveError(f"{self.listener.name}: {_cause(error, address, self.listener)}") from error
        if answer.status in (404, 405) and not answer.refusal.startswith(NO_RECORDING):
            raise LiveError(f"{self.listener.name}: what answers has no {path}: a sidecar of an older version, or something else")
        if answer.status != 200:
            raise LiveError(f"{self.listener.name}: {answer.refusal.strip() or f'status {answer.status}'}")
        return answer.document

    @contextmanager
    def _of_this_version(self) -> Iterator[None]:
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LiveError(f"{self.listener.name}: what answers is no sidecar of this version") from error

    async def close(self) -> None:
        """Close the connection."""
        await self._fetcher.close()


@asynccontextmanager
async def asking(listener: OpsListener) -> AsyncIterator[LiveSidecar]:
    """Ask a sidecar inside the block; raises LiveError."""
    sidecar = LiveSidecar(listener)
    try:
        yield sidecar
    finally:
        await sidecar.close()


def recent_decisions(listener: OpsListener, query: Mapping[str, str]) -> RecentDecisions:
    """Ask a sidecar once; raises LiveError."""

    async def ask() -> RecentDecisions:
        async with asking(listener) as sidecar:
            return await sidecar.decisions(query)

    return asyncio.run(ask())


def _silent(document: Any) -> tuple[str, ...]:
    return tuple(map(str, document["workers"].get("silent", ())))


def _cause(error: FetchError, address: str, listener: OpsListener) -> str:
    """Return why there is no answer; the query may hold the name of a user."""
    cause = str(error).removeprefix(f"{address}: ")
    if distrust := _distrust(error):
        if "mismatch" in distrust:
            return f"its certificate is for another name ({distrust}): ask it by one that stands there"
        return f"its certificate is not trusted ({distrust}): name the authority that signed it (--ca, console.sidecar_tls.ca_file)"
    if cause == "ConnectError":
        return "nothing answers there: is the sidecar running?"
    if cause in _ENDED:
        return f"it ended the connection without an answer{_why_ended(listener)}"
    return cause.replace(address, "")


def _distrust(error: BaseException | None) -> str:
    """Return why the other side's certificate is not believed, in the words of the library of TLS; nothing if it is."""
    while error is not None:
        if said := getattr(error, "verify_message", ""):
            return str(said).rstrip(".")
        error = error.__cause__ or error.__context__
    return ""


def _why_ended(listener: OpsListener) -> str:
    """Guess: who refuses a client certificate may say so when the request is sent already, or not at all (RFC 8446 6.2)."""
    if listener.unix_socket is not None:
        return ""
    if listener.origin.startswith("http:"):
        return ": does it have server.ops_tls? Then write https:// before its address"
    if listener.certificate is None:
        return ": does it ask for a client certificate (--cert and --key, console.sidecar_tls)?"
    return ": is the client certificate of an authority in its server.ops_tls.client_ca?"
