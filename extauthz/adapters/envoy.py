"""Envoy's ext_authz v3 messages to values of the core, and back.

For Envoy only `status.code` decides, and 0 or nothing is ALLOW: an answer starts as a denial, and only a finished Allow turns it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from google.protobuf.message import DecodeError

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.core.model import DECISION_ID, Allow, Decision, Deny, Reason, Request, WouldDeny

OVERWRITE = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
DECISION_ID_HEADER = "x-extauthz-decision-id"
RETRY_AFTER = "1"

ALLOW_PARTS = 3
"""An allow names its decision id twice: in a header and in the metadata."""
DENIAL_PARTS = 4
"""A denial names it in a header, in the body and in the metadata."""
FORWARDED_PARTS = 2
"""What monitor mode forwards names it in the metadata alone."""
MAX_TEMPLATES = 4096
MAX_TEMPLATE_BYTES = 2048

_GRPC_CODES = {400: 3, 401: 16, 403: 7, 500: 13, 503: 14}
_ERRORS = {400: "invalid_request", 401: "invalid_token", 403: "access_denied", 500: "server_error", 503: "temporarily_unavailable"}
_NO_ERROR_CODE = frozenset({Reason.CREDENTIAL_MISSING, Reason.SCHEME_UNSUPPORTED})
_ERROR_RESPONSES = frozenset({Reason.INTERNAL, Reason.STORE_UNAVAILABLE, Reason.ISSUER_UNAVAILABLE})
_FIXED = (Reason.REQUEST_MALFORMED, Reason.INTERNAL, Reason.DRAINING)


class EnvoyCodec:
    """Reads CheckRequest and writes CheckResponse; `realm` goes into WWW-Authenticate.

    With `error_response` the answers for internal, store_unavailable and issuer_unavailable are errors for Envoy, not denials:
    its failure_mode_allow turns them into allows.
    """

    def __init__(self, *, realm: str = "extauthz", error_response: bool = False) -> None:
        """Serialise the fixed denials and check them; raise RuntimeError when one would not deny."""
        self._realm = realm
        self._error_response = error_response
        self._fixed = {reason: self._denial_parts(reason) for reason in _FIXED}
        self._templates: dict[object, tuple[Decision, list[bytes]]] = {}

    def read(self, data: bytes, decision_id: str) -> Request | None:
        """Return the request, or None for bytes that hold no HTTP request."""
        try:
            message = pb.CheckRequest.FromString(data)
        except DecodeError:
            return None
        attributes = message.attributes
        http = attributes.request.http
        method = http.method
        if not method:
            return None
        lines = http.header_map.headers
        headers = _exact(lines) if lines else _joined((name, _latin1(value)) for name, value in http.headers.items())
        return Request(
            method,
            headers.get(":path") or _latin1(http.path),
            headers.get(":authority") or _latin1(http.host),
            headers,
            bool(lines),
            decision_id,
            attributes.source.address.socket_address.address,
        )

    def write(self, request: Request, decision: Decision) -> bytes:
        """Return the serialised answer; a decision like an earlier one is answered as that one was, with another decision id."""
        if isinstance(decision, Allow):
            key: object = (id(decision.edits), decision.route)
            grpc, parts = False, ALLOW_PARTS
        elif isinstance(decision, WouldDeny):
            key, grpc, parts = decision, False, FORWARDED_PARTS
        else:
            grpc, parts = _is_grpc(request.header("content-type")), DENIAL_PARTS
            key = (decision, grpc)
        known = self._templates.get(key)
        if known is None:
            template = self._serialised(decision, DECISION_ID, grpc=grpc)
            known = decision, template.split(DECISION_ID.encode())
            if len(known[1]) != parts or len(template) > MAX_TEMPLATE_BYTES:
                # The placeholder stands in the client's own words too, or the client sent names without end: no template.
                return self._serialised(decision, request.decision_id, grpc=grpc)
            if len(self._templates) >= MAX_TEMPLATES:
                self._templates.clear()
            # The decision is kept with its template, so that no other edits get the same id while it lives.
            self._templates[key] = known
        return request.decision_id.encode("ascii").join(known[1])

    def fixed(self, reason: Reason, decision_id: str) -> bytes:
        """Return one of the denials that were checked at start."""
        return decision_id.encode("ascii").join(self._fixed[reason])

    def _serialised(self, decision: Decision, decision_id: str, *, grpc: bool) -> bytes:
        if isinstance(decision, (Allow, WouldDeny)):
            return _allowance(decision, decision_id)
        return self._denial(decision, decision_id, grpc=grpc)

    def _denial(self, decision: Deny, decision_id: str, *, grpc: bool) -> bytes:
        reason = decision.reason
        response = pb.CheckResponse()
        response.status.code = _GRPC_CODES[reason.status]
        _write_metadata(response, decision, decision_id)
        use_error = self._error_response and reason in _ERROR_RESPONSES
        denied = response.error_response if use_error else response.denied_response
        denied.status.code = reason.status
        headers = [("cache-control", "no-store"), (DECISION_ID_HEADER, decision_id)]
        challenge = self._challenge(decision)
        if challenge:
            headers.append(("www-authenticate", challenge))
        if reason.status == 503:
            headers.append(("retry-after", RETRY_AFTER))
        if grpc:
            headers.append(("grpc-status", str(_GRPC_CODES[reason.status])))
            denied.body = f"{reason.message} (decision {decision_id})"
        else:
            headers.append(("content-type", "application/json"))
            denied.body = json.dumps(
                {"error": _error(reason), "reason": reason.told_as, "message": reason.message, "decision_id": decision_id}
            )
        _set_headers(denied.headers, headers)
        return response.SerializeToString(deterministic=True)

    def _challenge(self, decision: Deny) -> str | None:
        """Return WWW-Authenticate as RFC 6750 3 asks for it; None where another credential would not help."""
        reason = decision.reason
        challenge = f'Bearer realm="{self._realm}"'
        if reason in _NO_ERROR_CODE:
            return challenge
        if reason is Reason.SCOPE_MISSING:
            return f'{challenge}, error="{_error(reason)}", scope="{" ".join(decision.scopes)}"'
        return f'{challenge}, error="{_error(reason)}"' if reason.status in (400, 401) else None

    def _denial_parts(self, reason: Reason) -> list[bytes]:
        data = self._denial(Deny(reason), DECISION_ID, grpc=False)
        message = pb.CheckResponse.FromString(data)
        denies = message.status.code != 0 and reason.status in (
            message.denied_response.status.code,
            message.error_response.status.code,
        )
        if not denies or len(data.split(DECISION_ID.encode())) != DENIAL_PARTS:
            raise RuntimeError(f"the fixed denial {reason} would not deny: not serving")
        return data.split(DECISION_ID.encode())


def _allowance(decision: Allow | WouldDeny, decision_id: str) -> bytes:
    response = pb.CheckResponse()
    response.status.code = _GRPC_CODES[500]
    _write_metadata(response, decision, decision_id)
    own = ((name, decision_id if value == DECISION_ID else value) for name, value in decision.edits.set)
    _set_headers(response.ok_response.headers, own)
    response.ok_response.headers_to_remove.extend(decision.edits.remove)
    response.status.code = 0
    return response.SerializeToString(deterministic=True)


def _exact(lines: Sequence[pb.HeaderValue]) -> dict[str, str]:
    """Read header lines with exact bytes; the short way is for lines that need no joining."""
    headers = {line.key: line.raw_value.decode("latin-1") for line in lines}
    if len(headers) == len(lines) and "".join(headers).islower() and "" not in headers.values():
        return headers
    return _joined((line.key, line.raw_value.decode("latin-1") or _latin1(line.value)) for line in lines)


def _joined(lines: Iterable[tuple[str, str]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in lines:
        lower = name.lower()
        headers[lower] = f"{headers[lower]},{value}" if lower in headers else value
    return headers


def _latin1(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8").decode("latin-1")


def _is_grpc(content_type: str) -> bool:
    return content_type == "application/grpc" or content_type.startswith(("application/grpc+", "application/grpc;"))


def _error(reason: Reason) -> str:
    if reason is Reason.CREDENTIAL_MISSING:
        return "authentication_required"
    return "insufficient_scope" if reason is Reason.SCOPE_MISSING else _ERRORS[reason.status]


def _set_headers(target: Iterable[pb.HeaderValueOption], pairs: Iterable[tuple[str, str]]) -> None:
    for name, value in pairs:
        option = target.add()  # type: ignore[attr-defined]
        option.header.key = name
        option.header.value = value
        option.append_action = OVERWRITE


def _write_metadata(response: pb.CheckResponse, decision: Decision, decision_id: str) -> None:
    fields = response.dynamic_metadata.fields
    fields["decision"].string_value = decision.outcome
    fields["reason"].string_value = decision.reason.value
    fields["decision_id"].string_value = decision_id
    if decision.route is not None:
        fields["route"].string_value = decision.route
    if decision.identity is not None:
        fields["auth_type"].string_value = decision.identity.auth_type.value
        fields["actor"].string_value = decision.identity.actor
    if decision.user is not None:
        fields["user"].string_value = decision.user
