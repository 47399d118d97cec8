"""Draws which room imports which, from the source, into docs/architecture.md; run by `make reference`.

A room is a folder of the package, or a module that lies at its top. The rows are those that the architecture test enforces.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "extauthz"
PAGE = PROJECT / "docs" / "architecture.md"
BEGIN, END = "<!-- imports -->", "<!-- /imports -->"
LAW = "test_architecture.py"

Graph = Mapping[str, frozenset[str]]
"""Which rooms each room imports."""


def graph(package: Path) -> Graph:
    """Read the imports between rooms, those for types alone included."""
    files = {_dotted(package, path): path for path in sorted(package.rglob("*.py"))}
    names = {name.partition(".")[0] for name in files} - {""}
    edges: dict[str, set[str]] = {room: set() for room in sorted(names)}
    for name, path in files.items():
        if room := name.partition(".")[0]:
            targets = {target.split(".")[1] for target in _imported(package.name, name, path) if target.count(".")}
            edges[room] |= targets & names - {room}
    return {room: frozenset(targets) for room, targets in edges.items()}


def in_circles(imports: Graph) -> list[str]:
    """Return the rooms that take part in a circle of imports, or lead into one."""
    left = {room: set(targets) for room, targets in imports.items()}
    while free := [room for room, targets in left.items() if not targets]:
        for room in free:
            del left[room]
        for targets in left.values():
            targets.difference_update(free)
    return sorted(left)


def arrows(imports: Graph) -> list[tuple[str, str]]:
    """Return the arrows of a drawing: not those that say what a way over other rooms says as well."""
    if in_circles(imports):
        return [(room, target) for room in imports for target in sorted(imports[room])]
    return [
        (room, target)
        for room in imports
        for target in sorted(imports[room])
        if not any(target in _reached(imports, other) for other in imports[room] - {target})
    ]


def upwards(imports: Graph, rows: tuple[str, ...]) -> list[str]:
    """Return the arrows that point to the same row or a higher one; of a room with rooms within, the highest row counts."""
    rank = {name.partition(".")[0]: row for row, names in enumerate(rows) for name in names.split()}
    lowest = {name.partition(".")[0]: row for row, names in reversed([*enumerate(rows)]) for name in names.split()}
    edges = ((room, target) for room, targets in imports.items() for target in sorted(targets))
    return [f"{room} → {target}" for room, target in edges if rank.get(room, 0) <= lowest.get(target, 0)]


def law(project: Path) -> tuple[str, ...]:
    """Read the rows from the architecture test, lowest first."""
    (path,) = (project / "tests").rglob(LAW)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROWS":
            rows: tuple[str, ...] = ast.literal_eval(node.value)
            return rows
    raise ValueError(f"{path}: no ROWS")


def section(package: Path = PACKAGE, project: Path = PROJECT) -> str:
    """Return what stands between the markers of the page."""
    imports, rows = graph(package), law(project)
    circles, wrong = in_circles(imports), upwards(imports, rows)
    verdict = "No arrow points upwards, and there is no cycle."
    if circles or wrong:
        verdict = f"**In a cycle:** {', '.join(circles) or 'none'}. **Pointing upwards:** {', '.join(wrong) or 'none'}."
    lines = [f"    {_mark(room)}[{room}] --> {_mark(target)}[{target}]\n" for room, target in arrows(imports)]
    table = [f"| {_shown(package, room)} | {_question(package, room)} | {', '.join(sorted(imports[room]))} |\n" for room in imports]
    law_text = "\n".join(reversed(rows))
    return (
        "<!-- Written by `make reference` from the source: what stands here is not edited by hand. -->\n\n"
        f"{verdict} An arrow that a way over other rooms says as well is left out; the table has all.\n\n"
        f"```mermaid\ngraph TD\n{''.join(lines)}```\n\n"
        f"| room | its question | imports |\n|---|---|---|\n{''.join(table)}\n"
        f"The rows that the test keeps, highest first:\n\n```text\n{law_text}\n```\n"
    )


def page(text: str, part: str) -> str:
    """Return a page with another part between the markers; raise ValueError for one that lacks them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page needs {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{part}{END}{after}"


def _dotted(package: Path, path: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(root: str, name: str, path: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports from its package; "from a import b" gives a.b."""
    here = [root, *filter(None, name.split("."))]
    base = here if path.name == "__init__.py" else here[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = base[: len(base) - node.level + 1] if node.level else []
            names = [".".join([*start, *filter(None, [node.module]), alias.name]) for alias in node.names]
        else:
            continue
        yield from (each for each in names if each.partition(".")[0] == root)


def _reached(imports: Graph, start: str) -> set[str]:
    """Return the rooms that a room imports, itself or through others."""
    rooms: set[str] = set()
    left = [start]
    while left:
        more = imports[left.pop()] - rooms
        rooms |= more
        left += more
    return rooms


def _question(package: Path, room: str) -> str:
    path = package / room / "__init__.py" if (package / room).is_dir() else package / f"{room}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(re.split(r"\n\n|(?<=[.?])\s", text, maxsplit=1)[0].split()).replace("|", r"\|")


def _shown(package: Path, room: str) -> str:
    return f"`{package.name}/{room}/`" if (package / room).is_dir() else f"`{package.name}/{room}.py`"


def _mark(room: str) -> str:
    """Name a box; Mermaid has words of its own."""
    return f"room_{room.strip('_')}"
