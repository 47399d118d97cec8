"""What `extauthz demo` shows while it runs, and what it compares with --check."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import string
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from extauthz.cli.terminal import Styled, echo
from extauthz.demo.cases import CASES, Case, reached, shown
from extauthz.demo.launcher import Demo, Ports, running
from extauthz.demo.wiring import Wiring
from extauthz.errors import DemoError

LOG_TIMEOUT = 5.0
"""Seconds."""


async def demonstrate(ports: Ports, folder: Path, wiring: Wiring, *, check_only: bool) -> bool:
    """Run the demo until it is cancelled, or compare its cases; tell whether all agreed. Raises DemoError and ListenError."""
    _stop_on_signals()
    echo("Starting issuer, upstream, sidecar, Envoy and console, and making tokens …", err=True)
    try:
        async with running(ports, folder, wiring=wiring, console=True) as demo:
            if check_only:
                return await _check(demo)
            _introduce(demo)
            await _follow(demo)
    except asyncio.CancelledError:
        echo("\nStopped; nothing is left running.", err=True)
        return not check_only
    return True


def _stop_on_signals() -> None:
    """Cancel this task at the first signal; later ones must not disturb the stopping."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if task is not None and not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)


async def _check(demo: Demo) -> bool:
    if shutil.which("curl") is None:
        echo("curl is not installed: the same requests are sent by Python instead.", err=True)
    agreed = 0
    for case in CASES:
        actual = await _run(demo, case)
        agreed += actual == case.expected
        mark = Styled("ok  ", fg="green") if actual == case.expected else Styled("FAIL", fg="red", bold=True)
        echo(mark, f" {case.title:<34} expected {case.expected:<46} actual {actual}")
    echo(f"{agreed} of {len(CASES)} agree")
    return agreed == len(CASES)


async def _run(demo: Demo, case: Case) -> str:
    """Send a request and say in a few words what came back."""
    if shutil.which("curl"):
        status, body = await _curl(demo, case)
    else:
        status, body = await asyncio.to_thread(_send, demo, case)
    try:
        document = json.loads(body)
    except ValueError:
        return f"{status} envoy"
    if status == 200:
        return reached(document["headers"].get("x-extauthz-user", ""))
    return shown(status, document["reason"], await logged_reason(demo, document["decision_id"]))


async def logged_reason(demo: Demo, decision_id: str) -> str:
    """Return the reason that the decision log has for a request that was refused."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOG_TIMEOUT):
            async for decision in demo.decisions():
                if decision.get("decision_id") == decision_id:
                    return str(decision["reason"])
    return "not in the decision log"


async def _curl(demo: Demo, case: Case) -> tuple[int, str]:
    """Run the line that is shown, in a shell that has read the tokens."""
    script = f". {demo.variables}\n{case.curl(demo.address)} -w '\\n%{{http_code}}'"
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    body, _, status = output.decode("utf-8", "replace").rpartition("\n")
    return int(status) if status.isdigit() else 0, body


def _send(demo: Demo, case: Case) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", demo.ports.envoy, timeout=10)
    try:
        lines = (string.Template(header).substitute(demo.tokens).split(": ", 1) for header in case.headers)
        connection.request(case.method, case.path, headers=dict(lines))
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    finally:
        connection.close()


def _introduce(demo: Demo) -> None:
    width = shutil.get_terminal_size().columns
    rule = "─" * min(width, 100)
    echo(f"\nEnvoy answers at {demo.address}. In another terminal, read the tokens once:\n")
    echo(Styled(f"  . {demo.variables}\n", bold=True))
    echo(f"then paste any of these lines:\n{rule}")
    for case in CASES:
        echo(Styled(case.title, bold=True), f"  →  {case.expected}\n  {case.curl(demo.address)}")
    echo(rule)
    echo("Console, where you log in as whom you like: ", Styled(demo.console_address, bold=True))
    echo(f"Metrics: http://127.0.0.1:{demo.ports.ops}/metrics   Files: {demo.folder}   Stop: Ctrl-C\n")
    echo("Decisions as they come:")


async def _follow(demo: Demo) -> None:
    """Print decisions until cancelled, or until one of the processes ends by itself."""
    ended = [asyncio.create_task(process.wait()) for process in (demo.sidecar, demo.envoy, demo.console) if process]
    tasks = {asyncio.create_task(_print_decisions(demo)), *ended}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        raise DemoError("the sidecar, Envoy or the console ended by itself")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _print_decisions(demo: Demo) -> None:
    async for decision in demo.decisions():
        echo(*_line(decision))


def _line(decision: dict[str, Any]) -> tuple[Styled, str]:
    colour = {"allow": "green", "would_deny": "yellow"}.get(decision["decision"], "red")
    verdict = Styled(f"{decision['decision']:<5}", fg=colour)
    who = f"  {decision['auth_type']}" if "auth_type" in decision else ""
    whom = f" for {decision['user']}" if "user" in decision else ""
    request = f"{decision.get('method', '-')} {decision.get('path', '-')}"
    return verdict, f" {decision['status']} {decision['reason']:<22} {request}{who}{whom}  {decision['microseconds']} µs"
