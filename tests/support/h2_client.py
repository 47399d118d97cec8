"""Raw HTTP/2 clients for tests, on blocking sockets.

`Peer` says any frame at any byte, holds windows back, does not read, and goes when it likes; it knows no rule. `Client` is h2's own
state machine, which raises where a server breaks one: a window exceeded, a frame after the end, a header that must not be.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE, UNKNOWN = 0x10, 0xFA
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR = range(7)
FRAME_SIZE = 16384
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(7, 12)

CHECK = "/envoy.service.auth.v3.Authorization/Check"
Fields = Sequence[tuple[str | bytes, str | bytes]]
FIELDS: Fields = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", CHECK),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)
Target = int | str
"""A port of 127.0.0.1, or the path of a unix socket."""


class GoneError(Exception):
    """The other side has closed the connection."""


class StillError(AssertionError):
    """Nothing came for too long."""


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0, length: int | None = None) -> bytes:
    """Write a frame, whatever it holds; `length` is what its header claims."""
    claimed = len(payload) if length is None else length
    return struct.pack(">BHBBI", claimed >> 16, claimed & 0xFFFF, kind, flags, stream) + payload


def settings(values: Mapping[int, int] | Iterable[tuple[int, int]] = (), *, flags: int = 0) -> bytes:
    """Write a SETTINGS frame; pairs may repeat an identifier."""
    pairs = values.items() if isinstance(values, Mapping) else values
    return frame(SETTINGS, b"".join(struct.pack(">HI", *pair) for pair in pairs), flags=flags)


def window_update(stream: int, increment: int) -> bytes:
    """Write a WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, struct.pack(">I", increment), stream=stream)


def reset(stream: int, code: int = CANCEL) -> bytes:
    """Write a RST_STREAM frame."""
    return frame(RST_STREAM, struct.pack(">I", code), stream=stream)


def ping(number: int) -> bytes:
    """Write a PING frame that can be told from others."""
    return frame(PING, struct.pack(">Q", number))


def priority(stream: int, *, on: int = 0) -> bytes:
    """Write a PRIORITY frame."""
    return frame(PRIORITY, struct.pack(">IB", on, 15), stream=stream)


def data(stream: int, payload: bytes = b"", *, end: bool = False) -> bytes:
    """Write a DATA frame."""
    return frame(DATA, payload, stream=stream, flags=END_STREAM if end else 0)


def framed(message: bytes, *, flag: int = 0) -> bytes:
    """Return a message as gRPC sends it: the compressed flag, the length, the bytes."""
    return bytes([flag]) + struct.pack(">I", len(message)) + message


def fields(*added: tuple[str, str], **changes: str | None) -> Fields:
    """Return the header fields of a check, with pseudo fields changed (None: left out) and others added, or replaced by name."""
    names = {name for name, _ in added}
    kept: list[tuple[str | bytes, str | bytes]] = []
    for name, value in FIELDS:
        short = str(name).removeprefix(":").replace("-", "_")
        changed = changes.get(short, value)
        if changed is not None and name not in names:
            kept.append((name, changed))
    return [*kept, *added]


@dataclass
class Answer:
    """What came on one stream."""

    headers: dict[str, str] | None = None
    trailers: dict[str, str] | None = None
    body: bytes = b""
    ended: bool = False
    reset: int | None = None
    chunks: list[int] = field(default_factory=list)
    """The length of each DATA frame."""

    @property
    def done(self) -> bool:
        """Nothing more comes."""
        return self.ended or self.reset is not None

    @property
    def http(self) -> int | None:
        """The HTTP status."""
        return None if self.headers is None else int(self.headers[":status"])

    @property
    def status(self) -> int | None:
        """The grpc-status, which stands in the headers where nothing else is said."""
        told = (self.trailers if self.trailers is not None else self.headers) or {}
        return int(told["grpc-status"]) if "grpc-status" in told else None

    @property
    def messages(self) -> list[bytes]:
        """The messages, none of which may be cut."""
        found, rest = [], self.body
        while rest:
            length = int.from_bytes(rest[1:5], "big")
            assert rest[0] == 0, "compressed"
            assert len(rest) >= 5 + length, "a message is cut"
            found.append(rest[5 : 5 + length])
            rest = rest[5 + length :]
        return found

    @property
    def message(self) -> bytes:
        """The one message of a call that went well."""
        assert self.reset in (None, NO_ERROR)  # why: a server may end a request early, with NO_ERROR (RFC 9113 8.1)
        assert (self.http, self.status, self.ended) == (200, 0, True), self
        assert self.headers is not None
        assert self.headers["content-type"] == "application/grpc"
        (message,) = self.messages
        return message


