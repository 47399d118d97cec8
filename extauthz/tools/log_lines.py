"""Lines of decisions that were made: of the decision log, and of requests that `extauthz record` wrote.

Every tool reads them here, those of files and those that a sidecar remembers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from extauthz.core.credentials import Kind
from extauthz.core.model import ALLOWING, Allow, AuthType, Deny, Reason, WouldDeny
from extauthz.errors import LineError
from extauthz.telemetry.decision_record import MAX_VALUE, weight_of

MAX_LINE = 64 * 1024
"""Of a line, bytes or characters: sixteen times as many as the longest that is written; what is longer is none."""
LATEST = 253_402_300_800
"""Seconds from the epoch to the end of the year 9999: what is later is no time, and has no form in RFC 3339."""
MAX_METHOD, MAX_PATH = 32, 512
"""Characters at which the decision log cuts a method and a path."""
MAX_SCOPE = 65
"""Characters of a scope and of the space before it: where a list has less room than that, one may have been left out."""
CUT_FROM, CUT_FROM_ESCAPED = 3584, 1000
"""Bytes from which on texts of a line may have been cut in half to fit, without and with letters beyond ASCII.

A line of 4,096 bytes or more loses half of its longest text: 256 characters, of two bytes each, or of twelve.
"""

decision_id_of = re.compile(r"[0-9a-f]{32}").fullmatch
"""Matches the id of a decision."""

_OUTCOMES = frozenset({Allow.outcome, Deny.outcome, WouldDeny.outcome})
_REASONS = {reason.value: reason for reason in Reason}
_AUTH_TYPES = {auth_type.value: auth_type for auth_type in AuthType}
_TEXTS = (
    *("decision_id", "route", "method", "path", "actor", "user", "client_id", "token_id", "auth_type"),
    *("required_scopes", "held_scopes", "nearest_route", "token_sha256", "token_issuer", "token_key_id"),
)
"""Fields of texts, in the order of LogLine."""
_VERSION = 1
_decode = json.JSONDecoder().decode


class Undecidable(StrEnum):
    """Why a line does not tell what a configuration decides, and what to do about that."""

    hint: str

    def __new__(cls, value: str, hint: str) -> Self:
        """Build a member from its row."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.hint = hint
        return member

    REQUEST_ABSENT = "request_absent", "the log has no method or no path: write both, by `path: true` and `fields` of decision_log"
    CUT = "cut", "the line was cut because it is too long: record such requests with `extauthz record`"
    REASON_UNKNOWN = "reason_unknown", "another version wrote the line: replay it with that version"
    NOT_BY_POLICY = "not_by_policy", "the sidecar could not decide at that time: no configuration tells what it would have decided"
    HOST = "host", "routes of the new configuration depend on the host, which the log does not have: use `extauthz record`"
    PREFLIGHT = "preflight", "whether it was a CORS preflight is not in the log: use `extauthz record`"
    CREDENTIAL_NOT_READ = (
        "credential_not_read",
        "it was decided without a token, and now needs one: nobody looked whether it had one",
    )
    TOKEN_NOT_VERIFIED = "token_not_verified", "its token was not verified, and now would be: nobody knows what that comes to"
    CALLER_ABSENT = "caller_absent", "the log has no auth_type: see `fields` of decision_log"
    CALLER_UNREADABLE = "caller_unreadable", "the recorded caller does not fit the new configuration: see `extauthz replay --help`"
    PROVIDER = "provider", "the new configuration has no provider of this name: its tokens would have to be verified"
    ACT_AS = "act_as", "whom the request named in its act-as header is not in the log: use `extauthz record`"
    SCOPES = "scopes", "which scopes the token has is not in the log: --store looks issued tokens up; else use `extauthz record`"
    IDENTITY = "identity", "the identity was too long to be forwarded, so the log does not have all of it: use `extauthz record`"


@dataclass(slots=True)
class LogLine:
    """What a line of the decision log tells; a log has millions, and `frozen` would cost three times as much.

    Texts are None where the line does not have them, `outcome` and `reason_name` are "" then. `reason` is None for one that this
    version does not know. `time` is in seconds since the epoch. `weight` is how many decisions the line stands for.
    """

    outcome: str
    reason: Reason | None
    reason_name: str
    decision_id: str | None = None
    route: str | None = None
    method: str | None = None
    path: str | None = None
    actor: str | None = None
    user: str | None = None
    client_id: str | None = None
    token_id: str | None = None
    auth_type_name: str | None = None
    required_scopes: str | None = None
    held_scopes: str | None = None
    nearest_route: str | None = None
    token_sha256: str | None = None
    token_issuer: str | None = None
    token_key_id: str | None = None
    time: float | None = None
    weight: float = 1.0
    is_cut: bool = False

    @property
    def auth_type(self) -> AuthType | None:
        """What kind of token was verified."""
        return _AUTH_TYPES.get(self.auth_type_name or "")

    @property
    def held(self) -> frozenset[str] | None:
        """The scopes of the token, None where the line has none or not all of them."""
        held = self.held_scopes
        return frozenset(held.split()) if held is not None and len(held) <= MAX_VALUE - MAX_SCOPE else None

    @property
    def kind(self) -> Kind | None:
        """The kind of a token that was not verified, where the line tells it."""
        is_known = self.token_sha256 is not None or self.token_issuer is not None or self.token_key_id is not None
        return Kind.OAUTH if is_known else None

    @property
    def caller(self) -> str | None:
        """Who called, as far as the line tells."""
        is_issued = self.actor is not None and self.actor.startswith("token:")
        return self.actor if is_issued or self.user is None else self.user


