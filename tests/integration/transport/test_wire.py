"""`protos/ext_authz.proto` says the same as Envoy's own files, as the package `xds-protos` ships them.

The official descriptors come out of a process of their own (`wire_comparison.py`) and live here in a private pool, so
that both sides stand next to each other and read each other's bytes.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2, wrappers_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from extauthz._pb import ext_authz_pb2

PACKAGE = "envoy.service.auth.v3"

# The messages that Envoy keeps in other packages. A package name is not on the wire.
MOVED = {
    f"{PACKAGE}.Address": "envoy.config.core.v3.Address",
    f"{PACKAGE}.SocketAddress": "envoy.config.core.v3.SocketAddress",
    f"{PACKAGE}.HeaderMap": "envoy.config.core.v3.HeaderMap",
    f"{PACKAGE}.HeaderValue": "envoy.config.core.v3.HeaderValue",
    f"{PACKAGE}.HeaderValueOption": "envoy.config.core.v3.HeaderValueOption",
    f"{PACKAGE}.HeaderValueOption.HeaderAppendAction": "envoy.config.core.v3.HeaderValueOption.HeaderAppendAction",
    f"{PACKAGE}.HttpStatus": "envoy.type.v3.HttpStatus",
    f"{PACKAGE}.Status": "google.rpc.Status",
}

# An open enum and an int32 have the same bytes; nowhere else do the types differ.
NUMBER_FOR_ENUM = {f"{PACKAGE}.HttpStatus.code"}


def official_name(name: str) -> str:
    return MOVED.get(name, name)


def messages_of(file: FileDescriptor) -> Iterator[Descriptor]:
    """Every message of *file*: nested ones and the entries of maps too."""
    waiting = list(file.message_types_by_name.values())
    while waiting:
        message = waiting.pop(0)
        yield message
        waiting.extend(message.nested_types)


def field_differences(field: FieldDescriptor, pool: DescriptorPool) -> list[str]:
    """What a field of ours and the official field of that name do not have in common."""
    message = official_name(field.full_name.rpartition(".")[0])
    try:
        official = pool.FindMessageTypeByName(message).fields_by_name[field.name]
    except KeyError:
        return ["absent from the official file"]
    kinds = (field.type, official.type)
    allowed = (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_ENUM)
    ours, theirs = described(field), described(official)
    ours["kind"] = official_name(ours["kind"])
    if field.full_name in NUMBER_FOR_ENUM and kinds == allowed:
        for key in ("type", "kind", "values"):
            del ours[key]
    return [f"{key}: {ours[key]!r}, official {theirs[key]!r}" for key in ours if ours[key] != theirs[key]]


def described(field: FieldDescriptor) -> dict[str, Any]:
    """All that decides about the bytes of a field."""
    kind = field.message_type or field.enum_type
    return {
        "number": field.number,
        "type": field.type,
        "repeated": field.is_repeated,
        "presence": field.has_presence,
        "kind": kind.full_name if kind else "",
        "map": bool(field.message_type and field.message_type.GetOptions().map_entry),
        "values": {value.name: value.number for value in field.enum_type.values} if field.enum_type else {},
        "oneof": field.containing_oneof.name if field.containing_oneof else None,
    }


def service_differences(file: FileDescriptor, pool: DescriptorPool) -> list[str]:
    """What the services of *file* and the official ones do not have in common."""
    found = []
    for service in file.services_by_name.values():
        try:
            official = pool.FindServiceByName(service.full_name).methods_by_name
        except KeyError:
            found.append(f"no official service {service.full_name}")
            continue
        signatures = [
            {
                method.name: (
                    official_name(method.input_type.full_name),
                    official_name(method.output_type.full_name),
                    method.client_streaming,
                    method.server_streaming,
                )
                for method in methods.values()
            }
            for methods in (service.methods_by_name, official)
        ]
        if signatures[0] != signatures[1]:
            found.append(f"{service.full_name}: {signatures[0]}, official {signatures[1]}")
    return found


@pytest.fixture(scope="module")
def official() -> DescriptorPool:
    """The official descriptors, in a pool that nobody else uses."""
    script = Path(__file__).with_name("wire_comparison.py")
    modules = {"PYTHONPATH": str(Path(sys.prefix) / "xds-protos")}
    printed = subprocess.run(
        [sys.executable, str(script)], check=True, capture_output=True, timeout=60, env=os.environ | modules
    ).stdout
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(printed).file:
        pool.Add(file)
    return pool


def official_class(pool: DescriptorPool, name: str) -> type[Message]:
    return GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


FIELDS = [field for message in messages_of(ext_authz_pb2.DESCRIPTOR) for field in message.fields]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.full_name.removeprefix(f"{PACKAGE}."))
def test_field_is_the_official_one(field: FieldDescriptor, official: DescriptorPool) -> None:
    assert field_differences(field, official) == []


def test_service_is_the_official_one(official: DescriptorPool) -> None:
    assert list(ext_authz_pb2.DESCRIPTOR.services_by_name) == ["Authorization"]
    assert service_differences(ext_authz_pb2.DESCRIPTOR, official) == []
    method = ext_authz_pb2.DESCRIPTOR.services_by_name["Authorization"].methods_by_name["Check"]
    assert f"/{method.containing_service.full_name}/{method.name}" == "/envoy.service.auth.v3.Authorization/Check"


def test_every_message_is_compared() -> None:
    """No message stands outside of what one check reads and writes."""
    reached: set[str] = set()
    waiting = [ext_authz_pb2.CheckRequest.DESCRIPTOR, ext_authz_pb2.CheckResponse.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        if message.full_name not in reached:
            reached.add(message.full_name)
            waiting.extend(field.message_type for field in message.fields if field.message_type)
    ours = {message.full_name for message in messages_of(ext_authz_pb2.DESCRIPTOR)}
    assert ours - reached == set()
    assert {name for name in reached - ours if not name.startswith("google.protobuf.")} == set()


# Both sides write and read each of these; as JSON, where bytes are base64 and 64-bit numbers are text.
MESSAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "request-headers": (
        "CheckRequest",
        {
            "attributes": {
                "source": {
                    "address": {"socket_address": {"address": "2001:db8::7", "port_value": 40000}},
                    "service": "web",
                    "principal": "spiffe://example.com/web",
                },
                "destination": {"principal": "O=Lab,CN=front"},
                "request": {
                    "http": {
                        "id": "7313497190384028174",
                        "method": "POST",
                        "headers": {":path": "/rest/api/v1/search?q=1", "authorization": "Bearer abc", "x-empty": ""},
                        "path": "/rest/api/v1/search?q=1",
                        "host": "api.example.com:443",
                        "scheme": "https",
                        "size": "9007199254740993",
                        "protocol": "HTTP/2",
                    }
                },
                "context_extensions": {"virtual_host": "api"},
            }
        },
    ),
    "request-header-map": (
        "CheckRequest",
        {
            "attributes": {
                "request": {
                    "http": {
                        "header_map": {
                            "headers": [
                                # The bytes "/caf", 0xE9 and 0xFF, then two lines of one name, in wire order.
                                {"key": ":path", "raw_value": "L2NhZun/"},
                                {"key": "x-glean-actas", "raw_value": "YUBleGFtcGxlLmNvbQ=="},
                                {"key": "x-glean-actas", "value": "b@example.com"},
                            ]
                        }
                    }
                }
            }
        },
    ),
    "response-ok": (
        "CheckResponse",
        {
            "status": {"message": "allowed"},
            "ok_response": {
                "headers": [
                    {"header": {"key": "x-extauthz-user", "value": "a@example.com"}, "append_action": 2},
                    {"header": {"key": "x-extauthz-actor", "value": "token:1"}, "append": False, "append_action": 1},
                ],
                "headers_to_remove": ["authorization", "x-scio-actas", "x-glean-actas"],
                "response_headers_to_add": [
                    {"header": {"key": "x-extauthz-decision-id", "value": "0f"}, "append": True, "append_action": 3}
                ],
            },
            "dynamic_metadata": {"decision": "allow", "scopes": ["CHAT", "SEARCH"], "duration": 0.25},
        },
    ),
    "response-denied": (
        "CheckResponse",
        {
            "status": {"code": 16, "message": "credential_missing"},
            "denied_response": {
                "status": {"code": 401},
                "headers": [
                    {"header": {"key": "www-authenticate", "value": 'Bearer realm="x"'}, "append_action": 2},
                    {"header": {"key": "cache-control", "value": "no-store"}, "append_action": 2},
                ],
                "body": '{"error": "unauthorized"}',
            },
            "dynamic_metadata": {"decision": "deny", "reason": "credential_missing", "user": None, "cold": True},
        },
    ),
    "response-error": (
        "CheckResponse",
        {
            "status": {"code": 14},
            "error_response": {
                "status": {"code": 503},
                "headers": [{"header": {"key": "retry-after", "value": "1"}, "append_action": 2}],
                "body": "store_unavailable",
            },
        },
    ),
    "response-unknown-numbers": (
        "CheckResponse",
        {
            "status": {"code": -7},
            "denied_response": {
                "status": {"code": 999},
                "headers": [{"header": {"key": "x-a", "value": "1"}, "append_action": 9}],
            },
        },
    ),
}


def as_dict(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True, use_integers_for_enums=True)


@pytest.mark.parametrize("reader", ["we-read", "envoy-reads"])
@pytest.mark.parametrize("name", MESSAGES)
def test_bytes_of_the_other_side(name: str, reader: str, official: DescriptorPool) -> None:
    kind, content = MESSAGES[name]
    ours, theirs = getattr(ext_authz_pb2, kind), official_class(official, kind)
    writes, reads = (theirs, ours) if reader == "we-read" else (ours, theirs)
    sent = json_format.ParseDict(content, writes()).SerializeToString(deterministic=True)
    received = reads.FromString(sent)
    assert as_dict(received) == content
    assert received.SerializeToString(deterministic=True) == sent


def test_raw_bytes_arrive_as_they_are(official: DescriptorPool) -> None:
    theirs = official_class(official, "CheckRequest")()
    header_map = theirs.attributes.request.http.header_map  # type: ignore[attr-defined]
    every_byte = bytes(range(256))
    header_map.headers.add(key=":path", raw_value=every_byte)
    ours = ext_authz_pb2.CheckRequest.FromString(theirs.SerializeToString())
    assert ours.attributes.request.http.header_map.headers[0].raw_value == every_byte


@pytest.mark.parametrize(
    ("name", "member"),
    [("response-ok", "ok_response"), ("response-denied", "denied_response"), ("response-error", "error_response")],
)
def test_envoy_sees_the_member_that_was_set(name: str, member: str, official: DescriptorPool) -> None:
    sent = json_format.ParseDict(MESSAGES[name][1], ext_authz_pb2.CheckResponse()).SerializeToString()
    received = official_class(official, "CheckResponse").FromString(sent)
    assert received.WhichOneof("http_response") == member


def test_what_we_left_out_does_no_harm(official: DescriptorPool) -> None:
    """Fields of the official file only are skipped when read, and are still there when the message is written again."""
    address = {"socket_address": {"address": "192.0.2.7", "port_value": 40000}}
    more = {"protocol": 1, "resolver_name": "r", "ipv4_compat": True}
    http = {"method": "GET", "header_map": {"headers": [{"key": ":path", "raw_value": "Lw=="}]}}
    attributes = {"source": {"principal": "CN=a", "address": address}, "request": {"http": http}, "context_extensions": {"a": "b"}}
    body = {"query": "q", "fragment": "f", "body": "text", "raw_body": "AP8="}
    metadata = {"filter_metadata": {"envoy.filters.http.jwt_authn": {"sub": "somebody", "level": 3.0}}}
    full = {
        "attributes": {
            **attributes,
            "source": {
                "principal": "CN=a",
                "address": {"socket_address": {**address["socket_address"], **more}},
                "certificate": "-----BEGIN",
                "labels": {"k": "v"},
            },
            "destination": {"address": {"pipe": {"path": "/run/a.sock"}}},
            "request": {"time": "2026-01-02T03:04:05.678Z", "http": {**http, **body}},
            "metadata_context": metadata,
            "route_metadata_context": metadata,
            "tls_session": {"sni": "api.example.com"},
        }
    }
    theirs = official_class(official, "CheckRequest")
    ours = ext_authz_pb2.CheckRequest.FromString(json_format.ParseDict(full, theirs()).SerializeToString())
    assert as_dict(ours) == {"attributes": {**attributes, "destination": {"address": {}}}}
    assert as_dict(theirs.FromString(ours.SerializeToString())) == full


# What must not pass unnoticed: each of these breaks a copy of our file in one place.


def message_in(file: FileDescriptorProto, name: str) -> DescriptorProto:
    first, *rest = name.split(".")
    message = next(message for message in file.message_type if message.name == first)
    for part in rest:
        message = next(nested for nested in message.nested_type if nested.name == part)
    return message


def field_in(file: FileDescriptorProto, name: str) -> FieldDescriptorProto:
    message, _, last = name.rpartition(".")
    return next(field for field in message_in(file, message).field if field.name == last)


def change(field: str, **values: Any) -> Callable[[FileDescriptorProto], None]:
    """Sets *values* in the description of one field."""

    def apply(file: FileDescriptorProto) -> None:
        found = field_in(file, field)
        for key, value in values.items():
            setattr(found, key, value)

    return apply


def add_field(file: FileDescriptorProto) -> None:
    message_in(file, "Status").field.add(
        name="reason", number=9, type=FieldDescriptor.TYPE_STRING, label=FieldDescriptor.LABEL_OPTIONAL
    )


def add_message(file: FileDescriptorProto) -> None:
    file.message_type.add(name="Extra").field.add(
        name="value", number=1, type=FieldDescriptor.TYPE_STRING, label=FieldDescriptor.LABEL_OPTIONAL
    )


def leave_oneof(file: FileDescriptorProto) -> None:
    field_in(file, "CheckResponse.error_response").ClearField("oneof_index")


def list_for_map(file: FileDescriptorProto) -> None:
    message_in(file, "AttributeContext.HttpRequest.HeadersEntry").ClearField("options")


def number_for_action(file: FileDescriptorProto) -> None:
    field = field_in(file, "HeaderValueOption.append_action")
    field.type = FieldDescriptorProto.TYPE_INT32
    field.ClearField("type_name")


def action_values_swapped(file: FileDescriptorProto) -> None:
    values = message_in(file, "HeaderValueOption").enum_type[0].value
    values[1].number, values[2].number = 2, 1


def presence_added(file: FileDescriptorProto) -> None:
    field_in(file, "Status.code").proto3_optional = True
    message = message_in(file, "Status")
    message.oneof_decl.add(name="_code")
    field_in(file, "Status.code").oneof_index = 0


def answer_for_question(file: FileDescriptorProto) -> None:
    file.service[0].method[0].input_type = f".{PACKAGE}.CheckResponse"


def method_renamed(file: FileDescriptorProto) -> None:
    file.service[0].method[0].name = "Ask"


def stream_of_answers(file: FileDescriptorProto) -> None:
    file.service[0].method[0].server_streaming = True


def service_renamed(file: FileDescriptorProto) -> None:
    file.service[0].name = "Authorisation"


BREAKS: dict[str, Callable[[FileDescriptorProto], None]] = {
    "number": change("CheckResponse.status", number=9),
    "number-of-nested-field": change("AttributeContext.HttpRequest.header_map", number=14),
    "name": change("DeniedHttpResponse.body", name="text"),
    "text-for-bytes": change("HeaderValue.raw_value", type=FieldDescriptor.TYPE_STRING),
    "number-for-number": change("HttpStatus.code", type=FieldDescriptor.TYPE_SINT32),
    "wider-number": change("Status.code", type=FieldDescriptor.TYPE_SINT64),
    "one-for-many": change("OkHttpResponse.headers_to_remove", label=FieldDescriptor.LABEL_OPTIONAL),
    "many-for-one": change("HeaderValueOption.header", label=FieldDescriptor.LABEL_REPEATED),
    "other-message": change("CheckResponse.error_response", type_name=f".{PACKAGE}.OkHttpResponse"),
    "other-well-known-message": change("CheckResponse.dynamic_metadata", type_name=".google.protobuf.Value"),
    "value-of-map": change("AttributeContext.ContextExtensionsEntry.value", type=FieldDescriptor.TYPE_BYTES),
    "field-of-ours": add_field,
    "message-of-ours": add_message,
    "oneof": leave_oneof,
    "list-for-map": list_for_map,
    "number-for-enum": number_for_action,
    "enum-values": action_values_swapped,
    "presence": presence_added,
    "input": answer_for_question,
    "method": method_renamed,
    "streaming": stream_of_answers,
    "service": service_renamed,
}


def in_pool(description: FileDescriptorProto) -> FileDescriptor:
    pool = DescriptorPool()
    for needed in (struct_pb2.DESCRIPTOR, wrappers_pb2.DESCRIPTOR):
        pool.AddSerializedFile(needed.serialized_pb)
    pool.Add(description)
    return pool.FindFileByName(description.name)


def all_differences(file: FileDescriptor, pool: DescriptorPool) -> list[str]:
    fields = [field for message in messages_of(file) for field in message.fields]
    return service_differences(file, pool) + [
        f"{field.full_name}: {difference}" for field in fields for difference in field_differences(field, pool)
    ]


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_noticed(name: str, official: DescriptorPool) -> None:
    description = FileDescriptorProto.FromString(ext_authz_pb2.DESCRIPTOR.serialized_pb)
    assert all_differences(in_pool(description), official) == []
    BREAKS[name](description)
    assert all_differences(in_pool(description), official) != []
