"""Allows as Envoy reads them, put together from parts that are serialised once.

What the upstream gets, and what the metadata tell of a caller, belong to the edits of a request and are kept with them; what the
metadata tell of a route is the same for everybody. Together they are the bytes that protobuf would write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from google.protobuf.struct_pb2 import Struct

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.core.model import DECISION_ID, Allow, HeaderEdits, Identity, WouldDeny
from extauthz.ports import Header
from extauthz.responses.denials import GRPC_CODES
from extauthz.telemetry.decision_record import RecordField, record_of

OVERWRITE = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
MAX_KEPT = 2048
"""Bytes of the parts that are kept with edits: clients choose names."""
MAX_ROUTES = 65_536
"""Routes whose part is remembered."""

# Tags of fields (protobuf, encoding): status with code 0, ok_response, dynamic_metadata; in ok_response its headers.
_STATUS_OK = b"\x0a\x00"
_OK_RESPONSE = b"\x1a"
_METADATA = b"\x22"
_HEADERS = b"\x12"
_HEADER, _KEY, _VALUE, _OVERWRITE = b"\x0a", b"\x0a", b"\x12", b"\x18\x02"

_PLACEHOLDER = DECISION_ID.encode()
_OF_ROUTE = frozenset({RecordField.DECISION, RecordField.REASON, RecordField.ROUTE, RecordField.STATUS})
"""Fields of the metadata that are the same for all callers: protobuf writes them behind the id, others before or behind both."""


@dataclass(frozen=True, slots=True)
class EncodedEdits:
    """Parts of an answer for one caller, around the decision id; `header` names a header that every answer brings along itself.

    `before` begins the answer where there is no such header. `ok_size` and `metadata_size` are in bytes: of ok_response without
    that header, of the metadata without what a route adds.
    """

    identity: Identity | None
    user: str | None
    header: str | None
    before: bytes
    after: bytes
    removals: bytes
    ok_size: int
    caller: bytes
    rest: bytes
    metadata_size: int


class Allowances:
    """Writes allows."""

    def __init__(self) -> None:
        """Begin with no route."""
        self._routes: dict[tuple[str, str], bytes] = {}

    def write(self, decision: Allow, decision_id: str, header: Header | None) -> bytes:
        """Return the serialised answer; it sets `header` as well, whatever the edits say of that name."""
        name = header[0] if header else None
        parts = decision.edits.encoded
        if not (
            isinstance(parts, EncodedEdits)
            and parts.identity is decision.identity
            and parts.user == decision.user
            and parts.header == name
        ):
            parts = _encoded(decision, name)
            if parts is None:
                return serialised(decision, decision_id, header)
            if len(parts.before) + len(parts.after) + len(parts.caller) + len(parts.rest) + len(parts.removals) <= MAX_KEPT:
                object.__setattr__(decision.edits, "encoded", parts)
        route = self._routes.get((decision.reason, decision.route)) or self._route(decision)
        number, size = decision_id.encode("ascii"), _varint(parts.metadata_size + len(route))
        if header is None:
            return b"".join((parts.before, number, parts.after, parts.removals, size, parts.caller, number, route, parts.rest))
        added = _option(header)
        before = b"".join((_STATUS_OK, _OK_RESPONSE, _varint(parts.ok_size + len(added)), parts.before))
        return b"".join((before, number, parts.after, added, parts.removals, size, parts.caller, number, route, parts.rest))

    def _route(self, decision: Allow) -> bytes:
        part = _entries({name: value for name, value in record_of(decision).items() if name in _OF_ROUTE})
        if len(self._routes) >= MAX_ROUTES:
            del self._routes[next(iter(self._routes))]
        self._routes[decision.reason, decision.route] = part
        return part


def serialised(decision: Allow | WouldDeny, decision_id: str, header: Header | None) -> bytes:
    """Return what protobuf makes of an answer that lets a request go on."""
    response = pb.CheckResponse()
    response.status.code = GRPC_CODES[500]
    write_metadata(response, decision_id, record_of(decision))
    own = {name: decision_id if value == DECISION_ID else value for name, value in decision.edits.set}
    own |= (header,) if header else ()
    set_headers(response.ok_response.headers, own.items())
    response.ok_response.headers_to_remove.extend(name for name in decision.edits.remove if name not in own)
    response.status.code = 0
    return response.SerializeToString(deterministic=True)


def set_headers(target: Iterable[pb.HeaderValueOption], pairs: Iterable[tuple[str, str]]) -> None:
    """Add headers that replace those of the same name."""
    for name, value in pairs:
        option = target.add()  # type: ignore[attr-defined]
        option.header.key = name
        option.header.value = value
        option.append_action = OVERWRITE


def write_metadata(response: pb.CheckResponse, decision_id: str, record: Mapping[str, str | int]) -> None:
    """Write what the decision log tells too, but for what differs from request to request: Envoy's own access log has that."""
    _fill(response.dynamic_metadata, {"decision_id": decision_id, **record})


