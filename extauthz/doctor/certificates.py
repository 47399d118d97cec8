"""Dates of certificates, as findings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from extauthz.doctor.findings import Finding, ok, problem, warning
from extauthz.transport.certificate_dates import day, read_chain


def dates(name: str, path: Path, now: float) -> Iterator[Finding]:
    """Look at the dates of every certificate of a file."""
    try:
        chain = read_chain(path)
    except ValueError as error:
        yield problem(name, str(error), "put a PEM file there that this user may read")
        return
    for certificate in chain:
        subject = f"{path} ({', '.join(certificate.names) or 'without names'})"
        wrong = certificate.wrong_at(now)
        if wrong is None:
            yield ok(name, f"{subject} is good until {day(certificate.not_after)}")
        elif now > certificate.not_after:
            yield problem(name, f"{subject} {wrong}", "renew it: connections with it fail")
        elif now < certificate.not_before:
            yield problem(name, f"{subject} {wrong}", "compare the clock of this machine with the one of its authority")
        else:
            yield warning(name, f"{subject} {wrong}", "renew it; changed files are read again by themselves")
