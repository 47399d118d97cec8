"""What a transport refuses before there is a decision: counted by reason, and logged with a hint, at most once a minute.

Nothing that a peer sent is in such a line.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from enum import StrEnum
from typing import Self

INTERVAL = 60.0
"""Seconds between two lines about one reason."""

_log = logging.getLogger(__name__)


class RefusalReason(StrEnum):
    """Why a connection, a stream or a request was refused; the value of a label, and `hint` is what to look at."""

    hint: str
    __hash__ = str.__hash__

    def __new__(cls, value: str, hint: str) -> Self:
        """Make a member that is its value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.hint = hint
        return member

    # Connections.
    PREFACE = (
        "preface",
        "a connection does not speak HTTP/2: if it is Envoy's, its cluster lacks http2_protocol_options",
    )
    TLS_NOT_CONFIGURED = (
        "tls_not_configured",
        "a client speaks TLS, and server.tls is not set: set it, or remove transport_socket from the cluster in Envoy",
    )
    TLS_HANDSHAKE = (
        "tls_handshake",
        "a TLS handshake failed: compare server.tls with transport_socket of the cluster in Envoy, certificates and authorities",
    )
    TLS_PROTOCOL = ("tls_protocol", "TLS agreed on another protocol than h2: write alpn_protocols: [h2] in the cluster in Envoy")
    TLS_NAME = ("tls_name", "the certificate of a client has none of the names in server.tls.allowed_names")
    CONNECTION_LIMIT = (
        "connection_limit",
        "there are more busy connections than grpc.connections: look who opens them",
    )
    EVICTED = (
        "evicted",
        "a connection that asked nothing made room for another, since there are as many as grpc.connections: look who opens them",
    )
    STOPPING = ("stopping", "a connection came while the process stops: Envoy's health check should have turned away by now")
    GREETING_TIMEOUT = ("greeting_timeout", "a connection did not begin with HTTP/2 within grpc.half_open_timeout")
    PROTOCOL_ERROR = (
        "protocol_error",
        "a connection broke a rule of HTTP/2: look who asks this port, and which versions both are",
    )
    FLOOD = (
        "flood",
        "a connection sent more resets or empty frames than grpc allows: look who asks this port",
    )
    # Streams.
    STREAM_ERROR = ("stream_error", "a request broke a rule of HTTP/2: look who asks this port, and which versions both are")
    STREAM_LIMIT = ("stream_limit", "a connection has more requests than grpc.concurrent_streams under way")
    FIELDS_TOO_LARGE = (
        "fields_too_large",
        "the header fields of a request are longer than grpc.header_list_size: see initial_metadata in Envoy",
    )
    FIELDS_MALFORMED = (
        "fields_malformed",
        "header fields of a request are malformed (RFC 9113 8.2, 8.3), or one came twice: see initial_metadata in Envoy",
    )
    REQUEST_TIMEOUT = ("request_timeout", "a request did not come completely within grpc.half_open_timeout")
    # Requests.
    NOT_GRPC = ("not_grpc", "a request is no gRPC: Envoy's filter needs grpc_service, not http_service")
    METHOD_UNKNOWN = ("method_unknown", "a method is called that is not here: Envoy's filter needs transport_api_version: V3")
    SERVICE_UNKNOWN = (
        "service_unknown",
        "a health check names a service that is not here: write service_name: envoy.service.auth.v3.Authorization",
    )
    REFLECTION = (
        "reflection",
        "a call of server reflection was too large, too long, one too many or not readable: look who asks this port",
    )
    MESSAGE_TOO_LARGE = (
        "message_too_large",
        "a check is longer than grpc.message_size: remove with_request_body from Envoy's filter, or raise the limit",
    )
    REQUESTS_TOO_LARGE = (
        "requests_too_large",
        "requests that have not come completely are larger together than grpc.requests_size",
    )
    MESSAGE_MALFORMED = ("message_malformed", "a request is not one message as gRPC frames it, or is not readable")
    ENCODING_UNKNOWN = ("encoding_unknown", "a message is compressed with something else than gzip")
    TIMEOUT_MALFORMED = ("timeout_malformed", "grpc-timeout of a request is not as gRPC writes it")
    DEADLINE_EXCEEDED = (
        "deadline_exceeded",
        "the time of a check was over when it had come: the process is overloaded, or `timeout` in Envoy is too short",
    )
    INTERNAL = ("internal", "a request was given up because of an error of this process, which is in the log")


class Refusals:
    """Counts what one listener refuses; `counts` begins with 0 for each of the reasons that its transport can see."""

    __slots__ = ("_logged", "counts")

    def __init__(self, reasons: Iterable[RefusalReason]) -> None:
        """Begin with none."""
        self.counts = dict.fromkeys(reasons, 0)
        self._logged: dict[RefusalReason, tuple[float, int]] = {}

    def count(self, reason: RefusalReason, *, now: float, peer: str = "", detail: str = "") -> None:
        """Count a refusal at a moment of the monotonic clock; `detail` is a word of a library's own, never one of the peer's."""
        count = self.counts[reason] = self.counts.get(reason, 0) + 1
        last = self._logged.get(reason)
        if last is not None and now - last[0] < INTERVAL:
            return
        self._logged[reason] = now, count
        more = {"reason": reason.value, "refused": count - (last[1] if last else 0)}
        more |= {name: value for name, value in (("peer", peer), ("detail", detail)) if value}
        _log.warning(reason.hint, extra=more)