def _fill(metadata: Struct, record: Mapping[str, str | int]) -> None:
    for name, value in record.items():
        if isinstance(value, int):
            metadata.fields[name].number_value = value
        else:
            metadata.fields[name].string_value = value


def _entries(record: Mapping[str, str | int]) -> bytes:
    metadata = Struct()
    _fill(metadata, record)
    return metadata.SerializeToString(deterministic=True)


def _encoded(decision: Allow, header: str | None) -> EncodedEdits | None:
    """Serialise the parts of an answer; None where the place of its id cannot be told, or the header takes another's place."""
    edits = decision.edits
    response = pb.OkHttpResponse()
    set_headers(response.headers, edits.set)
    around = response.SerializeToString(deterministic=True).split(_PLACEHOLDER)
    if len(around) != 2 or [value for _, value in edits.set].count(DECISION_ID) != 1 or header in dict(edits.set):
        return None
    record = record_of(decision)
    caller = _entries({name: value for name, value in record.items() if name < RecordField.DECISION}) + _ID_ENTRY
    rest = _entries({name: value for name, value in record.items() if name > RecordField.STATUS})
    removals = _removals(edits, header)
    ok_size = sum(map(len, around)) + len(_PLACEHOLDER) + len(removals) - len(_METADATA)
    before = around[0] if header else b"".join((_STATUS_OK, _OK_RESPONSE, _varint(ok_size), around[0]))
    metadata_size = len(caller) + len(_PLACEHOLDER) + len(rest)
    return EncodedEdits(decision.identity, decision.user, header, before, around[1], removals, ok_size, caller, rest, metadata_size)


_ID_ENTRY = _entries({"decision_id": DECISION_ID}).removesuffix(_PLACEHOLDER)


def _removals(edits: HeaderEdits, header: str | None) -> bytes:
    own = dict(edits.set)
    names = tuple(name for name in edits.remove if name not in own and name != header)
    return (_removals_of if sum(map(len, names)) <= MAX_KEPT else _removals_of.__wrapped__)(names)


@lru_cache(maxsize=1024)
def _removals_of(names: tuple[str, ...]) -> bytes:
    """Return what ends ok_response, one object that all edits share which remove the same names."""
    return pb.OkHttpResponse(headers_to_remove=names).SerializeToString(deterministic=True) + _METADATA


def _option(header: Header) -> bytes:
    name, value = header[0].encode(), header[1].encode()
    pair = b"".join((_KEY, _varint(len(name)), name, _VALUE, _varint(len(value)), value))
    option = b"".join((_HEADER, _varint(len(pair)), pair, _OVERWRITE))
    return b"".join((_HEADERS, _varint(len(option)), option))


@lru_cache(maxsize=4096)
def _varint(number: int) -> bytes:
    """Encode a length (protobuf, base 128 varints)."""
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)
