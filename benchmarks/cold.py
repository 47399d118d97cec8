"""What the first check of a token costs, bytes to bytes in this process, decision log on; run by `make bench`.

A JWT is compared with the bare check of its signature, in the same rounds: what the rest goes into is measured part by part, on
tokens that nothing has seen. An issued token is looked up in a SQLite store, each one once. Every answer is judged.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from benchmarks.answers import Judge, WrongAnswer, allowed, judge_all
from benchmarks.bench import machine, row
from benchmarks.growth import PLENTY, SEARCH, Check, access_token, answering, now, request, stored
from benchmarks.transport import USER
from extauthz.adapters.store.reader import SqliteReader
from extauthz.core import claims, jwt
from extauthz.core.credentials import Kind
from extauthz.core.decide import Plan, decide, plan
from extauthz.core.model import Identity, Reason
from extauthz.service import Runtime
from tests.support.world import World, bearer, ec_key, rsa_key

ROUNDS, CHECKS = 20, 200
"""Rounds, and tokens that are new in each."""
DECISION = "0" * 32
LOOK_UP, VERIFICATION, FIRST, SECOND = "look up the record", "whole verification", "first answer", "second answer"


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


def answers(runtime: Runtime, requests: Sequence[bytes], identities: Sequence[object]) -> dict[str, float]:
    """Return the microseconds of the first answer for an identity, with which parts of it are kept, and of the second."""
    asked = [found for data in requests if (found := runtime.codec.read(data, DECISION)) is not None]
    plans = [found for one in asked if isinstance(found := plan(runtime.policy, one), Plan)]
    pairs = [(one, each) for one, each in zip(plans, identities, strict=True) if isinstance(each, Identity)]
    if len(pairs) != CHECKS:
        raise WrongAnswer(f"{len(pairs)} of {CHECKS} tokens are good")

    def answer() -> None:
        for one, identity in pairs:
            runtime.codec.write(one.request, decide(one, identity, now()))

    return {FIRST: measure(answer), SECOND: measure(answer)}


def parts(world: World, tokens: Sequence[str], requests: Sequence[bytes]) -> dict[str, float]:
    """Return the microseconds of each part of a first check of JWTs that were not read before; raises WrongAnswer."""
    taken: dict[str, float] = {}
    (rules,), at = world.configuration.providers, now()
    read: list[jwt.Unverified] = []
    taken["read the JWT"] = measure(lambda: read.extend(map(jwt.read, tokens)))  # type: ignore[arg-type]
    identities: list[Identity | Reason] = []
    taken["check its claims"] = measure(
        lambda: identities.extend(claims.precheck(one.claims, rules, at) or claims.verify(one.claims, rules, at) for one in read)
    )
    calls = list(map(bare, read))
    taken["bare check of the signature"] = measure(lambda: [call() for call in calls])
    return taken | answers(world.authorizer._runtime, requests, identities)


def parts_of_issued(world: World, reader: SqliteReader, tokens: Sequence[str], requests: Sequence[bytes]) -> dict[str, float]:
    """Return the microseconds of each part of a first check of issued tokens that were not read before; raises WrongAnswer."""
    taken: dict[str, float] = {}
    runtime, identities = world.authorizer._runtime, list[object]()
    ids = [token.split("_")[1] for token in tokens]
    taken[LOOK_UP] = measure(lambda: list(map(reader.find, ids)))
    verify = runtime.verifiers[Kind.ISSUED].verify
    whole = measure(lambda: identities.extend(verify(token, now()) for token in tokens))
    return taken | {VERIFICATION: whole} | answers(runtime, requests, identities)


def table(whole: float, best: dict[str, float]) -> None:
    """Print the parts of a check, and what is in none of them."""
    best["make what is kept of the answer"] = best.pop(FIRST) - best.pop(SECOND)
    if VERIFICATION in best:
        best["the rest of its verification"] = best.pop(VERIFICATION) - best[LOOK_UP]
    for name, taken in (*best.items(), ("the rest, the first line of the log with it", whole - sum(best.values()))):
        row(f"  {name}", f"{taken:.1f} µs")


def least(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the best of each part."""
    return {name: min(each[name] for each in rounds) for name in rounds[0]}


def signatures(folder: Path, algorithm: str, goals: tuple[str, str]) -> None:
    """Print the first check of JWTs beside the bare check of the same signatures, and its parts; raises WrongAnswer."""
    world = World(folder, SEARCH, {"limits": PLENTY})
    rounds, good = [], allowed(USER)
    with answering(world) as check:
        for number in range(ROUNDS):
            headers = [access_token(algorithm, jti=f"AT.{number}.{n}") for n in range(CHECKS)]
            requests = [request("/search", each) for each in headers]
            found = parts(world, [each["authorization"].split()[1] for each in headers], requests)
            whole = {"whole": asking(check, requests, good), "what a warm check takes": asking(check, requests, good)}
            rounds.append(found | whole)
    best = least(rounds)
    whole_check = best.pop("whole")
    row(f"first check of a JWT, {algorithm}", f"{whole_check:.1f} µs", goals[0])
    row("  to the bare check of its signature", f"{whole_check / best['bare check of the signature']:.2f} ×", goals[1])
    table(whole_check, best)


def look_ups(folder: Path) -> None:
    """Print the first check of issued tokens, read from a file, and its parts; raises WrongAnswer."""
    rounds, nobody = [], allowed(None)
    with ExitStack() as stack:
        world, reader, texts = stored(folder, 2 * ROUNDS * CHECKS, stack)
        check = stack.enter_context(answering(world))
        requests = [request("/search", bearer(text)) for text in texts]
        for start in range(0, len(texts), 2 * CHECKS):
            first, second = slice(start, start + CHECKS), slice(start + CHECKS, start + 2 * CHECKS)
            found = parts_of_issued(world, reader, texts[first], requests[first])
            whole = {
                "whole": asking(check, requests[second], nobody),
                "what a warm check takes": asking(check, requests[second], nobody),
            }
            rounds.append(found | whole)
    best = least(rounds)
    whole_check = best.pop("whole")
    row(f"first check of an issued token, one of {len(texts):,} in SQLite", f"{whole_check:.1f} µs", "goal ≤ 60 µs")
    table(whole_check, best)


def main() -> None:
    """Print everything."""
    machine()
    gc.freeze()  # as `serve` does when it has started
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        signatures(folder / "RS256", "RS256", ("goal ≤ 150 µs", "goal ≤ 2"))
        signatures(folder / "ES256", "ES256", ("", ""))
        look_ups(folder / "store")


if __name__ == "__main__":
    main()
