"""A running sidecar whose ops listener asks for client certificates, and the commands that ask it: with good ones, and others."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from typing import Any

import pytest
from cryptography import x509

from tests.support.ports import successive_ports
from tests.support.sidecar import Sidecar, sidecar
from tests.support.transports import Authority

__all__ = ["sidecar"]
HERE = (x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1")))


class Certified:
    """The sidecar, the two authorities, and what it decided: a request that is allowed, and one that is refused."""

    def __init__(self, sidecar: Sidecar, *names: x509.GeneralName, workers: int = 1) -> None:
        self.sidecar = sidecar
        self.authority = Authority(sidecar.folder, "ours")
        self.others = Authority(sidecar.folder, "others")
        certificate, key = self.authority.issue("server", *names)
        first, *_ = successive_ports(3)
        tls = {"certificate": str(certificate), "key": str(key), "client_ca": str(self.authority.file)}
        sidecar.settings["server"] |= {"ops_tls": tls, "listen": f"127.0.0.1:{first}", "workers": workers, "recording": True}
        sidecar.write()
        assert sidecar.command("store", "migrate").exit_code == 0
        token = sidecar.token()
        sidecar.start()
        answers = [sidecar.check({"authorization": f"Bearer {each}"}) for each in (token, "nothing")]
        self.allowed, self.refused = (answer.dynamic_metadata.fields["decision_id"].string_value for answer in answers)

    def shown(self, authority: Authority, name: str) -> tuple[str, ...]:
        """Return the flags for a certificate of an authority."""
        certificate, key = authority.issue(name)
        return ("--cert", str(certificate), "--key", str(key))

    @property
    def good(self) -> tuple[str, ...]:
        """The flags that the sidecar answers."""
        return ("--ca", str(self.authority.file), *self.shown(self.authority, "operator"))

    def error(self, *arguments: str) -> str:
        """Run a command that must fail, and return what it says behind the address, without the folder."""
        done = self.sidecar.command(*arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        said = done.stderr.removeprefix("Error: ").strip().replace(f"{self.sidecar.folder}/", "")
        return said.partition(f"{self.port}: ")[2] or said

    @property
    def port(self) -> str:
        """The port of the ops listener."""
        return str(self.sidecar.settings["server"]["ops"]).rpartition(":")[2]


@pytest.mark.parametrize("workers", [1, 2])
def test_who_shows_a_certificate_is_told_what_was_decided(sidecar: Sidecar, workers: int) -> None:
    """As the configuration says where it listens, and by an address that is typed."""
    served = Certified(sidecar, *HERE, workers=workers)
    for more in ((), ("--ops", f"localhost:{served.port}"), ("--ops", f"https://127.0.0.1:{served.port}")):
        told: dict[str, Any] = sidecar.told("decisions", *served.good, *more)
        assert [(one["decision_id"], one["reason"]) for one in told["decisions"]] == [
            (served.refused, "token_malformed"),
            (served.allowed, "allowed"),
        ]
        assert told["workers"] == {"asked": workers, "answered": workers, "silent": []}
        explained = sidecar.command("explain", "--live", served.refused, *served.good, *more, "--json")
        assert (explained.exit_code, json.loads(explained.stdout)["reason"]) == (1, "token_malformed")
    allowed = sidecar.told("explain", "--live", served.allowed, *served.good)
    assert (allowed["outcome"], allowed["headers"]["x-extauthz-user"]) == ("allow", "ana@acme.com")
    assert served.error("explain", "--live", "0" * 32, *served.good).startswith("127.0.0.1:")
    output = sidecar.folder / "requests.jsonl"
    with ThreadPoolExecutor() as pool:
        recording = pool.submit(sidecar.command, "record", "--number", "1", "--for", "30s", "--output", str(output), *served.good)
        while not recording.done():
            sidecar.check({"authorization": "Bearer nothing"})
    assert (recording.result().exit_code, json.loads(output.read_text())["reason"]) == (0, "token_malformed")


def test_who_is_not_believed_is_told_why(sidecar: Sidecar) -> None:
    served = Certified(sidecar, *HERE)
    ended = "it ended the connection without an answer: "
    trusting, operator = ("--ca", str(served.authority.file)), served.shown(served.authority, "operator")
    asks = f"{ended}does it ask for a client certificate (--cert and --key, console.sidecar_tls)?"
    stranger = f"{ended}is the client certificate of an authority in its server.ops_tls.client_ca?"
    unknown = "): name the authority that signed it (--ca, console.sidecar_tls.ca_file)"
    for command in (("decisions",), ("explain", "--live", served.refused), ("record", "--output", str(sidecar.folder / "r.jsonl"))):
        assert served.error(*command, *trusting) == asks
        assert served.error(*command, *trusting, *served.shown(served.others, "stranger")) == stranger
        for flags in (operator, ("--ca", str(served.others.file), *operator)):
            said = served.error(*command, *flags)
            assert (said.startswith("its certificate is not trusted ("), said.endswith(unknown)) == (True, True), said
        plain = served.error(*command, "--ops", f"http://localhost:{served.port}")
        assert plain == f"{ended}does it have server.ops_tls? Then write https:// before its address"
    said = served.error("decisions", *trusting, *operator[:3], str(served.others.file))
    assert said.startswith("operator.pem and others.pem are not a certificate and its unencrypted key: ")
    said = served.error("decisions", "--ca", operator[3], *operator)
    assert said.startswith("operator.key: not a bundle of certificates (")


def test_a_certificate_for_another_name_is_told(sidecar: Sidecar) -> None:
    served = Certified(sidecar, x509.DNSName("sidecar.acme.example"), x509.DNSName("localhost"))
    said = served.error("decisions", *served.good)
    assert said == (
        "its certificate is for another name (IP address mismatch, certificate is not valid for '127.0.0.1'): "
        "ask it by one that stands there"
    )
    assert sidecar.told("decisions", *served.good, "--ops", f"localhost:{served.port}")["decisions"]
