"""How the demo's Envoy reaches the sidecar: which transport serves, and over TCP, a unix socket or mutual TLS."""

from __future__ import annotations

import datetime
import ipaddress
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_ADDRESS = """\
              socket_address:
                address: 127.0.0.1
                port_value: 9001
"""
_CLUSTER = """\
  - name: extauthz
    type: STATIC
"""
_TLS = """\
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: localhost
        common_tls_context:
          alpn_protocols: [h2]
          tls_certificates:
          - certificate_chain: {{filename: {folder}/client.crt}}
            private_key: {{filename: {folder}/client.key}}
          validation_context:
            trusted_ca: {{filename: {folder}/ca.crt}}
            match_typed_subject_alt_names:
            - {{san_type: DNS, matcher: {{exact: localhost}}}}
"""


class Link(StrEnum):
    """What lies between Envoy and the sidecar."""

    TCP = "tcp"
    UNIX = "unix"
    MTLS = "mtls"


@dataclass(frozen=True, slots=True)
class Wiring:
    """A transport, as server.transport names it, a link, and a command that starts the sidecar in place of this Python."""

    transport: str = "auto"
    link: Link = Link.TCP
    python: tuple[str, ...] = (sys.executable,)

    def server(self, port: int, folder: Path) -> dict[str, object]:
        """Return the keys of the `server` section; certificates for mutual TLS are made in the folder."""
        if self.link is Link.UNIX:
            return {"listen": f"unix://{folder / 'check.sock'}", "transport": self.transport}
        keys: dict[str, object] = {"listen": f"127.0.0.1:{port}", "transport": self.transport}
        if self.link is Link.MTLS:
            write_certificates(folder)
            keys["tls"] = {"certificate": "server.crt", "key": "server.key", "client_ca": "ca.crt"}
        return keys

    def changes(self, port: int, folder: Path) -> Iterator[tuple[str, str]]:
        """Yield what has to be replaced in the shipped Envoy bootstrap."""
        if self.link is Link.UNIX:
            path = json.dumps(str(folder / "check.sock"))
            yield _ADDRESS, f"              pipe: {{path: {path}}}\n"
        else:
            yield _ADDRESS, _ADDRESS.replace("9001", str(port))
        if self.link is Link.MTLS:
            yield _CLUSTER, _CLUSTER + _TLS.format(folder=folder)


def write_certificates(folder: Path, *hosts: str, days: int = 1) -> None:
    """Write an authority and one certificate each for a server and its client, for localhost and these hosts."""
    authority, name = ec.generate_private_key(ec.SECP256R1()), _name("extauthz demo authority")
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    builder = _builder(name, name, authority.public_key(), days).add_extension(constraints, critical=True)
    _write(folder / "ca.crt", builder, authority)
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    names = x509.SubjectAlternativeName([*map(x509.DNSName, ("localhost", *hosts)), loopback])
    for role in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        made = _builder(name, _name(f"extauthz demo {role}"), key.public_key(), days).add_extension(names, critical=False)
        _write(folder / f"{role}.crt", made, authority)
        (folder / f"{role}.key").touch(mode=0o600)
        encoding, encryption = serialization.Encoding.PEM, serialization.NoEncryption()
        (folder / f"{role}.key").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, encryption))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().issuer_name(issuer).subject_name(subject).public_key(key)
    made = made.serial_number(x509.random_serial_number())
    return made.not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(days=days))


def _write(file: Path, made: x509.CertificateBuilder, authority: ec.EllipticCurvePrivateKey) -> None:
    file.write_bytes(made.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
