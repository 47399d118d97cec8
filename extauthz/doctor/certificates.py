"""Certificates of files: whom they are for, and how long they are good."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from extauthz.doctor.findings import Finding, ok, problem, warning

SOON = 14 * 86_400
"""Seconds before its end from which a certificate is worth a look."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Whom a certificate is for, and its first and last second since the epoch."""

    names: tuple[str, ...]
    not_before: float
    not_after: float


def read_chain(path: Path) -> list[Certificate]:
    """Read a PEM file, the own certificate first; raises ValueError, which names the file."""
    try:
        return [_certificate(certificate) for certificate in x509.load_pem_x509_certificates(path.read_bytes())]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} holds no certificates: {error}") from error


def dates(name: str, path: Path, now: float) -> Iterator[Finding]:
    """Look at the dates of every certificate of a file."""
    try:
        chain = read_chain(path)
    except ValueError as error:
        yield problem(name, str(error), "put a PEM file there that this user may read")
        return
    for certificate in chain:
        subject = f"{path} ({', '.join(certificate.names) or 'without names'})"
        if now > certificate.not_after:
            yield problem(name, f"{subject} ended on {_day(certificate.not_after)}", "renew it: connections with it fail")
        elif now < certificate.not_before:
            advice = "compare the clock of this machine with the one of its authority"
            yield problem(name, f"{subject} begins on {_day(certificate.not_before)} only", advice)
        elif certificate.not_after - now < SOON:
            yield warning(
                name, f"{subject} ends on {_day(certificate.not_after)}", "renew it; changed files are read again by themselves"
            )
        else:
            yield ok(name, f"{subject} is good until {_day(certificate.not_after)}")


def _certificate(certificate: x509.Certificate) -> Certificate:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        texts: list[str] = []
    else:
        texts = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return Certificate(tuple(texts), certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
