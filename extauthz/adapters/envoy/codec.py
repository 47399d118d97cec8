"""Envoy's ext_authz v3 messages to values of the core, and back.

For Envoy only `status.code` decides, and 0 or nothing is ALLOW: an answer starts as a denial, and only a finished Allow turns it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic

from google.protobuf.message import DecodeError

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.envoy.allowances import Allowances, serialised, set_headers, write_metadata
from extauthz.core.model import DECISION_ID, Allow, Decision, Deny, Reason, Request, WouldDeny
from extauthz.ports import Header
from extauthz.process.compiled import load
from extauthz.responses.client_headers import ClientHeaders
from extauthz.responses.denials import GRPC_CODES, PUBLIC_REASONS, REALM, STATUSES, Answers, Denials
from extauthz.telemetry.client_address import ForwardedClient
from extauthz.telemetry.decision_record import record_of

OTHER_ID = DECISION_ID[::-1]
"""A decision id that differs from DECISION_ID in every character."""

FORWARDED_PARTS = 2
"""What monitor mode forwards names its decision id in the metadata alone."""
MAX_TEMPLATES = 4096
MAX_TEMPLATE_BYTES = 2048
"""Without what the configuration says in a denial."""
MAX_BYTES_OF_TEMPLATES = MAX_TEMPLATES * MAX_TEMPLATE_BYTES

FILTERED_INTERVAL = 60.0
"""Seconds in which the log says at most once that Envoy keeps headers from the check."""
_FILTERED = (
    "requests were refused whose headers did not all reach the check: remove allowed_headers from ext_authz in Envoy "
    "(headersToExtAuth in Envoy Gateway); see docs/troubleshooting.md"
)

CheckParts = tuple[str, str, str, dict[str, str], bool, str, bool]
"""Method, path, host, headers, whether they are exact, the address of the peer, and whether headers were kept back."""

_SIZE_OF_GRPC = -1
"""What servers of gRPC, which send no pseudo-headers, write as the size of a body (gRFC A92); Envoy never does."""
_ERROR_RESPONSES = frozenset({Reason.INTERNAL, Reason.STORE_UNAVAILABLE, Reason.ISSUER_UNAVAILABLE})
_USUAL = Answers()
_HEADERS = ClientHeaders()
_log = logging.getLogger(__name__)
_FIXED = (Reason.REQUEST_MALFORMED, Reason.INTERNAL, Reason.DRAINING)


@dataclass(frozen=True, slots=True)
class _TemplateShape:
    """What a template of a denial must look like: parts around the decision id (0: it cannot have one), and bytes at most."""

    parts: int
    size: int


_FORWARDED = _TemplateShape(FORWARDED_PARTS, MAX_TEMPLATE_BYTES)


class EnvoyCodec:
    """Reads CheckRequest and writes CheckResponse; `realm` goes into WWW-Authenticate, `answers` says how denials are written,
    `headers` what those of clients are called.

    With `error_response` the answers for internal, store_unavailable and issuer_unavailable are errors for Envoy, not denials:
    its failure_mode_allow turns them into allows. `client_address` reads the client's address; without it that is the TCP peer's.
    """

    def __init__(
        self,
        *,
        realm: str = REALM,
        error_response: bool = False,
        answers: Answers = _USUAL,
        headers: ClientHeaders = _HEADERS,
        client_address: ForwardedClient | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Serialise the fixed denials and all that have words of their own; raise RuntimeError for one that would not deny."""
        self._denials = Denials(realm, answers, headers)
        self._error_response = error_response
        self._client_address = client_address
        self._clock = clock
        self._filtered_at: float | None = None
        self._read_usual = usual_reader()
        self._fixed = {reason: _around_the_id(*self._checked(reason, grpc=False)) for reason in _FIXED}
        self._shapes = {
            (PUBLIC_REASONS[name], grpc): self._shape(PUBLIC_REASONS[name], grpc=grpc)
            for name in answers.reasons
            for grpc in (False, True)
        }
        self._allowances = Allowances()
        self._templates: dict[object, list[bytes]] = {}
        self._bytes_of_templates = 0

    def read(self, data: bytes, decision_id: str) -> Request | None:
        """Return the request, or None for bytes that hold no HTTP request."""
        check = self._read_usual(data) or read_by_protobuf(data)
        if check is None:
            return None
        method, path, host, headers, raw, source, filtered = check
        if self._client_address is not None:
            source = self._client_address.address(source, headers)
        return Request(method, path, host, headers, raw, decision_id, source, "", filtered)

    def write(self, request: Request, decision: Decision, header: Header | None = None) -> bytes:
        """Return the serialised answer; a decision like an earlier one is answered as that one was, with another decision id.

        An allow sets `header` as well, whatever its edits say of that name.
        """
        if isinstance(decision, Allow):
            return self._allowances.write(decision, request.decision_id, header)
        if isinstance(decision, WouldDeny):
            key: object = decision
            grpc, shape = False, _FORWARDED
        else:
            grpc, shape = is_grpc(request.header("content-type")), None
            key = (decision, grpc, request.filtered)
            if request.filtered:
                self._warn_of_filtered_headers()
        parts = self._templates.get(key)
        if parts is None:
            shape = shape or self._shape_of(decision.reason, grpc=grpc)
            template = self._serialised(decision, DECISION_ID, grpc=grpc, filtered=request.filtered)
            parts = template.split(DECISION_ID.encode())
            if len(parts) != shape.parts or len(template) > shape.size:
                # The placeholder stands in the client's own words too, or the client sent names without end: no template.
                return self._serialised(decision, request.decision_id, grpc=grpc, filtered=request.filtered)
            self._remember(key, parts)
        return request.decision_id.encode("ascii").join(parts)

    def fixed(self, reason: Reason, decision_id: str) -> bytes:
        """Return one of the denials that were checked at start."""
        return decision_id.encode("ascii").join(self._fixed[reason])

    def _remember(self, key: object, parts: list[bytes]) -> None:
        """Keep a template; the oldest make room."""
        self._templates[key] = parts
        self._bytes_of_templates += sum(map(len, parts))
        while len(self._templates) > MAX_TEMPLATES or self._bytes_of_templates > MAX_BYTES_OF_TEMPLATES:
            oldest = next(iter(self._templates))
            self._bytes_of_templates -= sum(map(len, self._templates.pop(oldest)))

    def _warn_of_filtered_headers(self) -> None:
        now = self._clock()
        if self._filtered_at is None or now - self._filtered_at >= FILTERED_INTERVAL:
            self._filtered_at = now
            _log.warning(_FILTERED)

    def _serialised(self, decision: Deny | WouldDeny, decision_id: str, *, grpc: bool, filtered: bool) -> bytes:
        if isinstance(decision, WouldDeny):
            return serialised(decision, decision_id, None)
        return self._denial(decision, decision_id, grpc=grpc, filtered=filtered)

    def _denial(self, decision: Deny, decision_id: str, *, grpc: bool, filtered: bool = False) -> bytes:
        reason = decision.reason
        denial = self._denials.answer(decision, decision_id, grpc=grpc, filtered=filtered)
        response = pb.CheckResponse()
        response.status.code = GRPC_CODES[reason.status]
        write_metadata(response, decision_id, record_of(decision))
        use_error = self._error_response and reason in _ERROR_RESPONSES
        denied = response.error_response if use_error else response.denied_response
        denied.status.code = denial.status
        denied.body = denial.body
        set_headers(denied.headers, denial.headers)
        return response.SerializeToString(deterministic=True)

    def _shape_of(self, reason: Reason, *, grpc: bool) -> _TemplateShape:
        if (reason, grpc) not in self._shapes:
            self._shapes[reason, grpc] = self._shape(reason, grpc=grpc)
        return self._shapes[reason, grpc]

    def _shape(self, reason: Reason, *, grpc: bool) -> _TemplateShape:
        """Look at a denial in which nothing is a client's own, so that only our own words can hold the placeholder."""
        data, other = self._checked(reason, grpc=grpc)
        parts = data.split(DECISION_ID.encode())
        whole = OTHER_ID.encode().join(parts) == other
        return _TemplateShape(len(parts) if whole else 0, len(data) + MAX_TEMPLATE_BYTES)

    def _checked(self, reason: Reason, *, grpc: bool) -> tuple[bytes, bytes]:
        """Return a denial with either decision id; raise RuntimeError when it would not deny."""
        data, other = (self._denial(Deny(reason), decision_id, grpc=grpc) for decision_id in (DECISION_ID, OTHER_ID))
        message = pb.CheckResponse.FromString(data)
        status = message.denied_response.status.code or message.error_response.status.code
        if message.status.code == 0 or status not in (reason.status, *STATUSES) or len(data) != len(other):
            raise RuntimeError(f"the denial {reason} would not deny: not serving")
        return data, other


