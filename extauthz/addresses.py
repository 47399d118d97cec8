"""Addresses that the sidecar listens on."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

TEMPORARY = "~"
"""What is behind the name of a unix socket while it is bound, before it has its mode and its name."""
MAX_SOCKET_PATH = 107 - len(TEMPORARY)
MAX_PORT = 65_535
MAX_HOPS = 10
"""Proxies in front of Envoy whose x-forwarded-for may be believed."""


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP host and port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """Write the address as it stands in the YAML."""
        if self.path:
            return f"unix://{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Tell whether only this machine can reach it."""
        return bool(self.path) or self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback

    def of_workers(self, count: int) -> tuple[Address, ...]:
        """Return the address of each of so many workers: successive ports, or check-0.sock and so on; one worker has this one.

        Raises ValueError where there is no such address.
        """
        if count == 1:
            return (self,)
        if not self.path:
            if not self.port or self.port + count - 1 > MAX_PORT:
                raise ValueError(
                    f"{self}: {count} workers need so many successive ports: write one from 1 to {MAX_PORT - count + 1}"
                )
            return tuple(replace(self, port=self.port + index) for index in range(count))
        path = PurePosixPath(self.path)
        addresses = tuple(replace(self, path=str(path.with_name(f"{path.stem}-{index}{path.suffix}"))) for index in range(count))
        if any(len(each.path.encode()) > MAX_SOCKET_PATH for each in addresses):
            raise ValueError(f"{self}: with the number of a worker the path has more than {MAX_SOCKET_PATH} bytes")
        return addresses


def parse_address(text: str) -> Address:
    """Read "127.0.0.1:9001", "[::1]:9001" or "unix:///run/check.sock"; raise ValueError with a hint."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix://")
        if not path.startswith("/"):
            raise ValueError(f"{text!r}: write a unix socket as unix:///absolute/path.sock")
        if len(path.encode()) > MAX_SOCKET_PATH:
            raise ValueError(f"{text!r}: the path of a unix socket has at most {MAX_SOCKET_PATH} bytes")
        return Address(path=path)
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not port.isascii() or not port.isdigit() or int(port) > MAX_PORT or (":" in host) != bracketed:
        raise ValueError(f"{text!r}: write an address and a port, like 127.0.0.1:9001, or unix:///path.sock")
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"{text!r}: {host!r} is not an IP address; listen on 127.0.0.1, [::1] or 0.0.0.0") from None
    return Address(host=host, port=int(port))
