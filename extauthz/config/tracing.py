"""The section `tracing`: where spans go, and of which checks there are any."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from extauthz.config.values import Name, NonEmpty, Secret, Section, WrittenAs, text

PARENT = "parent"
SAMPLE = {"anyOf": [{"const": PARENT}, {"type": "number", "minimum": 0, "maximum": 1}]}

_HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*").fullmatch
_OF_THE_EXPORTER = frozenset({"connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding"})
_ON_LOOPBACK = re.compile(r"http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?/").match


def _sample(value: object) -> object:
    is_ratio = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    if value != PARENT and not is_ratio:
        raise ValueError("write parent, or the part of the checks without a parent that are traced, from 0 to 1, like 0.01")
    return float(value) if isinstance(value, int) else value


Endpoint = Annotated[
    str,
    text(
        r"https?://[^/?#@\s]+/[^?#@\s]+",
        "write the whole address of the collector, without a user and a query, like http://127.0.0.1:4318/v1/traces",
        shown=False,
    ),
]


class TracingSection(Section):
    """OpenTelemetry spans of checks; without `endpoint` there are none."""

    endpoint: Endpoint | None = Field(default=None, examples=["endpoint: http://127.0.0.1:4318/v1/traces"])
    service_name: Name = "extauthz"
    sample: Annotated[Literal["parent"] | float, BeforeValidator(_sample), WrittenAs(SAMPLE, only=True)] = "parent"
    checks_per_second: int = Field(default=200, ge=1)
    headers: dict[str, Secret] = Field(
        default_factory=dict, repr=False, examples=["headers: {authorization: {env: OTEL_AUTHORIZATION}}"]
    )
    ca_file: NonEmpty | None = None

    @property
    def ratio(self) -> float:
        """Which part of the checks without a parent is traced."""
        return 0.0 if isinstance(self.sample, str) else self.sample

    @field_validator("headers")
    @classmethod
    def _usable_headers(cls, headers: dict[str, Secret], info: ValidationInfo) -> dict[str, Secret]:
        for name in headers:
            if not _HEADER_NAME(name):
                raise ValueError("a name here is no header name: write letters, digits and '-'")
            if name.lower() in _OF_THE_EXPORTER:
                raise ValueError(f"{name} is set by the exporter itself: leave it out")
        endpoint = info.data.get("endpoint")
        if headers and endpoint and endpoint.startswith("http://") and not _ON_LOOPBACK(endpoint):
            raise ValueError("secrets would leave this machine in clear: write an https endpoint, or leave headers out")
        return headers
