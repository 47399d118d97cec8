"""One HTTP/2 connection: the compiled session does the protocol, this decides what becomes of it and of its streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any, Protocol, cast

from extauthz.transport.grpc import libnghttp2 as http2
from extauthz.transport.grpc import messages
from extauthz.transport.grpc._session import RESPONSE, Session, Stream, TransportCounters
from extauthz.transport.grpc.answers import SHUTTING_DOWN, frame_message, refusal_fields, status_fields
from extauthz.transport.grpc.eviction import has_unread
from extauthz.transport.grpc.refusals import RefusalReason, Refusals
from extauthz.transport.limits import Limits

WINDOW = 1024 * 1024
"""Bytes of requests on a connection before a WINDOW_UPDATE is due."""
REASONS = {http2.ENHANCE_YOUR_CALM: RefusalReason.FLOOD, http2.INTERNAL_ERROR: RefusalReason.FLOOD}
"""Why a connection ends with an error code; this library ends one that resets too much with INTERNAL_ERROR."""

_log = logging.getLogger(__name__)


class ConnectionOwner(Protocol):
    """The server that a connection belongs to."""

    def admit(self, connection: Connection, certificate: Mapping[str, Any] | None) -> bool:
        """Take a new connection with the certificate of its peer, or refuse it."""

    def forget(self, connection: Connection) -> None:
        """Note the end of a connection, a refused one too."""

    def call(self, connection: Connection, stream: Stream) -> None:
        """Answer a request, now or later."""

    def settle(self, connection: Connection, stream: Stream, answer: object) -> None:
        """Answer a check with what the handler returned, which is no message that could be sent at once."""


class Connection(Session, asyncio.Protocol):
    """Bytes of a peer to calls, and answers to bytes."""

    transport: asyncio.Transport | None

    def __init__(
        self,
        owner: ConnectionOwner,
        options: int,
        limits: Limits,
        counters: TransportCounters,
        refusals: Refusals,
        *,
        check: bytes,
        handler: Callable[[bytes], bytes | Awaitable[bytes]] | None,
    ) -> None:
        """Belong to a server, which admits it before anything is read; checks, by the path `check`, go straight to the handler."""
        super().__init__(limits, counters, check, handler)
        self._owner = owner
        self._options = options
        self._refusals = refusals
        self.opened_at = self.used_at
        self.leaving_since: float | None = None
        self.refuses_new = False
        self.stalled_since: float | None = None

    @property
    def peer(self) -> str:
        """Host and port of the other side, as the kernel knows them; nothing on a unix socket."""
        name = self.transport.get_extra_info("peername") if self.transport is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a session, unless there are too many or TLS agreed on another protocol."""
        self.transport = transport = cast(asyncio.Transport, transport)
        secured = transport.get_extra_info("ssl_object")
        other_protocol = secured is not None and secured.selected_alpn_protocol() not in (None, "h2")
        if other_protocol:
            self.count_refusal(RefusalReason.TLS_PROTOCOL)
        if other_protocol or not self._owner.admit(self, transport.get_extra_info("peercert")):
            transport.abort()
            return
        self.open(self._options, WINDOW)
        transport.set_write_buffer_limits(high=self.limits.output_buffer)
        self.flush()

    @property
    def silent(self) -> bool:
        """Return whether it has made no call, and nothing that it sent waits to be read."""
        return self.used_at == self.opened_at and (self.transport is None or not has_unread(self.transport))

    @property
    def resting(self) -> bool:
        """Return whether no call waits for us: watches, and answers that nobody takes, hold no place."""
        return self.used_at != self.opened_at and all(stream.task is None for stream in self.streams.values())

    def connection_lost(self, _: Exception | None) -> None:
        """Stop waiting for what nobody reads, and free the session."""
        self.shut()
        self._owner.forget(self)

    def count_refusal(self, reason: RefusalReason, detail: str = "") -> None:
        """Count what is refused."""
        self._refusals.count(reason, now=self.now, peer=self.peer, detail=detail)

    def call(self, stream: Stream) -> None:
        """Answer a request that is not a usual check."""
        self._owner.call(self, stream)

    def settle(self, stream: Stream, answer: object) -> None:
        """Answer a check that has to wait, or whose handler failed."""
        self._owner.settle(self, stream, answer)

    def broken(self, code: int, data: bytes) -> None:
        """Cut a connection whose bytes the library does not take."""
        self.count_refusal(reason_of_failure(code, data))
        self.abort()

    def ended(self, frame: bytes) -> None:
        """Close when both sides are done; `frame` is the last that was sent."""
        code, words = http2.goaway(frame) or (http2.NO_ERROR, "")
        if code or not (self.leaving_since or self.peer_leaves):
            # The library ends it because of what it received.
            self.count_refusal(REASONS.get(code, RefusalReason.PROTOCOL_ERROR) if self.greeted else RefusalReason.PREFACE, words)
        self.leaving_since = self.leaving_since or self.now
        if self.transport is not None:
            self.transport.close()

    def pause_writing(self) -> None:
        """Read nothing from a peer that does not read."""
        self.paused = True
        self.stalled_since = monotonic()
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on with what waited."""
        self.paused = False
        self.stalled_since = None
        self.flush()
        if self.transport is not None and not self.paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def abort(self) -> None:
        """Cut the connection."""
        if self.transport is not None:
            self.transport.abort()

    def leave(self) -> None:
        """Announce that the connection will end (RFC 9113 6.8), and end the streams that would stay for ever."""
        if not self.is_open or self.leaving_since is not None:
            return
        self.leaving_since = monotonic()
        self.announce_end()
        for stream in self.streams.values():
            if stream.more:
                self._end_watch(stream)
                self.resume(stream)
        self.flush()

    def refuse_new(self) -> None:
        """Refuse streams that begin from now on; the connection closes behind the last one in flight."""
        if self.is_open and not self.refuses_new:
            self.refuses_new = True
            self.refuse_streams()
            self.flush()

    def wait(self, stream: Stream, pending: Awaitable[bytes], finish: Callable[[asyncio.Future[bytes]], bytes]) -> None:
        """Answer when the awaitable is done, with what `finish` makes of it; a reset stream stops waiting."""
        stream.task = asyncio.ensure_future(pending)
        stream.task.add_done_callback(partial(self._answer_late, stream, finish))

    def refuse(self, stream: Stream, refusal: messages.RequestRefusal) -> None:
        """Answer with a status and nothing else."""
        self.count_refusal(refusal.reason)
        self.submit(stream, refusal_fields(refusal), has_body=False)

    def watch(self, stream: Stream, service: str, message: bytes) -> None:
        """Queue the first message of a call that may get more."""
        stream.watches, stream.more = service, True
        if self.leaving_since is not None:
            self._end_watch(stream)
        self.answer(stream, message)

    def notify(self, stream: Stream, message: bytes) -> None:
        """Queue one more message of such a call."""
        self.reply(stream, frame_message(message))

    def reply(self, stream: Stream, answers: bytes) -> None:
        """Queue framed messages of a call that may get more; the first ones begin its response."""
        if not answers:
            return
        if stream.more:
            stream.answer = stream.answer[stream.offset :] + answers
            stream.offset = 0
            self.resume(stream)
        else:
            stream.more, stream.answer = True, answers
            self.submit(stream, RESPONSE, has_body=True)
            if self.leaving_since is not None and not stream.complete:
                self._end_watch(stream)

    def end(self, stream: Stream, refusal: messages.RequestRefusal | None = None) -> None:
        """End a call of many messages, with a status if it is not that of success."""
        if refusal is not None and not stream.answer:
            stream.refusal = refusal
            self.refuse(stream, refusal)
            return
        if refusal is not None:
            self.count_refusal(refusal.reason)
            stream.refusal, stream.trailer = refusal, status_fields(refusal)
        if not stream.answer:
            self.submit(stream, RESPONSE, has_body=True)
        elif stream.more:
            stream.more = False
            self.resume(stream)

    def give_up(self, stream: Stream) -> None:
        """Reset a stream whose request does not come, or end one that has had answers."""
        if stream.more:
            self.end(stream, messages.OPEN_TOO_LONG)
            return
        self.reset(stream, RefusalReason.REQUEST_TIMEOUT, http2.CANCEL)
        self.flush_soon()

    def malformed(self, stream: Stream) -> None:
        """Reset a stream whose length is not the one that was announced."""
        self.reset(stream, RefusalReason.FIELDS_MALFORMED, http2.PROTOCOL_ERROR)

    def _end_watch(self, stream: Stream) -> None:
        stream.watches, stream.more, stream.trailer = None, False, SHUTTING_DOWN

    def _answer_late(self, stream: Stream, finish: Callable[[asyncio.Future[bytes]], bytes], future: asyncio.Future[bytes]) -> None:
        stream.task = None
        message = finish(future)
        if not stream.closed:
            self.answer(stream, message)
            self.flush_soon()


def reason_of_failure(code: int, data: bytes) -> RefusalReason:
    """Name what the library ends a connection for at once; what speaks TLS begins with a record of version 3 (RFC 8446 5.1)."""
    match code:
        case http2.BAD_PREFACE:
            return RefusalReason.TLS_NOT_CONFIGURED if data.startswith(b"\x16\x03") else RefusalReason.PREFACE
        case http2.FLOODED | http2.CALLBACK_FAILURE:
            return RefusalReason.FLOOD
        case _:
            return RefusalReason.PROTOCOL_ERROR
