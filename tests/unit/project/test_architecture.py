"""The import rules of the architecture and the laws of the house, read from the source on every run.

Each law is a function over a module's name and source, and is first shown a source that breaks it: a law that finds nothing in a
bad example would find nothing in the package either.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.support.project import ROOT

PACKAGE = ROOT / "extauthz"

# Lowest first. A room imports only from lower rows; rooms of one row do not know each other.
ROWS = (
    "_pb",
    "core addresses process",
    "ports errors",
    "service responses telemetry verifiers",
    "config transport",
    # One library, one room: adapters do not know each other.
    "adapters.oauth adapters.store adapters.decision_log adapters.tracing adapters.envoy adapters.metrics adapters.process_log",
    "runtime admin envoy_config initial",
    "serve doctor demo tools",
    "console",
    "cli",
    "__main__",
)
RANK = {room: row for row, rooms in enumerate(ROWS) for room in rooms.split()}
# Rooms of several modules, which may import each other without going in circles.
FOLDERS = {room for room in RANK if (PACKAGE / room.replace(".", "/")).is_dir()}
# The module of a folder itself holds nothing but a docstring.
BARE = {"", "adapters"}

# Our rooms that are not for everybody above them.
ONLY_FOR = {
    "config.database_address": ("config", "adapters.store"),
    "config": ("runtime", "admin", "serve", "console", "cli", "envoy_config", "initial", "doctor", "tools"),
    "serve": ("cli", "doctor"),
    "_pb": ("adapters.envoy", "transport"),
    "adapters.oauth": ("runtime", "serve", "doctor", "console", "admin.oauth_trial", "tools.live"),
    "console": ("cli",),
}

# One library, one room. What is not listed here is not imported at all.
LIBRARIES = {
    "grpc": ("transport.grpc.grpcio",),
    "grpc_health": ("transport.grpc.grpcio", "transport.grpc.health", "transport.grpc.reflection"),
    "grpc_reflection": ("transport.grpc.reflection",),
    "jwt": ("adapters.oauth.published_keys", "responses.internal_tokens", "demo"),
    "cryptography": (
        "adapters.oauth.published_keys",
        "responses.internal_tokens",
        "transport.tls",
        "transport.certificate_dates",
        "demo",
    ),
    "pydantic": ("config", "console"),
    "yaml": ("config", "envoy_config"),
    "sqlalchemy": ("adapters.store",),
    "alembic": ("adapters.store",),
    "sqlite3": ("adapters.store",),
    "psycopg": ("adapters.store", "config.database_address"),
    "httpx2": ("adapters.oauth.http", "adapters.oauth.public_addresses"),
    "prometheus_client": ("adapters.metrics",),
    "opentelemetry": ("adapters.tracing",),
    "requests": ("adapters.tracing",),
    "structlog": ("adapters.process_log",),
    "ctypes": ("transport.grpc.libnghttp2", "process.memory"),
    "uvloop": ("transport.select", "doctor.machine"),
    "ssl": ("transport.tls", "transport.tls_listening", "transport.http.ops", "adapters.oauth.http"),
    "watchfiles": ("serve.reload",),
    "uvicorn": ("transport.http.ops", "transport.http.key_set", "demo"),
    "starlette": ("console",),
    "jinja2": ("console",),
    "argon2": ("console",),
    "anyio": ("console",),
    "click": ("cli",),
    "packaging": ("doctor",),
    "rich": ("cli",),
    "ruamel": ("tools",),
    "google": ("adapters.envoy", "_pb", "transport.grpc.health", "transport.grpc.reflection"),
}

# What the core may import besides itself: nothing that reads a clock, a file, a socket, chance or the environment.
PURE = {
    "__future__",
    "base64",
    "binascii",
    "collections",
    "collections.abc",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "hmac",
    "ipaddress",
    "json",
    "math",
    "re",
    "types",
    "typing",
    "unicodedata",
    "urllib.parse",
    "zlib",
}
# Built-in functions that reach out of a pure module without an import.
REACHING_OUT = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"}

MAX_LINES = 300
MAX_CORE_LINES = 1_296
TABLE = "core.provider_table"
"""Rows of data, which the limit of the core does not count: a provider more must fit in."""


def dotted(path: Path) -> str:
    """Name a module within the package: "core.jwt"; a folder's own module has the folder's name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str) -> str | None:
    """Return the room that a module belongs to: its own row, or the folder that has one."""
    for folder in FOLDERS:
        if name == folder or name.startswith(f"{folder}."):
            return folder
    return name if name in RANK else None


