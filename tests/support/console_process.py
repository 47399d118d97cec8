"""`extauthz console` as a process on a free port, and whoever logs in to it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.support.console_world import PASSWORD, ROUTES, SETTINGS
from tests.support.ports import free_port
from tests.support.waiting import eventually

ANA = "ana@acme.com"
COMMAND = (sys.executable, "-m", "extauthz", "console")


@contextmanager
def console(folder: Path, **changes: Any) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run the console on a free port; yield its address, and the process, which is ended."""
    (folder / "pepper").write_bytes(b"a pepper for tests, 32 bytes long")
    (folder / "routes.yaml").write_text(ROUTES)
    section = {"listen": f"127.0.0.1:{free_port()}", "ops": None, "local_accounts": True} | changes.pop("console", {})
    file = folder / "extauthz.yaml"
    file.write_text(yaml.safe_dump(SETTINGS | {"console": section} | changes))
    log = folder / "console.log"
    with log.open("wb") as errors:
        process = subprocess.Popen([*COMMAND, "--config", str(file)], stdout=errors, stderr=errors)
    try:
        eventually(lambda: "The console is at" in log.read_text() or process.poll() is not None, seconds=40)
        found = re.search(r"The console is at (\S+) ", log.read_text())
        assert found is not None, log.read_text()
        yield found[1], process
    finally:
        process.kill()
        process.wait()


def log_in(client: httpx2.Client, address: str) -> int:
    """Try to log in; return the status. The cookie is sent over loopback as browsers do it, though it is a secure one."""
    headers = {"origin": address, "sec-fetch-site": "same-origin"}
    answer = client.post(f"{address}/login", data={"email": ANA, "password": PASSWORD}, headers=headers)
    client.headers["cookie"] = answer.headers.get("set-cookie", "").partition(";")[0]
    return int(answer.status_code)
