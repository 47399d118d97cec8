"""Faults of the issuer, each met with a rotation of its keys: without one nobody would ask it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from extauthz.demo.issuer import Fault
from extauthz.demo.wiring import write_certificate
from tests.faults.injector import injector
from tests.faults.installation import Installation, Needs, asked
from tests.faults.load import Client
from tests.support.world import base64url, oauth

STRANGERS, AT_ONCE = 50, 10


@injector(leaves_trace=True)
def issuer_away(it: Installation) -> Iterator[None]:
    """It cannot be reached; its keys stay as they are."""
    it.issuer.stop()
    yield
    it.issuer.start()


@injector(leaves_trace=True)
def issuer_away_during_a_rotation(it: Installation) -> Iterator[None]:
    """It cannot be reached, and signs with a key that nobody has seen."""
    it.issuer.stop()
    it.issuer.issuer.use_next_key()
    yield
    it.issuer.start()


@injector(leaves_trace=True)
def strangers_while_the_issuer_is_away(it: Installation) -> Iterator[None]:
    """The same, and strangers send tokens that name keys which never were, before and after it is back."""
    it.issuer.stop()
    it.issuer.issuer.use_next_key()
    strangers(it)
    yield
    strangers(it)
    it.issuer.start()


def strangers(it: Installation) -> None:
    """Send unsigned tokens, each of another key, some at once; raises NeverAllowed."""
    genuine = it.issuer.issuer.token("stranger@acme.com").split(".")

    def send(number: int) -> None:
        header = {"alg": "RS256", "kid": f"stranger-{number}"}
        token = ".".join((base64url(json.dumps(header).encode()), genuine[1], genuine[2]))
        client = Client(it.envoy_port)
        client.ask(asked(oauth(token), None))
        client.close()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(send, range(AT_ONCE if it.quick else STRANGERS)))


SPOILED = {
    "issuer_slow": Fault.SLOW,
    "issuer_garbage": Fault.GARBAGE,
    "issuer_redirecting": Fault.REDIRECT,
    "issuer_huge": Fault.HUGE,
    "issuer_failing": Fault.ERROR_500,
    "issuer_without_keys": Fault.EMPTY_KEYS,
    "issuer_of_another_name": Fault.WRONG_ISSUER,
}
"""What is wrong with every answer of the issuer, by the name of the injector."""


def _spoils(name: str, fault: Fault) -> None:
    """Register who spoils all answers, after half a minute where they are slow."""

    def inject(it: Installation) -> Iterator[None]:
        it.issuer.issuer.slow_seconds = 30.0
        it.issuer.issuer.fail("/", fault)
        it.issuer.issuer.use_next_key()
        yield
        it.issuer.issuer.heal()

    inject.__name__ = name
    injector(leaves_trace=True)(inject)


for _name, _fault in SPOILED.items():
    _spoils(_name, _fault)


@injector(Needs(issuer_tls=True), leaves_trace=True)
def issuer_certificate_expired(it: Installation) -> Iterator[None]:
    """Its certificate has ended."""
    it.issuer.stop()
    write_certificate(it.folder, "server", days=0)
    it.issuer.start()
    it.issuer.issuer.use_next_key()
    yield
    it.issuer.stop()
    write_certificate(it.folder, "server")
    it.issuer.start()
