"""The standard transport: grpc.aio, with health, and reflection for grpcurl."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from time import monotonic
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from extauthz._pb import ext_authz_pb2
from extauthz.addresses import Address
from extauthz.errors import ListenError
from extauthz.transport.grpc import messages, reflection
from extauthz.transport.grpc.messages import RequestRefusal
from extauthz.transport.grpc.reflection import MAX_REQUEST_SIZE, MAX_REQUESTS, MAX_STREAMS
from extauthz.transport.grpc.refusals import RefusalReason, Refusals
from extauthz.transport.limits import Limits
from extauthz.transport.sockets import Handler, TracedHandler, checked_fallback
from extauthz.transport.tls import Certificates

SERVICE = ext_authz_pb2.DESCRIPTOR.services_by_name["Authorization"].full_name
NAME = "grpcio"
LONGEST_IDLE = 60.0
"""Seconds without a call after which a connection is told to go away at the latest: the runtime names no peer that made no call."""
_NAMES = "x509_subject_alternative_name"
VISIBLE = (
    RefusalReason.TLS_NAME,
    RefusalReason.METHOD_UNKNOWN,
    RefusalReason.SERVICE_UNKNOWN,
    RefusalReason.REFLECTION,
)
"""Reasons for refusals that reach Python; grpc's core refuses all else by itself, and reports nothing."""

_OPTIONS = (
    # Envoy's connection_keepalive pings would otherwise end an idle connection with GOAWAY too_many_pings.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
)

_STATUSES = {code.value[0]: code for code in grpc.StatusCode}

_log = logging.getLogger(__name__)


class GrpcioServer:
    """Serves one handler of serialised messages; an empty answer, an ALLOW for Envoy, is never sent."""

    def __init__(
        self,
        handler: Handler,
        fallback: bytes,
        *,
        limits: Limits,
        certificates: Certificates | None = None,
        traced: TracedHandler | None = None,
    ) -> None:
        """Prepare the server; `fallback` is a serialised denial for what should not happen, `traced` is served if there is one.

        Raises ValueError for an empty fallback.
        """
        self._certificates = certificates
        self._handler = handler
        self._traced = traced
        self._fallback = checked_fallback(fallback)
        self._refusals = Refusals(VISIBLE)
        self._reflection_streams = 0
        self._stream_timeout = limits.half_open_timeout
        self._options = (*_OPTIONS, *_limits(limits))
        self._health = _Health(self._refusals)
        self._servers: list[grpc.aio.Server] = []

    @property
    def refusals(self) -> Mapping[RefusalReason, int]:
        """What was refused before a decision, by each reason that grpc's core lets Python see."""
        return self._refusals.counts

    async def start(self, address: Address, *, shared: bool = False) -> int:
        """Listen and serve, NOT_SERVING for now; return the port, 0 for a unix socket. Raises ListenError."""
        await self.set_serving(serving=False)
        return await self._listen(address, shared=shared)

    async def listen_again(self, address: Address) -> None:
        """Listen on a unix socket that was removed; connections that are open live on. Raises ListenError."""
        await self._listen(address)

    async def set_serving(self, *, serving: bool) -> None:
        """Answer health checks for the server and for the service."""
        states = health_pb2.HealthCheckResponse
        state = states.SERVING if serving else states.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, state)

    async def reload_tls(self, certificates: Certificates) -> None:
        """Use other certificates from the next connection on; those that are open live on."""
        self._certificates = certificates

    async def stop(self, grace: float) -> None:
        """Refuse new calls, and give those under way `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(*(server.stop(grace) for server in self._servers))

    async def _listen(self, address: Address, *, shared: bool = False) -> int:
        """Start a server for one listener: grpcio takes no other one once it is started. Return its port, 0 for a unix socket."""
        # By default a second process binds the same port in silence and takes a part of the connections.
        server = grpc.aio.server(options=(("grpc.so_reuseport", int(shared)), *self._options))
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._check)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Check": method}),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflects: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._reflect)
        for path in messages.BIDIRECTIONAL:
            _, service, name = path.decode("ascii").split("/")
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: reflects}),))
        # What none of the handlers before it serves.
        server.add_generic_rpc_handlers((_Unknown(self._refusals),))
        target = f"unix:{address.path}" if address.path else str(address)
        try:
            if self._certificates is None:
                port = server.add_insecure_port(target)
            else:
                port = server.add_secure_port(target, self._credentials(self._certificates))
        except RuntimeError as error:
            raise ListenError(f"{address} cannot be listened on: {error}") from error
        await server.start()
        self._servers.append(server)
        return 0 if address.path else int(port)

    async def _check(self, data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if self._certificates is not None and self._certificates.allowed_names is not None:
            names = [name.decode("utf-8", "replace") for name in context.auth_context().get(_NAMES, ())]
            if not self._certificates.permits(names):
                self._refusals.count(RefusalReason.TLS_NAME, now=monotonic(), peer=context.peer())
                return self._fallback
        try:
            answer: object = self._handler(data) if self._traced is None else self._traced(data, *_trace(context))
            if isinstance(answer, Awaitable):
                answer = await answer
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._fallback
        except Exception:  # noqa: BLE001 - no exception may become a gRPC status
            _log.exception("the handler raised")
            return self._fallback
        return answer if isinstance(answer, bytes) and answer else self._fallback

    async def _reflect(self, _: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Answer one request message after the other, within the limits of the other transport."""
        self._reflection_streams += 1
        try:
            async with asyncio.timeout(self._stream_timeout):
                refusal = messages.TOO_MANY_REQUESTS if self._reflection_streams > MAX_STREAMS else await _respond(context)
        except TimeoutError:
            refusal = messages.OPEN_TOO_LONG
        finally:
            self._reflection_streams -= 1
        if refusal is not None:
            self._refusals.count(refusal.reason, now=monotonic(), peer=context.peer())
            await context.abort(_STATUSES[refusal.status], refusal.message)

    def _credentials(self, certificates: Certificates) -> grpc.ServerCredentials:
        def latest() -> grpc.ServerCertificateConfiguration:
            return _configuration(self._certificates or certificates)

        require = certificates.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(latest(), latest, require_client_authentication=require)


