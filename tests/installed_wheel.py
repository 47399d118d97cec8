"""Installs a built wheel into a fresh environment outside of the tree, and asks what it serves: run by `make wheel`.

A program of its own, because no test may see the checkout: what the wheel lacks would be found there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import grpc

from extauthz._pb import ext_authz_pb2 as pb

ROOT = Path(__file__).parents[1]
METHOD = "/envoy.service.auth.v3.Authorization/Check"
SERVER = {
    "listen: 127.0.0.1:9001": "listen: unix://{folder}/check.sock",
    "ops: 127.0.0.1:9090": "ops: null\n  drain: 500ms",
}
"""What is changed in the first configuration, so that two of them do not meet."""
USED_BY_NOBODY = ("tests", "benchmarks", "docs")


def main() -> None:
    """Install, ask, stop; each step says what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel.resolve()
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    unwanted = [name for name in tops if name in USED_BY_NOBODY]
    _must(not unwanted and "extauthz" in tops, f"{wheel.name} holds {sorted(tops)}")
    with tempfile.TemporaryDirectory(prefix="extauthz-wheel-") as folder:
        place = Path(folder)
        python = _installed(wheel, place)
        version = _run(place, python, "-Im", "extauthz", "--version").split()[-1]
        where = _run(place, python, "-Ic", "import extauthz; print(extauthz.__file__)").strip()
        _must(Path(where).is_relative_to(place), f"the checkout was imported, not the wheel: {where}")
        _must(wheel.name.split("-")[1] == version, f"{wheel.name} says of itself that it is {version}")
        reasons = _asked(place, python)
    _must(reasons == ["allowed", "credential_missing", "public", "route_unknown"], f"unexpected answers: {reasons}")
    sys.stdout.write(f"{wheel.name}: installed outside of the tree, and it answers\n")


def _installed(wheel: Path, place: Path) -> Path:
    """Install what the wheel needs, by hash, and the wheel; return the interpreter."""
    uv = Path(sys.executable).with_name("uv")
    environment = place / "environment"
    more = {"VIRTUAL_ENV": str(environment)}
    _run(place, uv, "venv", "--quiet", "--no-project", "--python", sys.executable, environment)
    _run(place, uv, "pip", "install", "--quiet", "--require-hashes", "-r", ROOT / "requirements" / "runtime.txt", **more)
    _run(place, uv, "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, **more)
    _run(place, uv, "pip", "check", "--quiet", **more)
    return environment / "bin" / "python"


def _asked(place: Path, python: Path) -> list[str]:
    """Write a first configuration, make a token, serve, ask, end; return the reasons in the metadata of the answers, sorted."""
    extauthz = (python, "-Im", "extauthz")
    _run(place, *extauthz, "init", "map", "--example", "glean-client-api", "--yes")
    _run(place, *extauthz, "init", "--name", "search", "--scope", "SEARCH", "--domain", "acme.com", "--yes")
    file = place / "config" / "extauthz.yaml"
    for old, new in SERVER.items():
        _must(old in file.read_text(), f"the first configuration has no {old!r}")
        file.write_text(file.read_text().replace(old, new.format(folder=place)))
    _must("0 problems, 0 warnings" in _run(place, *extauthz, "config", "check"), "the first configuration is not in order")
    for which in ("config", "map/config"):
        _must(
            " passed" in _run(place, *extauthz, "test", "--config", f"{which}/extauthz.yaml"), f"the suite of {which} does not pass"
        )
    order = ("--description", "the wheel", "--permission", "USER", "--user", "ana@acme.com", "--scope", "SEARCH", "--expires", "1h")
    token = json.loads(_run(place, *extauthz, "token", "create", *order, "--json"))["token"]
    command = [*extauthz, "serve"]
    with (place / "log").open("wb") as log:
        serve = subprocess.Popen(command, cwd=place, env=_environment(), stdout=subprocess.DEVNULL, stderr=log)
    try:
        _until_it_listens(serve, place / "check.sock")
        with grpc.insecure_channel(f"unix://{place / 'check.sock'}") as channel:
            check = channel.unary_unary(METHOD, pb.CheckRequest.SerializeToString, pb.CheckResponse.FromString)
            questions = (
                ("GET", "/healthz", ""),
                ("POST", "/search", ""),
                ("POST", "/search", token),
                ("GET", "/nothing", token),
            )
            answers = [check(_request(*each), timeout=10, wait_for_ready=True) for each in questions]
    finally:
        serve.send_signal(signal.SIGTERM)
        code = serve.wait(timeout=20)
    _must(code == 0, f"serve ended with {code}")
    return sorted(str(dict(answer.dynamic_metadata).get("reason", "")) for answer in answers)


def _request(method: str, path: str, token: str) -> pb.CheckRequest:
    message = pb.CheckRequest()
    http = message.attributes.request.http
    http.method, http.path, http.host = method, path, "localhost"
    if token:
        http.headers["authorization"] = f"Bearer {token}"
    return message


def _until_it_listens(serve: subprocess.Popen[bytes], socket: Path) -> None:
    deadline = time.monotonic() + 20
    while not socket.exists():
        ended = "" if serve.poll() is None else f"serve ended with {serve.returncode}: {socket.with_name('log').read_text()}"
        _must(not ended, ended)
        _must(time.monotonic() < deadline, "serve does not listen")
        time.sleep(0.05)  # why: it runs outside of the tree, with nothing of the tests


def _environment(**more: str) -> dict[str, str]:
    """Return an environment in which nothing leads back to the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "UV_PROJECT"))}
    return kept | more


def _run(place: Path, *command: object, **more: str) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=place, env=_environment(**more), capture_output=True, text=True, timeout=120, check=False
    )
    _must(done.returncode == 0, f"{' '.join(map(str, command[:4]))} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def _must(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(f"the wheel: {what}")


if __name__ == "__main__":
    main()
