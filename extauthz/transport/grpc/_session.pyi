import asyncio
from collections.abc import Awaitable, Callable, Iterable

from extauthz.transport.grpc.messages import RequestHead, RequestRefusal
from extauthz.transport.grpc.refusals import RefusalReason
from extauthz.transport.limits import Limits

RESET_STREAM: RequestRefusal
RESPONSE: HeaderBlock
OK: HeaderBlock

class HeaderBlock:
    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None: ...

class Stream:
    @property
    def id(self) -> int: ...
    @property
    def opened_at(self) -> float: ...
    @property
    def fields(self) -> list[bytes]: ...
    head: RequestHead | RequestRefusal | None
    body: bytes | bytearray
    refusal: RequestRefusal | None
    task: asyncio.Future[bytes] | None
    watches: str | None
    answer: bytes
    trailer: HeaderBlock
    offset: int
    requests: int
    complete: bool
    more: bool
    is_counted: bool
    queued: bool
    closed: bool

class TransportCounters:
    unfinished: int
    streams: int

class Session:
    limits: Limits
    counters: TransportCounters
    transport: asyncio.Transport | None
    used_at: float
    paused: bool
    greeted: bool
    def __init__(
        self,
        limits: Limits,
        counters: TransportCounters,
        check_path: bytes,
        handler: Callable[[bytes], bytes | Awaitable[bytes]] | None,
    ) -> None: ...
    @property
    def streams(self) -> dict[int, Stream]: ...
    @property
    def now(self) -> float: ...
    @property
    def peer_leaves(self) -> bool: ...
    @property
    def is_open(self) -> bool: ...
    def open(self, options: int, window: int) -> None: ...
    def shut(self) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def flush(self) -> None: ...
    def flush_soon(self) -> None: ...
    def answer(self, stream: Stream, message: bytes) -> None: ...
    def submit(self, stream: Stream, block: HeaderBlock, has_body: bool) -> None: ...
    def resume(self, stream: Stream) -> None: ...
    def reset(self, stream: Stream, reason: RefusalReason, code: int) -> None: ...
    def release(self, stream: Stream) -> bytes | bytearray: ...
    def keep(self, stream: Stream, body: bytes | bytearray) -> None: ...
    def announce_end(self) -> None: ...
    def refuse_streams(self) -> None: ...