async def _respond(context: grpc.aio.ServicerContext[bytes, bytes]) -> RequestRefusal | None:
    for _ in range(MAX_REQUESTS):
        request = await context.read()
        if not isinstance(request, bytes):
            return None
        if len(request) > MAX_REQUEST_SIZE:
            return messages.REQUEST_TOO_LARGE
        answer = reflection.answer(request)
        if answer is None:
            return messages.REQUEST_NOT_READABLE
        await context.write(answer)
    return messages.TOO_MANY_REQUESTS if isinstance(await context.read(), bytes) else None


class _Health(health.aio.HealthServicer):  # type: ignore[misc]
    """Health, whose unknown services are counted."""

    def __init__(self, refusals: Refusals) -> None:
        super().__init__()
        self._refusals = refusals

    async def List(  # noqa: N802 - the name of the method
        self, _: health_pb2.HealthListRequest, __: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthListResponse:
        states = {name: health_pb2.HealthCheckResponse(status=state) for name, state in self._server_status.items()}
        return health_pb2.HealthListResponse(statuses=states)

    async def Check(  # noqa: N802 - the name of the method
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in ("", SERVICE):
            self._refusals.count(RefusalReason.SERVICE_UNKNOWN, now=monotonic(), peer=context.peer())
        answer: health_pb2.HealthCheckResponse = await super().Check(request, context)
        return answer


class _Unknown(grpc.GenericRpcHandler):
    """Counts calls of methods that are not here, and leaves them to grpc."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals

    def service(self, _: grpc.HandlerCallDetails) -> None:
        self._refusals.count(RefusalReason.METHOD_UNKNOWN, now=monotonic())


def _trace(context: grpc.aio.ServicerContext[bytes, bytes]) -> tuple[str, str]:
    fields = context.invocation_metadata() or ()
    traceparent, tracestate = (
        ",".join(value for key, value in fields if key == name and isinstance(value, str)) for name in ("traceparent", "tracestate")
    )
    return traceparent, tracestate


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    pair = (certificates.key, certificates.chain)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=certificates.client_ca)


def _limits(limits: Limits) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", limits.message_size),
        ("grpc.absolute_max_metadata_size", limits.header_list_size),
        ("grpc.max_concurrent_streams", limits.concurrent_streams),
        # It cannot end one connection for another: one without a call ends soon, and others wait for a place meanwhile.
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.server_handshake_timeout_ms", int(limits.half_open_timeout * 1000)),
        ("grpc.max_connection_idle_ms", int(min(limits.idle_timeout, LONGEST_IDLE) * 1000)),
        ("grpc.max_connection_age_grace_ms", int(limits.max_connection_age_grace * 1000)),
    ]
    if limits.max_connection_age is not None:
        options.append(("grpc.max_connection_age_ms", int(limits.max_connection_age * 1000)))
    return options
