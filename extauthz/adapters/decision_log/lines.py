"""A decision that waits to be written, and the line that it becomes.

No token, no query and no header value but request id, trace id and the client's address is ever part of a line. A refused OAuth
access token is identified by the issuer and the key id that it names and by the first 8 hex digits of its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from extauthz.core import jwt
from extauthz.core.credentials import AUTH_TYPE, AUTHORIZATION
from extauthz.core.model import Decision, Reason, Request
from extauthz.core.paths import Path, parse_with_slashes
from extauthz.telemetry.decision_record import record_of
from extauthz.telemetry.traceparent import trace_id

MAX_LINE = 4096
"""Bytes: what several processes can write into one pipe without mixing it up (PIPE_BUF of Linux)."""
MAX_PATH, MAX_METHOD, MAX_TARGET = 512, 32, 8 * 1024 + 1
MAX_REQUEST_ID, MAX_TRACEPARENT = 128, 56
MAX_SIGNED, MAX_CLAIM = 4 * 1024, 256

_NO_TOKEN = {Reason.CREDENTIAL_MISSING, Reason.SCHEME_UNSUPPORTED}
UNVERIFIED = frozenset(reason for reason in Reason if reason.status in (401, 503) and reason not in _NO_TOKEN)
"""Reasons with which the token in question is not known."""

_REQUEST_ID = re.compile(r"[!-~]+").fullmatch
# structlog's renderer around the same encoder takes 0.5 µs more a line, its logger 4.5 µs; there is nothing for them to do.
_encode = json.JSONEncoder().encode

UnverifiedToken = tuple[str, str]
"""A fingerprint, and what of the token was signed, which is no credential without the signature."""
Entry = tuple[float, str, str, str, str, str, str, Decision, float, UnverifiedToken | None]
"""Time, decision id, method, path without query, x-request-id, traceparent, client address, decision, seconds, token."""


def unverified_token(request: Request) -> UnverifiedToken | None:
    """Return what a line says of an OAuth access token that was refused or could not be verified."""
    if request.header(AUTH_TYPE).lower() != "oauth":
        return None
    token = request.header(AUTHORIZATION).rpartition(" ")[2]
    if not token:
        return None
    signed = token.rpartition(".")[0]
    return hashlib.sha256(token.encode("latin-1")).hexdigest()[:8], signed if len(signed) <= MAX_SIGNED else ""


def line_of(entry: Entry, shares: Mapping[Reason, float], fields: Collection[str]) -> bytes:
    """Return the line of a decision with the given fields, line feed included: ASCII, MAX_LINE bytes at most."""
    moment, decision_id, method, target, request_id, traceparent, source, decision, seconds, token = entry
    fingerprint, signed = token or (None, "")
    unverified = jwt.read(f"{signed}.") if signed else None
    claimed = unverified if isinstance(unverified, jwt.Unverified) else None
    record = record_of(decision)
    line: dict[str, Any] = {
        "time": round(moment, 3),
        "decision": record.pop("decision"),
        "reason": record.pop("reason"),
        "status": record.pop("status"),
        "decision_id": decision_id,
        "request_id": request_id[:MAX_REQUEST_ID] if _REQUEST_ID(request_id) else None,
        "trace_id": trace_id(traceparent) if traceparent else None,
        "method": method[:MAX_METHOD] or None,
        "path": _path(target) or None,
        "client_address": source or None,
        **record,
        "token_sha256": fingerprint,
        "token_issuer": _short(claimed.claims.get("iss")) if claimed else None,
        "token_key_id": _short(claimed.header.get("kid")) if claimed else None,
        "sample": shares.get(decision.reason),
        "microseconds": round(seconds * 1e6),
    }
    return _fitting({name: value for name, value in line.items() if value is not None and name in fields})


def _fitting(line: dict[str, Any]) -> bytes:
    """Encode a line, its longest texts cut in half until it fits: names of strangers may be six times as long in ASCII."""
    while len(text := _encode(line)) >= MAX_LINE:
        longest = max((name for name in line if isinstance(line[name], str)), key=lambda name: len(line[name]))
        line[longest] = line[longest][: len(line[longest]) // 2]
    return text.encode("ascii") + b"\n"


def _short(value: object) -> str | None:
    return value[:MAX_CLAIM] if isinstance(value, str) else None


def _path(target: str) -> str:
    raw = target.partition("#")[0]
    path = parse_with_slashes(raw) if "%" in raw else None  # nothing else has two spellings
    return (path.canonical if isinstance(path, Path) else raw)[:MAX_PATH]


def limit_of(share: float) -> str:
    """Return the decision id below which a decision is in a sample: ids are 32 hex digits, each as likely as any other.

    The same ids are in the samples of all processes and of all larger shares.
    """
    return "g" if share >= 1 else f"{int(share * 2**53) << 75:032x}" if share > 0 else ""
