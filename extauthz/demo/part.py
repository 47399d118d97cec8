"""One part of the demo as a process of its own, for containers: `python -m extauthz.demo.part issuer` or `upstream`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from extauthz.addresses import Address, parse_address
from extauthz.demo.faults import IssuerRequest, Reply
from extauthz.demo.issuer import DemoIssuer
from extauthz.demo.providers import IssuerRole
from extauthz.demo.upstream import echo
from extauthz.demo.wiring import write_certificates
from extauthz.errors import ListenError
from extauthz.transport.http.ops import Application, HttpServer
from extauthz.transport.sockets import open_port

_DAYS = 365
_EXAMPLE = '{"user": "ana@acme.com", "provider": "okta"}'


class TokenEndpoint:
    """A demo issuer that gives a token to every POST /demo/token (ASGI); everything else is the issuer's."""

    def __init__(self, issuer: DemoIssuer) -> None:
        """Give out tokens of this issuer."""
        self._issuer = issuer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer an HTTP request."""
        if scope["type"] == "http" and scope["path"] == "/demo/token":
            await self._give(await IssuerRequest.from_asgi(scope, receive)).send(send)
        else:
            await self._issuer(scope, receive, send)

    def _give(self, request: IssuerRequest) -> Reply:
        try:
            order = json.loads(request.body)
            role = IssuerRole(order.get("provider", IssuerRole.OKTA))
            user = order["user"]
            if request.method != "POST" or not isinstance(user, str):
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError):
            return Reply(400, {"error": f"POST {_EXAMPLE}; providers: {', '.join(IssuerRole)}"})
        return Reply(200, {"token": self._issuer.issue(role, user)})


def main(arguments: list[str]) -> None:
    """Serve one part until SIGTERM or SIGINT."""
    options = _parser().parse_args(arguments)
    if options.part == "certificates":
        write_certificates(options.folder, options.name, days=_DAYS)
        for unused in ("ca.key", "client.crt", "client.key"):
            (options.folder / unused).unlink()
        return
    application: Application = echo
    certificates: Path | None = None
    if options.part == "issuer":
        certificates = options.certificates
        if not (certificates / "server.key").exists():
            write_certificates(certificates, options.name, days=_DAYS)
            # Others read this folder: nobody needs to sign with its authority again.
            (certificates / "ca.key").unlink()
        application = TokenEndpoint(DemoIssuer(f"https://{options.name}:{options.listen.port}"))
    try:
        asyncio.run(_serve(application, options.listen, certificates))
    except ListenError as error:
        sys.exit(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m extauthz.demo.part", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    upstream = parts.add_parser("upstream", help="the API behind Envoy: answers with the request that reached it")
    issuer = parts.add_parser("issuer", help=f"every provider; tokens: POST /demo/token {_EXAMPLE}")
    certificates = parts.add_parser("certificates", help="of a server: ca.crt, server.crt and server.key")
    certificates.add_argument("--name", default="localhost", metavar="HOST", help="the host that others reach it at")
    certificates.add_argument("folder", type=Path, metavar="FOLDER", help="where they are written")
    for part, address in ((upstream, "127.0.0.1:8080"), (issuer, "127.0.0.1:9002")):
        part.add_argument("--listen", type=_address, default=address, metavar="ADDRESS", help="default: %(default)s")
    issuer.add_argument("--name", default="localhost", metavar="HOST", help="the host that others reach it at")
    issuer.add_argument(
        "--certificates",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="of ca.crt, server.crt and server.key; made there if missing",
    )
    return parser


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


async def _serve(application: Application, address: Address, certificates: Path | None) -> None:
    server = HttpServer(application)
    if certificates is not None:
        server.config.ssl_certfile, server.config.ssl_keyfile = certificates / "server.crt", certificates / "server.key"
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, partial(setattr, server, "should_exit", True))
    await server.run_on(open_port(address))


if __name__ == "__main__":
    main(sys.argv[1:])
