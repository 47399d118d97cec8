"""How long `extauthz serve` takes from its start to its first answer, and what that goes into; run by `make bench`.

It is the shipped configuration, with a store that has one token, and an issuer on this machine. The files are in the page cache.
The bytecode is there, as pip makes it when it installs and as the image has it; what it costs to be without is printed as well.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import Judge, allowed
from benchmarks.bench import TYPICAL, machine, row, shipped
from benchmarks.servers import issuer
from benchmarks.transport import USER
from tests.support.h2_client import Peer
from tests.support.ports import successive_ports
from tests.support.world import bearer, check_request

STARTS, SLOW_STARTS = 9, 3
PATIENCE = 20.0
MOST = 12
"""Lines of a table of imports."""
IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| \s*(\S+)")
PHASES = Path(__file__).with_name("start_phases.py")

Command = tuple[str, ...]


def token_of(file: Path) -> str:
    """Make a token in the store of a configuration, and the store with it."""
    create = ("--permission", "USER", "--user", USER, "--scope", "SEARCH", "--description", "bench", "--expires", "1d")
    command = (sys.executable, "-m", "extauthz", "token", "create", *create, "--config", str(file))
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    return next(word for word in made.stdout.split() if word.startswith("glean_"))


def first_answer(port: int, data: bytes, judge: Judge) -> None:
    """Ask as soon as somebody listens, and judge the answer; raises WrongAnswer, and TimeoutError when nobody does."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with Peer(port) as peer:
                stream = peer.stream()
                peer.send(peer.request(stream, data))
                judge(peer.answer(stream).message)
                return
        except ConnectionError:
            if time.monotonic() > deadline:
                raise TimeoutError("nobody listens") from None
            time.sleep(0.001)


def start(command: Command, environment: Mapping[str, str], port: int, data: bytes, judge: Judge) -> tuple[float, str]:
    """Return the seconds from the start to the first answer, and what the process wrote to standard error."""
    began = time.monotonic()
    with subprocess.Popen(
        command,
        env={**environment, "STARTED": str(began)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as server:
        try:
            first_answer(port, data, judge)
            taken = time.monotonic() - began
        finally:
            server.terminate()
            _, errors = server.communicate()
    return taken, errors


def imports(printed: str) -> None:
    """Print what imports cost, from what `-X importtime` printed: by package, and the modules that cost most with theirs."""
    lines = [(int(own), int(whole), name) for own, whole, name in IMPORT.findall(printed)]
    packages: Counter[str] = Counter()
    for own, _, name in lines:
        packages[name.partition(".")[0]] += own
    print(f"\n  imports under -X importtime: {len(lines)} modules, {sum(packages.values()) / 1000:.0f} ms; by package, ms:")
    for name, own in packages.most_common(MOST):
        row(f"  {name}", f"{own / 1000:.0f}")
    print("  modules of others that cost most, with all that they are the first to import, ms:")
    others = sorted(((whole, name) for _, whole, name in lines if not name.startswith(("extauthz", "site"))), reverse=True)
    for whole, name in others[:MOST]:
        row(f"  {name}", f"{whole / 1000:.0f}")


def measure(file: Path, port: int, data: bytes, judge: Judge) -> None:
    """Start again and again, and print; raises WrongAnswer."""
    serve = ("serve", "--config", str(file))
    python = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with_bytecode = {**python, "PYTHONPYCACHEPREFIX": str(file.parent / "bytecode"), "PHASES": str(file.parent / "phases")}
    without = {**python, "PYTHONPYCACHEPREFIX": str(file.parent / "nothing"), "PYTHONDONTWRITEBYTECODE": "1"}
    start((sys.executable, "-m", "extauthz", *serve), with_bytecode, port, data, judge)
    times, phases = [], []
    for _ in range(STARTS):
        times.append(start((sys.executable, "-m", "extauthz", *serve), with_bytecode, port, data, judge)[0])
        start((sys.executable, str(PHASES), *serve), with_bytecode, port, data, judge)
        phases.append(json.loads(Path(with_bytecode["PHASES"]).read_text()))
    slow = [start((sys.executable, "-m", "extauthz", *serve), without, port, data, judge)[0] for _ in range(SLOW_STARTS)]
    row("start to first answer", f"{statistics.median(times):.2f} s", f"{min(times):.2f} to {max(times):.2f}   goal ≤ 1.0 s")
    for name in phases[0]:
        row(f"  {name}", f"{statistics.median(each[name] for each in phases) * 1000:.0f} ms")
    row(
        "start to first answer without bytecode", f"{statistics.median(slow):.2f} s", "a read-only checkout, compiled at each start"
    )
    imports(start((sys.executable, "-X", "importtime", "-m", "extauthz", *serve), with_bytecode, port, data, judge)[1])


def main() -> None:
    """Print everything."""
    machine()
    issuer_port, port = successive_ports(2)
    with tempfile.TemporaryDirectory() as name, issuer(issuer_port):
        file = shipped(Path(name), f"127.0.0.1:{port}", issuer=f"http://127.0.0.1:{issuer_port}/oauth2/default")
        data = check_request("POST", "/rest/api/v1/search", (TYPICAL | bearer(token_of(file))).items())
        measure(file, port, data, allowed(USER))


if __name__ == "__main__":
    main()
