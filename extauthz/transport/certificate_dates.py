"""Certificates of files: whom they are for, and how long they are good."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

SOON = 14 * 86_400
"""Seconds before its end from which a certificate is worth a look."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Whom a certificate is for, and its first and last second since the epoch."""

    names: tuple[str, ...]
    not_before: float
    not_after: float

    def wrong_at(self, now: float) -> str | None:
        """Say that it is not good at a time, or not for long; None where it is."""
        if now > self.not_after:
            return f"ended on {day(self.not_after)}"
        if now < self.not_before:
            return f"begins on {day(self.not_before)} only"
        return f"ends on {day(self.not_after)}" if self.not_after - now < SOON else None


def read_chain(path: Path) -> list[Certificate]:
    """Read a PEM file, the own certificate first; raises ValueError, which names the file."""
    # Most configurations name no certificate.
    from cryptography import x509

    try:
        return [_certificate(certificate) for certificate in x509.load_pem_x509_certificates(path.read_bytes())]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} holds no certificates: {error}") from error


def wrong_in_chain(path: Path, now: float) -> Iterator[str]:
    """Yield what is wrong with the dates of a chain: each of its certificates has to be good; raises ValueError."""
    for certificate in read_chain(path):
        wrong = certificate.wrong_at(now)
        if wrong is not None:
            yield f"{path} ({', '.join(certificate.names) or 'without names'}) {wrong}: renew it"


def wrong_in_bundle(path: Path, now: float) -> Iterator[str]:
    """Yield what is wrong with the dates of authorities: one of them has to be good; raises ValueError."""
    best = max(read_chain(path), key=lambda certificate: (certificate.not_before <= now, certificate.not_after))
    wrong = best.wrong_at(now)
    if wrong is not None:
        yield f"the last authority of {path} {wrong}: add the one that follows it"


def day(seconds: float) -> str:
    """Write the day of a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _certificate(certificate: x509.Certificate) -> Certificate:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        texts: list[str] = []
    else:
        texts = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return Certificate(tuple(texts), certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())
