"""The API behind Envoy: it answers with the request that reached it."""

from __future__ import annotations

from typing import Any

from extauthz.demo.issuer import respond


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with method, path and headers (ASGI); copies of one header are a list."""
    headers: dict[str, str | list[str]] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        match headers.get(name):
            case None:
                headers[name] = value
            case str() as first:
                headers[name] = [first, value]
            case list() as values:
                values.append(value)
    target = scope["raw_path"].decode("latin-1") + ("?" + scope["query_string"].decode("latin-1") if scope["query_string"] else "")
    await respond(send, 200, {"upstream": "reached", "method": scope["method"], "path": target, "headers": headers})