def usual_reader() -> Callable[[bytes], CheckParts | None]:
    """Return what reads usual messages without protobuf, and no other; none at all where it is not built, or not wanted."""
    compiled = load("extauthz.adapters.envoy._reader")
    return compiled.read if compiled else lambda _: None


def read_by_protobuf(data: bytes) -> CheckParts | None:
    """Return the parts of any CheckRequest, None for bytes that hold no HTTP request."""
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
    filtered = ":method" not in headers and not {":path", ":authority"} & headers.keys() and http.size != _SIZE_OF_GRPC
    path, host = headers.get(":path") or _latin1(http.path), headers.get(":authority") or _latin1(http.host)
    return method, path, host, headers, bool(lines), attributes.source.address.socket_address.address, filtered


def _around_the_id(data: bytes, other: bytes) -> list[bytes]:
    """Return what stands around the decision id in two answers that are the same but for it, whatever else they hold."""
    size = len(DECISION_ID)
    differing = [at for at, (one, two) in enumerate(zip(data, other, strict=True)) if one != two]
    begins = [-size, *differing[::size], len(data)]
    return [data[begin + size : end] for begin, end in pairwise(begins)]


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


def is_grpc(content_type: str) -> bool:
    """Return whether Envoy takes a request for gRPC, and makes trailers of its denial: a parameter makes it HTTP."""
    return content_type == "application/grpc" or content_type.startswith("application/grpc+")
