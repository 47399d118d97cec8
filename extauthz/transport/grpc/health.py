"""grpc.health.v1 as the fast transport answers it: its requests, and the messages of its answers."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from extauthz.transport.grpc import messages
from extauthz.transport.grpc.messages import RequestRefusal

SERVICE = "envoy.service.auth.v3.Authorization"
NAMES = ("", SERVICE)
"""Of the server as a whole, and of its service."""
CHECK, LIST, WATCH = (f"/grpc.health.v1.Health/{name}".encode() for name in ("Check", "List", "Watch"))

_States = health_pb2.HealthCheckResponse


def _response(state: health_pb2.HealthCheckResponse.ServingStatus) -> bytes:
    return bytes(_States(status=state).SerializeToString())


def _list_response(state: health_pb2.HealthCheckResponse.ServingStatus) -> bytes:
    statuses = {name: _States(status=state) for name in NAMES}
    return bytes(health_pb2.HealthListResponse(statuses=statuses).SerializeToString(deterministic=True))


_SERVING, _NOT_SERVING, _UNKNOWN = map(_response, (_States.SERVING, _States.NOT_SERVING, _States.SERVICE_UNKNOWN))
_LIST_SERVING, _LIST_NOT_SERVING = map(_list_response, (_States.SERVING, _States.NOT_SERVING))


def state(*, serving: bool) -> bytes:
    """Return the HealthCheckResponse for one of the names."""
    return _SERVING if serving else _NOT_SERVING


def respond(path: bytes, message: bytes, *, serving: bool) -> tuple[str, bytes] | RequestRefusal:
    """Return the service that a request names, and the first message of the response to it; `path` is one of the three."""
    try:
        if path == LIST:
            health_pb2.HealthListRequest.FromString(message)
            return "", _LIST_SERVING if serving else _LIST_NOT_SERVING
        service = health_pb2.HealthCheckRequest.FromString(message).service
    except DecodeError:
        return messages.NOT_READABLE
    if service in NAMES:
        return service, state(serving=serving)
    return (service, _UNKNOWN) if path == WATCH else messages.NO_SERVICE
