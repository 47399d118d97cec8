"""Faults of the issuer, each met with a rotation of its keys: without one nobody would ask it."""

from __future__ import annotations

from collections.abc import Iterator

from extauthz.demo.issuer import DemoIssuer, Fault
from extauthz.demo.wiring import write_certificate
from tests.faults.injector import injector
from tests.faults.installation import Installation, Needs, asked
from tests.faults.load import Client
from tests.support.world import oauth

STRANGERS = 50


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
    stranger = DemoIssuer(it.issuer.issuer.org_issuer)
    client = Client(it.envoy_port)

    def send() -> None:
        for _ in range(10 if it.quick else STRANGERS):
            stranger.use_next_key()
            client.ask(asked(oauth(stranger.token("stranger@acme.com")), None))
            stranger.withdraw_old_keys()

    it.issuer.stop()
    it.issuer.issuer.use_next_key()
    # Without a sidecar Envoy refuses them, which is what is expected before the start.
    send()
    yield
    send()
    it.issuer.start()
    client.close()


def _spoiled(it: Installation, fault: Fault) -> Iterator[None]:
    it.issuer.issuer.slow_seconds = 30.0
    it.issuer.issuer.fail("/", fault)
    it.issuer.issuer.use_next_key()
    yield
    it.issuer.issuer.heal()


@injector(leaves_trace=True)
def issuer_slow(it: Installation) -> Iterator[None]:
    """Every answer would take half a minute."""
    yield from _spoiled(it, Fault.SLOW)


@injector(leaves_trace=True)
def issuer_garbage(it: Installation) -> Iterator[None]:
    """It answers with a page of HTML."""
    yield from _spoiled(it, Fault.GARBAGE)


@injector(leaves_trace=True)
def issuer_redirecting(it: Installation) -> Iterator[None]:
    """It sends everybody to another host, where the right answer is."""
    yield from _spoiled(it, Fault.REDIRECT)


@injector(leaves_trace=True)
def issuer_huge(it: Installation) -> Iterator[None]:
    """Its answers are right, and a megabyte long."""
    yield from _spoiled(it, Fault.HUGE)


@injector(leaves_trace=True)
def issuer_failing(it: Installation) -> Iterator[None]:
    """It answers with 500."""
    yield from _spoiled(it, Fault.ERROR_500)


@injector(leaves_trace=True)
def issuer_without_keys(it: Installation) -> Iterator[None]:
    """Its key set is empty."""
    yield from _spoiled(it, Fault.EMPTY_KEYS)


@injector(leaves_trace=True)
def issuer_of_another_name(it: Installation) -> Iterator[None]:
    """Its discovery document names another issuer."""
    yield from _spoiled(it, Fault.WRONG_ISSUER)


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
