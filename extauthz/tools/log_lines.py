"""Lines of decisions that were made: of the decision log, and of requests that `extauthz record` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from extauthz.core.credentials import Kind
from extauthz.core.model import ALLOWING, Allow, AuthType, Deny, Reason, WouldDeny
from extauthz.telemetry.decision_record import MAX_VALUE, weight_of

MAX_METHOD, MAX_PATH = 32, 512
"""Characters at which the decision log cuts a method and a path."""
MAX_SCOPE = 65
"""Characters of a scope and of the space before it: where a list has less room than that, one may have been left out."""
CUT_FROM, CUT_FROM_ESCAPED = 3584, 1000
"""Bytes from which on texts of a line may have been cut in half to fit, without and with letters beyond ASCII.

A line of 4,096 bytes or more loses half of its longest text: 256 characters, of two bytes each, or of twelve.
"""

_OUTCOMES = frozenset({Allow.outcome, Deny.outcome, WouldDeny.outcome})
_REASONS = {reason.value: reason for reason in Reason}
_AUTH_TYPES = {auth_type.value: auth_type for auth_type in AuthType}
_TEXTS = (
    *("method", "path", "auth_type", "held_scopes"),
    *("actor", "user", "client_id", "token_id", "route", "decision_id"),
)
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

    `reason` is None for one that this version does not know. `kind` is that of a token that was refused, where it is known.
    `weight` is how many decisions the line stands for.
    """

    outcome: str
    reason: Reason | None
    reason_name: str
    route: str | None
    method: str | None = None
    path: str | None = None
    auth_type: AuthType | None = None
    actor: str | None = None
    user: str | None = None
    client_id: str | None = None
    token_id: str | None = None
    held: frozenset[str] | None = None
    kind: Kind | None = None
    decision_id: str | None = None
    time: float | None = None
    weight: float = 1.0
    is_cut: bool = False

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
        return LogLine(self.outcome, self.reason, self.reason_name, self.route)


def read_line(line: bytes) -> LogLine | RecordedLine | None:
    """Read a line; None for one that is no decision, or that contradicts itself."""
    try:
        data = _decode(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    outcome, name = data.get("decision"), data.get("reason")
    if not isinstance(name, str) or not isinstance(outcome, str) or outcome not in _OUTCOMES:
        return None
    reason = _REASONS.get(name)
    if reason is not None and (reason in ALLOWING) != (outcome == Allow.outcome):
        return None
    return _recorded(data, outcome, reason) if "caller" in data else _logged(data, outcome, reason, line)


def _logged(data: dict[str, Any], outcome: str, reason: Reason | None, line: bytes) -> LogLine:
    method, path, auth_type, held, *others = map(data.get, _TEXTS)
    # A value of another type is as good as none. This runs for each of millions of lines.
    method = method if isinstance(method, str) else None
    path = path if isinstance(path, str) else None
    actor, user, client_id, token_id, route, decision_id = [value if isinstance(value, str) else None for value in others]
    return LogLine(
        outcome,
        reason,
        data["reason"],
        route,
        method,
        path,
        _AUTH_TYPES.get(auth_type) if isinstance(auth_type, str) else None,
        actor,
        user,
        client_id,
        token_id,
        frozenset(held.split()) if isinstance(held, str) and len(held) <= MAX_VALUE - MAX_SCOPE else None,
        Kind.OAUTH if "token_sha256" in data else None,
        decision_id,
        _time(data.get("time")),
        weight_of(data.get("sample")),
        _is_cut(line, method or "", path or "", actor, user, client_id),
    )


def _is_cut(line: bytes, method: str, path: str, *values: str | None) -> bool:
    if len(line) >= CUT_FROM_ESCAPED and (len(line) >= CUT_FROM or b"\\u" in line):
        return True
    if len(method) >= MAX_METHOD or len(path) >= MAX_PATH:
        return True
    # Without so many bytes no value is that long.
    return len(line) > MAX_VALUE and any(value is not None and len(value) >= MAX_VALUE for value in values)


def _recorded(data: dict[str, Any], outcome: str, reason: Reason | None) -> RecordedLine | None:
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
        data["reason"],
        route if isinstance(route, str) and route else None,
        method,
        path,
        host,
        {name.lower(): value for name, value in headers.items()},  # type: ignore[union-attr]
        caller,
        decision_id if isinstance(decision_id, str) else None,
        _time(data.get("time")),
    )


def _time(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**38 else None
