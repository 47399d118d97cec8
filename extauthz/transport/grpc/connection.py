"""One HTTP/2 connection: libnghttp2 does the protocol, this moves its bytes and queues its answers."""

from __future__ import annotations

import asyncio
import ctypes
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any, Protocol, cast

from extauthz.transport.grpc import libnghttp2 as http2
from extauthz.transport.grpc import messages
from extauthz.transport.grpc.answers import RESPONSE, SHUTTING_DOWN, Fields, frame_message, refusal_fields, status_fields
from extauthz.transport.grpc.callbacks import CALLBACKS, PROVIDER
from extauthz.transport.grpc.eviction import has_unread
from extauthz.transport.grpc.refusals import RefusalReason, Refusals
from extauthz.transport.grpc.streams import REASONS, Stream, StreamTable, TransportCounters, reason_of_failure
from extauthz.transport.limits import Limits

WINDOW = 1024 * 1024
"""Bytes of requests on a connection before a WINDOW_UPDATE is due."""
WRITE_SIZE = 64 * 1024
"""Bytes handed to the socket at once."""

_log = logging.getLogger(__name__)


class ConnectionOwner(Protocol):
    """The server that a connection belongs to."""

    def admit(self, connection: Connection, certificate: Mapping[str, Any] | None) -> bool:
        """Take a new connection with the certificate of its peer, or refuse it."""

    def forget(self, connection: Connection) -> None:
        """Note the end of a connection, a refused one too."""

    def call(self, connection: Connection, stream: Stream) -> None:
        """Answer a request, now or later."""


