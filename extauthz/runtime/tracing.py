"""Tracing as `serve` holds it open; what it needs is imported only when there is somewhere to export to."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from extauthz import __version__
from extauthz.config.loader import Configuration
from extauthz.errors import ConfigurationError
from extauthz.ports import Clock

if TYPE_CHECKING:
    from extauthz.adapters.tracing.checks import Tracing


def open_tracing(
    configuration: Configuration, headers: Mapping[str, str], stack: contextlib.AsyncExitStack, *, clock: Clock
) -> Tracing | None:
    """Begin to export spans, to be ended by the stack; None without an endpoint. The collector gets these `headers`.

    Raises ConfigurationError."""
    section = configuration.settings.tracing
    if section.endpoint is None:
        return None
    try:
        from extauthz.adapters.tracing.checks import Tracing
    except ImportError as error:
        message = f"needs OpenTelemetry ({error}): pip install 'extauthz[otel]', or leave the key out"
        raise ConfigurationError([configuration.problem(("tracing", "endpoint"), message)]) from error
    ca_file = configuration.file.parent / section.ca_file if section.ca_file else None
    if ca_file is not None and not ca_file.is_file():
        raise ConfigurationError([configuration.problem(("tracing", "ca_file"), f"{ca_file}: no such file")])
    tracing = Tracing(
        section.endpoint,
        service_name=section.service_name,
        version=__version__,
        ratio=section.ratio,
        checks_per_second=section.checks_per_second,
        headers=headers,
        ca_file=ca_file,
        clock=clock,
        random=secrets.SystemRandom().random,
    )
    stack.push_async_callback(tracing.close)
    return tracing