def within(name: str, rooms: tuple[str, ...]) -> bool:
    """Tell whether a module is one of these, or stands below one of them."""
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


@cache
def modules() -> dict[str, str]:
    """Return every hand-written module and its source."""
    return {dotted(path): path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE / "_pb"}


@dataclass(frozen=True, slots=True)
class Outline:
    """What the laws ask of a source, however many of them ask: the tree of each would be a million objects."""

    imports: tuple[ast.Import | ast.ImportFrom, ...]
    classes: tuple[ast.ClassDef, ...]
    names: frozenset[str]


@cache
def outline(source: str) -> Outline:
    """Read a source once."""
    nodes = tuple(ast.walk(ast.parse(source)))
    return Outline(
        tuple(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)),
        tuple(ast.ClassDef(node.name, node.bases, [], [], []) for node in nodes if isinstance(node, ast.ClassDef)),
        frozenset(node.id for node in nodes if isinstance(node, ast.Name)),
    )


def imported(name: str, source: str, *, is_package: bool = False) -> Iterator[str]:
    """Yield the dotted name of everything that a source imports, wherever in it; "from a import b" gives a.b."""
    here = ["extauthz", *filter(None, name.split("."))]
    package = here if is_package else here[:-1]
    for node in outline(source).imports:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            base = package[: len(package) - node.level + 1] if node.level else []
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)


def own_module(target: str) -> str:
    """Return the longest part of an imported "extauthz.a.b.name" that is one of our modules; "" is the package itself."""
    parts = target.split(".")[1:]
    while parts and ".".join(parts) not in modules() and ".".join(parts) not in FOLDERS:
        parts.pop()
    return ".".join(parts)


def broken_rules(name: str, source: str) -> Iterator[str]:
    """Yield what is wrong with the imports of one module."""
    room = room_of(name)
    for target in imported(name, source, is_package=name in FOLDERS | BARE):
        top = target.partition(".")[0]
        if top == "extauthz":
            yield from _wrong_neighbour(name, room, own_module(target))
        elif top in LIBRARIES:
            if not within(name, LIBRARIES[top]):
                yield f"{top} lives in {' and '.join(LIBRARIES[top])}, not in {name}"
        elif top not in sys.stdlib_module_names:
            yield f"{top} has no room: give it one in LIBRARIES"
        elif room == "core" and not {target, target.rpartition(".")[0]} & PURE:
            yield f"the core stays pure: {name} must not import {target}"


def _wrong_neighbour(name: str, room: str | None, target: str) -> Iterator[str]:
    if target in BARE:
        return
    friends = ONLY_FOR.get(target, ONLY_FOR.get(target.partition(".")[0]))
    other = room_of(target)
    if other == room and other in FOLDERS:
        return
    if friends and not within(name, friends):
        yield f"{target} is not for {name}"
    elif other is None or room is None or RANK[room] <= RANK[other]:
        yield f"{name} must not import {target}"


def calls(source: str, names: set[str]) -> frozenset[str]:
    """Return those of these plain functions that a source names."""
    return outline(source).names & names


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules that take part in a circle of imports, or lead into one."""
    left = {name: set(targets) & set(graph) for name, targets in graph.items()}
    while free := [name for name, targets in left.items() if not targets]:
        for name in free:
            del left[name]
        for targets in left.values():
            targets.difference_update(free)
    return sorted(left)


def lines_of(source: str) -> int:
    return len(source.splitlines())


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return the files that git keeps or would keep; without git (an sdist), those of the folders that are shipped."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=30).stdout.decode().split("\0")
        return tuple(path for name in sorted(set(listed)) if name and (path := ROOT / name).is_file())
    folders = ("extauthz", "tests", "protos", "config", "envoy")
    return tuple(path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.is_file())


def text_of(path: Path) -> str | None:
    """Return the text of a file, None for a binary one."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return None


# --- the import rules


def test_the_package_is_found() -> None:
    assert {"core.jwt", "service", "adapters.store.reader", "serve.main"} <= set(modules())


@pytest.mark.parametrize("name", sorted(modules()))
def test_every_module_has_a_row(name: str) -> None:
    assert (room_of(name) is None) == (name in BARE), f"{name} stands in no row: see ROWS and the architecture"


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_down(name: str) -> None:
    assert list(broken_rules(name, modules()[name])) == []


