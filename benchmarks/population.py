"""How the cost of a warm check grows with users and with kinds of clients; run by `make bench`. Most users: population.py 10000

Each user has an access token of his own, each kind of client its own headers in its own order. All tokens are verified first. Then
they come by turns, so that nothing is asked again before all others were; every answer is judged.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import allowed
from benchmarks.bench import TYPICAL, machine, resident, row
from extauthz.adapters.metrics import DecisionCounters
from extauthz.process.clock import SystemClock
from extauthz.serve.decision_ids import decision_id
from extauthz.service import Authorizer
from tests.support.world import World, check_request, claims, ec_key, oauth, sign

USERS = (1, 100, 1_000, 10_000, 100_000)
KINDS = (1, 4, 20)
BATCH = 1_000
CHECKS = 60_000
"""Of each combination at least."""


def messages(kind: int) -> tuple[bytes, str]:
    """Return a CheckRequest of a kind of client, and the token that it holds, in whose place others of its length may stand."""
    lines = list(TYPICAL.items())
    turned = lines[kind % len(lines) :] + lines[: kind % len(lines)]
    own = [(f"x-client-{kind}-{number}", "1") for number in range(kind % 3)]
    placeholder = "p" * SIZE
    return check_request("POST", "/search", [*turned, *own, *oauth(placeholder).items()]), placeholder


def token(number: int) -> str:
    """Return a token of a user."""
    return sign(
        claims(sub=f"{number:06}@acme.com", jti=f"{number:06}", iat=NOW - 60, exp=NOW + 7200), algorithm="ES256", key=ec_key()
    )


NOW = int(time.time())  # noqa: TID251 - the tokens must live now
SIZE = len(token(0))


def world(folder: Path) -> Authorizer:
    """Return what answers."""
    limits = {"signatures_per_second": 10_000_000, "verdicts": 200_000}
    made = World(folder, [{"match": "POST /search", "scope": "SEARCH"}], {"limits": limits})
    made.clock.wall = float(NOW)
    counters = DecisionCounters(now=SystemClock.now)
    return Authorizer(made.authorizer._runtime, counters, clock=made.clock, decision_ids=decision_id)


def asked(template: tuple[bytes, str], text: str) -> bytes:
    """Return the request of a client with this token."""
    content, placeholder = template
    return content.replace(placeholder.encode(), text.encode())


def cost(authorizer: Authorizer, tokens: dict[str, str], kinds: int) -> float:
    """Return the microseconds of a check; `tokens` are those of users, by whom they must be answered. Raises WrongAnswer."""
    templates = [messages(kind) for kind in range(kinds)]
    spent, made = 0.0, 0
    pairs = itertools.cycle(itertools.product(templates, tokens))
    while made < max(CHECKS, len(tokens)):
        batch = list(itertools.islice(pairs, BATCH))
        data = [asked(*pair) for pair in batch]
        started = time.perf_counter()
        answers = [authorizer.check(each) for each in data]
        spent += time.perf_counter() - started
        made += BATCH
        for (_, text), answer in zip(batch, answers, strict=True):
            allowed(tokens[text])(answer)
    return spent / made * 1e6


def main(most: int) -> None:
    """Print the curve."""
    machine()
    with tempfile.TemporaryDirectory() as folder:
        authorizer = world(Path(folder) / "world")
        before = resident("self")
        tokens: dict[str, str] = {}
        first = 0.0
        for users in (each for each in USERS if each <= most):
            new = {token(number): f"{number:06}@acme.com" for number in range(len(tokens), users)}
            for text, user in new.items():
                allowed(user)(authorizer.check(asked(messages(0), text)))
            tokens |= new
            for kinds in KINDS:
                taken = cost(authorizer, tokens, kinds)
                first = first or taken
                row(
                    f"{users:>7,} users × {kinds:>2} kinds of clients",
                    f"{taken:.1f} µs",
                    f"{taken / first:.2f} {'█' * round(10 * taken / first)}",
                )
        row(
            "memory for each user",
            f"{(resident('self') - before) * 1024 / len(tokens):,.0f} bytes",
            "the token of the test included",
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else USERS[-1])