class Connection(StreamTable, asyncio.Protocol):
    """Bytes of a peer to calls, and answers to bytes."""

    def __init__(
        self, owner: ConnectionOwner, options: ctypes.c_void_p, limits: Limits, counters: TransportCounters, refusals: Refusals
    ) -> None:
        """Belong to a server, which admits it before anything is read."""
        super().__init__(limits, counters, refusals)
        self._owner = owner
        self._options = options
        self._transport: asyncio.Transport | None = None
        self._session: int | None = None
        self._out = ctypes.c_void_p()
        self._out_reference = ctypes.byref(self._out)
        self._paused = False
        self._flush_due = False
        self.opened_at = self.used_at = self.now
        self.leaving_since: float | None = None
        self.refuses_new = False
        self.stalled_since: float | None = None

    @property
    def peer(self) -> str:  # type: ignore[override]
        """Host and port of the other side, as the kernel knows them; nothing on a unix socket."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a session, unless there are too many or TLS agreed on another protocol."""
        self._transport = transport = cast(asyncio.Transport, transport)
        secured = transport.get_extra_info("ssl_object")
        other_protocol = secured is not None and secured.selected_alpn_protocol() not in (None, "h2")
        if other_protocol:
            self.count_refusal(RefusalReason.TLS_PROTOCOL)
        if other_protocol or not self._owner.admit(self, transport.get_extra_info("peercert")):
            transport.abort()
            return
        self._session = http2.new_session(self, CALLBACKS, self._options, self.limits, window=WINDOW)
        transport.set_write_buffer_limits(high=self.limits.output_buffer)
        self.flush()

    @property
    def silent(self) -> bool:
        """Return whether it has made no call, and nothing that it sent waits to be read."""
        return self.used_at == self.opened_at and (self._transport is None or not has_unread(self._transport))

    @property
    def resting(self) -> bool:
        """Return whether no call waits for us: watches, and answers that nobody takes, hold no place."""
        return self.used_at != self.opened_at and all(stream.task is None for stream in self.streams.values())

    def connection_lost(self, _: Exception | None) -> None:
        """Stop waiting for what nobody reads, and free the session."""
        session, self._session = self._session, None
        for stream in self.streams.values():
            self.close(stream)
        self.streams.clear()
        self.ready.clear()
        self.current = None
        if session is not None:
            http2.delete_session(session)
        self._owner.forget(self)

    def data_received(self, data: bytes) -> None:
        """Take what came, answer what is complete, and send."""
        session = self._session
        if session is None:
            return
        self.now = monotonic()
        code = http2.memory_receive(session, data, len(data))
        if code < 0:
            self.count_refusal(reason_of_failure(code, data))
            self.abort()
            return
        if self.ready:
            self.used_at = self.now
            for stream in self.unqueued():
                if not stream.closed:
                    self._call(stream)
        self.flush()

    def _call(self, stream: Stream) -> None:
        try:
            self._owner.call(self, stream)
        except Exception:  # noqa: BLE001 - one stream fails, the others of the connection live
            _log.exception("call failed")
            if self._session is not None:
                http2.submit_reset(self._session, 0, stream.id, http2.INTERNAL_ERROR)

    def pause_writing(self) -> None:
        """Read nothing from a peer that does not read."""
        self._paused = True
        self.stalled_since = monotonic()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on with what waited."""
        self._paused = False
        self.stalled_since = None
        self.flush()
        if self._transport is not None and not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def flush(self) -> None:
        """Send all that may be sent; close when both sides are done."""
        self._flush_due = False
        session, transport = self._session, self._transport
        if session is None or transport is None or self._paused:
            return
        chunks: list[bytes] = []
        frame = b""
        size = 0
        while (length := http2.memory_send(session, self._out_reference)) > 0:
            frame = http2.bytes_at(self._out.value, length)
            chunks.append(frame)
            size += length
            if size >= WRITE_SIZE:
                transport.write(b"".join(chunks))
                chunks, size = [], 0
                if self._paused:
                    return
        if chunks:
            transport.write(b"".join(chunks))
        if length < 0:
            self.count_refusal(RefusalReason.INTERNAL)
            transport.abort()
        elif not http2.want_read(session) and not http2.want_write(session):
            self._count_end(frame)
            self.leaving_since = self.leaving_since or self.now
            transport.close()

    def flush_soon(self) -> None:
        """Send at the end of this turn of the loop, together with what else becomes ready in it."""
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        """Announce that the connection will end (RFC 9113 6.8), and end the streams that would stay for ever."""
        if self._session is None or self.leaving_since is not None:
            return
        self.leaving_since = monotonic()
        http2.submit_shutdown_notice(self._session)
        for stream in self.streams.values():
            if stream.more:
                self._end_watch(stream)
                http2.resume_data(self._session, stream.id)
        self.flush()

    def refuse_new(self) -> None:
        """Refuse streams that begin from now on; the connection closes behind the last one in flight."""
        if self._session is not None and not self.refuses_new:
            self.refuses_new = True
            last = http2.last_processed_stream(self._session)
            http2.submit_goaway(self._session, 0, last, http2.NO_ERROR, None, 0)
            self.flush()

    def answer(self, stream: Stream, message: bytes) -> None:
        """Queue the one message of a call."""
        stream.answer = frame_message(message)
        self._submit(stream, RESPONSE, PROVIDER)

    def wait(self, stream: Stream, pending: Awaitable[bytes], finish: Callable[[asyncio.Future[bytes]], bytes]) -> None:
        """Answer when the awaitable is done, with what `finish` makes of it; a reset stream stops waiting."""
        stream.task = asyncio.ensure_future(pending)
        stream.task.add_done_callback(partial(self._answer_late, stream, finish))

    def refuse(self, stream: Stream, refusal: messages.RequestRefusal) -> None:
        """Answer with a status and nothing else."""
        self.count_refusal(refusal.reason)
        self._submit(stream, refusal_fields(refusal), None)

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
            self._resume(stream)
        else:
            stream.more, stream.answer = True, answers
            self._submit(stream, RESPONSE, PROVIDER)
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
            self._submit(stream, RESPONSE, PROVIDER)
        elif stream.more:
            stream.more = False
            self._resume(stream)

    def _resume(self, stream: Stream) -> None:
        if self._session is not None:
            http2.resume_data(self._session, stream.id)
            self.flush_soon()

    def give_up(self, stream: Stream) -> None:
        """Reset a stream whose request does not come, or end one that has had answers."""
        if stream.more:
            self.end(stream, messages.OPEN_TOO_LONG)
            return
        self.reset(self._session, stream, RefusalReason.REQUEST_TIMEOUT, http2.CANCEL)
        self.flush_soon()

    def malformed(self, stream: Stream) -> None:
        """Reset a stream whose length is not the one that was announced."""
        self.reset(self._session, stream, RefusalReason.FIELDS_MALFORMED, http2.PROTOCOL_ERROR)

    def _count_end(self, frame: bytes) -> None:
        """Count a connection that the library ends because of what it received; `frame` is the last that was sent."""
        code, words = http2.goaway(frame) or (http2.NO_ERROR, "")
        if code or not (self.leaving_since or self.peer_leaves):
            self.count_refusal(REASONS.get(code, RefusalReason.PROTOCOL_ERROR) if self.greeted else RefusalReason.PREFACE, words)

    def _end_watch(self, stream: Stream) -> None:
        stream.watches, stream.more, stream.trailer = None, False, SHUTTING_DOWN

    def _submit(self, stream: Stream, fields: Fields, provider: object) -> None:
        if self._session is None or stream.closed:
            return
        code = http2.submit_response(self._session, stream.id, fields, len(fields), provider)
        if code < 0:
            _log.error("answer not queued", extra={"code": code})
            http2.submit_reset(self._session, 0, stream.id, http2.INTERNAL_ERROR)

    def _answer_late(self, stream: Stream, finish: Callable[[asyncio.Future[bytes]], bytes], future: asyncio.Future[bytes]) -> None:
        stream.task = None
        message = finish(future)
        if not stream.closed:
            self.answer(stream, message)
            self.flush_soon()
