"""Which hosts may be asked because somebody who administers names them: public ones, and those of networks that the file lists.

A name is resolved once for each connection, and the connection goes to the address that was looked at: what a name server answers
the next time changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx2

from extauthz.errors import FetchError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host and a port; raises OSError."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name or address alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class AddressRule:
    """Public addresses are allowed, and those in `networks`."""

    networks: tuple[IpNetwork, ...] = ()
    resolver: Resolver = resolve

    def allows(self, text: str) -> bool:
        """Tell whether an address may be connected to; what is none may not."""
        try:
            address = _inner(ipaddress.ip_address(text))
        except ValueError:
            return False
        return _is_public(address) or any(address in network for network in self.networks)

    def check(self, url: str) -> None:
        """Refuse a URL whose host is itself an address that is not allowed; raises FetchError.

        A proxy resolves names by itself, so that this is all that can be looked at then.
        """
        host = httpx2.URL(url).host.rstrip(".").lower()
        is_local = host == "localhost" or host.endswith(".localhost")
        literal = "127.0.0.1" if is_local else host.strip("[]") if _is_literal(host) else None
        if literal is not None and not self.allows(literal):
            raise _refused(host)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host that may be connected to, one at least; raises FetchError and OSError."""
        allowed = [text for text in dict.fromkeys(await self.resolver(host, port)) if self.allows(text)]
        if not allowed:
            raise _refused(host)
        return allowed


class CheckedTransport(httpx2.AsyncBaseTransport):
    """Connects to addresses that a rule allows; a certificate must still be that of the name."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, rule: AddressRule) -> None:
        """Stand before a transport that connects directly."""
        self._inner = inner
        self._rule = rule

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request to the first address that takes a connection."""
        url = request.url
        addresses = await self._rule.addresses(url.host, url.port or (443 if url.scheme == "https" else 80))
        extensions = {**request.extensions, "sni_hostname": url.host}
        for text in addresses[:-1]:
            try:
                return await self._inner.handle_async_request(_to(text, request, extensions))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._inner.handle_async_request(_to(addresses[-1], request, extensions))

    async def aclose(self) -> None:
        """Close what is behind."""
        await self._inner.aclose()


def _to(address: str, request: httpx2.Request, extensions: dict[str, object]) -> httpx2.Request:
    """Return a request for one address; its header Host names the host as before."""
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions=extensions,
    )


def _inner(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that one of IPv6 stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: IpAddress) -> bool:
    is_special = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    is_site_local = isinstance(address, ipaddress.IPv6Address) and (address.is_site_local or address.teredo is not None)
    return address.is_global and not is_special and not is_site_local


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _refused(host: str) -> FetchError:
    return FetchError(f"{host} is at no public address, nor in a network of console.issuer_networks: it is not asked")
