"""What clients of a fleet see while its database is away for longer than it may be, and after its return."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from tests.support.fleet import ALLOWED, REVOKED, STALE, UNAVAILABLE, Database, Fleet, Token, make, revoke


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds, of each sidecar: how long known tokens were served without the database, and from its return until all was well.

    `leaving` is how long the database took to go, which is part of `served`; `honoured` are those until the token was refused that
    was revoked meanwhile, `back` those until the others were served.
    """

    leaving: float
    served: list[float]
    honoured: list[float]
    back: list[float]


async def outage(it: Fleet, database: Database, known: list[Token]) -> Phases:
    """Take the database away until no sidecar serves any more, revoke a token meanwhile, and bring it back.

    `known` were made before the sidecars started: what the feed names after a look-up would be looked up once more. They are served
    for a while and then refused because the store is stale, a new token is refused from the start. The one that was revoked
    meanwhile is never served again, the others and the new one are.
    """
    everywhere = range(len(it.channels))
    revoked, *others = known
    (new,) = make(database.place, 1)
    for token in known:
        await it.all_become(token, [ALLOWED])
    began = time.monotonic()
    await asyncio.to_thread(database.leave)
    leaving = time.monotonic() - began
    await it.miss_the_store()
    assert {await it.ask(each, new) for each in everywhere} == {UNAVAILABLE}
    # A verdict that was read before the last contact is forgotten a little earlier than the store is stale.
    refused = await asyncio.gather(*(it.all_become(token, [STALE, UNAVAILABLE], until_then=[ALLOWED]) for token in known))
    assert STALE in {reason for reasons in refused for reason, _ in reasons}
    assert {await it.ask(each, new) for each in everywhere} == {UNAVAILABLE}

    await asyncio.to_thread(database.reach)
    await asyncio.to_thread(revoke, database.place, revoked)
    assert {await it.ask(each, token) for token in known for each in everywhere} <= {STALE, UNAVAILABLE}
    await asyncio.to_thread(database.come_back)
    returned = time.monotonic()
    until_then = (STALE, UNAVAILABLE)
    honoured, *back = await asyncio.gather(
        it.all_become(revoked, [REVOKED], until_then=until_then),
        *(it.all_become(token, [ALLOWED], until_then=until_then) for token in (*others, new)),
    )
    assert {await it.ask(each, revoked) for each in everywhere} == {REVOKED}
    return Phases(
        leaving,
        [at - began for reasons in refused for _, at in reasons],
        [at - returned for _, at in honoured],
        [at - returned for reasons in back for _, at in reasons],
    )
