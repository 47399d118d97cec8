"""The standard transport: grpc.aio, with health, and reflection for grpcurl."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from extauthz._pb import ext_authz_pb2
from extauthz.addresses import Address
from extauthz.transport.limits import Limits
from extauthz.transport.listening import Handler, ListenError, TracedHandler
from extauthz.transport.tls import Certificates

SERVICE = ext_authz_pb2.DESCRIPTOR.services_by_name["Authorization"].full_name
NAME = "grpcio"
LONGEST_IDLE = 60.0
"""Seconds without a call after which a connection is asked to go at the latest: the runtime tells nobody who never asked."""
_NAMES = "x509_subject_alternative_name"

_OPTIONS = (
    # Without it a second process binds the same port in silence and takes a part of the connections.
    ("grpc.so_reuseport", 0),
    # Envoy's connection_keepalive pings would otherwise end an idle connection with GOAWAY too_many_pings.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
)

_log = logging.getLogger(__name__)


class GrpcioServer:
    """Serves one handler of serialised messages; an empty answer, an ALLOW for Envoy, is never sent."""

    def __init__(
        self,
        handler: Handler,
        fallback: bytes,
        *,
        limits: Limits | None = None,
        certificates: Certificates | None = None,
        traced: TracedHandler | None = None,
    ) -> None:
        """Prepare the server; `fallback` is a serialised denial for what should not happen, `traced` is served if there is one."""
        self._certificates = certificates
        self._handler = handler
        self._traced = traced
        self._fallback = fallback
        self._server = grpc.aio.server(options=(*_OPTIONS, *_limits(limits or Limits())))
        self._health = health.aio.HealthServicer()
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._check)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Check": method}),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, address: Address) -> int:
        """Listen and serve, NOT_SERVING for now; return the port, 0 for a unix socket. Raises ListenError."""
        await self.set_serving(serving=False)
        target = f"unix:{address.path}" if address.path else str(address)
        try:
            if self._certificates is None:
                port = self._server.add_insecure_port(target)
            else:
                port = self._server.add_secure_port(target, self._credentials(self._certificates))
        except RuntimeError as error:
            raise ListenError(f"{address} cannot be listened on: {error}") from error
        await self._server.start()
        return 0 if address.path else int(port)

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
        await self._server.stop(grace)

    async def _check(self, data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if self._certificates is not None and self._certificates.allowed_names is not None:
            names = [name.decode("utf-8", "replace") for name in context.auth_context().get(_NAMES, ())]
            if not self._certificates.permits(names):
                _log.warning("a client was refused: its certificate has none of the names in server.tls.allowed_names")
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

    def _credentials(self, certificates: Certificates) -> grpc.ServerCredentials:
        def latest() -> grpc.ServerCertificateConfiguration:
            return _configuration(self._certificates or certificates)

        require = certificates.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(latest(), latest, require_client_authentication=require)


def _trace(context: grpc.aio.ServicerContext[bytes, bytes]) -> tuple[str, str]:
    found = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
    return found.get("traceparent", ""), found.get("tracestate", "")


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    pair = (certificates.key, certificates.chain)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=certificates.client_ca)


def _limits(limits: Limits) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", limits.message_size),
        ("grpc.absolute_max_metadata_size", limits.header_list_size),
        ("grpc.max_concurrent_streams", limits.concurrent_streams),
        # It cannot end one connection for another: who has asked nothing goes soon, and others wait for a place meanwhile.
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.server_handshake_timeout_ms", int(limits.half_open_timeout * 1000)),
        ("grpc.max_connection_idle_ms", int(min(limits.idle_timeout, LONGEST_IDLE) * 1000)),
        ("grpc.max_connection_age_grace_ms", int(limits.max_connection_age_grace * 1000)),
    ]
    if limits.max_connection_age is not None:
        options.append(("grpc.max_connection_age_ms", int(limits.max_connection_age * 1000)))
    return options
