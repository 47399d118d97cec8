"""The ways from Envoy to the sidecar that the demo can go."""

from __future__ import annotations

from enum import StrEnum


class EnvoyLink(StrEnum):
    """What lies between Envoy and the sidecar."""

    TCP = "tcp"
    UNIX = "unix"
    MTLS = "mtls"