@pytest.mark.parametrize("folder", sorted(FOLDERS - {"_pb"}))
def test_no_circle_in_a_folder(folder: str) -> None:
    inside = {name: source for name, source in modules().items() if room_of(name) == folder}
    graph = {
        name: {own_module(target) for target in imported(name, source) if target.startswith("extauthz.")} - {name}
        for name, source in inside.items()
    }

    assert circles(graph) == []


@pytest.mark.parametrize("name", sorted(BARE | FOLDERS))
def test_a_folders_own_module_does_nothing(name: str) -> None:
    """Nothing runs by importing a folder; the command line's entry point is the one exception."""
    source = modules().get(name)
    if source is None or name == "cli":
        return
    body = ast.parse(source).body
    statements = [node for node in body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]

    assert [ast.unparse(node) for node in statements if not ast.unparse(node).startswith("__version__ = ")] == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("core.paths", "import os"),
        ("core.paths", "from time import monotonic"),
        ("core.paths", "import urllib.request"),
        ("core.paths", "from urllib import request"),
        ("core.paths", "def f():\n    from datetime import datetime"),
        ("core.paths", "import jwt"),
        ("core.jwt", "import asyncio"),
        ("core.jwt", "from extauthz.ports import Clock"),
        ("ports", "from extauthz.service import Authorizer"),
        ("service", "from extauthz.verifiers.issued import IssuedVerifier"),
        ("service", "from extauthz.verifiers import issued"),
        ("service", "from extauthz.config.loader import load"),
        ("service", "from .verifiers import oauth"),
        ("verifiers.oauth", "from extauthz.adapters.oauth.jwks import Jwks"),
        ("adapters.envoy", "from extauthz.config.loader import load"),
        ("adapters.process_log", "from extauthz.adapters.metrics import Metrics"),
        ("adapters.process_log", "from extauthz.adapters.oauth.http import JsonFetcher"),
        ("adapters.metrics", "from extauthz._pb import ext_authz_pb2"),
        ("adapters.metrics", "from . import process_log"),
        ("adapters.store.sql", "import pydantic"),
        ("verifiers.verdicts", "import sqlite3"),
        ("adapters.oauth.jwks", "import httpx2"),
        ("transport.http.ops", "import grpc.aio"),
        ("transport.grpc.grpcio", "from extauthz.serve.main import serve"),
        ("demo.issuer", "from extauthz.serve.main import serve"),
        ("demo.issuer", "from extauthz.config.loader import load"),
        ("serve.main", "from extauthz.cli import main"),
        ("serve.main", "import requests"),
        ("serve.main", "import click"),
        ("admin.tokens", "import click"),
        ("admin.tokens", "from extauthz.serve.main import run"),
        ("demo.part", "from extauthz.serve.main import run"),
    ],
)
def test_a_forbidden_import_is_found(name: str, source: str) -> None:
    assert list(broken_rules(name, source)) != []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("core.paths", "import re\nfrom urllib.parse import quote\nfrom collections.abc import Mapping"),
        (
            "adapters.oauth.published_keys",
            "import jwt\nfrom cryptography.exceptions import UnsupportedAlgorithm\nfrom extauthz.core.model import Reason",
        ),
        ("service", "import asyncio\nfrom extauthz.core.decide import plan\nfrom extauthz.ports import Clock"),
        ("adapters.oauth.jwks", "from extauthz.adapters.oauth.http import FetchError"),
        ("adapters.envoy", "from google.protobuf.message import DecodeError\nfrom extauthz._pb import ext_authz_pb2"),
        ("serve.main", "from extauthz import __version__\nfrom extauthz.config.loader import load"),
        ("cli.serve", "import click\nfrom extauthz.serve import main"),
    ],
)
def test_a_permitted_import_passes(name: str, source: str) -> None:
    assert list(broken_rules(name, source)) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}, "e": set()}) == ["a", "b", "c", "d"]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


# --- the core


@pytest.mark.parametrize("name", sorted(name for name in modules() if room_of(name) == "core"))
def test_the_core_reaches_for_nothing(name: str) -> None:
    assert calls(modules()[name], REACHING_OUT) == set()


def test_the_core_is_small() -> None:
    core = {
        name: sum(map(bool, source.split("\n"))) for name, source in modules().items() if room_of(name) == "core" and name != TABLE
    }
    total = sum(core.values())
    sys.stdout.write(f"core: {total} lines that are not blank in {len(core)} modules\n")

    assert len(core) > 8, "the core was not found"
    assert total <= MAX_CORE_LINES, core


