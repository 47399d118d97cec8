"""A CheckRequest that somebody kept in a file: binary, as Envoy sends it, or JSON, as protobuf and Envoy's own tools write it."""

from __future__ import annotations

import json

from google.protobuf import json_format

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.envoy.codec import read_by_protobuf
from extauthz.core.model import DECISION_ID, Request


def check_in(data: bytes) -> bytes:
    """Return the bytes of a CheckRequest as Envoy sends it; raises ValueError for JSON that is none, never with a piece of it.

    Members that this version does not read are left out. What is no JSON object is taken for the binary form.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        if data.lstrip().startswith(b"{") and read_by_protobuf(data) is None:
            where = f": line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            raise ValueError(f"not JSON{where}") from None
        return data
    if not isinstance(document, dict):
        raise ValueError("not a CheckRequest: write a JSON object with the member attributes")
    try:
        # Half a character in an unknown name would be a fault of protobuf itself, a SystemError.
        json.dumps(document, ensure_ascii=False).encode()
        return json_format.ParseDict(document, pb.CheckRequest(), ignore_unknown_fields=True).SerializeToString()
    except (json_format.ParseError, UnicodeEncodeError, RecursionError):
        raise ValueError("not a CheckRequest: its members are those of envoy.service.auth.v3.CheckRequest") from None


def request_in(data: bytes) -> Request | None:
    """Return the request of a CheckRequest in either form, None for bytes that hold none; raises ValueError."""
    check = read_by_protobuf(check_in(data))
    if check is None:
        return None
    method, path, host, headers, raw, source, filtered = check
    return Request(method, path, host, headers, raw, DECISION_ID, source, "", filtered)
