"""The line that a decision becomes.

No token, no query and no header value but request id, trace id and the client's address is ever part of a line. A refused OAuth
access token is identified by the issuer and the key id that it names and by the first 8 hex digits of its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from extauthz.adapters.decision_log.hints import Hints
from extauthz.core import jwt
from extauthz.core.credentials import AUTHORIZATION, Kind
from extauthz.core.model import Allow, Decision, Identity, Reason, Request
from extauthz.core.paths import Path, parse_with_slashes
from extauthz.process.compiled import load
from extauthz.telemetry.client_address import MAX_ADDRESS
from extauthz.telemetry.decision_record import RecordField, record_of, record_of_caller, record_of_scopes
from extauthz.telemetry.traceparent import trace_id

MAX_LINE = 4096
"""Bytes: what several processes can write into one pipe without mixing it up (PIPE_BUF of Linux)."""
MAX_PATH, MAX_METHOD, MAX_REQUEST_ID = 512, 32, 128
MAX_SIGNED, MAX_CLAIM = 4 * 1024, 256
ORDINARY = 512
"""Characters that method, path, x-request-id and traceparent of most requests have together; such a line is not cut."""
MAX_CALLERS = 4096
"""Callers whose part of a line is remembered; to make it takes two microseconds."""

_NO_TOKEN = {Reason.CREDENTIAL_MISSING, Reason.SCHEME_UNSUPPORTED}
UNVERIFIED = frozenset(reason for reason in Reason if reason.status in (401, 503) and reason not in _NO_TOKEN)
"""Reasons with which the token in question is not known."""
OF_PYTHON = frozenset({Reason.SCOPE_MISSING})
"""Reasons with which a line tells more than the compiled code writes."""
_UNKNOWN = Reason.ROUTE_UNKNOWN
_OF_REASON = (RecordField.DECISION, RecordField.REASON, RecordField.STATUS)
_OF_TOKEN = (RecordField.TOKEN_SHA256, RecordField.TOKEN_ISSUER, RecordField.TOKEN_KEY_ID)

_REQUEST_ID = re.compile(r"[!-~]+").fullmatch
# An encoder is made for every call of json.dumps with other separators or the like; this one is made once.
_encode = json.JSONEncoder().encode


class Lines:
    """Makes lines of the given fields; `shares` are those of reasons that are written in part.

    It runs in every check. What is the same for all decisions with a reason, and for all of a caller on a route, is remembered as
    text. The usual line is put together by compiled code where that is built, what it leaves is formatted here, and what is longer
    or less plain than common goes through a dictionary.
    """

    def __init__(self, fields: Collection[str], shares: Mapping[Reason, float], hints: Hints | None = None) -> None:
        """Compile what the fields need; `hints` are for lines of unknown routes."""
        self._hints = hints if hints is not None and RecordField.NEAREST_ROUTE in fields else Hints()
        self._fields = frozenset(fields)
        self._shares = shares
        has = self._fields.__contains__
        self._time = ', "time": %.3f' if has("time") else "%.0s"
        self._id = ', "decision_id": "%s"' if has("decision_id") else "%.0s"
        self._microseconds = ', "microseconds": %d' if has("microseconds") else "%.0s"
        self._has_request_id, self._has_trace, self._has_method = has("request_id"), has("trace_id"), has("method")
        self._has_path, self._has_client = has("path"), has("client_address")
        self._unverified = UNVERIFIED if self._fields.intersection(_OF_TOKEN) else frozenset()
        self._samples = {reason: f', "sample": {_encode(share)}' for reason, share in shares.items() if has("sample")}
        self._reasons: dict[tuple[str, Reason], str] = {}
        self._caller = lru_cache(maxsize=MAX_CALLERS)(self._caller_text)
        self._usual_line = self._maker_of_usual_lines()

    def line(self, moment: float, request: Request, decision: Decision, seconds: float) -> bytes:
        """Return the line of a decision, line feed included: ASCII, MAX_LINE bytes at most; `moment` is in seconds of the epoch."""
        line = self._usual_line(moment, request, decision, seconds)
        if line is None:
            line = self._common_line(moment, request, decision, seconds)
        return self._hints.chosen(line, request, moment) if decision.reason is _UNKNOWN else line

    def _maker_of_usual_lines(self) -> Callable[[float, Request, Decision, float], bytes | None]:
        compiled = load("extauthz.adapters.decision_log._lines")
        if not compiled:
            return lambda *_: None
        # Reasons whose line needs something of the token or the scopes are never remembered: they are left to Python.
        lines = compiled.UsualLines(self._fields, self._reasons, self._samples, self._caller)
        make: Callable[[float, Request, Decision, float], bytes | None] = lines.line
        return make

    def _common_line(self, moment: float, request: Request, decision: Decision, seconds: float) -> bytes:
        reason = decision.reason
        headers = request.headers
        path = request.path
        if "?" in path:
            path = path.partition("?")[0]
        request_id = headers.get("x-request-id", "")
        traceparent = request.traceparent or headers.get("traceparent", "")
        is_long = len(request.method) > MAX_METHOD or len(path) + len(request_id) + len(traceparent) > ORDINARY
        if is_long or "%" in path or "#" in path or reason in self._unverified:
            return self._uncommon_line(moment, request, decision, seconds)
        text = "".join(
            (
                self._time % moment,
                self._reasons.get((decision.outcome, reason)) or self._reason_text(decision),
                self._id % request.decision_id,
                f', "request_id": {_quoted(request_id[:MAX_REQUEST_ID])}'
                if self._has_request_id and _REQUEST_ID(request_id)
                else "",
                f', "trace_id": "{trace}"' if traceparent and self._has_trace and (trace := trace_id(traceparent)) else "",
                f', "method": {_quoted(request.method)}' if self._has_method and request.method else "",
                f', "path": {_quoted(path)}' if self._has_path and path else "",
                f', "client_address": {_quoted(request.source[:MAX_ADDRESS])}' if self._has_client and request.source else "",
                self._caller(decision.route, decision.identity, decision.user),
                self._text(record_of_scopes(decision), self._fields) if reason is Reason.SCOPE_MISSING else "",
                self._samples.get(reason, ""),
                self._microseconds % round(seconds * 1e6),
            )
        )
        if len(text) + 1 > MAX_LINE:
            return self._uncommon_line(moment, request, decision, seconds)
        return f"{{{text[2:]}}}\n".encode("ascii")

    def _reason_text(self, decision: Decision) -> str:
        text = self._text(record_of(decision), _OF_REASON)
        if decision.reason not in OF_PYTHON:
            self._reasons[decision.outcome, decision.reason] = text
        return text

    def _caller_text(self, route: str | None, identity: Identity | None, user: str | None) -> str:
        return self._text(record_of_caller(route, identity, user), self._fields)

    def _text(self, record: Mapping[str, str | int], names: Collection[str]) -> str:
        return "".join(
            f", {_quoted(name)}: {_encode(value)}" for name, value in record.items() if name in names and name in self._fields
        )

    def _uncommon_line(self, moment: float, request: Request, decision: Decision, seconds: float) -> bytes:
        request_id = request.headers.get("x-request-id", "")
        traceparent = request.traceparent or request.headers.get("traceparent", "")
        fingerprint, signed = (unverified_token(request, decision) if decision.reason in self._unverified else None) or (None, "")
        unverified = jwt.read(f"{signed}.") if signed else None
        claimed = unverified if isinstance(unverified, jwt.Unverified) else None
        record = record_of(decision)
        line: dict[str, Any] = {
            "time": round(moment, 3),
            **{name: record.pop(name) for name in _OF_REASON},
            "decision_id": request.decision_id,
            "request_id": request_id[:MAX_REQUEST_ID] if _REQUEST_ID(request_id) else None,
            "trace_id": trace_id(traceparent) if traceparent else None,
            "method": request.method[:MAX_METHOD] or None,
            "path": _path(request.path.partition("?")[0]) or None,
            "client_address": request.source[:MAX_ADDRESS] or None,
            **record,
            "token_sha256": fingerprint,
            "token_issuer": _short(claimed.claims.get("iss")) if claimed else None,
            "token_key_id": _short(claimed.header.get("kid")) if claimed else None,
            "sample": self._shares.get(decision.reason),
            "microseconds": round(seconds * 1e6),
        }
        return _fitting({name: value for name, value in line.items() if value is not None and name in self._fields})


def unverified_token(request: Request, decision: Decision) -> tuple[str, str] | None:
    """Return a fingerprint of an OAuth access token that was refused or could not be verified, and what of it was signed."""
    if isinstance(decision, Allow) or decision.kind != Kind.OAUTH:
        return None
    token = request.header(AUTHORIZATION).rpartition(" ")[2]
    if not token:
        return None
    signed = token.rpartition(".")[0]
    return hashlib.sha256(token.encode("latin-1")).hexdigest()[:8], signed if len(signed) <= MAX_SIGNED else ""


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
