"""The console as an admin meets it: its start, its memory, and the list of 100,000 tokens; run by `make bench`.

A process of its own, as `extauthz console` starts it, is asked over HTTP by somebody with a session. Every page is looked at.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import listing
from benchmarks.answers import WrongAnswer
from benchmarks.bench import machine, row
from extauthz.adapters.store.sql import SqlTokenStore
from tests.support.console_process import ANA, COMMAND, console, log_in
from tests.support.console_world import PASSWORD, SETTINGS

SCOPES = ["AGENT", "ANNOUNCEMENTS", "CHAT", "DOCUMENTS", "ENTITIES", "FEED", "SEARCH"]
TIMES, AT_ONCE = 40, 32
GOAL = "goal p50 ≤ 50 ms"
PAGES = {
    "first page": ("/tokens", listing.PAGE),
    "text": ("/tokens?text=jenkins", listing.PAGE),
    "scope that none has": ("/tokens?scope=NO_SUCH_SCOPE", 0),
    "unused for 90 days": ("/tokens?unused=90&status=active", None),
    "by expiry": ("/tokens?sort=expires-soonest", listing.PAGE),
    "overview": ("/", None),
}


def ask(client: httpx2.Client, address: str, count: int | None) -> float:
    """Ask for a page and return the milliseconds; raises WrongAnswer for one with another number of tokens."""
    started = time.perf_counter()
    answer = client.get(address)
    taken = (time.perf_counter() - started) * 1000
    check(answer.status_code, answer.text, count)
    return taken


def check(status: int, text: str, count: int | None) -> None:
    """Raise WrongAnswer for a page that is not of somebody who is logged in, or lists another number of tokens."""
    found = text.count('<td class="first text">')
    if status != 200 or "Log out" not in text or (count is not None and found != count):
        raise WrongAnswer(f"a page with status {status} and {found} tokens")


def memory(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a process, in MB."""
    lines = Path(f"/proc/{process.pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def of_store(name: str, store: SqlTokenStore) -> None:
    """Measure a console on a store."""
    place = store.name if "://" in store.name else f"sqlite:///{store.name}"
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        settings = {"tokens": {**SETTINGS["tokens"], "store": place}, "scopes": SCOPES}
        started = time.perf_counter()
        with console(folder, **settings) as (address, process):
            row(f"{name}: start", f"{time.perf_counter() - started:.1f} s", "from the command to its address")
            row(f"{name}: memory after the start", f"{memory(process):.0f} MB")
            add = [*COMMAND, "add-user", ANA, "--password-file", "-", "--config", str(folder / "extauthz.yaml")]
            subprocess.run(add, input=PASSWORD.encode(), check=True, capture_output=True)
            with closing(httpx2.Client(timeout=60)) as client:
                if log_in(client, address) != 303:
                    raise WrongAnswer("nobody is let in")
                for page, (path, count) in PAGES.items():
                    taken = sorted(ask(client, address + path, count) for _ in range(TIMES))
                    many = f"p95 {taken[int(TIMES * 0.95)]:.0f} ms; {GOAL}"
                    row(f"{name}: {page}", f"{statistics.median(taken):.0f} ms", many)
                taken_by_all = all_at_once(client, address)
                row(f"{name}: {AT_ONCE} at once", f"{taken_by_all:.0f} ms", "until the last one has the first page")
            row(f"{name}: memory after all this", f"{memory(process):.0f} MB")


def all_at_once(client: httpx2.Client, address: str) -> float:
    """Return how long it takes until many have the first page, in milliseconds."""
    cookie = client.headers["cookie"]

    def one(_: int) -> float:
        with httpx2.Client(timeout=60, headers={"cookie": cookie}) as own:
            return ask(own, f"{address}/tokens", listing.PAGE)

    started = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, range(AT_ONCE)))
    return (time.perf_counter() - started) * 1000


def main() -> None:
    """Print the figures of both databases."""
    machine()
    tokens = listing.population(listing.SIZE)
    stores: dict[str, Callable[..., object]] = {"SQLite": listing.sqlite, "PostgreSQL": listing.postgresql}
    for name, opened in stores.items():
        with opened(tokens) as store:  # type: ignore[attr-defined]
            of_store(name, store)


if __name__ == "__main__":
    main()
