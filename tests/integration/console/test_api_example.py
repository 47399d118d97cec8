"""The worked example of docs/console-api.md, run by a shell and curl against a console that listens."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from extauthz.admin.rights import Role
from extauthz.console.app import application
from extauthz.core import tokens
from extauthz.core.tokens import TokenText
from tests.support.console_api import NOW, USER, ApiWorld, api_world
from tests.support.project import ROOT
from tests.support.waiting import eventually

PAGE = ROOT / "docs" / "console-api.md"
JQ = """#!{python}
import functools, json, sys
option, path, file = sys.argv[1:]
assert option == "-r"
print(functools.reduce(dict.__getitem__, path.split(".")[1:], json.load(open(file))))
"""


@dataclass
class Served:
    """A world that listens."""

    api: ApiWorld
    address: str


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Serve the whole console on a port of its own."""
    folder = tmp_path / "world"
    folder.mkdir()
    with api_world(folder) as api, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(application(api.context, [address]), log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            eventually(lambda: server.started)
            yield Served(api, address)
        finally:
            server.should_exit = True
            thread.join(timeout=30)


def rotate(served: Served, folder: Path, token_id: str) -> subprocess.CompletedProcess[str]:
    """Run the script of the page that rotates a token."""
    return run_script(served, folder, "rotate-token.sh", token_id, str(folder / "secret"))


def run_script(served: Served, folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the page; a small program stands for jq, which not every machine has."""
    (script,) = re.findall(rf"```shell\n(#!/bin/sh\n# {name} .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (folder / name).write_text(script)
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "jq").write_text(JQ.format(python=sys.executable))
    (folder / "bin" / "jq").chmod(0o755)
    (folder / "key").write_text(served.api.keys[Role.ADMIN].text.text + "\n")
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "TMPDIR": str(folder / "tmp"),
        "EXTAUTHZ_KEY_FILE": str(folder / "key"),
        "EXTAUTHZ_CONSOLE": served.address,
    }
    command = ["sh", str(folder / name), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_script_of_the_page_makes_one_token_for_each_run(served: Served, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    first = run_script(served, tmp_path, "create-token.sh", str(secret), "pipeline-1")
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
    made = tokens.parse(secret.read_text().strip(), frozenset({"glean"}))
    assert isinstance(made, TokenText)
    assert [token.id for token in served.api.store.list_tokens()] == [made.id]

    again = run_script(served, tmp_path, "create-token.sh", str(secret), "pipeline-1")
    problem = json.loads(again.stderr[again.stderr.index("{") :])
    assert (again.returncode, problem["status"], problem["token_id"]) == (1, 409, made.id)
    assert secret.read_text().strip() == made.text
    assert run_script(served, tmp_path, "create-token.sh", str(secret), "pipeline-2").returncode == 0
    assert len(served.api.store.list_tokens()) == 2
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_script_of_the_page_rotates_a_token(served: Served, tmp_path: Path) -> None:
    old = served.api.token(USER)
    first = rotate(served, tmp_path, old.record.id)
    assert (first.returncode, first.stderr) == (0, "")
    secret = tmp_path / "secret"
    text = tokens.parse(secret.read_text().strip(), frozenset({"glean"}))
    assert isinstance(text, TokenText)
    assert (text.id, stat.S_IMODE(secret.stat().st_mode)) == (first.stdout.strip(), 0o600)
    rotated, successor = (served.api.store.get(token_id) for token_id in (old.record.id, text.id))
    assert rotated is not None
    assert successor is not None
    assert (rotated.rotated_to, successor.rotated_from) == (text.id, old.record.id)
    assert rotated.expires_at == NOW + 86_400
    assert successor.created_by == f"key:{served.api.keys[Role.ADMIN].record.id}"

    again = rotate(served, tmp_path, old.record.id)
    assert again.returncode == 1
    problem = json.loads(again.stderr[again.stderr.index("{") :])
    assert (problem["status"], text.id in problem["detail"]) == (409, True)
    assert secret.read_text().strip() == text.text
    assert list((tmp_path / "tmp").iterdir()) == []
