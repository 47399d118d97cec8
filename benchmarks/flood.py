"""Latency of warm tokens while strangers send garbage, through the real server; run by `make bench`.

The server has one core, the clients share another. Three floods at once: random opaque tokens, which the issuer would have to be
asked about; JWTs with a known key and a wrong signature; well-formed issued tokens that nobody issued. The same number of warm
requests beside the measured ones shows what any traffic of that size costs on one core.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import multiprocessing
import os
import secrets
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc.aio
import yaml

from benchmarks.answers import Judge, WrongAnswer, allowed, refused
from extauthz.addresses import Address
from extauthz.core.tokens import ENTROPY_BYTES, mint
from extauthz.demo.issuer import DemoIssuer
from extauthz.transport.http.ops import HttpServer
from extauthz.transport.sockets import open_port
from tests.support.live import providers
from tests.support.world import bearer, check_request, oauth

CHECK = "/envoy.service.auth.v3.Authorization/Check"
WARM_CALLS = 3000
FLOOD_PER_SECOND = 400
USER = "ana@acme.com"
GARBAGE = refused("token_inactive", "token_malformed", "token_signature", "token_unknown", "issuer_unavailable", "overloaded")
"""What is said to the three floods; the last two when a budget is used up."""


def pin(core: int) -> None:
    """Run on one core from now on, where the machine has it."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {core})


def garbage(genuine: str) -> bytes:
    """Return a request of one of the three floods."""
    head, payload, _ = genuine.split(".")
    match secrets.randbelow(3):
        case 0:
            headers = oauth("ya29." + secrets.token_urlsafe(80))
        case 1:
            headers = oauth(f"{head}.{payload}.{base64.urlsafe_b64encode(secrets.token_bytes(256)).rstrip(b'=').decode()}")
        case _:
            headers = bearer(mint("glean", secrets.token_bytes(ENTROPY_BYTES)).text)
    return check_request("POST", "/search", headers.items())


def end_if_wrong(judge: Judge, asked: asyncio.Future[bytes]) -> None:
    """Judge an answer to the flood, and end this process at the first that is wrong: its exit code is what the parent sees."""
    try:
        judge(asked.result())
    except (WrongAnswer, grpc.aio.AioRpcError) as error:
        print(f"flood: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def send_flood(target: str, genuine: str, warm: bool) -> None:
    """Send garbage, or one warm request again and again, at a fixed rate until killed."""
    pin(1)

    async def main() -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            ask = channel.unary_unary(CHECK)
            same = check_request("POST", "/search", oauth(genuine).items())
            begin = time.monotonic()
            for number in range(10**9):
                await asyncio.sleep(begin + number / FLOOD_PER_SECOND - time.monotonic())
                asked = asyncio.ensure_future(ask(same if warm else garbage(genuine)))
                asked.add_done_callback(partial(end_if_wrong, allowed(USER) if warm else GARBAGE))

    asyncio.run(main())


async def warm_latency(target: str, token: str) -> tuple[float, float]:
    """Return p50 and p99 of a warm check, in microseconds, one call at a time; raises WrongAnswer."""
    judge = allowed(USER)
    data = check_request("POST", "/search", oauth(token).items())
    taken = []
    async with grpc.aio.insecure_channel(target) as channel:
        ask = channel.unary_unary(CHECK)
        for _ in range(WARM_CALLS):
            started = time.perf_counter()
            answer = await ask(data)
            taken.append((time.perf_counter() - started) * 1e6)
            judge(answer)
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98]


async def latency_beside(target: str, genuine: str, *, warm: bool) -> tuple[float, float]:
    """Return what warm_latency does while a flood goes on; raises WrongAnswer for an answer to the flood too."""
    flood = multiprocessing.get_context("spawn").Process(target=send_flood, args=(target, genuine, warm), daemon=True)
    flood.start()
    try:
        await asyncio.sleep(2)
        found = await warm_latency(target, genuine)
        if not flood.is_alive():
            raise WrongAnswer(f"the flood ended by itself, with exit code {flood.exitcode}")
    finally:
        flood.kill()
        flood.join()
    return found


async def main() -> None:
    """Measure quiet, flooded, quiet again; print the ratio."""
    opened = open_port(Address(host="127.0.0.1", port=0))
    issuer = DemoIssuer(f"http://127.0.0.1:{opened.getsockname()[1]}")
    server = HttpServer(issuer)
    serving = asyncio.create_task(server.run_on(opened))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entries = providers(issuer.org_issuer)
        listening = f"unix://{folder}/check.sock"
        settings = {
            "version": 1,
            "server": {"listen": listening, "ops": None, "drain": "0s", "check_timeout": "900ms"},
            "oauth": {"providers": [{"name": kind, **entries[kind]} for kind in ("okta", "gsuite")]},
            "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
            "scopes": ["SEARCH"],
            "routes": ["routes.yaml"],
        }
        (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
        (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
        extauthz = (sys.executable, "-m", "extauthz")
        create = ("token", "create", "--permission", "ANONYMOUS", "--scope", "SEARCH", "--description", "bench", "--expires", "1d")
        made = await asyncio.create_subprocess_exec(
            *extauthz, *create, "--config", str(folder / "extauthz.yaml"), stdout=asyncio.subprocess.DEVNULL
        )
        await made.wait()
        sidecar = await asyncio.create_subprocess_exec(
            *extauthz,
            "serve",
            "--config",
            str(folder / "extauthz.yaml"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        with contextlib.suppress(OSError):
            os.sched_setaffinity(sidecar.pid, {0})
        pin(1)
        target, genuine = listening.replace("unix://", "unix:"), issuer.token(USER)
        try:
            await asyncio.sleep(5)
            await warm_latency(target, genuine)
            quiet = await warm_latency(target, genuine)
            beside = {warm: await latency_beside(target, genuine, warm=warm) for warm in (True, False)}
        finally:
            sidecar.terminate()
            await sidecar.wait()
    server.should_exit = True
    await serving
    print("\nwarm OAuth checks through grpcio, one at a time on one core")
    rows = {
        "quiet": quiet,
        f"beside {FLOOD_PER_SECOND} warm checks a second": beside[True],
        f"beside {FLOOD_PER_SECOND} garbage tokens a second": beside[False],
    }
    for name, (median, p99) in rows.items():
        print(f"  {name:<52} p50 {median:5.0f} µs, p99 {p99:5.0f} µs")
    print(f"  p99 beside garbage, to p99 in the quiet              {beside[False][1] / quiet[1]:14.2f}   goal ≤ 1.5")
    print(f"  p99 beside garbage, to p99 beside warm checks        {beside[False][1] / beside[True][1]:14.2f}")


if __name__ == "__main__":
    asyncio.run(main())
