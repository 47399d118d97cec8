"""What confirms a session, and everything that does not: the rules without the browser, which tests/…/test_openid_pages.py has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from extauthz.adapters.store import sessions as stored
from extauthz.adapters.store.sessions import LOCAL, OPENID, StoredSession
from extauthz.admin import reauthentication, sessions
from extauthz.admin.outcomes import Refused
from extauthz.admin.reauthentication import (
    CLOCK_DIFFERENCE,
    CONFIRMATION,
    LIFETIME,
    NOT_BEGUN,
    NOT_FRESH,
    NOT_OFFERED,
    OTHER_ACCOUNT,
    SENTENCE,
    Proof,
)
from extauthz.admin.rights import Actor, Role
from extauthz.admin.sessions import NewSession, SessionLimits
from tests.support.console_world import FOUNDER, NOW, ConsoleWorld, console_world, done

ANA, OTHER, ISSUER, SUBJECT, LOGIN = "ana@acme.com", "eve@acme.com", "https://accounts.google.com", "1080", "a login"
LIMITS = SessionLimits(1800, 43200)
PROOF = Proof(ISSUER, SUBJECT, ANA, NOW + 10)


@dataclass
class Begun:
    """A session whose confirmation was begun at NOW."""

    world: ConsoleWorld
    session: StoredSession
    ticket: str

    def finish(self, proof: Proof = PROOF, at: int = NOW + 20, *, way: str = CONFIRMATION, login: str = LOGIN) -> object:
        """Come back from the provider; return how the new session began, or why it did not."""
        actor = Actor(proof.email, Role.ADMIN, "a test")
        administration = self.world.current.administration()
        return reauthentication.finish(
            administration, actor, self.ticket, login, proof, at, reauthentication=way, address="192.0.2.7", limits=LIMITS
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ConsoleWorld]:
    with console_world(tmp_path) as made:
        yield made


def session_of(world: ConsoleWorld, **changes: object) -> StoredSession:
    """Begin a session of Ana at the provider, an hour after she logged in there."""
    fields = {"method": OPENID, "issuer": ISSUER, "subject": SUBJECT} | changes
    actor = Actor(ANA, Role.ADMIN, "a test")
    new = sessions.begin(
        world.current.administration(), actor, NOW, address="192.0.2.7", limits=LIMITS, authenticated_at=NOW - 3600, **fields
    )  # type: ignore[arg-type]
    made: NewSession = done(new)
    return made.session


def start(world: ConsoleWorld, session: StoredSession, *, way: str = CONFIRMATION) -> str | Refused:
    """Type the sentence."""
    return reauthentication.start(world.current.administration(), session, SENTENCE, LOGIN, NOW, reauthentication=way)


@pytest.fixture
def begun(world: ConsoleWorld) -> Begun:
    session = session_of(world)
    return Begun(world, session, done(start(world, session)))


def test_a_proof_of_the_same_account_begins_a_session_that_is_recent(begun: Begun) -> None:
    new = done(begun.finish())
    assert (new.session.email, new.session.created_at, new.session.authenticated_at) == (ANA, NOW, NOW + 10)
    assert stored.by_id(begun.world.store, begun.session.id) is None
    assert begun.finish() == NOT_BEGUN, "once"
    again = done(start(begun.world, new.session))
    assert isinstance(replace(begun, ticket=again).finish(), NewSession), "the new session is of the same subject"


REFUSED = {
    "another subject": ({"proof": replace(PROOF, subject="1081")}, OTHER_ACCOUNT),
    "no subject": ({"proof": replace(PROOF, subject="")}, OTHER_ACCOUNT),
    "half a character as subject": ({"proof": replace(PROOF, subject="\ud800")}, OTHER_ACCOUNT),
    "the subject with another address": ({"proof": replace(PROOF, email=OTHER)}, OTHER_ACCOUNT),
    "another issuer": ({"proof": replace(PROOF, issuer=f"{ISSUER}/")}, OTHER_ACCOUNT),
    "an ID token from before": ({"proof": replace(PROOF, issued_at=NOW - CLOCK_DIFFERENCE - 1)}, NOT_FRESH),
    "one from the future": ({"proof": replace(PROOF, issued_at=NOW + 21 + CLOCK_DIFFERENCE)}, NOT_FRESH),
    "too late": ({"at": NOW + LIFETIME}, NOT_BEGUN),
    "before it began": ({"at": NOW - 1}, NOT_BEGUN),
    "an idle session": ({"at": NOW + 1800}, NOT_BEGUN),
    "another login": ({"login": "another login"}, NOT_BEGUN),
    "the key says otherwise": ({"way": "auth_time"}, NOT_OFFERED),
    "no provider": ({"way": ""}, NOT_OFFERED),
}


def test_nothing_else_confirms_a_session(begun: Begun) -> None:
    ended = {name: begun.finish(**changes) for name, (changes, _) in REFUSED.items()}  # type: ignore[arg-type]
    assert ended == {name: refused for name, (_, refused) in REFUSED.items()}
    assert stored.by_id(begun.world.store, begun.session.id) == begun.session


@pytest.mark.parametrize("ticket", ["", "x", "ä.1.0", f"{'a' * 12}.1.{'0' * 64}", f"{'a' * 12}.{'9' * 40}.{'0' * 64}"])
def test_a_ticket_of_nobody_confirms_nothing(begun: Begun, ticket: str) -> None:
    assert replace(begun, ticket=ticket).finish() == NOT_BEGUN


def test_a_ticket_is_for_its_session_and_its_second(begun: Begun) -> None:
    other = session_of(begun.world)
    _, at, mac = begun.ticket.split(".")
    forged = [f"{other.id}.{at}.{mac}", f"{begun.session.id}.{int(at) + 1}.{mac}"]
    assert [replace(begun, ticket=ticket).finish() for ticket in forged] == [NOT_BEGUN] * 2


def test_a_session_that_was_ended_is_not_confirmed(begun: Begun) -> None:
    sessions.end(begun.world.current.administration(), FOUNDER, begun.session.id, NOW + 5)
    assert begun.finish() == NOT_BEGUN


def test_a_session_of_an_account_or_without_the_key_is_not_confirmed_so(world: ConsoleWorld) -> None:
    session = session_of(world)
    assert start(world, replace(session, method=LOCAL)) == NOT_OFFERED
    assert [start(world, session, way=way) for way in ("auth_time", "")] == [NOT_OFFERED] * 2
    assert start(world, replace(session, pepper_id="gone")) == NOT_BEGUN


def test_a_session_of_an_earlier_release_does_not_say_whose_it_is(world: ConsoleWorld) -> None:
    session = session_of(world, subject="")
    assert Begun(world, session, done(start(world, session))).finish() == OTHER_ACCOUNT
