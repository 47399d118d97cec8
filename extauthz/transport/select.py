"""Which transport serves: the fast one where it is safe, else the one that is always there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from extauthz.addresses import Address
from extauthz.errors import ListenError
from extauthz.process.compiled import PURE, is_wanted
from extauthz.transport.grpc.refusals import RefusalReason
from extauthz.transport.limits import Limits
from extauthz.transport.sockets import Handler, TracedHandler
from extauthz.transport.tls import Certificates

Name = Literal["auto", "nghttp2", "grpcio"]

_log = logging.getLogger(__name__)


class Server(Protocol):
    """What every transport offers."""

    @property
    def refusals(self) -> Mapping[RefusalReason, int]:
        """What was refused before a decision, by each reason that this transport can see."""

    async def start(self, address: Address, *, shared: bool = False) -> int:
        """Listen and serve, NOT_SERVING for now; return the port, 0 for a unix socket. Raises ListenError.

        A port that is `shared` is bound beside another process, which leaves it.
        """

    async def listen_again(self, address: Address) -> None:
        """Listen on a unix socket that was removed, beside the connections that are open; raises ListenError and OSError."""

    async def set_serving(self, *, serving: bool) -> None:
        """Answer health checks."""

    async def reload_tls(self, certificates: Certificates) -> None:
        """Use other certificates from the next connection on."""

    async def stop(self, grace: float) -> None:
        """Refuse new calls, and give those under way `grace` seconds."""


class Factory(Protocol):
    """Makes a server that is not started."""

    def __call__(
        self,
        handler: Handler,
        fallback: bytes,
        *,
        limits: Limits,
        certificates: Certificates | None,
        traced: TracedHandler | None = None,
    ) -> Server:
        """Serve `handler`, or instead of it `traced` where there is one."""


@dataclass(frozen=True, slots=True)
class Transport:
    """A transport, and the event loop that it is fast on."""

    name: str
    server: Factory
    new_event_loop: Callable[[], asyncio.AbstractEventLoop]


def choose(name: Name) -> Transport:
    """Return the transport to serve with; raises ListenError when nghttp2 is wanted and cannot be had."""
    if name == "grpcio":
        return _grpcio()
    try:
        version, missing = fast_library()
    except ImportError as error:
        if name == "nghttp2":
            raise ListenError(f"server.transport: nghttp2 cannot be had: {error}; or write auto") from error
        _log.info("serving with grpcio: %s", error)
        return _grpcio()
    if missing and name == "auto":
        _log.info("serving with grpcio: libnghttp2 %s lacks %s", version, " and ".join(missing))
        return _grpcio()
    if missing:
        _log.warning(
            "libnghttp2 %s lacks %s: a peer can keep this process busy; update the library, or write transport: auto",
            version,
            " and ".join(missing),
        )
    import uvloop

    from extauthz.transport.grpc.nghttp2 import NAME, Nghttp2Server

    return Transport(NAME, Nghttp2Server, uvloop.new_event_loop)


def fast_library() -> tuple[str, list[str]]:
    """Return the version of libnghttp2, and which limits against floods it lacks; raises ImportError for a part that is missing.

    With EXTAUTHZ_PURE=1, for finding out whether a fault is one of the compiled modules, there is none.
    """
    if not is_wanted():
        raise ImportError(f"{PURE} is 1, so nothing that is compiled is used")
    import uvloop  # noqa: F401 - only whether it is there

    from extauthz.transport.grpc import libnghttp2

    try:
        from extauthz.transport.grpc import _session  # noqa: F401 - it looks for what it calls
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"the compiled modules are missing, or do not fit this libnghttp2 ({error}): "
            "install the wheel of this platform, or a C compiler before extauthz is built"
        ) from error
    return libnghttp2.version(), libnghttp2.missing_flood_limits()


def _grpcio() -> Transport:
    from extauthz.transport.grpc.grpcio import NAME, GrpcioServer

    return Transport(NAME, GrpcioServer, asyncio.new_event_loop)