def connect(target: Target, *, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None) -> socket.socket:
    """Return a connected socket; a small `receive_buffer` makes a peer that does not read felt soon."""
    opened = socket.socket(socket.AF_INET if isinstance(target, int) else socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.settimeout(20.0)
        if receive_buffer is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if isinstance(target, int):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.connect(("127.0.0.1", target) if isinstance(target, int) else target)
        return tls.wrap_socket(opened, server_hostname="localhost") if tls else opened
    except BaseException:
        opened.close()
        raise


def pieces(content: bytes, size: int = 65536) -> Iterator[bytes]:
    """Cut what is sent where a frame ends, into pieces of about so many bytes; what is no frame stays in one."""
    start = end = 0
    while end < len(content):
        end += 9 + int.from_bytes(content[end : end + 3], "big")
        if end - start >= size:
            yield content[start:end]
            start = end
    if content[start:]:
        yield content[start:]


class Peer:
    """One connection that does as a test says. It acknowledges SETTINGS and gives windows back, unless told otherwise."""

    def __init__(
        self,
        target: Target,
        *,
        own_settings: Mapping[int, int] | None = None,
        hello: bool = True,
        polite: bool = True,
        tls: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        """Connect and greet, unless `hello` is off; a peer that is not `polite` answers no frame by itself."""
        self.socket = connect(target, tls=tls, receive_buffer=receive_buffer)
        self.polite = polite
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, int]] = []
        """Last stream and error code of each GOAWAY."""
        self.pongs: list[bytes] = []
        self.settings: dict[int, int] | None = None
        self.acknowledged = 0
        self.gone = False
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._buffer = bytearray()
        self._block: tuple[int, bytearray, bool] | None = None
        self.next = 1
        self._pings = 0
        self._owed: bytearray | None = None
        if hello:
            self.send(PREFACE, settings(own_settings or {}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    def stream(self) -> int:
        """Return a stream number that is not used yet."""
        number, self.next = self.next, self.next + 2
        return number

    def block(self, entries: Fields = FIELDS, *, huffman: bool = True) -> bytes:
        """Write a header block; blocks must be sent in the order in which they are written."""
        return self._encoder.encode(list(entries), huffman=huffman)

    def headers(self, stream: int, entries: Fields = FIELDS, *, flags: int = 0) -> bytes:
        """Write HEADERS in one frame."""
        return frame(HEADERS, self.block(entries), flags=END_HEADERS | flags, stream=stream)

    def request(self, stream: int, message: bytes = b"?", *, entries: Fields = FIELDS) -> bytes:
        """Write a whole request."""
        return self.headers(stream, entries) + data(stream, framed(message), end=True)

    def send(self, *parts: bytes) -> None:
        """Send bytes as they are; raises GoneError."""
        try:
            self.socket.sendall(b"".join(parts))
        except OSError as error:
            self.gone = True
            raise GoneError from error

    def push(self, content: bytes, *, reading: bool = True, stall: float = 0.25) -> int:
        """Send what the other side takes; end when all is sent, it is gone, or it takes nothing for `stall` seconds.

        What is owed to the other side meanwhile is sent between two frames, never within one.
        """
        sent = 0
        for piece in pieces(content):
            rest = memoryview(piece)
            self._owed = bytearray()
            while rest and not self.gone:
                readable, writable, _ = select.select([self.socket] if reading else [], [self.socket], [], stall)
                try:
                    if writable:
                        rest = rest[self.socket.send(rest) :]
                    if readable:
                        self._receive()
                except OSError:
                    self.gone = True
                if not readable and not writable:
                    break
            sent += len(piece) - len(rest)
            owed, self._owed = self._owed, None
            if rest:
                break
            if owed:
                # Even nothing to send would wait for room.
                self._reply(bytes(owed))
        return sent

    def ask(self, message: bytes = b"?", *, entries: Fields = FIELDS, body: bytes | None = None) -> Answer:
        """Make a call and wait for its end; `body` replaces the framed message."""
        number = self.stream()
        content = framed(message) if body is None else body
        pieces = [content[start : start + FRAME_SIZE] for start in range(0, len(content), FRAME_SIZE)] or [b""]
        frames = [data(number, piece) for piece in pieces[:-1]]
        self.send(self.headers(number, entries), *frames, data(number, pieces[-1], end=True))
        return self.answer(number)

    def answer(self, stream: int, *, seconds: float = 20.0) -> Answer:
        """Wait for the end of a stream."""
        self.read(lambda: self.answers[stream].done if stream in self.answers else False, seconds=seconds)
        return self.answers[stream]

    def read(self, until: Callable[[], object], *, seconds: float = 20.0) -> None:
        """Read until something holds; raises GoneError when the connection ends before, StillError when it takes too long."""
        deadline = monotonic() + seconds
        while not until():
            if self.gone:
                raise GoneError(f"goaways: {self.goaways}")
            self.socket.settimeout(max(0.001, deadline - monotonic()))
            try:
                self._receive()
            except TimeoutError:
                raise StillError(f"nothing more came within {seconds} s; {self.answers}, {self.goaways}") from None

    def ping(self) -> None:
        """Wait until everything that was sent before has been read."""
        self._pings += 1
        self.send(ping(2**32 + self._pings))
        self.read(lambda: struct.pack(">Q", 2**32 + self._pings) in self.pongs)

    def end(self, *, seconds: float = 20.0) -> int | None:
        """Wait until the other side closes; return the code of its last GOAWAY, None without one."""
        with suppress(GoneError):
            self.read(lambda: False, seconds=seconds)
        return self.goaways[-1][1] if self.goaways else None

    def abort(self) -> None:
        """Go without a word: what is under way is lost, and the other side gets an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _receive(self) -> None:
        try:
            received = self.socket.recv(65536)
        except (TimeoutError, ssl.SSLWantReadError):
            raise
        except OSError:
            received = b""
        if not received:
            self.gone = True
        self._buffer += received
        while len(self._buffer) >= 9:
            head = bytes(self._buffer[:9])
            length = int.from_bytes(head[:3], "big")
            if len(self._buffer) < 9 + length:
                break
            came, _ = Frame.parse_frame_header(memoryview(head))
            came.parse_body(memoryview(bytes(self._buffer[9 : 9 + length])))
            del self._buffer[: 9 + length]
            self._take(came, length)

    def _take(self, came: Frame, length: int) -> None:
        answer = self.answers.setdefault(came.stream_id, Answer()) if came.stream_id else Answer()
        match came:
            case HeadersFrame() | ContinuationFrame():
                _, block, ends = self._block or (0, bytearray(), "END_STREAM" in came.flags)
                self._block = (came.stream_id, block + came.data, ends)
                if "END_HEADERS" in came.flags:
                    self._told(answer)
            case DataFrame():
                answer.body += came.data
                answer.chunks.append(len(came.data))
                answer.ended = "END_STREAM" in came.flags
                if self.polite and length:
                    self._reply(window_update(0, length) + (b"" if answer.ended else window_update(came.stream_id, length)))
            case RstStreamFrame():
                answer.reset = came.error_code
            case SettingsFrame() if "ACK" in came.flags:
                self.acknowledged += 1
            case SettingsFrame():
                self.settings = dict(came.settings)
                if self.polite:
                    self._reply(settings(flags=ACK))
            case PingFrame() if "ACK" in came.flags:
                self.pongs.append(bytes(came.opaque_data))
            case PingFrame() if self.polite:
                self._reply(frame(PING, bytes(came.opaque_data), flags=ACK))
            case GoAwayFrame():
                self.goaways.append((came.last_stream_id, came.error_code))
            case WindowUpdateFrame():
                pass

    def _told(self, answer: Answer) -> None:
        assert self._block is not None
        (_, block, ended), self._block = self._block, None
        told = {str(name): str(value) for name, value in self._decoder.decode(bytes(block))}
        if answer.headers is None:
            answer.headers = told
        else:
            answer.trailers = told
        answer.ended = ended

    def _reply(self, content: bytes) -> None:
        if self._owed is not None:
            self._owed += content
            return
        try:
            self.socket.sendall(content)
        except OSError:
            # The end of the connection is seen when it is read.
            return


class Client:
    """One connection that keeps all the rules, and raises h2's ProtocolError where the server does not."""

    def __init__(self, target: Target, *, window: int = 65535, grant: int | None = None, tls: ssl.SSLContext | None = None) -> None:
        """Connect; a stream may bring `window` bytes, and `grant` more for each DATA frame (None: as many as came)."""
        self.socket = connect(target, tls=tls)
        self.answers: dict[int, Answer] = {}
        self.grant = grant
        self.left: int | None = None
        """The error code of a GOAWAY."""
        self._machine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self._machine.initiate_connection()
        self._machine.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    def begin(self, message: bytes = b"?", *, entries: Fields = FIELDS) -> int:
        """Send a request as the server's windows allow, and return its stream."""
        number = self._machine.get_next_available_stream_id()
        self.answers[number] = Answer()
        self._machine.send_headers(number, list(entries))
        rest = framed(message)
        while rest:
            size = min(self._machine.local_flow_control_window(number), self._machine.max_outbound_frame_size, len(rest))
            if size:
                self._machine.send_data(number, rest[:size], end_stream=size == len(rest))
                rest = rest[size:]
                self._flush()
            else:
                self._receive()
        return number

    def ask(self, message: bytes = b"?") -> bytes:
        """Make a call that must go well, and return its message."""
        return self.answer(self.begin(message)).message

    def answer(self, stream: int) -> Answer:
        """Wait for the end of a stream."""
        return self.answer_when(stream, lambda answer: answer.done)

    def answer_when(self, stream: int, enough: Callable[[Answer], bool]) -> Answer:
        """Wait until enough has come on a stream, which may go on."""
        while not enough(self.answers[stream]):
            self._receive()
        return self.answers[stream]

    def widen(self, stream: int, increment: int) -> None:
        """Give the server room for more bytes; stream 0 is the connection."""
        self._machine.increment_flow_control_window(increment, stream or None)
        self._flush()

    def _flush(self) -> None:
        self.socket.sendall(self._machine.data_to_send())

    def _receive(self) -> None:
        received = self.socket.recv(65536)
        if not received:
            raise GoneError
        for event in self._machine.receive_data(received):
            match event:
                case h2.events.ResponseReceived(stream_id=int(stream), headers=headers):
                    self.answers[stream].headers = {str(name): str(value) for name, value in headers or ()}
                case h2.events.TrailersReceived(stream_id=int(stream), headers=headers):
                    self.answers[stream].trailers = {str(name): str(value) for name, value in headers or ()}
                case h2.events.DataReceived(stream_id=int(stream), data=bytes(content)):
                    self._took(stream, content, event.flow_controlled_length or 0)
                case h2.events.StreamEnded(stream_id=int(stream)):
                    self.answers[stream].ended = True
                case h2.events.StreamReset(stream_id=int(stream), error_code=code):
                    self.answers[stream].reset = int(code or 0)
                case h2.events.ConnectionTerminated(error_code=code):
                    self.left = int(code or 0)
        self._flush()

    def _took(self, stream: int, content: bytes, length: int) -> None:
        answer = self.answers[stream]
        answer.body += content
        answer.chunks.append(len(content))
        if length:
            self._machine.increment_flow_control_window(length)
            # What has come in the same read may have ended the stream.
            with suppress(h2.exceptions.StreamClosedError):
                self._machine.increment_flow_control_window(self.grant or length, stream)