def test_the_table_of_providers_is_data() -> None:
    """What decides something counts as a part of the core."""
    deciding = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.If, ast.For, ast.While, ast.Try, ast.Match)
    assert [ast.unparse(node) for node in ast.walk(ast.parse(modules()[TABLE])) if isinstance(node, deciding)] == []


def test_the_presets_of_providers_are_data() -> None:
    deciding = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.If, ast.For, ast.While, ast.Try, ast.Match)
    assert [ast.unparse(node) for node in ast.walk(ast.parse(modules()["config.presets"])) if isinstance(node, deciding)] == []


# --- the laws of the house


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_is_small(name: str) -> None:
    assert lines_of(modules()[name]) <= MAX_LINES


@pytest.mark.parametrize("name", sorted(modules()))
def test_only_the_command_line_and_the_demo_print(name: str) -> None:
    assert calls(modules()[name], {"print"}) <= ({"print"} if within(name, ("cli", "demo")) else set())


@pytest.mark.parametrize("name", sorted(modules()))
def test_nothing_is_left_for_later(name: str) -> None:
    left = re.findall("|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "NotImplemented" + "Error")), modules()[name])

    assert left == []


def test_a_print_is_found() -> None:
    assert calls("def f():\n    return [print(x) for x in y]", {"print"}) == {"print"}
    assert calls("def f():\n    'print(x)'  # print", {"print"}) == set()


def classes(sources: dict[str, str]) -> dict[str, list[tuple[str, ast.ClassDef]]]:
    """Return the classes of modules by their names, each with the module that defines it; what begins with _ is a module's own."""
    named: dict[str, list[tuple[str, ast.ClassDef]]] = {}
    for name, source in sources.items():
        for node in outline(source).classes:
            if not node.name.startswith("_"):
                named.setdefault(node.name, []).append((name, node))
    return named


def crossing_exceptions(sources: dict[str, str]) -> set[str]:
    """Return "module.Exception imported by module" for those that another room than their own imports, `errors` left aside."""
    exceptions = {
        f"{name}.{title}"
        for title, places in classes(sources).items()
        for name, node in places
        if name != "errors" and any(ast.unparse(base).endswith(("Exception", "Error")) for base in node.bases)
    }
    return {
        f"{target.removeprefix('extauthz.')} imported by {name}"
        for name, source in sources.items()
        for target in imported(name, source, is_package=name in FOLDERS | BARE)
        if target.removeprefix("extauthz.") in exceptions and room_of(target.removeprefix("extauthz.")) != room_of(name)
    }


def test_no_two_classes_have_one_name() -> None:
    named = classes(modules())

    assert len(named) > 150
    assert {title: [name for name, _ in places] for title, places in named.items() if len(places) > 1} == {}


def test_exceptions_that_cross_a_room_are_in_errors() -> None:
    assert crossing_exceptions(modules()) == set()


def test_classes_of_one_name_and_crossing_exceptions_are_found() -> None:
    sources = {"service": "class Lost(ValueError): ...", "runtime.build": "from extauthz.service import Lost\nclass Lost: ..."}

    assert len(classes(sources)["Lost"]) == 2
    assert crossing_exceptions(sources) == {"service.Lost imported by runtime.build"}


def test_no_file_names_a_machine_or_an_index() -> None:
    """Where a package comes from and where a checkout stands is the business of the machine that builds."""
    hosts = ("py" + "pi.org", "files.python" + "hosted.org")
    places = ("/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/")
    # A path of the machine, not the end of a longer one.
    pattern = re.compile("|".join([*map(re.escape, hosts), *(rf"(?<![\w.\-/]){re.escape(place)}" for place in places)]))
    found = {
        str(path.relative_to(ROOT)): sorted(set(pattern.findall(text)))
        for path in tracked_files()
        if (text := text_of(path)) is not None and pattern.search(text)
    }

    assert len(tracked_files()) > 50
    assert pattern.search(f"x {places[0]}main")
    assert found == {}


def test_benchmarks_can_be_loaded() -> None:
    """Nobody runs them in the tests: at least what they import must be there."""
    files = sorted(map(str, (ROOT / "benchmarks").glob("*.py")))
    assert len(files) > 5
    load = f"import runpy\nfor file in {files!r}: print(file, flush=True); runpy.run_path(file, run_name='loaded')"
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"the last of {done.stdout}: {done.stderr}"