@dataclass(frozen=True, slots=True)
class RecordedLine:
    """A request that was recorded: with its host and headers, and a description of its caller in place of its credential."""

    outcome: str
    reason: Reason | None
    reason_name: str
    route: str | None
    method: str
    path: str
    host: str
    headers: Mapping[str, str]
    caller: str
    decision_id: str | None = None
    time: float | None = None
    weight: float = 1.0

    def without_caller(self) -> LogLine:
        """Return what is left of it where its caller is not known."""
        known = self.decision_id, self.route, self.method, self.path
        return LogLine(self.outcome, self.reason, self.reason_name, *known, time=self.time, weight=self.weight)


def read_line(line: bytes) -> LogLine | RecordedLine | None:
    """Read a line of a file; None for one that is no decision, or that contradicts itself."""
    data = _object(line)
    found = _read(data, line) if data is not None else None
    return None if isinstance(found, LogLine) and not (found.outcome and found.reason_name) else found


def line_in(text: str) -> LogLine | RecordedLine:
    """Read a line that somebody gives, in which any field may be missing; raises LineError."""
    if len(text) > MAX_LINE:
        raise LineError("the line is longer than any of a decision log")
    line = text.encode("utf-8", "surrogatepass")
    data = _object(line)
    if data is None:
        raise LineError("the line is no JSON: give one line of a decision log")
    found = _read(data, line)
    if found is None and "caller" in data:
        raise LineError("the line is no request that this version of 'extauthz record' wrote")
    if found is None:
        raise LineError("the line contradicts itself: its reason does not come to its decision")
    return found


def read_record(record: Mapping[str, Any]) -> LogLine:
    """Read a decision that a sidecar remembers, in which any field may be missing; whether it was cut is not told."""
    return _logged(record, *_outcome(record), b"")


def seconds(value: object) -> float | None:
    """Read a time of a log, in seconds since the epoch or in ISO 8601; None when it is none."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < LATEST else None  # type: ignore[operator, arg-type]


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        data = _decode(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _read(data: dict[str, Any], line: bytes) -> LogLine | RecordedLine | None:
    outcome, reason, name = _outcome(data)
    if outcome and reason is not None and (reason in ALLOWING) != (outcome == Allow.outcome):
        return None
    return _recorded(data, outcome, reason, name) if "caller" in data else _logged(data, outcome, reason, name, line)


def _outcome(data: Mapping[str, Any]) -> tuple[str, Reason | None, str]:
    """Return what was decided and why, as far as that is told; a value of another type is as good as none."""
    outcome, name = data.get("decision"), data.get("reason")
    name = name if isinstance(name, str) else ""
    return outcome if isinstance(outcome, str) and outcome in _OUTCOMES else "", _REASONS.get(name), name


def _logged(data: Mapping[str, Any], outcome: str, reason: Reason | None, name: str, line: bytes) -> LogLine:
    texts = [value if isinstance(value, str) else None for value in map(data.get, _TEXTS)]
    found = LogLine(outcome, reason, name, *texts)  # type: ignore[arg-type]
    found.time, found.weight = seconds(data.get("time")), weight_of(data.get("sample"))
    found.is_cut = _is_cut(line, found)
    return found


def _is_cut(text: bytes, line: LogLine) -> bool:
    if len(text) >= CUT_FROM_ESCAPED and (len(text) >= CUT_FROM or b"\\u" in text):
        return True
    if len(line.method or "") >= MAX_METHOD or len(line.path or "") >= MAX_PATH:
        return True
    # Without so many bytes no value is that long.
    values = (line.actor, line.user, line.client_id) if len(text) > MAX_VALUE else ()
    return any(value is not None and len(value) >= MAX_VALUE for value in values)


def _recorded(data: dict[str, Any], outcome: str, reason: Reason | None, name: str) -> RecordedLine | None:
    if not outcome or not name:
        return None
    texts = [data.get(name) for name in ("method", "path", "host", "caller")]
    headers, route = data.get("headers"), data.get("route")
    is_whole = data.get("version") == _VERSION and all(isinstance(text, str) for text in texts) and isinstance(headers, dict)
    if not is_whole or not all(isinstance(value, str) for value in headers.values()):  # type: ignore[union-attr]
        return None
    method, path, host, caller = map(str, texts)
    decision_id = data.get("decision_id")
    return RecordedLine(
        outcome,
        reason,
        name,
        route if isinstance(route, str) and route else None,
        method,
        path,
        host,
        {name.lower(): value for name, value in headers.items()},  # type: ignore[union-attr]
        caller,
        decision_id if isinstance(decision_id, str) else None,
        seconds(data.get("time")),
    )
