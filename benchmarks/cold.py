"""What the first check of a token costs, bytes to bytes in this process, decision log on; run by `make bench`.

A JWT is compared with the bare check of its signature, in the same rounds: what the rest goes into is measured part by part, on
tokens that nothing has seen. An issued token is looked up in a SQLite store, each one once. Every answer is judged.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from benchmarks.answers import Judge, allowed, judge_all
from benchmarks.bench import machine, row
from benchmarks.growth import PLENTY, SEARCH, Check, access_token, answering, now, request, stored
from benchmarks.transport import USER
from extauthz.core import claims, jwt
from extauthz.core.decide import Plan, decide, plan
from extauthz.core.model import Identity
from extauthz.service import Runtime
from tests.support.world import World, bearer, ec_key, rsa_key

ROUNDS, CHECKS = 20, 200
"""Rounds, and tokens that are new in each."""
DECISION = "0" * 32


def measure(work: Callable[[], object]) -> float:
    """Return the microseconds that something took, for each token of a round."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) / CHECKS * 1e6


def asking(check: Check, requests: Sequence[bytes], judge: Judge) -> float:
    """Return the microseconds of a check; raises WrongAnswer."""
    answers: list[object] = []
    taken = measure(lambda: answers.extend(map(check, requests)))
    judge_all(judge, answers)
    return taken


def bare(token: jwt.Unverified) -> Callable[[], None]:
    """Return the check of a signature by the library alone, which raises where it is wrong."""
    if token.header["alg"] == "RS256":
        return partial(rsa_key().public_key().verify, token.signature, token.signing_input, padding.PKCS1v15(), SHA256())
    half = len(token.signature) // 2
    signature = encode_dss_signature(int.from_bytes(token.signature[:half]), int.from_bytes(token.signature[half:]))
    return partial(ec_key().public_key().verify, signature, token.signing_input, ec.ECDSA(SHA256()))


def parts(world: World, runtime: Runtime, tokens: Sequence[str], requests: Sequence[bytes]) -> dict[str, float]:
    """Return the microseconds of each part of a first check, of tokens that were not read before."""
    taken: dict[str, float] = {}
    (rules,), at = world.configuration.providers, now()
    read: list[jwt.Unverified] = []
    taken["read the JWT"] = measure(lambda: read.extend(map(jwt.read, tokens)))  # type: ignore[arg-type]
    identities: list[Identity] = []
    taken["check its claims"] = measure(
        lambda: identities.extend(claims.precheck(one.claims, rules, at) or claims.verify(one.claims, rules, at) for one in read)  # type: ignore[misc]
    )
    asked = [found for data in requests if (found := runtime.codec.read(data, DECISION)) is not None]
    plans = [found for one in asked if isinstance(found := plan(runtime.policy, one), Plan)]

    def answer() -> None:
        for one, identity in zip(plans, identities, strict=True):
            runtime.codec.write(one.request, decide(one, identity, at))

    first = measure(answer)
    taken["make what is kept of his answers"] = first - measure(answer)
    return taken


def signatures(folder: Path, algorithm: str, goals: tuple[str, str]) -> None:
    """Print the first check of JWTs beside the bare check of the same signatures, and its parts; raises WrongAnswer."""
    world = World(folder, SEARCH, {"limits": PLENTY})
    best: dict[str, float] = {}
    with answering(world) as check:
        for number in range(ROUNDS):
            headers = [access_token(algorithm, jti=f"AT.{number}.{n}") for n in range(CHECKS)]
            tokens, requests = (
                [each["authorization"].split()[1] for each in headers],
                [request("/search", each) for each in headers],
            )
            one = parts(world, world.authorizer._runtime, tokens, requests)
            one["whole"] = asking(check, requests, allowed(USER))
            one["the same again, warm"] = asking(check, requests, allowed(USER))
            calls = [bare(token) for text in tokens if isinstance(token := jwt.read(text), jwt.Unverified)]
            one["bare check of the signature"] = measure(lambda calls=calls: [call() for call in calls])  # type: ignore[misc]
            best = {name: min(taken, best.get(name, taken)) for name, taken in one.items()}
    whole, signature = best.pop("whole"), best["bare check of the signature"]
    row(f"first check of a JWT, {algorithm}", f"{whole:.1f} µs", goals[0])
    row(f"  to the bare check of its signature, {algorithm}", f"{whole / signature:.2f} ×", goals[1])
    for name, taken in (best | {"the rest": whole - sum(best.values())}).items():
        row(f"  {name}", f"{taken:.1f} µs")


def look_ups(folder: Path) -> None:
    """Print the first check of issued tokens, read from a file; raises WrongAnswer."""
    with ExitStack() as stack:
        world, texts = stored(folder, ROUNDS * CHECKS, stack)
        check = stack.enter_context(answering(world))
        requests = [request("/search", bearer(text)) for text in texts]
        rounds = [requests[start : start + CHECKS] for start in range(0, len(requests), CHECKS)]
        taken = min(asking(check, each, allowed(None)) for each in rounds)
    row(f"first check of an issued token, one of {len(texts):,} in SQLite", f"{taken:.1f} µs", "goal ≤ 60 µs")


def main() -> None:
    """Print everything."""
    machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        signatures(folder / "RS256", "RS256", ("goal ≤ 150 µs", "goal ≤ 2"))
        signatures(folder / "ES256", "ES256", ("", ""))
        look_ups(folder / "store")


if __name__ == "__main__":
    main()
