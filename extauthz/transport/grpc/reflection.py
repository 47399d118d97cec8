"""Server reflection for grpcurl and its like: which services there are, and their descriptors.

The versions v1 and v1alpha differ in the name of their package alone, so one answer serves both. Descriptors of other
things in the process are not shown.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from extauthz._pb import ext_authz_pb2
from extauthz.transport.grpc.messages import GrpcStatus

MAX_STREAMS = 32
"""Streams at once, of the process."""
MAX_REQUESTS = 200
"""Request messages of one stream."""
MAX_REQUEST_SIZE = 16 * 1024
"""Bytes of a request message."""

_ALPHA, _V1 = "grpc.reflection.v1alpha", "grpc.reflection.v1"

_Response = reflection_pb2.ServerReflectionResponse


def answer(message: bytes) -> bytes | None:
    """Return the response to a ServerReflectionRequest, both serialised; None if it is not readable."""
    try:
        request = reflection_pb2.ServerReflectionRequest.FromString(message)
    except DecodeError:
        return None
    try:
        response = _look_up(request)
    except KeyError:
        response = _error(GrpcStatus.NOT_FOUND, "it is not served here")
    response.valid_host = request.host
    response.original_request.CopyFrom(request)
    return bytes(response.SerializeToString())


def _look_up(request: Any) -> Any:
    """Return the response without its head; raises KeyError for what is not served."""
    match request.WhichOneof("message_request"):
        case "list_services":
            services = [reflection_pb2.ServiceResponse(name=name) for name in _NAMES]
            return _Response(list_services_response=reflection_pb2.ListServiceResponse(service=services))
        case "file_by_filename":
            return _files(_POOL.FindFileByName(request.file_by_filename))
        case "file_containing_symbol":
            return _files(_file_of(request.file_containing_symbol))
        case "file_containing_extension":
            extension = request.file_containing_extension
            return _files(
                _POOL.FindExtensionByNumber(_POOL.FindMessageTypeByName(extension.containing_type), extension.extension_number).file
            )
        case "all_extension_numbers_of_type":
            name = _POOL.FindMessageTypeByName(request.all_extension_numbers_of_type).full_name
            return _Response(all_extension_numbers_response=reflection_pb2.ExtensionNumberResponse(base_type_name=name))
        case _:
            return _error(GrpcStatus.INVALID_ARGUMENT, "the request names nothing")


def _file_of(symbol: str) -> FileDescriptor:
    """Return where a symbol is; the pool itself knows no methods. Raises KeyError."""
    parent, _, name = symbol.rpartition(".")
    if any(name in service.methods_by_name and service.full_name == parent for service in _SERVICES):
        symbol = parent
    file: FileDescriptor = _POOL.FindFileContainingSymbol(symbol)
    return file


def _files(file: FileDescriptor) -> Any:
    """Return a file and all that it needs."""
    needed: dict[str, FileDescriptor] = {}
    waiting = [file]
    while waiting:
        one = waiting.pop()
        if one.name not in needed:
            needed[one.name] = one
            waiting += one.dependencies
    files = [one.serialized_pb for one in needed.values()]
    return _Response(file_descriptor_response=reflection_pb2.FileDescriptorResponse(file_descriptor_proto=files))


def _error(status: GrpcStatus, message: str) -> Any:
    return _Response(error_response=reflection_pb2.ErrorResponse(error_code=status, error_message=message))


def _pool(*files: FileDescriptor) -> Any:
    """Return a pool with these files, and what they need."""
    pool: Any = descriptor_pool.DescriptorPool()

    def add(file: FileDescriptor) -> None:
        for needed in file.dependencies:
            add(needed)
        pool.AddSerializedFile(file.serialized_pb)

    for file in files:
        add(file)
    return pool


def _as_v1(alpha: FileDescriptor) -> descriptor_pb2.FileDescriptorProto:
    """Return v1's descriptor, which the library does not have: v1alpha's with the other package."""
    file = descriptor_pb2.FileDescriptorProto.FromString(alpha.serialized_pb)
    file.name, file.package = "grpc/reflection/v1/reflection.proto", _V1
    for message in file.message_type:
        for field in filter(lambda each: each.type_name, message.field):
            field.type_name = field.type_name.replace(f".{_ALPHA}.", f".{_V1}.")
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{_ALPHA}.", f".{_V1}.")
            method.output_type = method.output_type.replace(f".{_ALPHA}.", f".{_V1}.")
    return file


_FILES = (ext_authz_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
_LATER = _as_v1(reflection_pb2.DESCRIPTOR)
_POOL = _pool(*_FILES)
_POOL.AddSerializedFile(_LATER.SerializeToString())
_SERVICES = [
    service
    for name in (*(file.name for file in _FILES), _LATER.name)
    for service in _POOL.FindFileByName(name).services_by_name.values()
]
_NAMES = sorted(service.full_name for service in _SERVICES)
