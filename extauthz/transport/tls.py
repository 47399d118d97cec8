"""Certificates of the listener: read whole, tried before they are used, and read again when the files change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from extauthz.errors import ListenError
from extauthz.process.clock import SystemClock

INTERVAL = 5.0
"""Seconds between two looks at the files."""

_log = logging.getLogger(__name__)


def _no_report(_: str | None) -> None:
    """Leave it to the log."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """A chain with its key and the authorities of clients, all PEM, and the context made of them; equal if the files are.

    With `allowed_names` only clients are let in whose certificate has one of them as a subject alternative name.
    """

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    context: ssl.SSLContext = field(compare=False, repr=False)
    allowed_names: frozenset[str] | None = None

    @property
    def expires_at(self) -> float:
        """When the first certificate of the chain ends, in seconds since the epoch."""
        return x509.load_pem_x509_certificate(self.chain).not_valid_after_utc.timestamp()

    def permits(self, names: Iterable[str]) -> bool:
        """Return whether a client may connect whose certificate has these subject alternative names."""
        return self.allowed_names is None or not self.allowed_names.isdisjoint(names)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where certificate, key and the authorities of clients are; without authorities every client is let in."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    allowed_names: frozenset[str] | None = None

    def load(self, *, protocol: str = "h2") -> Certificates:
        """Read and try the files, for a listener that speaks a protocol (ALPN); raises ListenError, which names the file."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols([protocol])
        chain, key = _content(self.certificate), _content(self.key)
        client_ca = _content(self.client_ca) if self.client_ca else None
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise ListenError(
                f"{self.certificate} and {self.key} are not a certificate and its unencrypted key: {error}"
            ) from error
        if client_ca is not None:
            try:
                context.load_verify_locations(cadata=client_ca.decode("ascii"))
            except (ssl.SSLError, ValueError) as error:
                raise ListenError(f"{self.client_ca} holds no certificates: {error}") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return Certificates(chain, key, client_ca, context, self.allowed_names)

    async def watch(
        self,
        current: Certificates,
        use: Callable[[Certificates], Awaitable[None]],
        *,
        interval: float = INTERVAL,
        now: Callable[[], float] = SystemClock.now,
        report: Callable[[str | None], object] = _no_report,
    ) -> None:
        """Hand changed files to `use`, for ever; what does not fit together, or is over, leaves the last good ones in use.

        `report` gets after each look why the files are not what is served, None while they are. `now` returns seconds since the
        epoch.
        """
        last_error: str | None = None
        while True:
            await asyncio.sleep(interval)
            try:
                certificates = await asyncio.to_thread(self.load)
                if certificates != current:
                    if certificates.expires_at <= now():
                        raise ListenError(f"{self.certificate} ended at {_moment(certificates.expires_at)}")
                    await use(certificates)
                    current = certificates
                    _log.info("certificates reloaded", extra={"certificate": str(self.certificate)})
                last_error = None
            except (ListenError, OSError, ValueError) as error:
                if last_error != str(error):
                    last_error = str(error)
                    _log.warning("certificates not reloaded, the last good ones go on: %s", error)
            report(last_error)

    async def renew(
        self,
        served: Certificates,
        *,
        interval: float = INTERVAL,
        now: Callable[[], float] = SystemClock.now,
        report: Callable[[str | None], object] = _no_report,
    ) -> None:
        """Show changed certificates in the context that is served, for ever; other authorities of clients need a restart."""

        async def use(certificates: Certificates) -> None:
            if certificates.client_ca != served.client_ca:
                raise ListenError(f"{self.client_ca} is another one, which needs a restart here")
            served.context.load_cert_chain(self.certificate, self.key, password=_no_password)

        await self.watch(served, use, interval=interval, now=now, report=report)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ListenError(f"{path} cannot be read: {error.strerror or error}") from error


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def subject_alternative_names(certificate: Mapping[str, Any] | None) -> list[str]:
    """Return the names of a peer's certificate in the form of `ssl.SSLSocket.getpeercert`; none without a certificate."""
    return [str(name) for _, name in (certificate or {}).get("subjectAltName", ())]
