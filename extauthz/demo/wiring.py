"""How the demo's Envoy reaches the sidecar: which transport serves, and over TCP, a unix socket or mutual TLS."""

from __future__ import annotations

import datetime
import ipaddress
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from extauthz.addresses import Address
from extauthz.demo.links import EnvoyLink

_ADDRESS = """\
              socket_address:
                address: 127.0.0.1
                port_value: 9001
"""
_AUTHORITY = "extauthz demo authority"
_ENDPOINT = """\
        - endpoint:
            address:
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


@dataclass(frozen=True, slots=True)
class Wiring:
    """A transport, as server.transport names it, a link, and a command that starts the sidecar in place of this Python.

    Several workers need the unix socket: the ports behind the sidecar's belong to others.
    """

    transport: str = "auto"
    link: EnvoyLink = EnvoyLink.TCP
    python: tuple[str, ...] = (sys.executable,)
    workers: int = 1
    drain: str = "0s"

    def server(self, port: int, folder: Path) -> dict[str, object]:
        """Return the keys of the `server` section; certificates for mutual TLS are made in the folder."""
        keys: dict[str, object] = {"transport": self.transport, "workers": self.workers, "drain": self.drain}
        if self.link is EnvoyLink.UNIX:
            return keys | {"listen": str(_socket(folder))}
        keys["listen"] = f"127.0.0.1:{port}"
        if self.link is EnvoyLink.MTLS:
            write_certificates(folder)
            keys["tls"] = {"certificate": "server.crt", "key": "server.key", "client_ca": "ca.crt"}
        return keys

    def changes(self, port: int, folder: Path) -> Iterator[tuple[str, str]]:
        """Yield what has to be replaced in the shipped Envoy bootstrap."""
        if self.link is EnvoyLink.UNIX:
            pipes = (
                f"              pipe: {{path: {json.dumps(each.path)}}}\n" for each in _socket(folder).of_workers(self.workers)
            )
            yield _ADDRESS, _ENDPOINT.join(pipes)
        else:
            yield _ADDRESS, _ADDRESS.replace("9001", str(port))
        if self.link is EnvoyLink.MTLS:
            yield _CLUSTER, _CLUSTER + _TLS.format(folder=folder)


def _socket(folder: Path) -> Address:
    return Address(path=str(folder / "check.sock"))


def write_certificates(folder: Path, *hosts: str, days: int = 1) -> None:
    """Write an authority and one certificate each for a server and its client, for localhost and these hosts."""
    authority, name = ec.generate_private_key(ec.SECP256R1()), _name(_AUTHORITY)
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    builder = _builder(name, name, authority.public_key(), days).add_extension(constraints, critical=True)
    _write(folder / "ca.crt", builder, authority)
    _write_key(folder / "ca.key", authority)
    for role in ("server", "client"):
        write_certificate(folder, role, *hosts, days=days)


def write_certificate(folder: Path, role: str, *hosts: str, days: int = 1) -> None:
    """Write a certificate of the authority in the folder, and its key."""
    authority = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    if not isinstance(authority, ec.EllipticCurvePrivateKey):
        raise TypeError("ca.key is the key of another program")
    key, loopback = ec.generate_private_key(ec.SECP256R1()), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    names = x509.SubjectAlternativeName([*map(x509.DNSName, ("localhost", *hosts)), loopback])
    draft = _builder(_name(_AUTHORITY), _name(f"extauthz demo {role}"), key.public_key(), days).add_extension(names, critical=False)
    _write(folder / f"{role}.crt", draft, authority)
    _write_key(folder / f"{role}.key", key)


def _write_key(file: Path, key: ec.EllipticCurvePrivateKey) -> None:
    file.touch(mode=0o600)
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().issuer_name(issuer).subject_name(subject).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(days=days))


def _write(file: Path, builder: x509.CertificateBuilder, authority: ec.EllipticCurvePrivateKey) -> None:
    file.write_bytes(builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
