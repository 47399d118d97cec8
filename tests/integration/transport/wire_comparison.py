"""Prints the official descriptors of Envoy's authorization service, as the bytes of one FileDescriptorSet.

A program of its own: a process that has loaded `extauthz._pb` cannot import the official modules as well, because both
define the same symbols.
"""

import sys
from collections.abc import Iterator

from envoy.service.auth.v3 import external_auth_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet


def dependencies_first(file: FileDescriptor, seen: set[str]) -> Iterator[FileDescriptor]:
    """*file* and everything that it imports, each file once and behind the files that it needs."""
    if file.name not in seen:
        seen.add(file.name)
        for needed in file.dependencies:
            yield from dependencies_first(needed, seen)
        yield file


def main() -> None:
    result = FileDescriptorSet()
    for file in dependencies_first(external_auth_pb2.DESCRIPTOR, set()):
        file.CopyToProto(result.file.add())
    sys.stdout.buffer.write(result.SerializeToString())


if __name__ == "__main__":
    main()
